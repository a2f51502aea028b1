//! A checkpoint on disk: which file holds the weights, what its header says, what stands beside it.
//!
//! In: a path from outside, whose content is hostile until proved otherwise. Out: [`Checkpoint`], whose header and
//! geometry have passed every check of `contract`.
//! It must not read weights.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use contract::exit::ExitReason;
use contract::geometry::{GeometryError, ModelGeometry};
use contract::header::{Header, HeaderError, gguf, safetensors};
use contract::inspect::Format;
use serde_json::Value as Json;

/// Weights of a safetensors checkpoint.
pub const SAFETENSORS_FILE: &str = "model.safetensors";
/// Geometry of a safetensors checkpoint.
pub const CONFIG_FILE: &str = "config.json";
/// What else of a safetensors checkpoint is read where it is there.
pub const COMPANIONS: [&str; 4] =
    ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"];
/// How a checkpoint for vectors pools its states, as `sentence-transformers` has it.
pub const POOLING_FILE: &str = "1_Pooling/config.json";
/// Longest JSON or template file that is read: the largest published tokenizers have some 40 MB.
const MAX_COMPANION_BYTES: u64 = 128 << 20;
/// First guess of a header's length.
const FIRST_READ: u64 = 1 << 20;
/// Longest header that is read.
const MAX_HEADER_BYTES: u64 = 256 << 20;

/// Files of one model.
#[derive(Debug)]
pub struct Checkpoint {
    /// Container format.
    pub format: Format,
    /// Folder that the files are in.
    pub root: PathBuf,
    /// Names of all files in the folder that the model consists of, in order.
    pub files: Vec<String>,
    /// The file with the weights.
    pub weights: PathBuf,
    /// Its header.
    pub header: Header,
    /// `config.json`; absent for GGUF, which has metadata instead.
    pub config: Option<Json>,
    /// Shape of the model.
    pub geometry: ModelGeometry,
}

/// Why a path is no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: String,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Nothing at that path.
    #[error("there is no {path}; beside it there is {beside}")]
    Missing {
        /// Where something should be.
        path: String,
        /// What is in its folder.
        beside: String,
    },
    /// Neither a file nor a folder, or something else where a file should be.
    #[error("{0} is not a regular file")]
    NotAFile(String),
    /// A folder without a model, or with several.
    #[error("{found}; a checkpoint is one .gguf file, or {CONFIG_FILE} and {SAFETENSORS_FILE}")]
    Ambiguous {
        /// What was found.
        found: String,
    },
    /// A header that is not accepted.
    #[error("{file} is not accepted")]
    Header {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: HeaderError,
    },
    /// Larger than anything published.
    #[error("{file} is larger than the {limit} bytes that are read of it")]
    TooLarge {
        /// The file.
        file: String,
        /// The most that is read.
        limit: u64,
    },
    /// A JSON file that is none.
    #[error("{file} is not valid JSON")]
    Json {
        /// The file.
        file: String,
        /// Where it breaks.
        #[source]
        source: serde_json::Error,
    },
    /// A shape that cannot be served.
    #[error("the model cannot be served")]
    Geometry(#[from] GeometryError),
}

impl CheckpointError {
    /// The reason that this stands for.
    #[must_use]
    pub fn reason(&self) -> ExitReason {
        match self {
            Self::Geometry(GeometryError::Family { .. }) => ExitReason::ModelUnsupported,
            Self::Header { source: HeaderError::Format { .. } | HeaderError::Version(_), .. } => {
                ExitReason::ModelUnsupported
            }
            Self::Missing { .. } => ExitReason::SourceUnavailable,
            Self::Io { source, .. } if source.kind() != io::ErrorKind::NotFound => ExitReason::VolumeFailed,
            _ => ExitReason::WeightsCorrupt,
        }
    }
}

