//! Opens a model by the name a document gives it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Device;

use super::embedded::Embedded;
use super::public::{Public, Shelf};
use super::{AnimateError, Animator};
use crate::store::model_source::{FolderModel, ModelSource};
use crate::store::model_store::{ModelFiles, ModelStore};

/// Longest `config.json` looked into to tell what a folder is, bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Every model that clicks can be animated with, opened once each.
pub struct Models {
    store: ModelStore,
    device: Device,
    shelf: Arc<Shelf>,
    granted: HashMap<String, PathBuf>,
    open: Mutex<HashMap<String, Arc<dyn Animator>>>,
}

impl std::fmt::Debug for Models {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Models")
            .field("store", &self.store)
            .field("granted", &self.granted)
            .finish_non_exhaustive()
    }
}

impl Models {
    /// The models of `store`.
    pub fn new(store: ModelStore, device: &Device) -> Self {
        Self {
            store,
            device: device.clone(),
            shelf: Arc::default(),
            granted: HashMap::new(),
            open: Mutex::default(),
        }
    }

    /// Lets documents call the folder `path` by `name`: one the user named himself, outside every document.
    ///
    /// # Errors
    /// [`AnimateError::Model`] when Kinora knows another model of that name.
    pub fn grant(&mut self, name: &str, path: &Path) -> Result<(), AnimateError> {
        if name == "embedded" || self.knows(name) {
            let message =
                format!("the folder {} has the name of a model Kinora knows; rename it", path.display());
            return Err(AnimateError::Model { model: name.to_owned(), message });
        }
        self.granted.insert(name.to_owned(), path.to_path_buf());
        Ok(())
    }

    /// Whether `name` is one of the registry or a well-formed repository of the hub.
    pub fn knows(&self, name: &str) -> bool {
        self.store.registry().find(name).is_ok()
    }

    /// The model that a document calls `name`, other than the one inside Kinora. `folder` is a folder of that name the
    /// document may read; names that Kinora knows go before it, folders that the user put among the models after it.
    ///
    /// # Errors
    /// [`AnimateError::UnknownModel`] with the known names, [`AnimateError::NotInstalled`] with what to pull,
    /// [`AnimateError::Model`] naming the file and what is wrong with it.
    pub fn open(&self, name: &str, folder: Option<&Path>) -> Result<Arc<dyn Animator>, AnimateError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // A document's folder may hold a folder of the same name as another's.
        let key = format!("{name}\0{}", folder.map(|path| path.display().to_string()).unwrap_or_default());
        if let Some(found) = open.get(&key) {
            return Ok(Arc::clone(found));
        }
        let found = self.find(name, folder)?;
        open.insert(key, Arc::clone(&found));
        Ok(found)
    }

    fn find(&self, name: &str, folder: Option<&Path>) -> Result<Arc<dyn Animator>, AnimateError> {
        if let Some(path) = self.granted.get(name) {
            return self.folder(&ModelFiles::local(name, path, false));
        }
        if self.knows(name) {
            return Ok(Arc::new(Public::open(&self.store, name, &self.device, &self.shelf)?));
        }
        if let Some(path) = folder {
            return self.folder(&ModelFiles::local(name, path, true));
        }
        if let Some(files) = self.store.own_folder(name) {
            return self.folder(&files);
        }
        let known: Vec<&str> = self.store.registry().models().iter().map(|model| model.id.as_str()).collect();
        Err(AnimateError::UnknownModel { model: name.to_owned(), known: known.join(", ") })
    }

    /// A folder in the embedded model's layout or in a public checkpoint's.
    fn folder(&self, files: &ModelFiles) -> Result<Arc<dyn Animator>, AnimateError> {
        let source = FolderModel::new(&files.root).contained(files.contained);
        if is_embedded(&files.root, &source) {
            return Ok(Arc::new(Embedded::load(&source, &self.device)?));
        }
        let folders = std::slice::from_ref(files);
        Ok(Arc::new(Public::open_folders(&self.store, &files.id, folders, &self.device, &self.shelf)?))
    }
}

/// Whether the folder's `config.json` lists the files of a model of Kinora's own.
fn is_embedded(root: &Path, source: &FolderModel) -> bool {
    let small = std::fs::metadata(root.join("config.json")).is_ok_and(|meta| meta.len() <= MAX_CONFIG_BYTES);
    small
        && source
            .read("config.json")
            .ok()
            .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
            .is_some_and(|config| config.get("files").is_some() && config.get("_class_name").is_none())
}
