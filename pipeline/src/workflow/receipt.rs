//! `<output>.receipt.json`: what made an output, so that it can be made again.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::context::RunError;
use crate::media::MediaError;
use crate::store::atomic::write_file;
use crate::store::cache::CacheKey;

/// Version of the receipt format.
const VERSION: u32 = 1;
/// The longest receipt believed, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// What made one output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Version of this format.
    pub receipt: u32,
    /// Version of Kinora.
    pub kinora: String,
    /// Operating system and processor family.
    pub platform: String,
    /// Device and arithmetic; part of the nodes' keys.
    pub numeric: String,
    /// Threads it ran with, for the times below; results do not depend on it.
    #[serde(default)]
    pub threads: usize,
    /// The output.
    pub output: ReceiptOutput,
    /// The node that wrote it.
    pub node: String,
    /// The document's folder, relative to the receipt where it can be.
    pub folder: PathBuf,
    /// The document with its replaced parameters.
    pub document: Value,
    /// The nodes behind the output, in the order they ran.
    pub nodes: Vec<ReceiptNode>,
    /// When the job began, seconds since 1970.
    pub started: u64,
    /// Seconds it took.
    pub seconds: f64,
}

/// The output as it was put in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptOutput {
    /// Its file name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Digest of its bytes.
    pub blake3: String,
    /// Pictures in it.
    pub frames: usize,
    /// Digest of the pixels given to the encoder.
    pub pixels: String,
}

/// One node behind an output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReceiptNode {
    /// Its name.
    pub node: String,
    /// Its op.
    pub op: String,
    /// Version of the op.
    pub version: u32,
    /// Hash over everything its result depends on.
    pub key: CacheKey,
    /// Seconds it took; 0 when cached.
    pub seconds: f64,
    /// Whether its result was known already.
    pub cached: bool,
    /// Digest of the file it read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Digest of its model's weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Kernels that made its result, in this run or the one that left it in the cache, as `attention flash avx512`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<String>,
    /// What the user was told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// The receipt's place beside its output.
pub fn receipt_path(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_os_string();
    name.push(".receipt.json");
    output.with_file_name(name)
}

impl Receipt {
    pub(super) const VERSION: u32 = VERSION;

    /// Reads a receipt.
    ///
    /// # Errors
    /// No such file, too large, not a receipt, or one of a newer Kinora.
    pub fn read(path: &Path) -> Result<Self, RunError> {
        let wrong = |what: String| RunError::input(format!("{}: {what}", path.display()));
        let unreadable = |source| MediaError::Read { path: path.to_path_buf(), source };
        let meta = path.metadata().map_err(unreadable)?;
        if !meta.is_file() || meta.len() > MAX_BYTES {
            return Err(wrong(format!(
                "expected a receipt of at most {MAX_BYTES} bytes, found {}",
                meta.len()
            )));
        }
        let bytes = std::fs::read(path).map_err(unreadable)?;
        let text = String::from_utf8(bytes).map_err(|_| wrong("expected a receipt, found no text".into()))?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|error| wrong(format!("expected a receipt, found {error}")))?;
        match value.get("receipt").and_then(Value::as_u64) {
            Some(version) if version > u64::from(VERSION) => {
                let what = format!("expected receipt version {VERSION}, found {version}; update Kinora");
                return Err(wrong(what));
            }
            _ => {}
        }
        serde_path_to_error::deserialize(value)
            .map_err(|error| wrong(format!("expected a receipt; at {}: {}", error.path(), error.inner())))
    }

    /// Puts the receipt beside the output `output`.
    pub(super) fn write(&self, output: &Path) -> Result<(), RunError> {
        let text = serde_json::to_string_pretty(self).map_err(|error| RunError::bug(error.to_string()))?;
        Ok(write_file(&receipt_path(output), (text + "\n").as_bytes(), true)?)
    }

    /// The key of the node that wrote the output.
    pub fn key(&self) -> Option<&CacheKey> {
        self.nodes.iter().find(|node| node.node == self.node).map(|node| &node.key)
    }
}

/// `to` as seen from the folder `from`, both absolute; `to` itself when they share nothing.
pub(super) fn relative(from: &Path, to: &Path) -> PathBuf {
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    if shared < 2 {
        return to.to_path_buf();
    }
    let up = from.components().skip(shared).map(|_| "..");
    let path: PathBuf =
        up.map(PathBuf::from).chain(to.components().skip(shared).map(|c| c.as_os_str().into())).collect();
    if path.as_os_str().is_empty() { PathBuf::from(".") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_lead_back() {
        let r = |from: &str, to: &str| relative(Path::new(from), Path::new(to));
        assert_eq!(r("/a/b/out", "/a/b"), Path::new(".."));
        assert_eq!(r("/a/b", "/a/b"), Path::new("."));
        assert_eq!(r("/a/x/y", "/a/b/c"), Path::new("../../b/c"));
        assert_eq!(r("/tmp/out", "/home/me"), Path::new("/home/me"));
    }
}
