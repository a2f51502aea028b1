//! The Go modules and the programs built from each. Data only.

/// A Go module in `lab/<name>`.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// The folder's name.
    pub name: &'static str,
    /// Flags for the linker, part of the cache's key.
    pub ldflags: &'static str,
    /// What is built from it.
    pub tools: &'static [Tool],
}

/// A program.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// What it is called here.
    pub name: &'static str,
    /// Its main package.
    pub package: &'static str,
    /// How long a build takes with an empty Go cache on two cores.
    pub cold_seconds: u32,
}

const fn tool(name: &'static str, package: &'static str, cold_seconds: u32) -> Tool {
    Tool { name, package, cold_seconds }
}

/// Stripped of symbols: the programs are a third smaller and load faster.
const STRIPPED: &str = "-s -w";
/// Without a version linked in, kubectl and Helm cannot parse what the API server says it is.
const KUBERNETES: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
    -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36";
/// Helm itself knows only the release that its source was cut for.
const HELM: &str = "-s -w -X helm.sh/helm/v3/internal/version.version=v3.21.4";

/// Programs that only tests of the charts need.
pub const CHECKERS: [&str; 1] = ["helm-unittest"];

/// All modules, in the order in which they are built.
pub const MODULES: &[Module] = &[
    Module {
        name: "kubernetes",
        ldflags: KUBERNETES,
        tools: &[
            tool("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", 230),
            tool("etcd", "go.etcd.io/etcd/server/v3", 10),
            tool("kubectl", "k8s.io/kubernetes/cmd/kubectl", 20),
            tool("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", 30),
            tool("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", 10),
            tool("kubelet", "k8s.io/kubernetes/cmd/kubelet", 60),
            tool("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", 10),
        ],
    },
    Module {
        name: "helm",
        ldflags: HELM,
        tools: &[
            tool("helm", "helm.sh/helm/v3/cmd/helm", 60),
            tool("helm-unittest", "github.com/helm-unittest/helm-unittest/cmd/helm-unittest", 10),
        ],
    },
    Module { name: "device-plugin", ldflags: STRIPPED, tools: &[tool("device-plugin", ".", 20)] },
    Module {
        name: "coredns",
        ldflags: STRIPPED,
        tools: &[tool("coredns", "github.com/coredns/coredns", 165)],
    },
];
