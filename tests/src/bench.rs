//! A lab with llm-fleet installed, for behaviour tests: one lab a test program, one namespace a case.
//!
//! Nothing here is a stand-in: the API server, the kubelet, the web server and the images are real.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::addresses::NODE;
use crate::demo::watch;
use crate::forward::Forward;
use crate::install::Charts;
use crate::lab::up::{self, Options};
use crate::lab::{Lab, down, packets};
use crate::paths::{Cache, repository};
use crate::process::{output, wait_for};
use crate::{install, provisioner, versions};

/// Port of the web server on the lab's node.
pub const FILES_PORT: u16 = 8090;
/// How long anything may take before a test gives up on it.
pub const LIMIT: Duration = Duration::from_secs(120);
/// How long the operator is watched for a hot loop, and most requests about one namespace in that time.
const CALM: Duration = Duration::from_secs(10);
const CALM_READS: usize = 20;
const CALM_WRITES: usize = 40;
/// Name of what keeps a namespace from going.
const HOLD: &str = "hold";

/// A file on the web server.
#[derive(Clone, Debug)]
pub struct File {
    /// Where it is.
    pub url: String,
    /// Of its content.
    pub sha256: String,
}

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
        let bench = Self::empty(name, program).await?;
        for archive in install::archives()? {
            bench.lab.load_image(&archive.file)?;
        }
        bench.install(values)?;
        Ok(bench)
    }

    /// Brings up the lab and the web server only.
    pub async fn empty(name: &str, program: PathBuf) -> Result<Self> {
        let cache = Cache::from_env()?;
        down::down(&cache.lab(name)?).await?;
        let lab = up::up(&Options { name: name.to_owned(), card: None, program }).await?;
        packets::count(&lab.supervisor().network())?;
        let files = lab.paths().join("www");
        fs::create_dir_all(&files)?;
        let listen = format!("{NODE}:{FILES_PORT}");
        let folder = files.display().to_string();
        let arguments = ["httpd", "-f", "-p", &listen, "-h", &folder].map(str::to_owned);
        lab.launch("files", Path::new("/bin/busybox"), arguments.to_vec())?;
        Ok(Self { lab, files })
    }

    /// Installs or upgrades the charts.
    pub fn install(&self, values: &[&str]) -> Result<()> {
        self.install_from(&Charts::of(&repository()), values)
    }

    /// Installs or upgrades charts that lie elsewhere.
    pub fn install_from(&self, charts: &Charts, values: &[&str]) -> Result<()> {
        let fixed = [format!("imageRegistry={}", install::REGISTRY), "simulatedDevices=true".to_owned()];
        let values: Vec<String> = fixed.into_iter().chain(values.iter().map(|v| (*v).to_owned())).collect();
        install::charts_from(charts, || self.lab.helm(), &[], &values)
    }

    /// Puts a file on the web server.
    pub fn publish(&self, name: &str, content: &[u8]) -> Result<File> {
        let aside = self.files.join(format!(".{name}"));
        fs::write(&aside, content)?;
        fs::rename(&aside, self.files.join(name))?;
        Ok(File { url: self.url(name), sha256: hex::encode(Sha256::digest(content)) })
    }

    /// The URL that a file has, or would have.
    pub fn url(&self, name: &str) -> String {
        format!("http://{NODE}:{FILES_PORT}/{name}")
    }

    /// A namespace for one case, under Pod Security `restricted`.
    pub async fn case(&self, name: &str) -> Result<Case<'_>> {
        let client = self.lab.client().await?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": name, "labels": { "pod-security.kubernetes.io/enforce": "restricted" } },
        }))?;
        namespaces.create(&PostParams::default(), &namespace).await?;
        Ok(Case { bench: self, namespace: name.to_owned(), client })
    }

    /// What a person would look at first when a test failed.
    pub fn evidence(&self) -> String {
        let commands: [&[&str]; 4] = [
            &["get", "llm,llmmodels.llmfleet.dev,pods,jobs,pvc", "-A", "-o", "wide"],
            &["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"],
            &["logs", "-n", install::NAMESPACE, "-l", "app.kubernetes.io/name=llm-fleet", "--tail=60"],
            &["get", "llm", "-A", "-o", "yaml"],
        ];
        let run = |arguments: &&[&str]| {
            self.lab.run_kubectl(arguments).unwrap_or_else(|error| format!("{error:#}"))
        };
        commands.iter().map(run).collect::<Vec<_>>().join("\n\n")
    }

    /// Takes the lab down. What a person wants to know is printed: evidence, if the test failed, and versions.
    pub async fn finish(self, result: Result<()>) -> Result<()> {
        if result.is_err() {
            println!("{}", self.evidence());
        }
        let printed = versions::print(&self.lab).await;
        down::down(self.lab.paths()).await?;
        result.and(printed)
    }
}

/// The real model in the cache.
pub fn model() -> Result<Vec<u8>> {
    fs::read(Cache::from_env()?.model()).context("run `make model`")
}

/// A small deployment of one file from the web server, on the node's own cores.
#[must_use]
pub fn cpu(File { url, sha256 }: &File) -> Value {
    let mut spec =
        small(&json!({ "http": { "files": [{ "url": url, "sha256": sha256, "path": "model.gguf" }] } }));
    spec["volume"] = json!({ "size": "256Mi" });
    spec
}

/// A small deployment that asks for few cores, since many run side by side.
#[must_use]
pub fn small(source: &Value) -> Value {
    json!({
        "model": { "source": source },
        "capacity": { "contextLength": 512, "concurrency": 1 },
        "accelerator": { "class": "CPU" },
        "serving": { "resources": { "requests": { "cpu": "50m" } } },
    })
}

