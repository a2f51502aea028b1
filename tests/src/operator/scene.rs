//! What tests do in one namespace that an operator looks after: make objects, wait for what is said of them, and count
//! what the operator writes.
//!
//! In: a [`Site`] and an operator. Out: values to assert on. It must not know what the operator should do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use contract::geometry::ModelGeometry;
use contract::inspect::{Format, Inspection};
use contract::labels::{GROUP, VERSION};
use contract::tensors::{self, TensorGroup, TensorRole};
use contract::{Bytes, DType};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind, NamespaceResourceScope};
use serde_json::{Value, json};

use super::audit::Call;
use super::{Operator, Site};
use crate::process::wait_for;

/// Longest wait for anything. What must be quicker is measured by the test.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Without a write for this long, an object is taken to be settled: longer than the pause between two looks at what
/// tells of no changes.
const QUIET: Duration = Duration::from_secs(6);
/// How often is looked for one. The whole audit log is read each time.
const LOOK: Duration = Duration::from_millis(200);
/// Most calls about settled objects meanwhile. A loop that is hot makes hundreds.
const FEW: usize = 20;

/// One namespace.
pub struct Scene<'a> {
    /// A client with all rights.
    pub client: Client,
    /// Where the operator runs.
    pub site: &'a Site,
    /// Who looks after the namespace.
    pub operator: &'a Operator,
    /// Its name.
    pub namespace: String,
}

impl Scene<'_> {
    /// Objects of a built-in kind.
    pub fn all<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Objects of one of our kinds.
    pub fn ours(&self, kind: &str) -> Api<DynamicObject> {
        ours(&self.client, &self.namespace, kind)
    }

    /// Applies a spec of one of our kinds, as a user would.
    pub async fn apply(&self, kind: &str, name: &str, spec: &Value) -> Result<DynamicObject> {
        let object = wish(kind, name, spec);
        Ok(self.ours(kind).patch(name, &PatchParams::apply("user").force(), &Patch::Apply(&object)).await?)
    }

    /// Waits for what `attempt` looks for; the operator's last words are part of the error.
    pub async fn wait<T>(&self, what: impl AsRef<str>, attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        wait_for(what.as_ref(), LIMIT, attempt).await.with_context(|| {
            format!("namespace {}\n{}", self.namespace, self.operator.about(&self.namespace))
        })
    }

    /// Waits until a condition has this reason. Gives its status and its message.
    pub async fn condition(
        &self,
        (kind, name): (&str, &str),
        type_: &str,
        reason: &str,
    ) -> Result<(String, String)> {
        let objects = self.ours(kind);
        self.wait(format!("{kind} {name}: {type_}: {reason}"), async || {
            let object = objects.get(name).await?;
            let found =
                condition(&object, type_).with_context(|| format!("no {type_}: {:?}", object.data))?;
            ensure!(found["reason"] == reason, "{}", object.data["status"]["conditions"]);
            let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
            Ok((text("status"), text("message")))
        })
        .await
    }

    /// The operator's calls about objects of this namespace.
    pub fn calls(&self) -> Result<Vec<Call>> {
        let calls = self.site.calls(&self.operator.identity)?;
        Ok(calls.into_iter().filter(|call| call.namespace == self.namespace).collect())
    }

    /// The writes among them.
    pub fn writes(&self) -> Result<Vec<Call>> {
        Ok(self.calls()?.into_iter().filter(Call::writes).collect())
    }

    /// Waits until the operator has written all that it wants, and fails if it never ceases, or asks without a pause.
    pub async fn settles(&self) -> Result<()> {
        // What the API server refuses may be tried again, now and then.
        let written = |calls: &[Call]| calls.iter().filter(|call| call.writes() && call.code < 400).count();
        let mut quiet = (0, 0, Instant::now());
        let later = self.wait("the last write", async || {
            tokio::time::sleep(LOOK).await;
            let mut calls = self.calls()?;
            let (writes, before, since) = quiet;
            if written(&calls) != writes || since.elapsed() < QUIET {
                if written(&calls) != writes {
                    quiet = (written(&calls), calls.len(), Instant::now());
                }
                bail!("{} writes", written(&calls));
            }
            Ok(calls.split_off(before))
        });
        let later = later.await?;
        ensure!(later.len() <= FEW, "a hot loop: {later:?}");
        println!(
            "{}: {} writes, then {} calls and no write in {QUIET:?}",
            self.namespace,
            quiet.0,
            later.len()
        );
        Ok(())
    }
}

/// Objects of one of our kinds in a namespace.
pub fn ours(client: &Client, namespace: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// An object of one of our kinds, as a user writes it.
#[must_use]
pub fn wish(kind: &str, name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": format!("{GROUP}/{VERSION}"), "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// The only one of its kind.
///
/// # Panics
/// If there are none or several.
pub fn only<T: std::fmt::Debug>(mut items: Vec<T>) -> T {
    assert_eq!(items.len(), 1, "{items:?}");
    items.remove(0)
}

/// A condition of an object.
#[must_use]
pub fn condition<'a>(object: &'a DynamicObject, type_: &str) -> Option<&'a Value> {
    object.data["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_)
}

/// What is known of a small model after its headers were read.
pub fn inspection() -> Result<Inspection> {
    let geometry = ModelGeometry::from_config(&json!({
        "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 128, "vocab_size": 256,
        "max_position_embeddings": 512,
    }))?;
    let tensor =
        |role, shape: [u64; 2], count| TensorGroup { role, dtype: DType::F32, shape: shape.into(), count };
    let groups = vec![
        tensor(TensorRole::Embedding, [256, 64], 1),
        tensor(TensorRole::Attention, [64, 64], 8),
        tensor(TensorRole::FeedForward, [128, 64], 6),
    ];
    let parameters = tensors::parameters(&groups)?;
    Ok(Inspection {
        format: Format::Gguf,
        digest: format!("sha256:{}", "0f".repeat(32)),
        bytes: Bytes(parameters * 4),
        files: 1,
        parameters,
        license: None,
        geometry,
        tensors: groups,
    })
}
