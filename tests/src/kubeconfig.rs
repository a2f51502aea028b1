//! Writes kubeconfigs: files that name a server, its authority and a client's certificate.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::certs::Pki;
use crate::web;

/// The name of cluster, user and context in every kubeconfig made here.
pub const CONTEXT: &str = "lab";

/// Writes a kubeconfig for the identity `file` of `pki`.
pub fn write(path: &Path, server: &str, pki: &Pki, file: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let text = serde_norway::to_string(&render(server, pki, file))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A client for the kubeconfig at `path`.
pub async fn client(path: &Path) -> Result<kube::Client> {
    Ok(kube::Client::try_from(config(path).await?)?)
}

/// What such a client is made from. An API server on loopback is never behind a proxy.
pub async fn config(path: &Path) -> Result<kube::Config> {
    let kubeconfig = kube::config::Kubeconfig::read_from(path)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    if config.cluster_url.host().is_some_and(web::is_loopback) {
        config.proxy_url = None;
    }
    Ok(config)
}

fn render(server: &str, pki: &Pki, file: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXT,
        "clusters": [{
            "name": CONTEXT,
            "cluster": { "server": server, "certificate-authority": pki.authority() },
        }],
        "users": [{
            "name": CONTEXT,
            "user": { "client-certificate": pki.certificate(file), "client-key": pki.key(file) },
        }],
        "contexts": [{ "name": CONTEXT, "context": { "cluster": CONTEXT, "user": CONTEXT } }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kube_reads_what_is_written() {
        let rendered =
            serde_norway::to_string(&render("https://127.0.0.1:1", &Pki("/p".into()), "admin")).unwrap();
        let read = kube::config::Kubeconfig::from_yaml(&rendered).unwrap();
        assert_eq!(read.current_context.as_deref(), Some(CONTEXT));
        let user = read.auth_infos[0].auth_info.as_ref().unwrap();
        assert_eq!(user.client_certificate.as_deref(), Some("/p/admin.crt"));
    }
}
