//! The models compiled into the binary, so that it needs no files beside it.

use std::sync::LazyLock;

use kinora_pipeline::store::model_source::MemoryModel;

macro_rules! files {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../assets/models/", $folder, "/", $name)) as &[u8])),+]
    };
}

/// Follow-Your-Click at 256×256 × 16 frames.
pub(crate) static KINORA_MINI: LazyLock<MemoryModel> =
    LazyLock::new(|| MemoryModel::new("kinora-mini", KINORA_MINI_FILES));

const KINORA_MINI_FILES: &[(&str, &[u8])] = files!("kinora-mini":
    "config.json",
    "prompts.json",
    "bpe_simple_vocab_16e6.txt.gz",
    "text.safetensors",
    "field.safetensors",
    "plate.safetensors",
    "autoencoder.safetensors",
    "unet-00001-of-00003.safetensors",
    "unet-00002-of-00003.safetensors",
    "unet-00003-of-00003.safetensors",
);

/// Bytes of the embedded model's files.
#[cfg(feature = "gui")]
pub(crate) fn kinora_mini_bytes() -> u64 {
    KINORA_MINI_FILES.iter().map(|(_, bytes)| bytes.len() as u64).sum()
}

/// The salient object of a picture.
pub(crate) static U2NETP: LazyLock<MemoryModel> =
    LazyLock::new(|| MemoryModel::new("u2netp", files!("u2netp": "config.json", "u2netp.safetensors")));
