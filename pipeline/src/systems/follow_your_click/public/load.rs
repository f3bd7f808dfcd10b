//! Reading a public checkpoint from the files of a model and of the base it needs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};
use serde::de::DeserializeOwned;

use super::options::PublicOptions;
use crate::nets::layouts::{Checkpoint, Layout, SafetensorsFile, TensorFile, detect, merge_motion_lora};
use crate::nets::{AutoencoderKl, AutoencoderKlConfig, ClipText, ClipTextConfig, ClipTokenizer, UnetMotion};
use crate::store::model_store::{ModelFiles, ModelStore};
use crate::systems::follow_your_click::AnimateError;

/// CLIP's own vocabulary, the one of every Stable Diffusion 1 checkpoint.
const VOCABULARY: &[u8] =
    include_bytes!("../../../../../assets/models/kinora-mini/bpe_simple_vocab_16e6.txt.gz");
/// Where diffusers keeps the parts of a model.
const PARTS: [&str; 5] = ["", "text_encoder", "vae", "unet", "motion_adapter"];

/// The networks of a checkpoint.
#[derive(Debug)]
pub struct PublicParts {
    pub tokenizer: ClipTokenizer,
    pub text: ClipText,
    pub vae: AutoencoderKl,
    pub unet: UnetMotion,
}

/// A public checkpoint, ready to render.
#[derive(Debug)]
pub struct Public {
    pub(super) name: String,
    pub(super) digest: String,
    pub(super) parts: PublicParts,
    pub(super) options: PublicOptions,
    pub(super) device: Device,
}

impl Public {
    /// A checkpoint whose networks the caller has built; `digest` must change with any weight.
    pub fn new(
        name: &str,
        digest: &str,
        parts: PublicParts,
        options: PublicOptions,
        device: &Device,
    ) -> Self {
        Self { name: name.to_owned(), digest: digest.to_owned(), parts, options, device: device.clone() }
    }

    /// Reads a model of the store with the base it needs; arithmetic is f32. `options` overrides what the
    /// network's parts call for.
    ///
    /// # Errors
    /// [`AnimateError::Model`] naming the file and what is missing, left over, misshapen or not a number.
    pub fn load(
        store: &ModelStore,
        id: &str,
        device: &Device,
        options: Option<PublicOptions>,
    ) -> Result<Self, AnimateError> {
        let fail = |problem: &dyn std::fmt::Display| AnimateError::Model {
            model: id.to_owned(),
            message: problem.to_string(),
        };
        let model = store.resolve(id).map_err(|error| fail(&error))?;
        let mut folders = Vec::new();
        for need in &model.needs {
            folders.push(store.resolve(need).map_err(|error| fail(&error))?);
        }
        folders.push(model);

        let mut hash = blake3::Hasher::new();
        let mut files: Vec<(u8, Arc<dyn TensorFile>)> = Vec::new();
        for folder in &folders {
            for path in weight_files(&folder.root) {
                digest_file(&mut hash, folder, &path)
                    .map_err(|error| fail(&format!("{}: {error}", path.display())))?;
                let file: Arc<dyn TensorFile> =
                    Arc::new(SafetensorsFile::open(&path).map_err(|error| fail(&error))?);
                let layout = detect(file.as_ref()).map_err(|error| fail(&error))?;
                files.push((order(&layout), file));
            }
        }
        // Stable: within a rank the base's files stay before the model's own.
        files.sort_by_key(|(rank, _)| *rank);
        let mut checkpoint = Checkpoint::default();
        for (rank, file) in files {
            if rank == LORA {
                merge_motion_lora(&mut checkpoint.unet, &file, 1.0).map_err(|error| fail(&error))?;
            } else {
                checkpoint.add(file).map_err(|error| fail(&error))?;
            }
        }
        for (part, map) in
            [("text encoder", &checkpoint.text), ("autoencoder", &checkpoint.vae), ("UNet", &checkpoint.unet)]
        {
            if map.is_empty() {
                return Err(fail(&format!(
                    "no file has a {part}; expected a Stable Diffusion 1.5 model as one file or in the folders \
                     text_encoder, vae and unet"
                )));
            }
        }
        if checkpoint.motion().is_none() {
            return Err(fail(
                &"it has no motion modules; choose a model with AnimateDiff, PIA or Follow-Your-Click weights",
            ));
        }

        let text_config: ClipTextConfig = part_config(&folders, "text_encoder").map_err(|e| fail(&e))?;
        let vae_config: AutoencoderKlConfig = part_config(&folders, "vae").map_err(|e| fail(&e))?;
        let unet_weights = checkpoint.fitted_unet().map_err(|error| fail(&error))?;
        let builder = |map: crate::nets::layouts::StateMap| map.into_var_builder(DType::F32, device);
        let unet =
            UnetMotion::new(&checkpoint.config, builder(unet_weights)).map_err(|error| fail(&error))?;
        let text = ClipText::new(&text_config, builder(checkpoint.text)).map_err(|error| fail(&error))?;
        let vae = AutoencoderKl::new(&vae_config, builder(checkpoint.vae)).map_err(|error| fail(&error))?;
        let tokenizer = ClipTokenizer::from_bpe_file(VOCABULARY).map_err(|error| fail(&error))?;
        let options = options.unwrap_or_else(|| PublicOptions::of(unet.config()));
        let digest = hash.finalize().to_hex().to_string();
        Ok(Self::new(id, &digest, PublicParts { tokenizer, text, vae, unet }, options, device))
    }

