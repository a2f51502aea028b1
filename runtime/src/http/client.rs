//! Whose a request is: the tenant that a gateway names, or else the API key.
//!
//! In: headers. Out: who shares the engine's time and cached prompts with whom. Who can reach the API without a
//! gateway can name any tenant; what it gains by that is another tenant's share, never its cached prompts' content.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use contract::http::TENANT_HEADER;
use sha2::{Digest, Sha256};

use super::keys;
use crate::engine::sequence::Class;
use crate::engine::tenants::Tenant;

/// What stands before a key where a tenant's header would.
const KEY: &str = "key";

/// Who asks. Neither names nor keys are kept, only their digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client([u8; 32]);

impl Client {
    fn of(headers: &HeaderMap) -> Self {
        let tenant = headers.get(TENANT_HEADER).map(|name| (TENANT_HEADER, name.as_bytes()));
        let name = tenant.or_else(|| Some((KEY, keys::carried(headers)?)));
        let mut digest = Sha256::new();
        if let Some((what, value)) = name {
            // A tenant cannot take the name of a key.
            digest.update(what);
            digest.update([0]);
            digest.update(value);
        }
        Self(digest.finalize().into())
    }

    /// Of a request of this client.
    pub(super) fn class(&self, priority: i32, cache_salt: &str) -> Class {
        let (short, _) = self.0.split_first_chunk().expect("a digest has more than eight bytes");
        let salt = [&self.0, cache_salt.as_bytes()].concat();
        Class { tenant: Tenant(u64::from_le_bytes(*short)), priority, salt }
    }
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_tenant_comes_before_the_key() {
        let client = |headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            Client::of(&headers.collect())
        };
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
