//! A certificate authority of a cluster's own and what it signs.
//!
//! In: who needs a certificate. Out: a folder of PEM files, published whole or not at all.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

/// Who gets a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The name of its two files, without ending.
    pub file: &'static str,
    /// The subject's common name: the user's name, to the API server.
    pub common_name: String,
    /// The subject's organizations: the user's groups, to the API server.
    pub groups: Vec<&'static str>,
    /// DNS names and addresses; empty for pure clients.
    pub hosts: Vec<String>,
}

impl Identity {
    /// A client.
    pub fn client(file: &'static str, common_name: &str, groups: &[&'static str]) -> Self {
        Self { file, common_name: common_name.to_owned(), groups: groups.to_vec(), hosts: Vec::new() }
    }

    /// A server; it may also act as a client, as etcd's peers do.
    pub fn server(file: &'static str, hosts: &[&str]) -> Self {
        let hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        Self { file, common_name: file.to_owned(), groups: Vec::new(), hosts }
    }
}

/// The files of a folder made by [`publish`].
#[derive(Clone, Debug)]
pub struct Pki(pub PathBuf);

impl Pki {
    /// The authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.certificate("ca")
    }

    /// A certificate.
    pub fn certificate(&self, file: &str) -> PathBuf {
        self.0.join(format!("{file}.crt"))
    }

    /// A private key. `service-accounts` signs service account tokens and has no certificate.
    pub fn key(&self, file: &str) -> PathBuf {
        self.0.join(format!("{file}.key"))
    }

    /// The public half of the key that signs service account tokens.
    pub fn service_accounts_public(&self) -> PathBuf {
        self.0.join("service-accounts.pub")
    }
}

/// Makes the authority, the key for service accounts and a pair for each identity. Does nothing where `folder` exists.
pub fn publish(folder: &Path, identities: &[Identity]) -> Result<Pki> {
    let pki = Pki(folder.to_owned());
    if folder.exists() {
        return Ok(pki);
    }
    let aside = folder.with_extension("new");
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    fs::create_dir_all(&aside).with_context(|| format!("cannot create {}", aside.display()))?;
    let written = Pki(aside.clone());

    let key = KeyPair::generate()?;
    let parameters = authority();
    write(&written.authority(), &parameters.self_signed(&key)?.pem())?;
    write(&written.key("ca"), &key.serialize_pem())?;
    let issuer = Issuer::new(parameters, key);
    for identity in identities {
        let key = KeyPair::generate()?;
        let certificate = parameters_of(identity)?.signed_by(&key, &issuer)?;
        write(&written.certificate(identity.file), &certificate.pem())?;
        write(&written.key(identity.file), &key.serialize_pem())?;
    }
    let signer = KeyPair::generate()?;
    write(&written.key("service-accounts"), &signer.serialize_pem())?;
    write(&written.service_accounts_public(), &signer.public_key_pem())?;

    fs::rename(&aside, folder)?;
    Ok(pki)
}

fn authority() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = name("lab authority", &[]);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    parameters
}

fn parameters_of(identity: &Identity) -> Result<CertificateParams> {
    let mut parameters = CertificateParams::new(identity.hosts.clone())?;
    parameters.distinguished_name = name(&identity.common_name, &identity.groups);
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if !identity.hosts.is_empty() {
        parameters.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    Ok(parameters)
}

fn name(common_name: &str, groups: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for group in groups {
        name.push(DnType::OrganizationName, *group);
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn write(path: &Path, pem: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(pem.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_get_their_hosts_and_both_usages_and_clients_only_one() {
        let server =
            parameters_of(&Identity::server("api", &["127.0.0.1", "kubernetes.default.svc"])).unwrap();
        assert_eq!(server.subject_alt_names.len(), 2);
        assert_eq!(server.extended_key_usages.len(), 2);
        let client = parameters_of(&Identity::client("admin", "admin", &["system:masters"])).unwrap();
        assert_eq!(client.extended_key_usages, [ExtendedKeyUsagePurpose::ClientAuth]);
    }

    #[test]
    fn a_folder_that_is_there_is_kept_and_half_a_folder_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("pki");
        fs::create_dir_all(target.with_extension("new")).unwrap();
        fs::write(target.with_extension("new").join("left.over"), "").unwrap();
        let identities = [Identity::client("admin", "admin", &["system:masters"])];
        let pki = publish(&target, &identities).unwrap();
        assert!(!target.join("left.over").exists());
        let first = fs::read(pki.certificate("admin")).unwrap();
        publish(&target, &identities).unwrap();
        assert_eq!(fs::read(pki.certificate("admin")).unwrap(), first);
    }
}
