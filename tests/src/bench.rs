//! A lab with llm-fleet installed, for behaviour tests: one lab a test program, one namespace a case.
//!
//! Nothing here is a stand-in: the API server, the kubelet, the web server and the images are real.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::addresses::NODE;
use crate::demo::watch;
use crate::forward::Forward;
use crate::install;
use crate::lab::up::{self, Options};
use crate::lab::{Lab, down};
use crate::paths::Cache;
use crate::process::{output, wait_for};

/// Port of the web server on the lab's node.
const FILES_PORT: u16 = 8090;
/// How long anything may take before a test gives up on it.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A lab, llm-fleet in it, and a web server whose folder the test fills.
#[derive(Debug)]
pub struct Bench {
    /// The lab.
    pub lab: Lab,
    files: PathBuf,
}

impl Bench {
    /// Brings everything up; `values` are Helm values beside those that every test needs.
    pub async fn start(name: &str, program: PathBuf, values: &[&str]) -> Result<Self> {
        let cache = Cache::from_env()?;
        down::down(&cache.lab(name)?).await?;
        let lab = up::up(&Options { name: name.to_owned(), card: None, program }).await?;
        let files = lab.paths().join("www");
        fs::create_dir_all(&files)?;
        let listen = format!("{NODE}:{FILES_PORT}");
        let folder = files.display().to_string();
        let arguments = ["httpd", "-f", "-p", &listen, "-h", &folder].map(str::to_owned);
        lab.launch("files", Path::new("/bin/busybox"), arguments.to_vec())?;
        for archive in install::archives()? {
            lab.load_image(&archive.file)?;
        }
        let bench = Self { lab, files };
        bench.install(values)?;
        Ok(bench)
    }

    /// Installs or upgrades the charts.
    pub fn install(&self, values: &[&str]) -> Result<()> {
        let fixed = [format!("imageRegistry={}", install::REGISTRY), "simulatedDevices=true".to_owned()];
        let values: Vec<String> = fixed.into_iter().chain(values.iter().map(|v| (*v).to_owned())).collect();
        let helm = || {
            let mut command = std::process::Command::new(self.lab.tools().path("helm"));
            command.env("KUBECONFIG", self.lab.kubeconfig());
            command
        };
        install::charts(helm, &values)
    }

    /// Puts a file on the web server; gives its URL and sha256.
    pub fn publish(&self, name: &str, content: &[u8]) -> Result<(String, String)> {
        let aside = self.files.join(format!(".{name}"));
        fs::write(&aside, content)?;
        fs::rename(&aside, self.files.join(name))?;
        Ok((self.url(name), hex::encode(Sha256::digest(content))))
    }

    /// The URL that a file has, or would have.
    pub fn url(&self, name: &str) -> String {
        format!("http://{NODE}:{FILES_PORT}/{name}")
    }

    /// A namespace for one case, under Pod Security `restricted`.
    pub async fn case(&self, name: &str) -> Result<Case<'_>> {
        let client = self.lab.client().await?;
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
        let namespace = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": name, "labels": { "pod-security.kubernetes.io/enforce": "restricted" } },
        }))?;
        namespaces.create(&PostParams::default(), &namespace).await?;
        Ok(Case { bench: self, namespace: name.to_owned(), client })
    }

    /// Takes the lab down.
    pub async fn stop(self) -> Result<()> {
        down::down(self.lab.paths()).await
    }
}

/// One case: a namespace and what is done in it.
#[allow(missing_debug_implementations, reason = "a client has none")]
pub struct Case<'a> {
    bench: &'a Bench,
    /// The namespace.
    pub namespace: String,
    client: kube::Client,
}

/// A condition as the API has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// The reason from the closed set.
    pub reason: String,
    /// The sentence for a person.
    pub message: String,
}

