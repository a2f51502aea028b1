//! The API's certificate.
//!
//! In: a chain and its key, in PEM. Out: what the listener encrypts with.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};

/// The only protocol that is spoken.
const HTTP_1_1: &[u8] = b"http/1.1";

/// Files that make no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or not of what it should be.
    #[error("the {0} is not valid PEM")]
    Pem(&'static str, #[source] pem::Error),
    /// Nothing in it.
    #[error("the certificate file has no certificate")]
    Empty,
    /// A key that does not belong to it.
    #[error("the certificate and its key cannot be used")]
    Unusable(#[from] rustls::Error),
}

/// Reads the chain and the key, in this order.
///
/// # Errors
/// Where they are no certificate and its key.
pub fn parse(files: &[Vec<u8>]) -> Result<ServerConfig, TlsError> {
    let bytes = |at: usize| files.get(at).map_or(&[][..], Vec::as_slice);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes(0)).collect();
    let chain = chain.map_err(|e| TlsError::Pem("certificate", e))?;
    if chain.is_empty() {
        return Err(TlsError::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(bytes(1)).map_err(|e| TlsError::Pem("key", e))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions()?.with_no_client_auth();
    let mut config = config.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(config)
}
