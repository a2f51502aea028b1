//! Requests' sequences on one model: what is computed next, and which token follows from it.

pub mod sampler;
