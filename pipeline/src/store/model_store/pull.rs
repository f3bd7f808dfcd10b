//! Fetching a model, or what is missing of it.

use std::collections::BTreeMap;

use super::lock::{Lock, LockedFile, read_lock, write_lock};
use super::{ModelFiles, ModelStore, ModelStoreError, local_folder};
use crate::progress::{Event, Progress};
use crate::store::hub::{Fetched, Hub, HubError, RemoteFile};
use crate::store::registry::RegistryModel;

impl ModelStore {
    /// Fetches a model and those it needs; files that are here and recorded are not fetched again.
    ///
    /// # Errors
    /// An unknown name, or anything that stops the download; what was fetched is kept for the next call.
    pub fn pull(&self, id: &str, progress: &dyn Progress) -> Result<ModelFiles, ModelStoreError> {
        if let Some(files) = local_folder(id) {
            return Ok(files);
        }
        let model = self.registry.find(id)?;
        for need in &model.needs {
            self.pull(need, progress)?;
        }
        match self.complete(&model) {
            Ok(_) => return self.resolve(id),
            Err(error @ ModelStoreError::Lock { .. }) => return Err(error),
            Err(_) => self.fetch(&model, progress)?,
        }
        self.resolve(id)
    }

    fn fetch(&self, model: &RegistryModel, progress: &dyn Progress) -> Result<(), ModelStoreError> {
        let folder = self.folder(model);
        let before = read_lock(&folder)?;
        let hub = Hub::new(self.options.clone())?;
        // Files already here came from one commit; the rest must come from the same.
        let revision = before.as_ref().map_or(&model.revision, |lock| &lock.commit);
        let repo = hub.repo(&model.repo, revision, progress)?;
        let remote = if model.files.is_empty() {
            repo.list(progress)?
        } else {
            let paths: Vec<String> = model.files.iter().map(|file| file.path.clone()).collect();
            repo.describe(&paths, progress)?
        };
        if remote.is_empty() {
            return Err(
                HubError::NotFound { what: format!("safetensors or JSON file in {}", model.repo) }.into()
            );
        }
        let mut lock = before.unwrap_or_else(|| Lock {
            kinora_model_lock: 1,
            id: model.id.clone(),
            repo: model.repo.clone(),
            commit: repo.commit().to_owned(),
            files: BTreeMap::new(),
        });
        for mut file in remote {
            let dest = folder.join(&file.path);
            let recorded = lock.files.get(&file.path).cloned();
            expect(model, &mut file, recorded.as_ref())?;
            if recorded.is_some_and(|r| std::fs::metadata(&dest).is_ok_and(|m| m.len() == r.bytes)) {
                continue;
            }
            if let Some(parent) = dest.parent() {
                std::fs::create_dir_all(parent).map_err(|source| ModelStoreError::Io {
                    action: "create",
                    path: parent.to_path_buf(),
                    source,
                })?;
            }
            let Fetched { bytes, sha256 } = repo.fetch(&file, &dest, &model.id, progress)?;
            lock.files.insert(file.path.clone(), LockedFile { bytes, sha256 });
            // After every file, so that a cut between two leaves a record of the first.
            write_lock(&folder, &lock)?;
        }
        let message = format!("licence of {}: {}", model.repo, model.licence);
        progress.event(Event::Notice { node: model.id.clone(), message });
        Ok(())
    }
}

/// Puts what is known of a file into its description, or refuses one that has changed.
fn expect(
    model: &RegistryModel,
    file: &mut RemoteFile,
    recorded: Option<&LockedFile>,
) -> Result<(), ModelStoreError> {
    let listed = model.files.iter().find(|listed| listed.path == file.path);
    let bytes = recorded.map(|r| r.bytes).or(listed.and_then(|listed| listed.bytes));
    if let Some(expected) = bytes
        && expected != file.bytes
    {
        return Err(HubError::Size { file: file.path.clone(), expected, found: file.bytes }.into());
    }
    let known =
        recorded.map(|r| r.sha256.clone()).or_else(|| listed.and_then(|listed| listed.sha256.clone()));
    file.sha256 = known.or(file.sha256.take());
    Ok(())
}
