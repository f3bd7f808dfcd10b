//! Work that must not hold the window up, each on a thread of its own.

pub(crate) mod dialogs;
pub(crate) mod forecast;
pub(crate) mod images;
pub(crate) mod masks;
pub(crate) mod moving;
pub(crate) mod opener;
pub(crate) mod pictures;
pub(crate) mod player;
pub(crate) mod runner;
pub(crate) mod share;
pub(crate) mod sound;
pub(crate) mod waves;
pub(crate) mod worker;

use std::sync::{Arc, Mutex};

use candle_core::Device;
use kinora_pipeline::store::model_store::ModelStore;

use crate::engines::Machinery;

/// Tells the window that there is something new to show.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

/// The models, loaded once and shared by every thread.
#[derive(Default)]
pub(crate) struct Shop {
    machinery: Mutex<Option<Arc<Machinery>>>,
}

impl Shop {
    /// The machinery, made on first use. Loads no model by itself.
    pub(crate) fn machinery(&self) -> Result<Arc<Machinery>, String> {
        // A poisoned lock only costs loading a model again.
        let mut made = self.machinery.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(machinery) = made.as_ref() {
            return Ok(Arc::clone(machinery));
        }
        let machinery = Machinery::new(Device::Cpu, &ModelStore::default_root());
        let machinery = Arc::new(machinery.map_err(|failure| failure.render())?);
        *made = Some(Arc::clone(&machinery));
        Ok(machinery)
    }
}

impl std::fmt::Debug for Shop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shop")
    }
}
