//! One watch, for ever: listed, followed, and begun again after trouble, with pauses that grow.
//!
//! In: what to watch. Out: events and errors, without end. It must not know what is done with them.

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Config, DefaultBackoff, Error, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// HTTP status for history that the API server no longer has.
const GONE: u16 = 410;

/// Follows what the API server has of a kind.
///
/// Unlike the library's own pauses these grow while lists fail: that a list is begun is no success.
pub(super) fn follow<K>(api: Api<K>, config: Config) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let begin = move || watcher(api.clone(), config.clone()).boxed();
    let state = State { events: begin(), backoff: DefaultBackoff::default(), pause: None };
    stream::unfold((state, begin), |(mut state, begin)| async move {
        if let Some(pause) = state.pause.take() {
            tokio::time::sleep(pause).await;
        }
        let event = state.events.next().await?;
        match &event {
            Ok(Event::Init) => {}
            Ok(_) => state.backoff.reset(),
            Err(error) => {
                state.pause = state.backoff.next();
                if is_gone(error) {
                    state.events = begin();
                }
            }
        }
        Some((event, (state, begin)))
    })
}

struct State<K: 'static> {
    events: BoxStream<'static, watcher::Result<Event<K>>>,
    backoff: DefaultBackoff,
    pause: Option<Duration>,
}

/// Whether a watch cannot go on from where it was. The library knows this only where the API server says so within the
/// watch, and would otherwise ask for the same for ever.
fn is_gone(error: &Error) -> bool {
    matches!(error, Error::WatchStartFailed(kube::Error::Api(status)) if status.code == GONE)
}
