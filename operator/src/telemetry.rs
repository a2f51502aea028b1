//! Log lines on standard error.
//!
//! In: the format, and `RUST_LOG` from the environment. Out: a global subscriber.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::TryInitError;

use crate::args::LogFormat;

/// What is logged when `RUST_LOG` says nothing. The client's own errors come back to us as values.
const DEFAULT_FILTER: &str = "info,kube_client=off";

/// Starts logging.
///
/// # Errors
/// When it was started before.
pub fn init(format: LogFormat) -> Result<(), TryInitError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    }
}

/// An error and everything that caused it, on one line. Errors are printed once, where they end.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their source in their own words.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot apply")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_whole_chain_is_printed() {
        assert_eq!(chain(&Outer(std::io::Error::other("no route"))), "cannot apply: no route");
    }
}
