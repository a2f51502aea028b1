//! Whose a request is: the tenant that a gateway names, and the API key.
//!
//! In: headers. Out: who shares the engine's time and cached prompts with whom. Where keys are asked for, a tenant's name
//! means something among those who have the same key only: nobody can ask in the name of another key's tenant. Without
//! them, who can reach the API can name any tenant; what it gains by that is another tenant's share, never its cached
//! prompts' content.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use contract::http::TENANT_HEADER;
use sha2::{Digest, Sha256};

use super::{App, keys};
use crate::engine::sequence::Class;
use crate::engine::tenants::Tenant;

/// What stands before a key where a tenant's header would.
const KEY: &str = "key";

/// Who asks. Neither names nor keys are kept, only their digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client([u8; 32]);

impl Client {
    /// `keyed`: whether a valid key has been asked for, and shown.
    fn of(headers: &HeaderMap, keyed: bool) -> Self {
        let tenant = headers.get(TENANT_HEADER).map(|name| (TENANT_HEADER, name.as_bytes()));
        let key = keys::carried(headers).filter(|_| keyed || tenant.is_none()).map(|key| (KEY, key));
        let mut digest = Sha256::new();
        for (what, value) in key.into_iter().chain(tenant) {
            // A tenant cannot take the name of a key, and no value has a zero in it.
            for part in [what.as_bytes(), &[0], value, &[0]] {
                digest.update(part);
            }
        }
        Self(digest.finalize().into())
    }

    /// Who shares the engine's time with others.
    pub(super) fn tenant(&self) -> Tenant {
        let (short, _) = self.0.split_first_chunk().expect("a digest has more than eight bytes");
        Tenant(u64::from_le_bytes(*short))
    }

    /// Of a request of this client.
    pub(super) fn class(&self, priority: i32, cache_salt: &str) -> Class {
        let salt = [&self.0, cache_salt.as_bytes()].concat();
        Class { tenant: self.tenant(), priority, salt }
    }
}

impl FromRequestParts<Arc<App>> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers, app.guard.keys.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &str)], keyed: bool) -> Client {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Client::of(&headers.collect(), keyed)
    }

    #[test]
    fn where_keys_are_asked_for_a_tenant_is_one_of_its_key() {
        let asked = |tenant: Option<&str>, key: &str| {
            let key = format!("Bearer {key}");
            let headers =
                tenant.map(|name| (TENANT_HEADER, name)).into_iter().chain([("authorization", &*key)]);
            of(&headers.collect::<Vec<_>>(), true).tenant()
        };
        let all = [
            (None, "a"),
            (None, "b"),
            (Some("t"), "a"),
            (Some("t"), "b"),
            (Some("u"), "a"),
            (Some("a"), "t"),
        ];
        let tenants: std::collections::BTreeSet<_> = all.iter().map(|(t, k)| asked(*t, k)).collect();
        assert_eq!(tenants.len(), all.len(), "nobody is another");
        assert_eq!(asked(Some("t"), "a"), asked(Some("t"), "a"));
        let other = of(&[(TENANT_HEADER, "t"), ("x-api-key", "a")], true);
        assert_eq!(other.tenant(), asked(Some("t"), "a"), "the same key, whichever way it comes");
    }

    #[test]
    fn without_keys_a_named_tenant_comes_before_what_looks_like_one() {
        let client = |headers: &[(&'static str, &str)]| of(headers, false);
        let nobody = client(&[("accept", "text/plain")]);
        let key = client(&[("authorization", "Bearer a")]);
        let tenant = client(&[(TENANT_HEADER, "Bearer a")]);
        assert_eq!(nobody, client(&[]));
        assert_eq!(key, client(&[("x-api-key", "a")]), "the same key, whichever way it comes");
        assert!(nobody != key && key != tenant && nobody != tenant);
        assert_eq!(tenant, client(&[(TENANT_HEADER, "Bearer a"), ("authorization", "Bearer b")]));
        let (plain, salted) = (key.class(0, ""), key.class(1, "x"));
        assert_eq!((plain.tenant, salted.priority), (salted.tenant, 1));
        assert_ne!(plain.salt, salted.salt);
        assert_ne!(plain.salt, tenant.class(0, "").salt);
    }
}
