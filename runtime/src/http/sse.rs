//! An answer as server-sent events: chunks, perhaps a count, `[DONE]`.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::Value;

use super::body::Header;
use super::error::ApiError;
use super::generation::{Generation, Part};

/// What ends every stream.
const DONE: &str = "[DONE]";

struct Streaming {
    generation: Generation,
    header: Header,
    usage: bool,
    /// Events that are ready to go.
    ready: VecDeque<Event>,
}

/// Streams an answer; the client's going away drops it, and so cancels the request.
pub(super) fn stream(generation: Generation, header: Header, usage: bool) -> Response {
    let first = header.first().map(|mut chunk| {
        if usage {
            chunk["usage"] = Value::Null;
        }
        data(&chunk)
    });
    let state = Streaming { generation, header, usage, ready: first.into_iter().collect() };
    let events = stream::unfold(state, |mut state| async {
        let event = state.next().await?;
        Some((Ok::<_, Infallible>(event), state))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

impl Streaming {
    async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.ready.pop_front() {
            return Some(event);
        }
        match self.generation.next().await? {
            Part::Text(text) => Some(self.chunk(self.header.text(&text))),
            Part::End(reason) => {
                if self.usage {
                    self.ready.push_back(data(&self.header.usage(self.generation.usage())));
                }
                self.ready.push_back(Event::default().data(DONE));
                Some(self.chunk(self.header.end(reason)))
            }
            Part::Failed => {
                self.ready.push_back(Event::default().data(DONE));
                Some(data(&ApiError::internal("the answer could not be computed").body()))
            }
        }
    }

    /// With counting asked for, every chunk has the field.
    fn chunk(&self, mut chunk: Value) -> Event {
        if self.usage {
            chunk["usage"] = Value::Null;
        }
        data(&chunk)
    }
}

fn data(value: &Value) -> Event {
    Event::default().data(value.to_string())
}
