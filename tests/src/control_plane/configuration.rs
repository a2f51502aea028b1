//! The files that the API server reads beside its certificates.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;

use super::arguments::{ADMISSION, AUDIT_POLICY, Plan, TOKENS};

/// Writes admission and audit configuration and the administrator's bearer token, which is given back.
/// A token that is there is kept.
pub fn write(plan: &Plan) -> Result<String> {
    fs::create_dir_all(plan.folder.join("config"))?;
    fs::create_dir_all(plan.folder.join("log"))?;
    fs::write(plan.folder.join(ADMISSION), include_str!("../../lab/config/admission.yaml"))?;
    fs::write(plan.folder.join(AUDIT_POLICY), include_str!("../../lab/config/audit.yaml"))?;
    let tokens = plan.folder.join(TOKENS);
    if let Some(token) = fs::read_to_string(&tokens).ok().as_deref().and_then(token_of) {
        return Ok(token.to_owned());
    }
    let mut random = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let token = hex::encode(random);
    fs::write(&tokens, line(&token))?;
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600))?;
    Ok(token)
}

fn line(token: &str) -> String {
    format!("{token},admin,admin,\"system:masters\"\n")
}

/// The token in the file that `write` made.
pub fn token_of(line: &str) -> Option<&str> {
    line.split_once(',').map(|(token, _)| token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_read_back() {
        assert_eq!(token_of(&line("secret")), Some("secret"));
    }
}
