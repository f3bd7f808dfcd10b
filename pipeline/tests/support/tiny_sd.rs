//! A Stable Diffusion 1.5 with motion modules in miniature, on disk as diffusers lays it out: the networks of
//! `fixtures/pipeline/*.safetensors`, with CLIP's real vocabulary in front. Shared by the tests of both crates.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};

/// Which fixture: motion modules alone, or PIA's with a first frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    AnimateDiff,
    Pia,
}

type Tensors = HashMap<String, Tensor>;

fn fixture(kind: Kind) -> Tensors {
    let name = match kind {
        Kind::AnimateDiff => "animatediff.safetensors",
        Kind::Pia => "pia.safetensors",
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let path = root.join("pipeline/tests/fixtures/pipeline").join(name);
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn part(all: &Tensors, prefix: &str) -> Tensors {
    let own =
        |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()));
    all.iter().filter_map(own).collect()
}

/// Numbers that look random and are the same every time.
fn noise(rows: usize, width: usize) -> Tensor {
    let value =
        |i: usize| ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    let values: Vec<f32> = (0..rows * width).map(value).collect();
    Tensor::from_vec(values, (rows, width), &Device::Cpu).unwrap().to_dtype(DType::F16).unwrap()
}

fn put(folder: &Path, config: &Value, name: &str, tensors: &Tensors) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    candle_core::safetensors::save(tensors, folder.join(name)).unwrap();
}

const DIFFUSION: &str = "diffusion_pytorch_model.safetensors";

/// Writes `text_encoder`, `vae` and `unet` below `root`: what `sd15` is.
pub(crate) fn write_base(root: &Path) {
    let all = fixture(Kind::AnimateDiff);
    let mut text = part(&all, "text.");
    for (end, rows) in [("token_embedding.weight", 49408), ("position_embedding.weight", 77)] {
        let name = text.keys().find(|name| name.ends_with(end)).unwrap().clone();
        text.insert(name, noise(rows, 8));
    }
    let config = json!({ "architectures": ["CLIPTextModel"], "hidden_size": 8, "intermediate_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 49408, "max_position_embeddings": 77,
        "hidden_act": "quick_gelu" });
    put(&root.join("text_encoder"), &config, "model.safetensors", &text);
    let config = json!({ "_class_name": "AutoencoderKL", "block_out_channels": [8, 8], "layers_per_block": 1,
        "norm_num_groups": 2, "latent_channels": 4 });
    put(&root.join("vae"), &config, DIFFUSION, &part(&all, "vae."));
    let mut unet = part(&all, "unet.");
    unet.retain(|name, _| !name.contains("motion_modules"));
    let config = json!({ "_class_name": "UNet2DConditionModel", "block_out_channels": [8, 8], "layers_per_block": 1,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D",
        "CrossAttnUpBlock2D"], "cross_attention_dim": 8, "norm_num_groups": 2, "attention_head_dim": 2,
        "in_channels": 4 });
    put(&root.join("unet"), &config, DIFFUSION, &unet);
}

/// Writes a motion adapter into `folder`.
pub(crate) fn write_adapter(folder: &Path, kind: Kind) {
    let mut adapter = part(&fixture(kind), "unet.");
    adapter.retain(|name, _| {
        name.contains("motion_modules") || (kind == Kind::Pia && name.starts_with("conv_in."))
    });
    let mut config = json!({ "_class_name": "MotionAdapter", "block_out_channels": [8, 8],
        "motion_layers_per_block": 1, "motion_norm_num_groups": 2, "motion_num_attention_heads": 2,
        "use_motion_mid_block": false });
    if kind == Kind::Pia {
        config["conv_in_channels"] = json!(9);
    }
    put(folder, &config, DIFFUSION, &adapter);
}

/// A whole model in one folder.
pub(crate) fn write_model(root: &Path, kind: Kind) {
    write_base(root);
    write_adapter(&root.join("motion_adapter"), kind);
}

/// Replaces one tensor of a file.
pub(crate) fn edit(file: &Path, ending: &str, change: impl FnOnce(&Tensor) -> Tensor) {
    let mut tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let name = tensors.keys().filter(|name| name.ends_with(ending)).min().unwrap().clone();
    let changed = change(&tensors[&name]);
    tensors.insert(name, changed);
    candle_core::safetensors::save(&tensors, file).unwrap();
}

/// Makes one weight of a tensor NaN.
pub(crate) fn poison(tensor: &Tensor) -> Tensor {
    let mut values: Vec<f32> = tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap();
    values[0] = f32::NAN;
    Tensor::from_vec(values, tensor.dims(), &Device::Cpu).unwrap()
}

/// Records a model's folder as fetched, as `kinora models pull` would.
pub(crate) fn record(folder: &Path, id: &str, files: &[&str]) {
    let entry = |file: &&str| {
        let bytes = std::fs::metadata(folder.join(file)).unwrap().len();
        ((*file).to_owned(), json!({ "bytes": bytes, "sha256": format!("{:064x}", bytes) }))
    };
    let files: serde_json::Map<String, Value> = files.iter().map(entry).collect();
    let lock = json!({ "kinora_model_lock": 1, "id": id, "repo": "own/er", "commit": "0".repeat(40), "files": files });
    std::fs::write(folder.join("kinora-model.lock.json"), lock.to_string()).unwrap();
}

/// Fills a model store with the miniature as `sd15`, and an adapter as `id`.
pub(crate) fn install(store: &Path, id: &str, kind: Kind) {
    let base = store.join("sd15");
    write_base(&base);
    record(
        &base,
        "sd15",
        &[
            "text_encoder/config.json",
            "text_encoder/model.safetensors",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        ],
    );
    write_adapter(&store.join(id), kind);
    record(&store.join(id), id, &["config.json", DIFFUSION]);
}