    /// How it is sampled.
    pub fn options(&self) -> &PublicOptions {
        &self.options
    }

    /// Changes how it is sampled, for renders from now on.
    pub fn options_mut(&mut self) -> &mut PublicOptions {
        &mut self.options
    }

    /// Its networks.
    pub fn parts(&self) -> &PublicParts {
        &self.parts
    }
}

const LORA: u8 = 2;

/// Bases first, then what extends them, then low-rank updates.
fn order(layout: &Layout) -> u8 {
    match layout {
        Layout::SingleFile | Layout::DiffusersUnet | Layout::DiffusersVae | Layout::Text => 0,
        Layout::Motion(_) | Layout::Pia(_) | Layout::VideoUnet { .. } => 1,
        Layout::MotionLora => LORA,
    }
}

/// The weights in a model's folder and in the folders of its parts, in order of name.
fn weight_files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for part in PARTS {
        let Ok(entries) = std::fs::read_dir(root.join(part)) else { continue };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|e| e == "safetensors") && path.is_file());
        files.sort();
        found.extend(files);
    }
    found
}

/// The recorded digest of a fetched file, the contents of a local one.
fn digest_file(hash: &mut blake3::Hasher, folder: &ModelFiles, path: &Path) -> std::io::Result<()> {
    let relative = path.strip_prefix(&folder.root).unwrap_or(path).to_string_lossy().replace('\\', "/");
    match folder.digests.get(&relative) {
        Some(digest) => drop(hash.update(digest.as_bytes())),
        None => drop(hash.update_reader(File::open(path)?)?),
    }
    hash.update(relative.as_bytes());
    Ok(())
}

/// A part's `config.json`, the last folder's that has one; Stable Diffusion 1.5's without.
fn part_config<T: DeserializeOwned + Default>(folders: &[ModelFiles], part: &str) -> Result<T, String> {
    let paths = folders.iter().rev().map(|folder| folder.root.join(part).join("config.json"));
    let Some(path) = paths.into_iter().find(|path| path.is_file()) else { return Ok(T::default()) };
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::hub::HubOptions;

    #[test]
    fn a_folder_without_the_parts_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = ModelStore::new(folder.path(), HubOptions::default()).unwrap();
        let load = |id: &str| Public::load(&store, id, &Device::Cpu, None).unwrap_err().to_string();
        assert!(load("sd15").contains("kinora models pull sd15"));
        let id = folder.path().to_str().unwrap();
        assert!(load(id).contains("text encoder"), "{}", load(id));
        std::fs::write(folder.path().join("model.safetensors"), [1u8; 5]).unwrap();
        assert!(load(id).contains("model.safetensors"), "{}", load(id));
    }
}
