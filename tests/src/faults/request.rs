//! What a request to an API server is about, from its method and its address.
//!
//! In: method, path, query, impersonated user. Out: a [`Call`], as the audit log would tell it. It must not know which
//! kinds exist.

use http::{HeaderMap, Method, Uri};

use crate::operator::audit::Call;

/// Header by which an operator of the harness says who it is.
const USER: &str = "impersonate-user";

/// Reads a request. Addresses that are not about objects, such as `/version`, give a call without a resource.
#[must_use]
pub fn call(method: &Method, uri: &Uri, headers: &HeaderMap) -> Call {
    let segments: Vec<&str> = uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let (group, rest) = match segments.as_slice() {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => ("", [].as_slice()),
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() && !is_of_namespace(rest) => {
            (*namespace, rest)
        }
        rest => ("", rest),
    };
    let (resource, name) = match rest {
        [] => (String::new(), ""),
        [resource] => ((*resource).to_owned(), ""),
        [resource, name] => ((*resource).to_owned(), *name),
        [resource, name, subresource @ ..] => (format!("{resource}/{}", subresource.join("/")), *name),
    };
    let user = headers.get(USER).and_then(|user| user.to_str().ok()).unwrap_or_default();
    Call {
        user: user.to_owned(),
        verb: verb(method, name, is_watch(uri)).to_owned(),
        group: group.to_owned(),
        resource,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        code: 0,
        forbidden: false,
    }
}

/// Whether the answer to a request is a stream of events.
#[must_use]
pub fn is_watch(uri: &Uri) -> bool {
    let words = uri.query().unwrap_or_default().split('&');
    words.into_iter().any(|word| matches!(word, "watch=true" | "watch=1"))
}

fn is_of_namespace(rest: &[&str]) -> bool {
    matches!(rest, ["status" | "finalize"])
}

fn verb(method: &Method, name: &str, watch: bool) -> &'static str {
    match (method.as_str(), name.is_empty()) {
        ("GET", _) if watch => "watch",
        ("GET", true) => "list",
        ("GET", false) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(method: &str, uri: &str) -> String {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let Call { verb, group, resource, namespace, name, .. } =
            call(&method, &uri.parse().unwrap(), &HeaderMap::new());
        [verb, group, resource, namespace, name].join(" ")
    }

    #[test]
    fn addresses_are_read_as_the_api_server_reads_them() {
        assert_eq!(told("GET", "/api/v1/pods?watch=true&x=y"), "watch  pods  ");
        assert_eq!(told("GET", "/api/v1/namespaces/a/pods/p/log?tailLines=1"), "get  pods/log a p");
        assert_eq!(told("GET", "/api/v1/namespaces/a"), "get  namespaces  a");
        assert_eq!(told("PUT", "/api/v1/namespaces/a/finalize"), "update  namespaces/finalize  a");
        let status = "/apis/llmfleet.dev/v1alpha1/namespaces/a/llmmodels/m/status?fieldManager=f";
        assert_eq!(told("PATCH", status), "patch llmfleet.dev llmmodels/status a m");
        assert_eq!(told("DELETE", "/apis/batch/v1/namespaces/a/jobs/j"), "delete batch jobs a j");
        assert_eq!(told("DELETE", "/apis/batch/v1/namespaces/a/jobs"), "deletecollection batch jobs a ");
        assert_eq!(told("POST", "/apis/batch/v1/namespaces/a/jobs"), "create batch jobs a ");
        assert_eq!(told("GET", "/version"), "list    ");
    }

    #[test]
    fn the_user_is_the_impersonated_one() {
        let headers: HeaderMap =
            [(http::HeaderName::from_static(USER), "operator-a".parse().unwrap())].into_iter().collect();
        assert_eq!(call(&Method::GET, &"/api/v1/pods".parse().unwrap(), &headers).user, "operator-a");
    }
}
