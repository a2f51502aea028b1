//! One request to a server that speaks OpenAI's protocol, and the times at which its answer came.
//!
//! In: a prompt and the length of its answer. Out: [`Answer`] or [`Failure`].

use std::time::Duration;

use contract::http::{CHAT_COMPLETIONS, COMPLETIONS, MODELS};
use futures::StreamExt;
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::exit::chain;

/// Longest line of a stream; what a server sends beyond is no event.
const MAX_LINE_BYTES: usize = 1 << 20;
const DONE: &[u8] = b"[DONE]";

/// Where requests go.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The server, without `/v1`.
    pub url: String,
    /// Sent as a bearer token.
    pub api_key: Option<String>,
    /// The model; the first that the server lists if not given.
    pub model: Option<String>,
    /// Which of the two endpoints.
    pub endpoint: Endpoint,
    /// Fields that are added to each request, or replace those that we set.
    pub extra: Map<String, Value>,
    /// Longest that an answer may take.
    pub timeout: Duration,
}

/// The endpoint that requests go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Endpoint {
    /// `/v1/completions`: the prompt as it is.
    Completions,
    /// `/v1/chat/completions`: the prompt as a user's message.
    Chat,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The prompt.
    pub text: String,
    /// Tokens of the answer, no fewer and no more.
    pub output_tokens: u32,
}

/// An answer. Times are from sending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// When each chunk with text came.
    pub chunks: Vec<Duration>,
    /// Tokens of the prompt, as the server counts.
    pub prompt_tokens: u32,
    /// How many of them it had in its cache.
    pub cached_tokens: u32,
    /// Tokens of the answer, as the server counts; without its count, one for each chunk.
    pub output_tokens: u32,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The server refused.
    #[error("the server answered {status}: {body}")]
    Status {
        /// How.
        status: u16,
        /// The beginning of what it said.
        body: String,
    },
    /// It cannot be reached, or the answer broke off.
    #[error("the server cannot be reached or broke off: {0}")]
    Transport(String),
    /// It answered something else than tokens.
    #[error("the answer is not what the protocol says: {0}")]
    Protocol(String),
    /// The time was over, and the connection was closed.
    #[error("the answer was not there in time")]
    Cut {
        /// When each chunk came of as much of the answer as there was, from sending.
        chunks: Vec<Duration>,
        /// When it was cut.
        after: Duration,
    },
}

impl Failure {
    /// A short name to count it under.
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Self::Status { status, .. } => format!("status {status}"),
            Self::Transport(_) => "transport".to_owned(),
            Self::Protocol(_) => "protocol".to_owned(),
            Self::Cut { .. } => "cut".to_owned(),
        }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        Self::Transport(chain(&error.without_url()))
    }
}

/// A client of one server and model.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    target: Target,
    model: String,
}

impl Client {
    /// Connects, and asks for the model's name if none is given.
    ///
    /// # Errors
    /// Where the server does not say which models it has.
    pub async fn connect(target: Target) -> Result<Self, Failure> {
        // Each request has a connection of its own: a server may close one that waits for the next, and clients that
        // are not one program do not share any.
        let http = reqwest::Client::builder().timeout(target.timeout).pool_max_idle_per_host(0).build()?;
        let mut client = Self { http, model: target.model.clone().unwrap_or_default(), target };
        if client.target.model.is_none() {
            let request = client.http.get(format!("{}{MODELS}", client.target.url));
            let list = accepted(client.authorised(request).send().await?).await?.text().await?;
            let list: Value = serde_json::from_str(&list).unwrap_or_default();
            let first = list["data"][0]["id"].as_str();
            client.model = first.ok_or_else(|| Failure::Protocol("it lists no model".to_owned()))?.to_owned();
        }
        Ok(client)
    }

    /// The model that is asked.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Asks, and waits for the whole answer.
    ///
    /// # Errors
    /// Where the server refuses, breaks off, or says nothing.
    pub async fn ask(&self, question: &Question) -> Result<Answer, Failure> {
        let mut reader = Reader::default();
        self.read(question, &mut reader).await?;
        reader.finish()
    }

    /// Asks, and hangs up if the answer is not whole by then.
    ///
    /// # Errors
    /// As [`Client::ask`], and where the time was too short.
    pub async fn ask_until(&self, question: &Question, end: Instant) -> Result<Answer, Failure> {
        let (mut reader, sent) = (Reader::default(), Instant::now());
        match tokio::time::timeout_at(end, self.read(question, &mut reader)).await {
            Ok(read) => read.and_then(|()| reader.finish()),
            Err(_) => Err(Failure::Cut { chunks: reader.answer.chunks, after: sent.elapsed() }),
        }
    }

    async fn read(&self, question: &Question, reader: &mut Reader) -> Result<(), Failure> {
        let (path, body) = self.body(question);
        let request = self.http.post(format!("{}{path}", self.target.url));
        let request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        let sent = Instant::now();
        let response = accepted(self.authorised(request).send().await?).await?;
        let mut bytes = response.bytes_stream();
        while let Some(piece) = bytes.next().await {
            let piece = piece?;
            reader.read(&piece, sent.elapsed())?;
        }
        Ok(())
    }

