//! An answer as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;

use super::answers::Answers;
use super::generation::Part;
use super::render::Render;

struct Streaming {
    answers: Answers,
    render: Box<dyn Render>,
    /// Events that are ready to go.
    ready: VecDeque<Event>,
    ended: bool,
}

/// Streams an answer; the client's going away drops it, and so cancels the request.
pub(super) fn stream(answers: Answers, mut render: Box<dyn Render>) -> Response {
    let ready = render.begin(answers.n(), answers.prompt_tokens()).into();
    let state = Streaming { answers, render, ready, ended: false };
    let events = stream::unfold(state, |mut state| async {
        let event = state.next().await?;
        Some((Ok::<_, Infallible>(event), state))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

impl Streaming {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            let events = match self.answers.next().await {
                Some((_, Part::Failed(error))) => {
                    self.ended = true;
                    self.render.failed(&error)
                }
                // A comment, which clients skip: only people and proxies want to know.
                Some((_, Part::Queued(ahead))) => vec![Event::default().comment(format!("queued {ahead}"))],
                Some((index, part)) => self.render.part(index, part),
                None => {
                    self.ended = true;
                    self.render.end(self.answers.usage())
                }
            };
            self.ready.extend(events);
        }
    }
}
