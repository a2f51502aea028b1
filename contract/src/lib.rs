//! What operator and runtime promise each other.
//!
//! In: bytes of headers, declared capacity, device profiles. Out: geometry, memory plans, configuration, names.
//! Everything here is a pure function or a plain value.
//! It must not know Kubernetes clients, async runtimes, tensors, files or clocks.
//!
//! ```text
//! header::{gguf, safetensors} → Header → geometry → ModelGeometry ─┐
//!                                  └──→ tensors  → TensorGroups  ──┼→ memory → MemoryPlan
//!                         Capacity, DeviceProfile ─────────────────┘
//! ```

#![forbid(unsafe_code)]

pub mod bytes;
pub mod config;
pub mod device;
pub mod dtype;
pub mod exit;
pub mod fetch;
pub mod geometry;
pub mod header;
pub mod http;
pub mod inspect;
pub mod labels;
pub mod manifest;
pub mod memory;
pub mod metrics;
pub mod resident;
pub mod tensors;

pub use bytes::Bytes;
pub use dtype::{DType, KvDType};
pub use geometry::ModelGeometry;
pub use memory::MemoryPlan;
