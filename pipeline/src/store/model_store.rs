//! Models on this machine: listing, fetching, verifying, removing, and finding them by name.

mod lock;
mod pull;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use lock::LOCK_FILE;

use lock::{Lock, read_lock};

use super::atomic::AtomicError;
use super::hub::{HubError, HubOptions, sha256_of};
use super::registry::{Registry, RegistryError, RegistryModel, is_contained};

/// Why a model could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ModelStoreError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Hub(#[from] HubError),
    #[error(transparent)]
    Write(#[from] AtomicError),
    #[error("model {id} is not on this machine; fetch it with `kinora models pull {id}`")]
    Absent { id: String },
    #[error("model {id} is incomplete: {file} is missing; fetch the rest with `kinora models pull {id}`")]
    Incomplete { id: String, file: String },
    #[error("{} is not a valid record of a model: {what}; remove the model and fetch it again", path.display())]
    Lock { path: PathBuf, what: String },
    #[error("{} has no file {file:?}", root.display())]
    NoFile { root: PathBuf, file: String },
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
}

/// How much of a model is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    Absent,
    /// Some files, or a download that was cut.
    Partial,
    Present,
}

/// One line of [`ModelStore::list`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelStatus {
    pub id: String,
    pub title: String,
    pub repo: String,
    pub licence: String,
    pub needs: Vec<String>,
    pub presence: Presence,
    /// Bytes on this disk.
    pub bytes: u64,
}

/// A model whose files are all here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFiles {
    pub id: String,
    pub root: PathBuf,
    /// Models this one is an addition to.
    pub needs: Vec<String>,
    /// Recorded SHA-256 by path; empty for a local folder, which has no record.
    pub digests: BTreeMap<String, String>,
    /// Links that lead out of the folder are not followed: a document chose it, not the user.
    pub contained: bool,
}

impl ModelFiles {
    /// A folder of weights without a record, called `id` in messages.
    pub fn local(id: &str, root: &Path, contained: bool) -> Self {
        Self {
            id: id.to_owned(),
            root: root.to_path_buf(),
            needs: Vec::new(),
            digests: BTreeMap::new(),
            contained,
        }
    }

    /// The file at a path of the repository.
    ///
    /// # Errors
    /// [`ModelStoreError::NoFile`] for a file that is not there or a path that would leave the model's folder.
    pub fn path(&self, file: &str) -> Result<PathBuf, ModelStoreError> {
        let path = self.root.join(file);
        if is_contained(file) && path.is_file() {
            return Ok(path);
        }
        Err(ModelStoreError::NoFile { root: self.root.clone(), file: file.to_owned() })
    }
}

/// What [`ModelStore::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    pub id: String,
    pub sound: Vec<String>,
    /// File and what is wrong with it.
    pub damaged: Vec<(String, String)>,
}

/// The models below one folder.
#[derive(Debug)]
pub struct ModelStore {
    root: PathBuf,
    options: HubOptions,
    registry: Registry,
}

impl ModelStore {
    /// The models below `root` with the shipped registry. Touches neither disk nor network.
    ///
    /// # Errors
    /// None in a tested build.
    pub fn new(root: &Path, options: HubOptions) -> Result<Self, ModelStoreError> {
        Ok(Self::with_registry(root, options, Registry::shipped()?))
    }

    /// Like [`ModelStore::new`] with a registry of the caller.
    pub fn with_registry(root: &Path, options: HubOptions, registry: Registry) -> Self {
        Self { root: root.to_path_buf(), options, registry }
    }

    /// `KINORA_MODELS`, else the user's data folder.
    pub fn default_root() -> PathBuf {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        set("KINORA_MODELS")
            .or_else(|| set("XDG_DATA_HOME").map(|folder| folder.join("kinora/models")))
            .or_else(|| set("HOME").map(|folder| folder.join(".local/share/kinora/models")))
            .unwrap_or_else(|| PathBuf::from("kinora-models"))
    }

