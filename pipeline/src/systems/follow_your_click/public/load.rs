//! A public checkpoint that can render: described at once, its weights read for the first clip.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device};

use super::files::{CheckpointFiles, store_error};
use super::options::PublicOptions;
use crate::nets::layouts::StateMap;
use crate::nets::{
    AutoencoderKl, AutoencoderKlConfig, ClipText, ClipTextConfig, ClipTokenizer, UnetMotion, UnetMotionConfig,
};
use crate::store::model_store::{ModelFiles, ModelStore};
use crate::systems::follow_your_click::AnimateError;

/// CLIP's own vocabulary, the one of every Stable Diffusion 1 checkpoint.
const VOCABULARY: &[u8] =
    include_bytes!("../../../../../assets/models/kinora-mini/bpe_simple_vocab_16e6.txt.gz");

/// The networks of a checkpoint.
#[derive(Debug)]
pub struct PublicParts {
    pub text: ClipText,
    pub vae: AutoencoderKl,
    pub unet: UnetMotion,
}

/// What the networks are, without their weights.
#[derive(Debug, Clone)]
pub(super) struct Blueprint {
    pub(super) text: ClipTextConfig,
    pub(super) vae: AutoencoderKlConfig,
    pub(super) unet: UnetMotionConfig,
    /// Weights in all networks.
    pub(super) parameters: usize,
}

/// Room for the weights of one checkpoint, shared by all that are open: two Stable Diffusions at once would need the
/// memory of two.
#[derive(Debug, Default)]
pub struct Shelf(Mutex<Option<(String, Arc<PublicParts>)>>);

impl Shelf {
    fn get(
        &self,
        digest: &str,
        load: impl FnOnce() -> Result<PublicParts, AnimateError>,
    ) -> Result<Arc<PublicParts>, AnimateError> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, parts)) = &*place
            && of == digest
        {
            return Ok(Arc::clone(parts));
        }
        // The old weights go before the new ones come.
        *place = None;
        let parts = Arc::new(load()?);
        *place = Some((digest.to_owned(), Arc::clone(&parts)));
        Ok(parts)
    }
}

/// Where the weights are.
#[derive(Debug)]
enum Weights {
    Loaded(Arc<PublicParts>),
    Files { files: Box<CheckpointFiles>, shelf: Arc<Shelf> },
}

/// A public checkpoint.
#[derive(Debug)]
pub struct Public {
    pub(super) name: String,
    pub(super) digest: String,
    pub(super) tokenizer: ClipTokenizer,
    pub(super) blueprint: Blueprint,
    pub(super) options: PublicOptions,
    pub(super) device: Device,
    weights: Weights,
}

impl Public {
    /// A checkpoint whose networks the caller has built; `digest` must change with any weight.
    ///
    /// # Errors
    /// None in a tested build: the vocabulary is compiled in.
    pub fn new(
        name: &str,
        digest: &str,
        parts: PublicParts,
        options: PublicOptions,
        device: &Device,
    ) -> Result<Self, AnimateError> {
        let blueprint = Blueprint {
            text: parts.text.config().clone(),
            vae: parts.vae.config().clone(),
            unet: parts.unet.config().clone(),
            parameters: 0,
        };
        Ok(Self {
            name: name.to_owned(),
            digest: digest.to_owned(),
            tokenizer: tokenizer(name)?,
            blueprint,
            options,
            device: device.clone(),
            weights: Weights::Loaded(Arc::new(parts)),
        })
    }

    /// Opens a model of the registry or the hub with the base it needs. Never uses the network; reads no weights yet.
    ///
    /// # Errors
    /// [`AnimateError::UnknownModel`], [`AnimateError::NotInstalled`], or as [`Self::open_folders`].
    pub fn open(
        store: &ModelStore,
        id: &str,
        device: &Device,
        shelf: &Arc<Shelf>,
    ) -> Result<Self, AnimateError> {
        let folders = store.resolve_with_bases(id).map_err(|error| store_error(id, error))?;
        Self::open_folders(store, id, &folders, device, shelf)
    }

