//! Reading the embedded model.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use super::config::EmbeddedConfig;
use crate::nets::mini::{CaptionEncoder, MotionField, Plate};
use crate::nets::unet_motion::UnetMotion;
use crate::nets::{AutoencoderTiny, ClipTokenizer};
use crate::store::model_source::ModelSource;
use crate::systems::follow_your_click::AnimateError;

/// The embedded model, ready to render.
#[derive(Debug)]
pub struct Embedded {
    pub(super) config: EmbeddedConfig,
    pub(super) digest: String,
    pub(super) device: Device,
    pub(super) tokenizer: ClipTokenizer,
    pub(super) text: CaptionEncoder,
    pub(super) autoencoder: AutoencoderTiny,
    pub(super) field: MotionField,
    pub(super) plate: Plate,
    pub(super) unet: UnetMotion,
}

/// Networks of the model.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The denoiser.
    pub unet: &'a UnetMotion,
    /// Pictures to latents and back.
    pub autoencoder: &'a AutoencoderTiny,
}

impl Embedded {
    /// Reads configuration, tokenizer and all weights of `source`; arithmetic is f32.
    ///
    /// # Errors
    /// [`AnimateError::Model`] naming the file and what is wrong with it: missing, truncated, of
    /// another shape, or not a number.
    pub fn load(source: &dyn ModelSource, device: &Device) -> Result<Self, AnimateError> {
        let origin = source.origin();
        let fail = |what: &str, problem: &dyn std::fmt::Display| AnimateError::Model {
            model: origin.clone(),
            message: format!("{what}: {problem}"),
        };
        let mut hash = blake3::Hasher::new();
        let mut read = |file: &str| {
            let bytes = source.read(file).map_err(|error| fail(file, &error))?;
            hash.update(file.as_bytes()).update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
            Ok::<_, AnimateError>(bytes)
        };

        let config: EmbeddedConfig =
            serde_json::from_slice(&read("config.json")?).map_err(|error| fail("config.json", &error))?;
        if config.version != 1 {
            return Err(fail(
                "config.json",
                &format!("version {}, this Kinora reads version 1", config.version),
            ));
        }
        let merges = read(&config.files.tokenizer)?;
        let tokenizer =
            ClipTokenizer::from_bpe_file(&merges).map_err(|error| fail(&config.files.tokenizer, &error))?;

        let mut weights = |files: &[String]| -> Result<VarBuilder<'static>, AnimateError> {
            let mut tensors = HashMap::new();
            for file in files {
                let loaded = candle_core::safetensors::load_buffer(&read(file)?, &Device::Cpu)
                    .map_err(|error| fail(file, &error))?;
                for (name, tensor) in loaded {
                    let tensor =
                        finite(tensor).map_err(|problem| fail(file, &format!("{name} {problem}")))?;
                    let tensor = tensor.to_device(device)?;
                    if tensors.insert(name.clone(), tensor).is_some() {
                        return Err(fail(file, &format!("{name} is also in another shard")));
                    }
                }
            }
            Ok(VarBuilder::from_tensors(tensors, DType::F32, device))
        };
        let files = &config.files;
        let text = CaptionEncoder::new(&config.text, weights(&files.text)?).map_err(|e| fail("text", &e))?;
        let autoencoder = AutoencoderTiny::new(&config.autoencoder, weights(&files.autoencoder)?)
            .map_err(|e| fail("autoencoder", &e))?;
        let field = MotionField::new(&config.field, weights(&files.field)?).map_err(|e| fail("field", &e))?;
        let plate = Plate::new(&config.plate, weights(&files.plate)?).map_err(|e| fail("plate", &e))?;
        let unet =
            UnetMotion::new(&config.unet.to_config(), weights(&files.unet)?).map_err(|e| fail("unet", &e))?;
        if config.kinds.len() != config.text.num_kinds || config.unrecognised_column != config.kinds.len() {
            return Err(fail("config.json", &"kinds and the kind head's columns do not fit"));
        }
        let digest = hash.finalize().to_hex().to_string();
        Ok(Self { config, digest, device: device.clone(), tokenizer, text, autoencoder, field, plate, unet })
    }

    /// The two networks a render spends its time in, for benchmarks.
    pub fn parts(&self) -> Parts<'_> {
        Parts { unet: &self.unet, autoencoder: &self.autoencoder }
    }

    /// What `config.json` says.
    pub fn config(&self) -> &EmbeddedConfig {
        &self.config
    }
}

/// f32, refusing what is not a number: one such weight turns a whole clip into noise.
fn finite(tensor: Tensor) -> Result<Tensor, String> {
    let tensor = tensor.to_dtype(DType::F32).map_err(|error| error.to_string())?;
    let values = tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(|error| error.to_string())?;
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(tensor),
        Some(at) => {
            Err(format!("has {} at element {at}; expected finite numbers, fetch the file again", values[at]))
        }
    }
}
