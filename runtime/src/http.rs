//! The two listeners: the API and the admin port.
//!
//! It must not know tensors, sequences or blocks.

pub mod admin;