impl Checkpoint {
    /// Opens a GGUF file, or a folder with one checkpoint in it.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let metadata = fs::metadata(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(path),
            _ => io_error(path)(error),
        })?;
        if metadata.is_dir() {
            return Self::folder(path);
        }
        let root = path.parent().unwrap_or_else(|| Path::new(".")).to_owned();
        Self::gguf(root, name_of(path))
    }

    fn folder(root: &Path) -> Result<Self, CheckpointError> {
        let names = visible_names(root)?;
        let ending = |suffix: &str| names.iter().filter(|n| n.ends_with(suffix)).cloned().collect::<Vec<_>>();
        let (mut ggufs, tensors) = (ending(".gguf"), ending(".safetensors"));
        let has_config = names.iter().any(|n| n == CONFIG_FILE);
        match (ggufs.len(), tensors.as_slice()) {
            (1, []) => Self::gguf(root.to_owned(), ggufs.remove(0)),
            (0, [only]) if only == SAFETENSORS_FILE && has_config => {
                Self::safetensors(root.to_owned(), &names)
            }
            (n_gguf, _) => {
                let config = if has_config { "with" } else { "without" };
                let n = tensors.len();
                let found = format!(
                    "the folder holds {n_gguf} .gguf files and {n} .safetensors files {config} {CONFIG_FILE}"
                );
                Err(CheckpointError::Ambiguous { found })
            }
        }
    }

    fn gguf(root: PathBuf, name: String) -> Result<Self, CheckpointError> {
        let weights = root.join(&name);
        let header = header(&weights, gguf::parse)?;
        let geometry = ModelGeometry::from_gguf(&header.metadata)?;
        Ok(Self { format: Format::Gguf, root, files: vec![name], weights, header, config: None, geometry })
    }

    fn safetensors(root: PathBuf, names: &[String]) -> Result<Self, CheckpointError> {
        let weights = root.join(SAFETENSORS_FILE);
        let config = json(&root.join(CONFIG_FILE))?;
        let geometry = ModelGeometry::from_config(&config)?;
        let header = header(&weights, safetensors::parse)?;
        let of_the_model = |name: &String| {
            [SAFETENSORS_FILE, CONFIG_FILE].contains(&name.as_str()) || COMPANIONS.contains(&name.as_str())
        };
        let pooling = root.join(POOLING_FILE).is_file().then(|| POOLING_FILE.to_owned());
        let mut files: Vec<_> = names.iter().filter(|n| of_the_model(n)).cloned().chain(pooling).collect();
        files.sort();
        let format = Format::Safetensors;
        Ok(Self { format, root, files, weights, header, config: Some(config), geometry })
    }

    /// A JSON file beside the weights, if it is there.
    pub fn companion_json(&self, name: &str) -> Result<Option<Json>, CheckpointError> {
        if self.files.iter().any(|f| f == name) { json(&self.root.join(name)).map(Some) } else { Ok(None) }
    }

    /// A text file beside the weights, if it is there.
    pub fn companion_text(&self, name: &str) -> Result<Option<String>, CheckpointError> {
        if self.files.iter().any(|f| f == name) { text(&self.root.join(name)).map(Some) } else { Ok(None) }
    }
}

/// Names of the visible files directly in a folder, in order.
fn visible_names(root: &Path) -> Result<Vec<String>, CheckpointError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root).map_err(io_error(root))? {
        let name = entry.map_err(io_error(root))?.file_name();
        names.extend(name.into_string().ok().filter(|n| !n.starts_with('.')));
    }
    names.sort();
    Ok(names)
}

/// Reads as much of a file as its header needs.
fn header(
    path: &Path,
    parse: fn(&[u8], u64) -> Result<Header, HeaderError>,
) -> Result<Header, CheckpointError> {
    let (mut file, length) = open_regular(path)?;
    let mut bytes = Vec::new();
    let mut want = FIRST_READ;
    loop {
        let more = want.min(length) - bytes.len() as u64;
        let read = file.by_ref().take(more).read_to_end(&mut bytes).map_err(io_error(path))?;
        // A file that shrinks while it is read must not keep the loop going.
        let length = if (read as u64) < more { bytes.len() as u64 } else { length };
        match parse(&bytes, length) {
            Ok(header) => return Ok(header),
            Err(HeaderError::NeedMore { need, .. }) if need <= MAX_HEADER_BYTES => {
                want = need.max(2 * want).min(MAX_HEADER_BYTES);
            }
            Err(HeaderError::NeedMore { .. }) => {
                return Err(CheckpointError::TooLarge { file: name_of(path), limit: MAX_HEADER_BYTES });
            }
            Err(source) => return Err(CheckpointError::Header { file: name_of(path), source }),
        }
    }
}

/// Opens what must be a regular file: opening a pipe would wait for a writer that never comes.
fn open_regular(path: &Path) -> Result<(File, u64), CheckpointError> {
    let metadata = fs::metadata(path).map_err(io_error(path))?;
    if !metadata.is_file() {
        return Err(CheckpointError::NotAFile(name_of(path)));
    }
    Ok((File::open(path).map_err(io_error(path))?, metadata.len()))
}

fn text(path: &Path) -> Result<String, CheckpointError> {
    let (file, length) = open_regular(path)?;
    if length > MAX_COMPANION_BYTES {
        return Err(CheckpointError::TooLarge { file: name_of(path), limit: MAX_COMPANION_BYTES });
    }
    let mut text = String::new();
    file.take(MAX_COMPANION_BYTES).read_to_string(&mut text).map_err(io_error(path))?;
    Ok(text)
}

fn json(path: &Path) -> Result<Json, CheckpointError> {
    serde_json::from_str(&text(path)?).map_err(|source| CheckpointError::Json { file: name_of(path), source })
}

/// Messages name files as the user does: without the folder that a job happens to have them in.
fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Most names that a message lists.
const LISTED: usize = 8;

fn missing(path: &Path) -> CheckpointError {
    let names = path.parent().and_then(|folder| visible_names(folder).ok()).unwrap_or_default();
    let mut beside = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => beside.push_str("nothing"),
        n if n > LISTED => beside.push_str(&format!(" and {} more", n - LISTED)),
        _ => {}
    }
    CheckpointError::Missing { path: path.display().to_string(), beside }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.display().to_string();
    move |source| CheckpointError::Io { path, source }
}

#[cfg(test)]
mod tests;
