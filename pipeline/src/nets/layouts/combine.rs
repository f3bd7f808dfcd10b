//! From files to the weights of each network.

use std::sync::Arc;

use super::detect::{Layout, MotionVersion, detect};
use super::error::{LayoutError, Result};
use super::ldm::{modern_vae, single_file_text, single_file_unet, single_file_vae};
use super::motion::{motion_key, unwrapped};
use super::state_map::StateMap;
use super::tensor_file::TensorFile;
use crate::nets::unet_motion::UnetMotionConfig;

/// What the files given so far hold, a map for each network.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The UNet, with motion modules if any file had them.
    pub unet: StateMap,
    /// The autoencoder.
    pub vae: StateMap,
    /// The text encoder.
    pub text: StateMap,
    /// The configuration the UNet's names call for.
    pub config: UnetMotionConfig,
    /// Names no network knows, for a message.
    pub unknown: Vec<String>,
    motion: Option<MotionVersion>,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self {
            unet: StateMap::default(),
            vae: StateMap::default(),
            text: StateMap::default(),
            config: UnetMotionConfig::sd15(),
            unknown: Vec::new(),
            motion: None,
        }
    }
}

/// One file's names, renamed; [`Checkpoint::add`] for several.
///
/// # Errors
/// [`LayoutError::Unknown`]; [`LayoutError::Lora`] for a MotionLoRA, which needs motion modules
/// first.
pub fn split(file: Arc<dyn TensorFile>) -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint::default();
    checkpoint.add(file)?;
    Ok(checkpoint)
}

impl Checkpoint {
    /// Nothing yet, for a base network of this configuration (SD1.5 by default).
    pub fn new(config: UnetMotionConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Takes what `file` holds: base first, then motion modules or an adapter. A PIA adapter's
    /// `conv_in` continues the base's.
    ///
    /// # Errors
    /// As [`split`].
    pub fn add(&mut self, file: Arc<dyn TensorFile>) -> Result<Layout> {
        let layout = detect(file.as_ref())?;
        let mut unet = StateMap::default();
        for key in file.entries().keys() {
            let name = unwrapped(key);
            match layout {
                Layout::SingleFile => self.add_single_file(name, key, &file),
                Layout::DiffusersVae => self.vae.insert(modern_vae(name), &file, key),
                Layout::Text => {
                    if let Some(name) = single_file_text(name) {
                        self.text.insert(name, &file, key);
                    }
                }
                _ => {
                    if let Some(name) = motion_key(name) {
                        unet.insert(name, &file, key);
                    }
                }
            }
        }
        match layout {
            Layout::SingleFile | Layout::DiffusersVae | Layout::Text => {}
            Layout::DiffusersUnet => self.unet.overlay(unet),
            Layout::Motion(version) => self.add_motion(unet, version),
            Layout::Pia(version) => {
                self.unet.continue_input("conv_in.weight", &unet);
                // diffusers keeps the base's bias too, so that any SD1.5 model can be the base.
                let base_has_bias = self.unet.shape_of("conv_in.bias").is_some();
                unet.retain(|name| name != "conv_in.weight" && !(base_has_bias && name == "conv_in.bias"));
                self.config.in_channels =
                    self.unet.shape_of("conv_in.weight").and_then(|s| s.get(1).copied()).unwrap_or(9);
                self.add_motion(unet, version);
            }
            Layout::VideoUnet { motion, in_channels, strength, fps } => {
                self.config.in_channels = in_channels;
                self.config.strength_embedding = strength;
                self.config.fps_embedding = fps;
                self.add_motion(unet, motion);
            }
            Layout::MotionLora => {
                let problem =
                    "is a low-rank update: load motion modules first, then merge_motion_lora".to_owned();
                return Err(LayoutError::Lora { name: file.label().to_owned(), problem });
            }
        }
        Ok(layout)
    }

    /// The motion modules' version, if a file had any.
    pub fn motion(&self) -> Option<MotionVersion> {
        self.motion
    }

    /// The UNet's weights in exactly the shapes of [`Self::config`].
    ///
    /// # Errors
    /// [`LayoutError::Mismatch`] with everything missing, left over or misshapen.
    pub fn fitted_unet(&self) -> Result<StateMap> {
        let parameters = self.config.parameters().map_err(candle_core::Error::wrap)?;
        self.unet.clone().fit(&parameters)
    }

    fn add_motion(&mut self, unet: StateMap, version: MotionVersion) {
        self.motion = Some(version);
        self.config = version.apply(&self.config);
        self.unet.overlay(unet);
    }

    fn add_single_file(&mut self, name: &str, key: &str, file: &Arc<dyn TensorFile>) {
        let (map, name) = if let Some(rest) = name.strip_prefix("model.diffusion_model.") {
            (&mut self.unet, single_file_unet(rest))
        } else if let Some(rest) = name.strip_prefix("first_stage_model.") {
            if rest.starts_with("loss.") {
                return;
            }
            (&mut self.vae, single_file_vae(rest))
        } else if let Some(rest) = name.strip_prefix("cond_stage_model.transformer.") {
            if rest.ends_with("position_ids") {
                return;
            }
            (&mut self.text, single_file_text(rest))
        } else {
            if !is_training_state(name) {
                self.unknown.push(key.to_owned());
            }
            return;
        };
        match name {
            Some(name) => map.insert(name, file, key),
            None => self.unknown.push(key.to_owned()),
        }
    }
}

/// Schedules and averages that single files carry and rendering never reads.
fn is_training_state(key: &str) -> bool {
    const SCHEDULE: [&str; 6] =
        ["alphas_cumprod", "sqrt_", "log_one_minus", "posterior_", "betas", "lvlb_weights"];
    key.starts_with("model_ema.") || key == "logvar" || SCHEDULE.iter().any(|prefix| key.starts_with(prefix))
}
