//! Public checkpoints, whatever their spelling, as weights under this program's names.
//!
//! A [`TensorFile`] lists what a file holds and reads one tensor at a time; [`detect`] says which
//! layout its names belong to; [`split`] renames them into a [`StateMap`] for each network; the map
//! is [`StateMap::fit`] to a network's parameters, so that everything missing, left over or
//! misshapen is reported before any weight is read.

mod combine;
mod detect;
mod diffusers_config;
mod error;
mod ldm;
mod lora;
mod motion;
mod pickle;
mod safetensors_file;
mod state_map;
mod tensor_file;
mod torch_file;

pub use combine::{Checkpoint, split};
pub use detect::{Layout, MotionVersion, detect};
pub use diffusers_config::{PartConfig, part_config};
pub use error::{Difference, LayoutError, Misshapen};
pub use ldm::{single_file_text, single_file_unet, single_file_vae};
pub use lora::merge_motion_lora;
pub use motion::motion_key;
pub use safetensors_file::SafetensorsFile;
pub use state_map::StateMap;
pub use tensor_file::{MemoryFile, TensorEntry, TensorFile};
pub use torch_file::{TorchFile, open_checkpoint};
