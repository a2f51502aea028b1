//! What a lab was started with, kept in its folder so that the next `up` gives the same lab.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::paths::LabPaths;

/// The choices and the ports of a lab.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Settings {
    /// The card whose presence is simulated.
    pub card: Card,
    /// The API server's port on this machine's loopback.
    pub api_server_port: u16,
    /// Prometheus's port on this machine's loopback.
    pub prometheus_port: u16,
}

/// A model of GPU and how many the node pretends to have.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Card {
    /// The product's name as GPU feature discovery writes it.
    pub product: String,
    /// Memory of one card.
    pub memory_mib: u32,
    /// How many.
    pub count: u32,
}

impl Default for Card {
    fn default() -> Self {
        Self { product: "NVIDIA-L4".to_owned(), memory_mib: 23_034, count: 2 }
    }
}

impl Settings {
    /// The settings of a lab that was started before.
    pub fn read(paths: &LabPaths) -> Result<Option<Self>> {
        let file = paths.join("lab.json");
        match fs::read(&file) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text).with_context(|| file.display().to_string())?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| file.display().to_string()),
        }
    }

    /// Keeps them, whole or not at all.
    pub fn write(&self, paths: &LabPaths) -> Result<()> {
        let aside = paths.join("lab.json.new");
        fs::write(&aside, serde_json::to_vec_pretty(self)?)?;
        fs::rename(aside, paths.join("lab.json"))?;
        Ok(())
    }

    /// The API server on this machine's loopback.
    pub fn api_server(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.api_server_port).into()
    }

    /// Prometheus on this machine's loopback.
    pub fn prometheus(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.prometheus_port).into()
    }
}
