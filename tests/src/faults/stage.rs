//! Sets the stages for lives: nodes, a runtime class, and volumes that come from the test alone.
//!
//! In: a control plane. Out: stages. It must not know what takes place on them.

use anyhow::Result;
use futures::future::try_join_all;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::kill::Stage;
use crate::operator::Site;
use crate::operator::kubelet::{Node, serve_log};
use crate::operator::scene::inspection;

/// Cards of each node: two replicas, and one more while a revision is replaced.
const CARDS: u32 = 3;

impl<'a> Stage<'a> {
    /// A stage for each name, which its node has too, on a control plane that has none yet.
    pub async fn set(site: &'a Site, names: &[String]) -> Result<Vec<Self>> {
        let client = site.plane.client().await?;
        let class = json!({ "metadata": { "name": "nvidia" }, "handler": "runc" });
        let class: RuntimeClass = serde_json::from_value(class)?;
        Api::all(client.clone()).create(&PostParams::default(), &class).await?;
        // Nobody complains of a volume that is missing until the test makes it.
        let class = json!({
            "metadata": { "name": "none" }, "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        });
        let class: StorageClass = serde_json::from_value(class)?;
        Api::all(client.clone()).create(&PostParams::default(), &class).await?;
        let (certificate, key) = site.plane.server_certificate();
        let log = serve_log(&certificate, &key, inspection()?.to_line()? + "\n")?;
        let stages = names.iter().map(async |name| {
            let node = Node::join(&client, name, CARDS, log).await?;
            Ok(Self { site, client: client.clone(), node })
        });
        try_join_all(stages).await
    }
}