impl Case<'_> {
    /// LlmDeployments of the namespace.
    pub fn deployments(&self) -> Api<DynamicObject> {
        watch::deployments(self.client.clone(), &self.namespace)
    }

    /// Server-side applies an LlmDeployment with this spec.
    pub async fn apply(&self, name: &str, spec: &Value) -> Result<()> {
        let (group, version) = (contract::labels::GROUP, contract::labels::VERSION);
        let object = json!({
            "apiVersion": format!("{group}/{version}"), "kind": "LlmDeployment",
            "metadata": { "name": name }, "spec": spec,
        });
        let how = PatchParams {
            field_validation: Some(kube::api::ValidationDirective::Strict),
            ..PatchParams::apply("test")
        };
        self.deployments().patch(name, &how.force(), &Patch::Apply(&object)).await?;
        Ok(())
    }

    /// Deletes an LlmDeployment and waits until it is gone.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.deployments().delete(name, &DeleteParams::default()).await?;
        wait_for("the deletion", LIMIT, async || match self.deployments().get_opt(name).await? {
            None => Ok(()),
            Some(object) => bail!("{name} is still there: {}", object.data["status"]["conditions"]),
        })
        .await
    }

    /// The status of an LlmDeployment.
    pub async fn status(&self, name: &str) -> Result<Value> {
        Ok(self.deployments().get(name).await?.data["status"].clone())
    }

    /// One condition of an LlmDeployment.
    pub async fn condition(&self, name: &str, kind: &str) -> Result<Seen> {
        let status = self.status(name).await?;
        let conditions = status["conditions"].as_array().context("no conditions yet")?;
        let found =
            conditions.iter().find(|c| c["type"] == kind).with_context(|| format!("no {kind} yet"))?;
        let text = |field: &str| found[field].as_str().unwrap_or("").to_owned();
        Ok(Seen { status: text("status"), reason: text("reason"), message: text("message") })
    }

    /// Waits until a condition is as wanted and gives it, with the seconds that it took.
    pub async fn until(&self, name: &str, kind: &str, wanted: impl Fn(&Seen) -> bool) -> Result<(Seen, f64)> {
        let started = Instant::now();
        let what = format!("{kind} of {}/{name}", self.namespace);
        let seen = wait_for(&what, LIMIT, async || {
            let seen = self.condition(name, kind).await?;
            if wanted(&seen) { Ok(seen) } else { bail!("{seen:?}") }
        })
        .await?;
        Ok((seen, started.elapsed().as_secs_f64()))
    }

    /// Waits until an LlmDeployment is ready.
    pub async fn until_ready(&self, name: &str) -> Result<f64> {
        Ok(self.until(name, "Ready", |seen| seen.status == "True").await?.1)
    }

    /// Waits until a condition says no, with every one of `words` in its reason or message.
    pub async fn until_refused(&self, name: &str, kind: &str, words: &[&str]) -> Result<Seen> {
        let all = |seen: &Seen| words.iter().all(|w| seen.message.contains(w) || seen.reason.contains(w));
        let (seen, seconds) = self.until(name, kind, |seen| seen.status == "False" && all(seen)).await?;
        println!(
            "  {}/{name}: {kind}=False {} after {seconds:.1} s: {}",
            self.namespace, seen.reason, seen.message
        );
        Ok(seen)
    }

    /// A way to the Service of an LlmDeployment.
    pub async fn service(&self, name: &str) -> Result<(String, Forward)> {
        let port = contract::http::API_PORT;
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let forward = self.bench.lab.forward(&format!("{}/{name}:{port}", self.namespace), listen).await?;
        Ok((format!("http://{}", forward.local()), forward))
    }

    /// All objects of the kinds that the operator makes, as `kind/name`.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        let kinds = "pods,services,configmaps,jobs,persistentvolumeclaims,llmmodels.llmfleet.dev";
        let mut command = self.bench.lab.kubectl();
        command.args(["get", kinds, "--namespace", &self.namespace, "--output", "name"]);
        let names = output(&mut command)?;
        // Kubernetes puts its own authority into every namespace.
        Ok(names.lines().filter(|name| !name.ends_with("/kube-root-ca.crt")).map(str::to_owned).collect())
    }

    /// Waits until nothing of the operator's is left.
    pub async fn until_empty(&self) -> Result<()> {
        wait_for("everything to go", LIMIT, async || {
            let left = self.leftovers()?;
            if left.is_empty() { Ok(()) } else { bail!("left: {left:?}") }
        })
        .await
    }

    /// UIDs of the pods of an LlmDeployment, in order.
    pub async fn pod_uids(&self, name: &str) -> Result<Vec<String>> {
        let pods: Api<k8s_openapi::api::core::v1::Pod> =
            Api::namespaced(self.client.clone(), &self.namespace);
        let ours =
            kube::api::ListParams::default().labels(&format!("{}={name}", contract::labels::DEPLOYMENT));
        let mut uids: Vec<String> =
            pods.list(&ours).await?.into_iter().filter_map(|pod| pod.metadata.uid).collect();
        uids.sort();
        Ok(uids)
    }
}

/// The program `lab` beside the running test program.
pub fn lab_program() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder =
        test.parent().and_then(Path::parent).context("a test program lies in target/<profile>/deps")?;
    Ok(folder.join("lab"))
}
