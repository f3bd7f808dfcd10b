//! Work that must not hold the window up, each on a thread of its own.

pub(crate) mod dialogs;
pub(crate) mod forecast;
pub(crate) mod images;
pub(crate) mod masks;
pub(crate) mod pictures;
pub(crate) mod player;
pub(crate) mod runner;
pub(crate) mod worker;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use candle_core::Device;

use crate::engines::Machinery;

/// Tells the window that there is something new to show.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

/// The models, loaded once and shared by every thread.
#[derive(Default)]
pub(crate) struct Shop {
    // One folder at a time: models named by a folder lie beside their document.
    current: Mutex<Option<(PathBuf, Arc<Machinery>)>>,
}

impl Shop {
    /// The machinery for documents in `folder`. Loads nothing by itself.
    pub(crate) fn machinery(&self, folder: &Path) -> Arc<Machinery> {
        // A poisoned lock only costs loading a model again.
        let mut current = self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((known, machinery)) = current.as_ref()
            && known == folder
        {
            return Arc::clone(machinery);
        }
        let machinery = Arc::new(Machinery::new(Device::Cpu, folder));
        *current = Some((folder.to_path_buf(), Arc::clone(&machinery)));
        machinery
    }
}

impl std::fmt::Debug for Shop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shop")
    }
}
