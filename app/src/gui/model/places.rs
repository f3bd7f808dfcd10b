//! Where the window keeps what is not a document: settings, journals, unsaved work.

use std::path::{Path, PathBuf};

use kinora_pipeline::store::cache::Cache;
use kinora_pipeline::store::model_store::ModelStore;

/// The folders of one user; tests give their own.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Settings.
    pub(crate) config: PathBuf,
    /// Journals, unsaved projects, kept versions, the job queue.
    pub(crate) state: PathBuf,
    /// Results of nodes.
    pub(crate) cache: PathBuf,
    /// Fetched models.
    pub(crate) models: PathBuf,
}

impl Places {
    /// `$XDG_CONFIG_HOME`, `$XDG_STATE_HOME` and the usual cache folder, or what stands in for
    /// them on other systems.
    pub(crate) fn usual() -> Self {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = |below: &str| var("HOME").map(|home| home.join(below));
        let fallback = || std::env::temp_dir().join("kinora-window");
        let config = var("XDG_CONFIG_HOME")
            .or_else(|| var("APPDATA"))
            .or_else(|| home(".config"))
            .map_or_else(fallback, |folder| folder.join("kinora"));
        let state = var("XDG_STATE_HOME")
            .or_else(|| var("LOCALAPPDATA"))
            .or_else(|| home(".local/state"))
            .map_or_else(fallback, |folder| folder.join("kinora"));
        Self { config, state, cache: Cache::usual_folder(), models: ModelStore::default_root() }
    }

    /// Everything below one folder.
    #[cfg(test)]
    pub(crate) fn below(root: &Path) -> Self {
        let [config, state, cache, models] =
            ["config", "state", "cache", "models"].map(|name| root.join(name));
        Self { config, state, cache, models }
    }

    /// The settings file.
    pub(crate) fn settings(&self) -> PathBuf {
        self.config.join("window.json")
    }

    /// The folder of journals.
    pub(crate) fn journals(&self) -> PathBuf {
        self.state.join("journals")
    }

    /// The folder projects live in until they are saved.
    pub(crate) fn untitled(&self) -> PathBuf {
        self.state.join("untitled")
    }

    /// The folder of the job queue.
    pub(crate) fn queue(&self) -> PathBuf {
        self.state.join("queue")
    }

    /// Kept versions of the document at `path`.
    pub(crate) fn versions(&self, path: &Path) -> PathBuf {
        let name = blake3_of(path);
        self.state.join("versions").join(name)
    }
}

/// A short name for a path that is the same in every process.
fn blake3_of(path: &Path) -> String {
    let key = kinora_pipeline::store::cache::CacheKey::of(path.as_os_str().as_encoded_bytes());
    key.hex().chars().take(24).collect()
}

/// Seconds since 1970, 0 for a clock before that.
pub(crate) fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