    /// Opens the model made of `folders`, bases first. Networks compute in f16 on a CUDA card, in f32 elsewhere; sampling
    /// is f32 on both.
    ///
    /// # Errors
    /// [`AnimateError::Model`] naming the file and what is missing, left over or misshapen;
    /// [`AnimateError::NotInstalled`] when it is an addition to a base that is not here.
    pub fn open_folders(
        store: &ModelStore,
        id: &str,
        folders: &[ModelFiles],
        device: &Device,
        shelf: &Arc<Shelf>,
    ) -> Result<Self, AnimateError> {
        let files = CheckpointFiles::open(id, folders, store)?;
        let blueprint = Blueprint {
            text: files.text_config.clone(),
            vae: files.vae_config.clone(),
            unet: files.unet_config.clone(),
            parameters: files.parameters(),
        };
        Ok(Self {
            name: id.to_owned(),
            digest: files.digest.clone(),
            tokenizer: tokenizer(id)?,
            options: PublicOptions::of(&blueprint.unet),
            blueprint,
            device: device.clone(),
            weights: Weights::Files { files: Box::new(files), shelf: Arc::clone(shelf) },
        })
    }

    /// How it is sampled where a job does not say.
    pub fn options(&self) -> &PublicOptions {
        &self.options
    }

    /// Changes how it is sampled, for renders from now on.
    pub fn options_mut(&mut self) -> &mut PublicOptions {
        &mut self.options
    }

    /// Its networks, read from their files if they are not in memory.
    ///
    /// # Errors
    /// [`AnimateError::Model`] naming the weight and the file: not a number, or of another shape than its
    /// `config.json` says.
    pub fn parts(&self) -> Result<Arc<PublicParts>, AnimateError> {
        match &self.weights {
            Weights::Loaded(parts) => Ok(Arc::clone(parts)),
            Weights::Files { files, shelf } => shelf.get(&self.digest, || self.load(files)),
        }
    }

    fn load(&self, files: &CheckpointFiles) -> Result<PublicParts, AnimateError> {
        // A card's matrix units take f16, which is what checkpoints are published in; a processor computes in f32.
        let dtype = if self.device.is_cuda() { DType::F16 } else { DType::F32 };
        let builder = |map: &StateMap| map.clone().into_var_builder(dtype, &self.device);
        let fail = |part: &str, error: &dyn std::fmt::Display| self.model_error(&format!("{part}: {error}"));
        let text = ClipText::new(&files.text_config, builder(&files.text));
        let vae = AutoencoderKl::new(&files.vae_config, builder(&files.vae));
        let unet = UnetMotion::new(&files.unet_config, builder(&files.unet));
        Ok(PublicParts {
            text: text.map_err(|error| fail("text encoder", &error))?,
            vae: vae.map_err(|error| fail("autoencoder", &error))?,
            unet: unet.map_err(|error| fail("UNet", &error))?,
        })
    }

    pub(super) fn model_error(&self, error: &dyn std::fmt::Display) -> AnimateError {
        AnimateError::Model { model: self.name.clone(), message: error.to_string() }
    }
}

fn tokenizer(model: &str) -> Result<ClipTokenizer, AnimateError> {
    ClipTokenizer::from_bpe_file(VOCABULARY)
        .map_err(|error| AnimateError::Model { model: model.to_owned(), message: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::hub::HubOptions;

    #[test]
    fn what_is_not_here_is_told_apart_from_what_nobody_knows() {
        let folder = tempfile::tempdir().unwrap();
        let store = ModelStore::new(folder.path(), HubOptions::default()).unwrap();
        let shelf = Arc::new(Shelf::default());
        let open = |id: &str| Public::open(&store, id, &Device::Cpu, &shelf).unwrap_err();
        for id in ["animatediff-v2", "pia", "hub:own/er@v1"] {
            let error = open(id);
            assert!(matches!(error, AnimateError::NotInstalled { .. }), "{error}");
            assert!(error.to_string().contains(&format!("`kinora models pull {id}`")), "{error}");
        }
        let error = open("animatedif-v2");
        assert!(matches!(error, AnimateError::UnknownModel { .. }), "{error}");
        assert!(error.to_string().contains("animatediff-v2"), "{error}");
    }
}
