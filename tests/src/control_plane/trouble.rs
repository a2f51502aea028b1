//! What may befall a control plane: its processes are killed, started again on the same ports and data, or stand still,
//! and etcd forgets history.
//!
//! In: a running control plane. Out: the same one, in trouble or healed. It must not know who uses it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{API_SERVER, ControlPlane, ETCD, START_LIMIT, arguments, ready, spawn};
use crate::kubeconfig;
use crate::process::{Bound, wait_for};

/// How long the kernel may take to end a killed process.
const END_LIMIT: Duration = Duration::from_secs(10);

impl ControlPlane {
    /// Kills the API server. What it was doing is lost, and connections to it are refused.
    pub async fn kill_api_server(&self) -> Result<()> {
        end(&self.api_server).await
    }

    /// Starts the API server again after [`ControlPlane::kill_api_server`], and waits until it serves.
    pub async fn start_api_server(&self) -> Result<()> {
        let server = spawn(&self.tools, &self.folder.0, API_SERVER, arguments::api_server(&self.plan))?;
        *held(&self.api_server) = server;
        self.until_ready().await
    }

    /// Kills etcd and starts it again on its data, and waits until the API server serves.
    pub async fn restart_etcd(&self) -> Result<()> {
        end(&self.etcd).await?;
        let etcd = spawn(&self.tools, &self.folder.0, ETCD, arguments::etcd(&self.plan, None))?;
        *held(&self.etcd) = etcd;
        self.until_ready().await
    }

    /// Stops the API server in the middle of what it does: connections stay open, and nothing is answered.
    pub fn freeze_api_server(&self) -> Result<()> {
        signal(&self.api_server, Signal::SIGSTOP)
    }

    /// Lets the API server go on after [`ControlPlane::freeze_api_server`].
    pub fn thaw_api_server(&self) -> Result<()> {
        signal(&self.api_server, Signal::SIGCONT)
    }

    /// Stops the controllers: what they would do at once is not done, such as the removal of what has no owner.
    pub fn freeze_controllers(&self) -> Result<()> {
        signal(self.controller_manager.as_ref().context("no controllers were started")?, Signal::SIGSTOP)
    }

    /// Lets the controllers go on after [`ControlPlane::freeze_controllers`].
    pub fn thaw_controllers(&self) -> Result<()> {
        signal(self.controller_manager.as_ref().context("no controllers were started")?, Signal::SIGCONT)
    }

    /// Makes etcd forget all history: whoever asks for changes since an older resourceVersion is told 410.
    ///
    /// The API server's own cache of changes may still know them; it does not after a restart.
    pub async fn compact(&self) -> Result<()> {
        let now = self.call_etcd("/v3/kv/range", &json!({ "key": "AA==" })).await?;
        let revision = now["header"]["revision"].as_str().context("etcd tells no revision")?;
        self.call_etcd("/v3/kv/compaction", &json!({ "revision": revision, "physical": true }))
            .await
            .map(drop)
    }

    /// Makes etcd refuse all writes, as when its disk is full, or ends that.
    pub async fn alarm_no_space(&self, on: bool) -> Result<()> {
        let action = if on { "ACTIVATE" } else { "DEACTIVATE" };
        let alarm = json!({ "action": action, "memberID": 0, "alarm": "NOSPACE" });
        self.call_etcd("/v3/maintenance/alarm", &alarm).await.map(drop)
    }

    async fn call_etcd(&self, path: &str, body: &Value) -> Result<Value> {
        self.ask_etcd(http::Request::post(path).body(serde_json::to_vec(body)?)?).await
    }

    /// etcd's own API, in JSON, with the API server's certificate.
    pub(super) async fn ask_etcd(&self, request: http::Request<Vec<u8>>) -> Result<Value> {
        let etcd = kubeconfig::client(&self.folder.etcd_kubeconfig()).await?;
        Ok(etcd.request(request).await?)
    }

    async fn until_ready(&self) -> Result<()> {
        let client = self.client().await?;
        wait_for("the API server to serve again", START_LIMIT, async || {
            held(&self.etcd).check()?;
            held(&self.api_server).check()?;
            ready(&client).await
        })
        .await
    }
}

/// Nobody panics while holding one of these.
fn held(process: &Mutex<Bound>) -> std::sync::MutexGuard<'_, Bound> {
    process.lock().unwrap_or_else(PoisonError::into_inner)
}

fn signal(process: &Mutex<Bound>, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(held(process).pid().try_into()?), signal)?)
}

/// Kills a process and waits until its ports are free.
async fn end(process: &Mutex<Bound>) -> Result<()> {
    signal(process, Signal::SIGKILL)?;
    wait_for("a killed process to end", END_LIMIT, async || {
        held(process).exited().map(drop).context("it still runs")
    })
    .await
}