    /// The models of the registry, then those of the hub that were fetched by name.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn list(&self) -> Result<Vec<ModelStatus>, ModelStoreError> {
        let mut models = self.registry.models().to_vec();
        for lock in self.locks()? {
            if lock.id.starts_with("hub:") {
                models.extend(self.registry.find(&lock.id));
            }
        }
        models.iter().map(|model| self.status(model)).collect()
    }

    fn locks(&self) -> Result<Vec<Lock>, ModelStoreError> {
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(ModelStoreError::Io { action: "list", path: self.root.clone(), source });
            }
        };
        let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        folders.sort();
        // A record that cannot be read belongs to a model that `verify` and `pull` will name.
        Ok(folders.iter().filter_map(|folder| read_lock(folder).ok().flatten()).collect())
    }

    fn folder(&self, model: &RegistryModel) -> PathBuf {
        self.root.join(model.folder_name())
    }

    fn status(&self, model: &RegistryModel) -> Result<ModelStatus, ModelStoreError> {
        let folder = self.folder(model);
        let bytes = size_of_folder(&folder);
        let presence = match self.complete(model) {
            Ok(_) => Presence::Present,
            Err(_) if bytes > 0 => Presence::Partial,
            Err(_) => Presence::Absent,
        };
        Ok(ModelStatus {
            id: model.id.clone(),
            title: model.title.clone(),
            repo: model.repo.clone(),
            licence: model.licence.clone(),
            needs: model.needs.clone(),
            presence,
            bytes,
        })
    }

    /// The record of a model whose files all exist with the recorded length.
    fn complete(&self, model: &RegistryModel) -> Result<Lock, ModelStoreError> {
        let folder = self.folder(model);
        let lock = read_lock(&folder)?.ok_or_else(|| ModelStoreError::Absent { id: model.id.clone() })?;
        let listed = model.files.iter().map(|file| &file.path);
        for path in lock.files.keys().chain(listed) {
            let found = std::fs::metadata(folder.join(path)).ok().map(|metadata| metadata.len());
            if found.is_none() || found != lock.files.get(path).map(|file| file.bytes) {
                return Err(ModelStoreError::Incomplete { id: model.id.clone(), file: path.clone() });
            }
        }
        Ok(lock)
    }

    /// Reads every file of a model and compares length and SHA-256 with what the first download recorded.
    ///
    /// # Errors
    /// A model that is not here or has no readable record.
    pub fn verify(&self, id: &str) -> Result<VerifyReport, ModelStoreError> {
        let model = self.registry.find(id)?;
        let folder = self.folder(&model);
        let lock = read_lock(&folder)?.ok_or_else(|| ModelStoreError::Absent { id: id.to_owned() })?;
        let mut report = VerifyReport { id: id.to_owned(), sound: Vec::new(), damaged: Vec::new() };
        for (path, file) in &lock.files {
            let found = std::fs::metadata(folder.join(path)).map(|metadata| metadata.len());
            let wrong = match found {
                Err(_) => Some("is missing".to_owned()),
                Ok(found) if found != file.bytes => {
                    Some(format!("has {found} bytes, recorded are {}", file.bytes))
                }
                Ok(_) => {
                    let found = sha256_of(&folder.join(path))?;
                    (found != file.sha256)
                        .then(|| format!("has SHA-256 {found}, recorded is {}", file.sha256))
                }
            };
            match wrong {
                Some(what) => report.damaged.push((path.clone(), what)),
                None => report.sound.push(path.clone()),
            }
        }
        let unrecorded = model.files.iter().filter(|file| !lock.files.contains_key(&file.path));
        report.damaged.extend(unrecorded.map(|file| (file.path.clone(), "was never fetched".to_owned())));
        Ok(report)
    }

    /// Deletes a model from this machine; returns the bytes freed. Folders of the user are never deleted.
    ///
    /// # Errors
    /// A model that is not here, or a file system that refuses.
    pub fn remove(&self, id: &str) -> Result<u64, ModelStoreError> {
        let folder = self.folder(&self.registry.find(id)?);
        let bytes = size_of_folder(&folder);
        match std::fs::remove_dir_all(&folder) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(ModelStoreError::Absent { id: id.to_owned() })
            }
            Err(source) => Err(ModelStoreError::Io { action: "remove", path: folder, source }),
        }
    }

    /// The files of a model that is here: of the registry, of the hub, or a local folder. Never uses the network.
    ///
    /// # Errors
    /// An unknown name, or a model that is absent or incomplete.
    pub fn resolve(&self, id: &str) -> Result<ModelFiles, ModelStoreError> {
        if let Some(files) = local_folder(id) {
            return Ok(files);
        }
        let model = self.registry.find(id)?;
        let lock = self.complete(&model)?;
        let digests = lock.files.into_iter().map(|(path, file)| (path, file.sha256)).collect();
        let root = self.folder(&model);
        Ok(ModelFiles { id: id.to_owned(), root, needs: model.needs, digests, contained: false })
    }

    /// A model that is here with those it is an addition to, bases first. Never uses the network.
    ///
    /// # Errors
    /// As [`Self::resolve`]; what is missing of a base is reported under the name asked for, because that is what to
    /// pull.
    pub fn resolve_with_bases(&self, id: &str) -> Result<Vec<ModelFiles>, ModelStoreError> {
        let model = self.resolve(id)?;
        let mut all = Vec::with_capacity(model.needs.len() + 1);
        for need in &model.needs {
            all.push(self.resolve(need).map_err(|error| match error {
                ModelStoreError::Absent { .. } => ModelStoreError::Absent { id: id.to_owned() },
                ModelStoreError::Incomplete { file, .. } => {
                    ModelStoreError::Incomplete { id: id.to_owned(), file: format!("{need}/{file}") }
                }
                other => other,
            })?);
        }
        all.push(model);
        Ok(all)
    }

    /// A folder of that plain name that the user put among the models, such as a checkpoint of his own.
    pub fn own_folder(&self, name: &str) -> Option<ModelFiles> {
        let plain = is_contained(name) && !name.contains('/');
        let root = self.root.join(name);
        (plain && root.is_dir()).then(|| ModelFiles::local(name, &root, false))
    }

    /// The models known by name.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

fn local_folder(id: &str) -> Option<ModelFiles> {
    let is_path = id.starts_with(['.', '/', '~']) || (id.contains(['/', '\\']) && !id.starts_with("hub:"));
    let root = PathBuf::from(id);
    (is_path && root.is_dir()).then(|| ModelFiles::local(id, &root, false))
}

fn size_of_folder(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => size_of_folder(&entry.path()),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |metadata| metadata.len()),
        _ => 0,
    };
    entries.flatten().map(size).sum()
}
