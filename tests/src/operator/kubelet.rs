//! What scheduler and kubelet would do, done by hand, where a test decides when it happens.
//!
//! In: a client with all rights. Out: a node that stays ready, pods that are bound, report and go, and logs. It must
//! not know who made the pods.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::{Client, ResourceExt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::process::wait_for;

/// How often a node says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long the controllers may take to see that a node is ready.
const READY: Duration = Duration::from_secs(60);
/// Where nodes keep their leases.
const LEASES: &str = "kube-node-lease";

/// A node without a machine. It is ready until it is dropped.
pub struct Node {
    name: String,
    client: Client,
    heart: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.heart.abort();
    }
}

impl Node {
    /// Joins a node with so many cards of 24 GiB. `log_port` is where its containers' logs are served.
    pub async fn join(client: &Client, name: &str, cards: u32, log_port: u16) -> Result<Self> {
        let resources = json!({
            "cpu": "16", "memory": "64Gi", "pods": "110", "ephemeral-storage": "100Gi", "nvidia.com/gpu": cards.to_string(),
        });
        let node = json!({
            "metadata": { "name": name, "labels": {
                "kubernetes.io/hostname": name, "nvidia.com/gpu.present": "true",
                "nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "24576",
                "nvidia.com/gpu.count": cards.to_string(), "nvidia.com/mig.capable": "false",
            } },
            "status": {
                "capacity": resources, "allocatable": resources, "conditions": [ready()],
                "addresses": [{ "type": "InternalIP", "address": Ipv4Addr::LOCALHOST }],
                "daemonEndpoints": { "kubeletEndpoint": { "Port": log_port } },
            },
        });
        let nodes: Api<v1::Node> = Api::all(client.clone());
        nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
        let heart = tokio::spawn(beat(client.clone(), name.to_owned()));
        let node = Self { name: name.to_owned(), client: client.clone(), heart };
        wait_for("the node to be taken for ready", READY, async || {
            let taints = nodes.get(name).await?.spec.and_then(|spec| spec.taints).unwrap_or_default();
            ensure!(taints.is_empty(), "{taints:?}");
            Ok(())
        })
        .await?;
        Ok(node)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn pods(&self, pod: &v1::Pod) -> Api<v1::Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }

    /// Binds a pod to this node, as the scheduler does.
    pub async fn bind(&self, pod: &v1::Pod) -> Result<()> {
        let name = pod.name_any();
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name },
            "target": { "kind": "Node", "name": self.name },
        });
        let bound: Status =
            self.pods(pod).create_subresource("binding", &name, &PostParams::default(), &binding).await?;
        ensure!(bound.is_success(), "{bound:?}");
        Ok(())
    }

    /// Reports a pod whose only container is in this state.
    pub async fn report(&self, pod: &v1::Pod, phase: &str, ready: bool, state: &Value) -> Result<()> {
        let container =
            pod.spec.iter().flat_map(|spec| &spec.containers).next().context("a pod has a container")?;
        let condition = json!({ "type": "Ready", "status": if ready { "True" } else { "False" } });
        let container = json!({
            "name": container.name, "image": container.image, "imageID": "", "ready": ready,
            "restartCount": 0, "state": state,
        });
        let status = json!({
            "status": { "phase": phase, "conditions": [condition], "containerStatuses": [container] },
        });
        self.pods(pod).patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    /// Reports a pod that runs.
    pub async fn runs(&self, pod: &v1::Pod, ready: bool) -> Result<()> {
        self.report(pod, "Running", ready, &json!({ "running": {} })).await
    }

    /// Waits until a pod is being deleted.
    pub async fn is_asked_to_let_go(&self, pod: &v1::Pod) -> Result<()> {
        let pods = self.pods(pod);
        wait_for("the pod to be deleted", READY, async || {
            let pod = pods.get(&pod.name_any()).await?;
            pod.metadata.deletion_timestamp.map(drop).context("nobody deletes it")
        })
        .await
    }

    /// Lets go of a pod that is being deleted, as when its containers have ended.
    pub async fn lets_go(&self, pod: &v1::Pod) -> Result<()> {
        self.is_asked_to_let_go(pod).await?;
        self.has_ended(pod).await
    }

    /// Says that the containers of a pod that is being deleted have ended.
    pub async fn has_ended(&self, pod: &v1::Pod) -> Result<()> {
        self.pods(pod).delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }
}

/// What a node says of itself.
fn ready() -> Value {
    let now = MicroTime(Timestamp::now());
    json!({
        "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "played by a test",
        "lastHeartbeatTime": now,
    })
}

/// Renews the lease and says that the node is ready, as a kubelet does: after a time without an API server the
/// controllers take it for lost until it says so again.
async fn beat(client: Client, name: String) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASES);
    let nodes: Api<v1::Node> = Api::all(client);
    loop {
        let spec = LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(40),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        };
        let mut lease = Lease { spec: Some(spec), ..Lease::default() };
        lease.metadata.name = Some(name.clone());
        // A beat that fails is followed by another; many that fail are seen by the test.
        drop(leases.patch(&name, &PatchParams::apply("kubelet").force(), &Patch::Apply(&lease)).await);
        let status = json!({ "status": { "conditions": [ready()] } });
        drop(nodes.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status)).await);
        tokio::time::sleep(HEARTBEAT).await;
    }
}

/// Answers every request for a log with this one, until the program ends. Gives the port.
pub fn serve_log(certificate: &Path, key: &Path, log: String) -> Result<u16> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    let config = Arc::new(config);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            // Who asked and was not answered asks again.
            drop(answer(connection, config.clone(), &log));
        }
    });
    Ok(port)
}

fn answer(connection: TcpStream, config: Arc<rustls::ServerConfig>, log: &str) -> Result<()> {
    connection.set_read_timeout(Some(HEARTBEAT))?;
    let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(config)?, connection);
    let (mut request, mut part) = (Vec::new(), [0; 1024]);
    while !request.ends_with(b"\r\n\r\n") {
        let n = stream.read(&mut part)?;
        ensure!(n > 0, "the request ends early");
        request.extend_from_slice(&part[..n]);
    }
    let length = log.len();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{log}")?;
    stream.conn.send_close_notify();
    Ok(stream.flush()?)
}
