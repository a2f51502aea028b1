//! A watch that passes through the proxy, event by event.
//!
//! In: the API server's stream, and the rule of the moment. Out: a stream. It must not know who watches what.

use futures::{Stream, StreamExt, stream};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Frame};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::proxy::{Dropped, Rules};
use super::rule::{Answer, Asked, OnEvent};

/// Events that may wait for a reader.
const QUEUE: usize = 64;

type Sender = mpsc::Sender<Result<Frame<Bytes>, Dropped>>;

/// Passes a watch through, each event as the rule of its moment says.
pub(super) fn through(
    body: Body,
    asked: Asked,
    rules: Rules,
) -> impl Stream<Item = Result<Frame<Bytes>, Dropped>> + Send {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let closed = sender.clone();
        tokio::select! {
            () = pass(body, &asked, rules, sender) => {}
            // Who watched has gone, perhaps while an event was held.
            () = closed.closed() => {}
        }
    });
    stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

async fn pass(mut body: Body, asked: &Asked, mut rules: Rules, out: Sender) {
    let (mut lines, mut before) = (Lines::default(), Vec::new());
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = rules.changed() => {
                if one(None, asked, &mut rules, (&before, &out)).await.is_none() {
                    return;
                }
                continue;
            }
        };
        let Some(Ok(frame)) = frame else { return };
        let Ok(data) = frame.into_data() else { continue };
        for line in lines.push(&data) {
            if one(Some(line.clone()), asked, &mut rules, (&before, &out)).await.is_none() {
                return;
            }
            before.push(line);
        }
    }
}

/// Passes one event on, in the way that the rule says; none when that ends the watch.
async fn one(
    line: Option<Bytes>,
    asked: &Asked,
    rules: &mut Rules,
    (before, out): (&[Bytes], &Sender),
) -> Option<()> {
    let event: Option<Value> = line.as_ref().and_then(|line| serde_json::from_slice(line).ok());
    let send = async |line: Bytes| out.send(Ok(Frame::data(line))).await.ok();
    loop {
        match rules.event(asked, event.as_ref()) {
            OnEvent::Hold => rules.changed().await,
            OnEvent::Lose => return Some(()),
            OnEvent::Gone => {
                let object = Answer::new(410, "Expired").body();
                send(format!("{}\n", json!({ "type": "ERROR", "object": object })).into()).await?;
                return None;
            }
            OnEvent::Replay => {
                for line in before.iter().chain(&line) {
                    send(line.clone()).await?;
                }
                return Some(());
            }
            OnEvent::Cut => {
                let half = |mut line: Bytes| line.split_to(line.len() / 2);
                send(half(line.unwrap_or_default())).await?;
                return None;
            }
            OnEvent::Drop => {
                out.send(Err(Dropped)).await.ok()?;
                return None;
            }
            action @ (OnEvent::Pass | OnEvent::Repeat(_)) => {
                let times = if let OnEvent::Repeat(times) = action { times } else { 1 };
                let mut copies = stream::iter(line.iter().cycle().take(line.iter().len() * times));
                while let Some(line) = copies.next().await {
                    send(line.clone()).await?;
                }
                return Some(());
            }
        }
    }
}

/// Cuts a stream into lines, each with its end.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, data: &[u8]) -> Vec<Bytes> {
        self.0.extend_from_slice(data);
        let end = self.0.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.0.drain(..end).collect();
        whole.split_inclusive(|byte| *byte == b'\n').map(Bytes::copy_from_slice).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_come_in_pieces_or_together_are_told_apart() {
        let mut lines = Lines::default();
        assert!(lines.push(b"{\"a\":").is_empty());
        assert_eq!(lines.push(b"1}\n{}\n{\"b\""), ["{\"a\":1}\n", "{}\n"]);
        assert_eq!(lines.push(b":2}\n"), ["{\"b\":2}\n"]);
    }
}
