//! Bodies of requests: read within limits of size, time, and memory of all that are read at once.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use crate::request::MAX_BODY;

/// Longest time that a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Longest time between two pieces of it.
const GAP_TIME: Duration = Duration::from_secs(10);
/// Bytes of all bodies that are being read or understood.
const MAX_BODIES: usize = 6 * MAX_BODY;
/// Bytes of a body that is too long, beyond which it is not even read to be thrown away, and the time for that: a client
/// that still writes when the connection is closed does not see why.
const MAX_DISCARDED: usize = 2 * MAX_BODY;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Memory for bodies.
#[derive(Debug)]
pub(super) struct Intake(Arc<Semaphore>);

/// A body that has arrived, and the memory that it takes.
#[derive(Default)]
pub(super) struct Received {
    pub(super) bytes: Vec<u8>,
    memory: Option<OwnedSemaphorePermit>,
}

impl Intake {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BODIES)))
    }

    /// Reads a body.
    pub(super) async fn read(&self, mut body: Body) -> Result<Received, ApiError> {
        let stated = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if stated <= MAX_BODY {
            let all = tokio::time::timeout(BODY_TIME, self.pieces(&mut body)).await;
            if let Some(received) = all.map_err(|_| ApiError::too_slow())?? {
                return Ok(received);
            }
        }
        if stated <= MAX_DISCARDED {
            // Whether it comes to an end is all the same.
            let _ = tokio::time::timeout(DISCARD_TIME, discard(body)).await;
        }
        Err(ApiError::too_large())
    }

    /// The whole body, or nothing if it is too long.
    async fn pieces(&self, body: &mut Body) -> Result<Option<Received>, ApiError> {
        let mut received = Received::default();
        loop {
            let frame = tokio::time::timeout(GAP_TIME, body.frame()).await;
            let data: Bytes = match frame.map_err(|_| ApiError::too_slow())? {
                None => return Ok(Some(received)),
                Some(frame) => frame.map_err(|_| ApiError::broken_body())?.into_data().unwrap_or_default(),
            };
            let more = match u32::try_from(data.len()) {
                Ok(more) if received.bytes.len() + data.len() <= MAX_BODY => more,
                _ => return Ok(None),
            };
            let memory = self.0.clone().try_acquire_many_owned(more);
            let memory = memory.map_err(|_| ApiError::unavailable("too many bodies are being read"))?;
            match &mut received.memory {
                Some(held) => held.merge(memory),
                None => received.memory = Some(memory),
            }
            received.bytes.extend_from_slice(&data);
        }
    }
}

async fn discard(mut body: Body) {
    let mut rest = MAX_DISCARDED;
    while let Some(Ok(frame)) = body.frame().await {
        let n = frame.into_data().map_or(0, |data| data.len());
        match rest.checked_sub(n) {
            Some(less) => rest = less,
            None => return,
        }
    }
}
