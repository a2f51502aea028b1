//! The inspection as a person reads it, with the memory plan of a given capacity. Pure.

use std::fmt::Write;

use contract::bytes::Bytes;
use contract::device::DeviceClass;
use contract::inspect::Inspection;
use contract::memory::{Capacity, PlanError, plan};

use crate::exit::chain;

/// Text of several lines: checkpoint, architecture, tensors, memory.
#[must_use]
pub fn table(inspection: &Inspection, capacity: Capacity, device: DeviceClass) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = head(&mut text, inspection);
    let _ = tensors(&mut text, inspection);
    let _ = memory(&mut text, inspection, capacity, device);
    text
}

fn head(out: &mut String, i: &Inspection) -> std::fmt::Result {
    let g = &i.geometry;
    writeln!(out, "format        {:?}, {} in {} file(s)", i.format, i.bytes, i.files)?;
    writeln!(out, "digest        {}", i.digest)?;
    writeln!(out, "licence       {}", i.license.as_deref().unwrap_or("not stated"))?;
    writeln!(out, "parameters    {}", thousands(i.parameters))?;
    write!(out, "architecture  {}: {} layers, hidden {}, ", g.family.name(), g.n_layers(), g.hidden)?;
    for layer in &g.layers {
        write!(out, "{} query and {} key-value heads of {}, ", g.heads, layer.kv_heads, layer.head_dim)?;
    }
    writeln!(out, "feed-forward {}, vocabulary {}", g.ffn, thousands(g.vocab.into()))?;
    writeln!(out, "context       {} tokens", thousands(g.context_length.into()))
}

fn tensors(out: &mut String, i: &Inspection) -> std::fmt::Result {
    writeln!(out, "\n{:<13} {:<6} {:<16} {:>5}  {:>11}", "tensors", "type", "shape", "count", "bytes")?;
    for group in &i.tensors {
        let shape: Vec<_> = group.shape.iter().map(u64::to_string).collect();
        let one = group.dtype.tensor_bytes(&group.shape).map_or(Bytes::ZERO, Bytes);
        let all = Bytes(one.0.saturating_mul(group.count.into())).to_string();
        let (role, dtype) = (format!("{:?}", group.role), format!("{:?}", group.dtype));
        writeln!(out, "{role:<13} {dtype:<6} {:<16} {:>5}  {all:>11}", shape.join(" × "), group.count)?;
    }
    Ok(())
}

fn memory(out: &mut String, i: &Inspection, capacity: Capacity, device: DeviceClass) -> std::fmt::Result {
    let Capacity { context_length, concurrency, kv_dtype } = capacity;
    let context = thousands(context_length.into());
    writeln!(out, "\nmemory: {concurrency} × {context} tokens, {kv_dtype:?} cache, {device:?}")?;
    match plan(&i.geometry, &i.tensors, capacity, device) {
        Ok(plan) => {
            for (name, bytes) in plan.components() {
                writeln!(out, "{name:<13} {:>12}", bytes.to_string())?;
            }
            let total = plan.total().map_err(PlanError::from);
            writeln!(out, "{:<13} {:>12}", "total", total.map_or_else(|e| chain(&e), |t| t.to_string()))
        }
        Err(error) => writeln!(out, "no plan: {}", chain(&error)),
    }
}

fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