/// One case: a namespace and what is done in it.
#[allow(missing_debug_implementations, reason = "a client has none")]
pub struct Case<'a> {
    bench: &'a Bench,
    /// The namespace.
    pub namespace: String,
    /// A client with all rights.
    pub client: kube::Client,
}

/// How many requests were made.
#[derive(Clone, Copy, Debug, Default)]
struct Requests {
    reads: usize,
    writes: usize,
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
    pub async fn until_ready(&self, name: &str) -> Result<()> {
        let (_, seconds) = self.until(name, "Ready", |seen| seen.status == "True").await?;
        println!("  {}/{name}: Ready=True after {seconds:.1} s", self.namespace);
        Ok(())
    }

    /// Waits until a condition has this reason, and every one of `words` in its message.
    pub async fn until_said(&self, name: &str, kind: &str, reason: &str, words: &[&str]) -> Result<Seen> {
        let all = |seen: &Seen| seen.reason == reason && words.iter().all(|word| seen.message.contains(word));
        let (seen, seconds) = self.until(name, kind, all).await?;
        let Seen { status, message, .. } = &seen;
        println!("  {}/{name}: {kind}={status} {reason} after {seconds:.1} s: {message}", self.namespace);
        Ok(seen)
    }

    /// Watches what the operator asks of the API server about this namespace, and fails if that is a hot loop.
    pub async fn stays_calm(&self) -> Result<()> {
        let before = self.requests()?;
        tokio::time::sleep(CALM).await;
        let after = self.requests()?;
        let (reads, writes) = (after.reads - before.reads, after.writes - before.writes);
        println!("  {}: {reads} reads and {writes} writes in {} s", self.namespace, CALM.as_secs());
        ensure!(writes <= CALM_WRITES && reads <= CALM_READS, "{}: a hot loop", self.namespace);
        Ok(())
    }

    /// The operator's requests about this namespace so far.
    fn requests(&self) -> Result<Requests> {
        let operator = format!("system:serviceaccount:{}:", install::NAMESPACE);
        let log = BufReader::new(fs::File::open(self.bench.lab.audit_log())?);
        let mut requests = Requests::default();
        for line in log.lines() {
            let line = line?;
            // Most of the log is about others, and need not be parsed. The last line may be half written.
            let about = line.contains(&operator) && line.contains(&self.namespace);
            let entry: Value =
                if about { serde_json::from_str(&line).unwrap_or_default() } else { Value::Null };
            let theirs = entry["user"]["username"].as_str().is_some_and(|user| user.starts_with(&operator));
            if !theirs || entry["objectRef"]["namespace"] != self.namespace.as_str() {
                continue;
            }
            match entry["verb"].as_str() {
                Some("watch") => {}
                Some("get" | "list") => requests.reads += 1,
                _ => requests.writes += 1,
            }
        }
        Ok(requests)
    }

    /// UIDs of the claims of the namespace, by name.
    pub async fn claims(&self) -> Result<BTreeMap<String, String>> {
        let claims = self.claims_api().list(&ListParams::default()).await?;
        Ok(claims.into_iter().map(|claim| (claim.name_any(), claim.uid().unwrap_or_default())).collect())
    }

    /// Waits until no volume of the namespace holds a file. A fetch that is on its way has some, and takes them along.
    pub async fn until_nothing_on_volumes(&self) -> Result<()> {
        wait_for("files to be removed", LIMIT, async || {
            let folders = self.volumes().await?;
            ensure!(!folders.is_empty(), "no claim has a volume");
            for folder in folders {
                let held =
                    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
                ensure!(held.is_empty(), "left: {held:?}");
            }
            Ok(())
        })
        .await
    }

    /// Where the volumes of the namespace's claims are, seen from this machine.
    pub async fn volumes(&self) -> Result<Vec<PathBuf>> {
        let lab = &self.bench.lab;
        let root = PathBuf::from(format!("/proc/{}/root", lab.supervisor().pid()));
        let below = lab.paths().join(provisioner::FOLDER);
        let folder = |volume: String| root.join(below.strip_prefix("/").unwrap_or(&below)).join(volume);
        let claims = self.claims_api().list(&ListParams::default()).await?;
        let volumes = claims.into_iter().filter_map(|claim| claim.spec?.volume_name);
        Ok(volumes.map(|volume| folder(volume).join(provisioner::plan::DATA)).collect())
    }

    fn claims_api(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Keeps the namespace from going, once it is deleted, until [`Case::release`].
    pub async fn hold(&self) -> Result<()> {
        let metadata = json!({ "name": HOLD, "finalizers": ["test.llmfleet.dev/hold"] });
        let map = serde_json::from_value(json!({ "metadata": metadata }))?;
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        maps.create(&PostParams::default(), &map).await?;
        Ok(())
    }

    /// Ends [`Case::hold`].
    pub async fn release(&self) -> Result<()> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let none = json!({ "metadata": { "finalizers": null } });
        maps.patch(HOLD, &PatchParams::default(), &Patch::Merge(&none)).await?;
        Ok(())
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
        // Kubernetes puts its own authority into every namespace, and a test what holds it.
        let not_theirs = |name: &&str| !["kube-root-ca.crt", HOLD].iter().any(|other| name.ends_with(other));
        Ok(names.lines().filter(not_theirs).map(str::to_owned).collect())
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
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let ours = ListParams::default().labels(&format!("{}={name}", contract::labels::DEPLOYMENT));
        let mut uids: Vec<String> =
            pods.list(&ours).await?.into_iter().filter_map(|pod| pod.metadata.uid).collect();
        uids.sort();
        Ok(uids)
    }
}