    fn authorised(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.target.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    fn body(&self, question: &Question) -> (&'static str, Value) {
        let mut body = json!({
            "model": self.model,
            "max_tokens": question.output_tokens,
            "temperature": 0,
            "ignore_eos": true,
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        let path = match self.target.endpoint {
            Endpoint::Completions => {
                body["prompt"] = question.text.as_str().into();
                COMPLETIONS
            }
            Endpoint::Chat => {
                body["messages"] = json!([{ "role": "user", "content": question.text }]);
                CHAT_COMPLETIONS
            }
        };
        for (name, value) in &self.target.extra {
            body[name] = value.clone();
        }
        (path, body)
    }
}

async fn accepted(response: reqwest::Response) -> Result<reqwest::Response, Failure> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response);
    }
    let body = response.text().await.unwrap_or_default();
    Err(Failure::Status { status: status.as_u16(), body: body.chars().take(300).collect() })
}

/// What we look at in an event.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    text: Option<String>,
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
    role: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u32>,
}

impl Choice {
    /// Whether it stands for tokens: it has text, or it is neither the end nor the announcement of who speaks. A token
    /// may have no text of its own.
    fn is_tokens(&self) -> bool {
        let delta = self.delta.as_ref();
        let texts = [
            self.text.as_deref(),
            delta.and_then(|delta| delta.content.as_deref()),
            delta.and_then(|delta| delta.reasoning_content.as_deref()),
        ];
        let announced = delta.is_some_and(|delta| delta.role.is_some());
        texts.into_iter().flatten().any(|text| !text.is_empty())
            || (self.finish_reason.is_none() && !announced)
    }
}

/// Reads a stream of events, in whatever pieces it comes.
#[derive(Default)]
struct Reader {
    line: Vec<u8>,
    answer: Answer,
}

impl Reader {
    fn read(&mut self, piece: &[u8], at: Duration) -> Result<(), Failure> {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() > MAX_LINE_BYTES {
                return Err(Failure::Protocol("a line is too long".to_owned()));
            }
            self.line.extend(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.event(line.trim_ascii_end(), at)?;
                // The room is kept for the next line.
                self.line = line;
                self.line.clear();
            }
        }
        Ok(())
    }

    /// Comments and other fields than data mean nothing to us.
    fn event(&mut self, line: &[u8], at: Duration) -> Result<(), Failure> {
        let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii_start) else { return Ok(()) };
        if data == DONE {
            return Ok(());
        }
        let event: Event =
            serde_json::from_slice(data).map_err(|error| Failure::Protocol(error.to_string()))?;
        if let Some(error) = event.error {
            return Err(Failure::Protocol(error.to_string()));
        }
        if event.choices.iter().any(Choice::is_tokens) {
            self.answer.chunks.push(at);
        }
        if let Some(usage) = event.usage {
            self.answer.prompt_tokens = usage.prompt_tokens;
            self.answer.output_tokens = usage.completion_tokens;
            let cached = usage.prompt_tokens_details.and_then(|details| details.cached_tokens);
            self.answer.cached_tokens = cached.unwrap_or(0);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Answer, Failure> {
        if self.answer.chunks.is_empty() {
            return Err(Failure::Protocol("no token came".to_owned()));
        }
        if self.answer.output_tokens == 0 {
            self.answer.output_tokens = u32::try_from(self.answer.chunks.len()).unwrap_or(u32::MAX);
        }
        Ok(self.answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stream: &str, piece: usize) -> Result<Answer, Failure> {
        let mut reader = Reader::default();
        for (index, piece) in stream.as_bytes().chunks(piece).enumerate() {
            reader.read(piece, Duration::from_millis(index as u64))?;
        }
        reader.finish()
    }

    const CHAT: &str = concat!(
        ": queued 1\r\n\r\n",
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"a b\"},\"finish_reason\":null}],\"usage\":null}\r\n\r\n",
        "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"c\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n",
        "data:{\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4,",
        "\"prompt_tokens_details\":{\"cached_tokens\":8}}}\n\ndata: [DONE]\n\n",
    );

    #[test]
    fn only_tokens_are_timed_and_usage_counts_them() {
        for piece in [1, 7, 1000] {
            let answer = read(CHAT, piece).unwrap();
            let Answer { chunks, prompt_tokens, cached_tokens, output_tokens } = answer;
            assert_eq!((chunks.len(), prompt_tokens, cached_tokens, output_tokens), (2, 9, 8, 4));
        }
    }

    #[test]
    fn without_usage_chunks_are_counted_even_those_without_text() {
        let text = |text: &str| {
            format!("data: {{\"choices\":[{{\"text\":\"{text}\",\"finish_reason\":null}}]}}\n\n")
        };
        let end = "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n";
        let answer = read(&[text("a"), text(""), end.to_owned()].concat(), 1000).unwrap();
        assert_eq!((answer.chunks.len(), answer.output_tokens), (2, 2));
    }

    #[test]
    fn what_is_no_answer_says_why() {
        for (stream, says) in [
            ("", "no token"),
            ("data: {\"error\":{\"message\":\"full\"}}\n\n", "full"),
            ("data: {\"choices\":[\n\n", "EOF"),
        ] {
            let failure = read(stream, 1000).unwrap_err();
            assert_eq!(failure.kind(), "protocol");
            assert!(failure.to_string().contains(says), "{failure}");
        }
        let endless = "data: ".to_owned() + &"x".repeat(2 * MAX_LINE_BYTES);
        assert!(read(&endless, 4096).unwrap_err().to_string().contains("too long"));
    }
}
