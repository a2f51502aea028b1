//! The local cluster (`lab`) and what the behaviour tests share.
//!
//! In: this repository, Go, root on Debian 12. Out: a real Kubernetes in namespaces of its own, control planes side by
//! side for tests, and handles to both. This package knows nothing of how the operator or the runtime decide.
//!
//! Errors are `anyhow` throughout: every one of them ends before a person who reads the chain, none is matched on.

pub mod addresses;
pub mod bench;
pub mod certs;
pub mod control_plane;
pub mod crds;
pub mod demo;
pub mod discovery;
pub mod faults;
pub mod forward;
pub mod image;
pub mod install;
pub mod kubeconfig;
pub mod lab;
pub mod operator;
pub mod packages;
pub mod paths;
pub mod process;
pub mod progress;
pub mod provisioner;
pub mod supervisor;
pub mod tools;
pub mod traces;
pub mod traffic;
pub mod versions;
pub mod web;
