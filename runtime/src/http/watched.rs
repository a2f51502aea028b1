//! Files that are read again when their content changes, as Kubernetes changes mounted secrets.
//!
//! In: paths, and what to make of their bytes. Out: the newest value that was valid.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// The newest valid value of some files.
pub type Watched<T> = watch::Receiver<Arc<T>>;

/// Why a value could not be had at first.
#[derive(Debug, thiserror::Error)]
pub enum WatchError<E: std::error::Error + 'static> {
    /// A file that cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Content that cannot be used.
    #[error(transparent)]
    Content(E),
}

/// Reads files now, and again whenever they change, until nobody looks at the value any more. What cannot be used later
/// is logged, without its content, and the value before it stays.
///
/// # Errors
/// Where there is no first value.
pub async fn watch<T, E>(
    paths: Vec<PathBuf>,
    parse: fn(&[Vec<u8>]) -> Result<T, E>,
) -> Result<Watched<T>, WatchError<E>>
where
    T: Send + Sync + 'static,
    E: std::error::Error + Send + 'static,
{
    let mut known = read(&paths).await.map_err(|(path, source)| WatchError::Read { path, source })?;
    let (sender, receiver) = watch::channel(Arc::new(parse(&known).map_err(WatchError::Content)?));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = sender.closed() => return,
            }
            let bytes = match read(&paths).await {
                Ok(bytes) if bytes == known => continue,
                Ok(bytes) => bytes,
                Err((path, error)) => {
                    refused(&path.display(), &error);
                    continue;
                }
            };
            match parse(&bytes) {
                Ok(value) => {
                    tracing::info!(file = %paths[0].display(), "read again");
                    sender.send_replace(Arc::new(value));
                }
                Err(error) => refused(&paths[0].display(), &error),
            }
            known = bytes;
        }
    });
    Ok(receiver)
}

fn refused(path: &dyn Display, error: &dyn Display) {
    tracing::warn!(file = %path, %error, "a changed file cannot be used; what it said before holds");
}

async fn read(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, (PathBuf, io::Error)> {
    let mut all = Vec::with_capacity(paths.len());
    for path in paths {
        all.push(tokio::fs::read(path).await.map_err(|error| (path.clone(), error))?);
    }
    Ok(all)
}
