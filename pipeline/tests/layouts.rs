//! Public checkpoints' full-size key lists, consumed exactly, and small files of every spelling.
//!
//! Lists come from `reference/layouts.py` and `reference/full_size_keys.py`; no weights of full size are ever allocated.
// Test helpers outside #[test] functions may fail loudly too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::type_complexity
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kinora_pipeline::nets::layouts::{
    Checkpoint, Layout, LayoutError, MemoryFile, SafetensorsFile, TensorFile, TorchFile, detect,
    merge_motion_lora, open_checkpoint, split,
};
use kinora_pipeline::nets::unet_motion::{
    MotionConfig, Parameters, PerLevel, UnetMotion, UnetMotionConfig, UnetMotionInput,
};

fn shapes(name: &str) -> Parameters {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/layouts/{name}.txt"));
    let text = std::fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let (name, shape) = line.split_once(' ').unwrap();
        let shape = shape.split('x').filter(|&n| n != "scalar").map(|n| n.parse().unwrap()).collect();
        (name.to_owned(), shape)
    };
    text.lines().map(line).collect()
}

fn listing(name: &str) -> Arc<dyn TensorFile> {
    Arc::new(MemoryFile::listing(format!("{name}.txt"), shapes(name)))
}

fn checkpoint(names: &[&str]) -> Checkpoint {
    let mut checkpoint = Checkpoint::default();
    for name in names {
        checkpoint.add(listing(name)).unwrap();
    }
    assert_eq!(checkpoint.unknown, Vec::<String>::new());
    checkpoint
}

/// Adds the files, fits the UNet, and returns the configuration they called for.
fn consumed(names: &[&str]) -> UnetMotionConfig {
    let checkpoint = checkpoint(names);
    let fitted = checkpoint.fitted_unet().unwrap();
    assert_eq!(fitted.parameters(), checkpoint.config.parameters().unwrap());
    checkpoint.config
}

#[test]
fn the_lists_are_the_published_sizes() {
    let count =
        |name: &str| shapes(name).values().map(|shape| shape.iter().product::<usize>()).sum::<usize>();
    assert_eq!(count("sd15_unet"), 859_520_964);
    assert_eq!(count("sd15_vae"), 83_653_863);
    assert_eq!(count("sd15_text_encoder"), 123_060_480);
}

#[test]
fn sd15_unet_is_consumed_exactly() {
    assert_eq!(consumed(&["sd15_unet"]), UnetMotionConfig::sd15());
}

#[test]
fn sd15_single_file_gives_all_three_networks_exactly() {
    let file = checkpoint(&["sd15_single_file"]);
    assert_eq!(file.fitted_unet().unwrap().parameters(), shapes("sd15_unet"));
    assert_eq!(file.vae.fit(&shapes("sd15_vae")).unwrap().parameters(), shapes("sd15_vae"));
    assert_eq!(
        file.text.fit(&shapes("sd15_text_encoder")).unwrap().parameters(),
        shapes("sd15_text_encoder")
    );
}

#[test]
fn both_spellings_of_the_autoencoder_are_the_same_network() {
    for name in ["sd15_vae", "sd15_vae_old_names"] {
        assert_eq!(checkpoint(&[name]).vae.parameters(), shapes("sd15_vae"));
    }
}

#[test]
fn animatediff_versions_are_told_apart_and_consumed_exactly() {
    let v1 = UnetMotionConfig::animatediff_v1();
    let cases =
        [("v1", v1), ("v2", UnetMotionConfig::animatediff_v2()), ("v3", UnetMotionConfig::animatediff_v3())];
    for (version, expected) in cases {
        for spelling in ["animatediff", "motion_adapter"] {
            let config = consumed(&["sd15_unet", &format!("{spelling}_{version}")]);
            assert_eq!(config, expected, "{spelling}_{version}");
        }
        consumed(&["sd15_single_file", &format!("animatediff_{version}")]);
    }
}

#[test]
fn a_whole_video_unet_of_diffusers_is_consumed_exactly() {
    assert_eq!(consumed(&["unet_motion_v2"]), UnetMotionConfig::animatediff_v2());
}

#[test]
fn pia_in_both_spellings_is_consumed_exactly() {
    for adapter in ["pia_adapter", "pia_original"] {
        assert_eq!(consumed(&["sd15_unet", adapter]), UnetMotionConfig::pia(), "{adapter}");
    }
}

#[test]
fn the_expected_follow_your_click_union_is_consumed_exactly() {
    assert_eq!(consumed(&["follow_your_click"]), UnetMotionConfig::follow_your_click(false));
    assert_eq!(consumed(&["follow_your_click_phrase"]), UnetMotionConfig::follow_your_click(true));
}

#[test]
fn a_v2_file_in_a_v1_network_is_refused_unless_the_mid_module_is_dropped() {
    let mut both = checkpoint(&["sd15_unet", "animatediff_v2"]);
    both.config.motion.as_mut().unwrap().mid = false;
    match both.fitted_unet() {
        Err(LayoutError::Mismatch(difference)) => {
            assert_eq!(difference.left_over.len(), 26);
            assert!(difference.missing.is_empty() && difference.misshapen.is_empty());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(both.unet.retain(|name| !name.contains("mid_block.motion_modules")), 26);
    both.fitted_unet().unwrap();
}

#[test]
fn a_difference_names_what_was_expected_and_found() {
    let mut tensors = shapes("sd15_unet");
    tensors.insert("conv_in.weight".into(), vec![320, 9, 3, 3]);
    tensors.insert("surprise.weight".into(), vec![1]);
    tensors.remove("conv_out.bias");
    let file = Arc::new(MemoryFile::listing("broken.safetensors", tensors));
    let message = split(file).unwrap().fitted_unet().unwrap_err().to_string();
    for part in [
        "expected [320, 4, 3, 3] at conv_in.weight, found [320, 9, 3, 3] f16 in broken.safetensors",
        "missing conv_out.bias [4]",
        "left over surprise.weight",
        "in all 1 misshapen, 1 missing, 1 left over",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn unknown_names_are_refused_with_the_first_one() {
    let file: Arc<dyn TensorFile> =
        Arc::new(MemoryFile::listing("x.safetensors", [("foo.weight".to_owned(), vec![2])]));
    let message = split(file).unwrap_err().to_string();
    assert!(message.contains("x.safetensors") && message.contains("foo.weight"), "{message}");
}

/// A network small enough to hold, and its weights in a temporary file.
fn tiny() -> UnetMotionConfig {
    UnetMotionConfig {
        block_out_channels: vec![8, 16],
        layers_per_block: PerLevel::All(1),
        down_attention: PerLevel::All(true),
        heads: PerLevel::All(2),
        cross_attention_dim: 12,
        norm_groups: 2,
        motion: Some(MotionConfig {
            heads: PerLevel::All(2),
            norm_groups: 2,
            max_frames: 24,
            ..MotionConfig::default()
        }),
        ..UnetMotionConfig::default()
    }
}

/// Values that differ from tensor to tensor and within one.
fn values(name: &str, shape: &[usize]) -> Tensor {
    let seed: u32 = name.bytes().fold(7, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b)));
    let count: usize = shape.iter().product();
    let data: Vec<f32> = (0..count)
        .map(|i| ((seed.wrapping_add((i as u32).wrapping_mul(2_654_435)) % 1000) as f32 / 1000.0 - 0.5) * 0.2)
        .collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

fn write(path: &Path, tensors: &BTreeMap<String, Tensor>) {
    let tensors: std::collections::HashMap<_, _> = tensors.clone().into_iter().collect();
    candle_core::safetensors::save(&tensors, path).unwrap();
}

fn weights(parameters: &Parameters) -> BTreeMap<String, Tensor> {
    parameters.iter().map(|(name, shape)| (name.clone(), values(name, shape))).collect()
}

fn open(path: &Path) -> Arc<dyn TensorFile> {
    Arc::new(SafetensorsFile::open(path).unwrap())
}

#[test]
fn a_file_in_animatediff_spelling_renders_like_the_weights_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let config = tiny();
    let all = weights(&config.parameters().unwrap());
    let is_motion = |name: &String| name.contains("motion_modules");
    let base: BTreeMap<_, _> = all.clone().into_iter().filter(|(name, _)| !is_motion(name)).collect();
    let original = |name: &str| {
        let name = name.replace(".attn1.", ".attention_blocks.0.").replace(".attn2.", ".attention_blocks.1.");
        let name = name
            .replace(".norm1.", ".norms.0.")
            .replace(".norm2.", ".norms.1.")
            .replace(".norm3.", ".ff_norm.");
        let (start, rest) = name.split_once("motion_modules.").unwrap();
        let (index, rest) = rest.split_once('.').unwrap();
        format!("module.{start}motion_modules.{index}.temporal_transformer.{rest}")
    };
    let mut motion: BTreeMap<_, _> = all
        .clone()
        .into_iter()
        .filter(|(name, _)| is_motion(name))
        .map(|(name, t)| (original(&name), t))
        .collect();
    motion.insert(
        "module.down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe".into(),
        Tensor::zeros((1, 24, 8), DType::F32, &Device::Cpu).unwrap(),
    );
    let (base_path, motion_path) =
        (folder.path().join("base.safetensors"), folder.path().join("mm.safetensors"));
    write(&base_path, &base);
    write(&motion_path, &motion);

    let mut checkpoint = Checkpoint::new(config.clone());
    checkpoint.add(open(&base_path)).unwrap();
    let layout = checkpoint.add(open(&motion_path)).unwrap();
    assert!(matches!(layout, Layout::Motion(version) if version.max_frames == 24 && !version.mid));
    assert!(checkpoint.config.resnet_norm_over_frames);
    let map = checkpoint.fitted_unet().unwrap();
    let loaded = UnetMotion::new(&checkpoint.config, map.into_var_builder(DType::F32, &Device::Cpu)).unwrap();
    let direct = candle_nn::VarBuilder::from_tensors(all.into_iter().collect(), DType::F32, &Device::Cpu);
    let direct = UnetMotion::new(&checkpoint.config, direct).unwrap();
    let sample = values("sample", &[1, 2, 4, 4, 4]);
    let text = values("text", &[1, 3, 12]);
    let input = UnetMotionInput::new(&sample, &[500.0], &text);
    let flat = |x: Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(flat(loaded.forward(&input).unwrap()), flat(direct.forward(&input).unwrap()));
}

#[test]
fn motion_lora_adds_scaled_products_to_its_weights() {
    let config = tiny();
    let all = weights(&config.parameters().unwrap());
    let target = "up_blocks.1.motion_modules.0.transformer_blocks.0.attn2.to_q.weight";
    let base: Arc<dyn TensorFile> = Arc::new(MemoryFile::new("base", all.clone()));
    let (up, down) = (values("up", &[8, 2]), values("down", &[2, 8]));
    let expected = (&all[target] + (up.matmul(&down).unwrap() * 0.5).unwrap()).unwrap();
    let original = "up_blocks.1.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1.processor.to_q_lora";
    let diffusers = "unet.up_blocks.1.motion_modules.0.transformer_blocks.0.attn2.to_q";
    for (name, down_name, up_name) in [(original, "down", "up"), (diffusers, "lora_A", "lora_B")] {
        let mut checkpoint = split(Arc::clone(&base)).unwrap();
        let lora: Arc<dyn TensorFile> = Arc::new(MemoryFile::new(
            "lora",
            [
                (format!("{name}.{down_name}.weight"), down.clone()),
                (format!("{name}.{up_name}.weight"), up.clone()),
            ],
        ));
        assert_eq!(detect(lora.as_ref()).unwrap(), Layout::MotionLora);
        assert!(matches!(checkpoint.add(Arc::clone(&lora)), Err(LayoutError::Lora { .. })));
        merge_motion_lora(&mut checkpoint.unet, &lora, 0.5).unwrap();
        let merged = checkpoint.unet.read(target, DType::F32, &Device::Cpu).unwrap();
        let error = (merged - &expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        assert!(error.to_scalar::<f32>().unwrap() < 1e-6);
        let other = "up_blocks.1.motion_modules.0.transformer_blocks.0.attn1.to_q.weight";
        let untouched = checkpoint.unet.read(other, DType::F32, &Device::Cpu).unwrap();
        assert_eq!(untouched.to_vec2::<f32>().unwrap(), all[other].to_vec2::<f32>().unwrap());
    }
}

#[test]
fn a_motion_lora_that_does_not_fit_is_refused() {
    let base = MemoryFile::new("base", weights(&tiny().parameters().unwrap()));
    let checkpoint = split(Arc::new(base)).unwrap();
    let layer = "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q";
    let cases: [(Vec<(String, Vec<usize>)>, &str); 3] = [
        (vec![(format!("{layer}.lora_A.weight"), vec![2, 8])], "only one of its two factors"),
        (
            vec![
                (format!("{layer}.lora_A.weight"), vec![2, 8]),
                (format!("{layer}.lora_B.weight"), vec![16, 2]),
            ],
            "do not make [8, 8]",
        ),
        (
            vec![
                (
                    "mid_block.motion_modules.0.transformer_blocks.0.attn1.to_q.lora_A.weight".into(),
                    vec![2, 16],
                ),
                (
                    "mid_block.motion_modules.0.transformer_blocks.0.attn1.to_q.lora_B.weight".into(),
                    vec![16, 2],
                ),
            ],
            "made for another version",
        ),
    ];
    for (entries, expected) in cases {
        let lora: Arc<dyn TensorFile> = Arc::new(MemoryFile::listing("lora", entries));
        let error = merge_motion_lora(&mut checkpoint.unet.clone(), &lora, 1.0).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn pia_keeps_the_bases_first_four_channels() {
    let config = UnetMotionConfig { in_channels: 9, ..tiny() };
    let all = weights(&config.parameters().unwrap());
    let narrow = values("narrow", &[8, 4, 3, 3]);
    let mut base: BTreeMap<_, _> =
        all.clone().into_iter().filter(|(name, _)| !name.contains("motion_modules")).collect();
    base.insert("conv_in.weight".into(), narrow.clone());
    let base_bias = values("base bias", &[8]);
    base.insert("conv_in.bias".into(), base_bias.clone());
    let adapter: BTreeMap<_, _> = all
        .clone()
        .into_iter()
        .filter(|(name, _)| name.contains("motion_modules") || name.starts_with("conv_in"))
        .collect();
    let mut checkpoint = Checkpoint::new(UnetMotionConfig { in_channels: 4, ..config.clone() });
    checkpoint.add(Arc::new(MemoryFile::new("base", base))).unwrap();
    let layout = checkpoint.add(Arc::new(MemoryFile::new("pia", adapter))).unwrap();
    assert!(matches!(layout, Layout::Pia(_)));
    assert_eq!(checkpoint.config.in_channels, 9);
    let map = checkpoint.fitted_unet().unwrap();
    let joined = map.read("conv_in.weight", DType::F32, &Device::Cpu).unwrap();
    let expected = Tensor::cat(&[&narrow, &all["conv_in.weight"].narrow(1, 4, 5).unwrap()], 1).unwrap();
    let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(flat(&joined), flat(&expected));
    let bias = map.read("conv_in.bias", DType::F32, &Device::Cpu).unwrap();
    assert_eq!(flat(&bias), flat(&base_bias));
}

#[test]
fn damaged_files_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.safetensors");
    write(&good, &BTreeMap::from([("a".to_owned(), values("a", &[4]))]));
    let bytes = std::fs::read(&good).unwrap();
    let huge = [&(100u64 << 20).to_le_bytes()[..], &[b' '; 64]].concat();
    let text = [&8u64.to_le_bytes()[..], b"not json"].concat();
    let beyond = {
        let header = br#"{"a":{"dtype":"F32","shape":[4000000000],"data_offsets":[0,16000000000]}}"#;
        [&(header.len() as u64).to_le_bytes()[..], header, &[0; 16]].concat()
    };
    let cases: [(&[u8], &str); 6] = [
        (&[], "0 bytes"),
        (&bytes[..bytes.len() - 3], "download it again"),
        (&bytes[..20], "truncated"),
        (&huge, "the limit is"),
        (&text, "is not a usable checkpoint"),
        (&beyond, "download it again"),
    ];
    for (index, (content, expected)) in cases.iter().enumerate() {
        let path = folder.path().join(format!("{index}.safetensors"));
        std::fs::write(&path, content).unwrap();
        let message = SafetensorsFile::open(&path).unwrap_err().to_string();
        assert!(message.contains(expected), "case {index}: {message}");
    }
}

#[test]
fn nan_weights_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nan.safetensors");
    let mut all = weights(&UnetMotionConfig { motion: None, ..tiny() }.parameters().unwrap());
    for (bad, dtype) in [(f32::NAN, DType::F32), (f32::INFINITY, DType::F16)] {
        let bias = Tensor::new(&[0.0, bad, 0.0, 0.0], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        all.insert("conv_out.bias".into(), bias);
        write(&path, &all);
        let map = split(open(&path)).unwrap().unet;
        let error = map.read("conv_out.bias", DType::F32, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("conv_out.bias") && error.contains("NaN or infinite"), "{error}");
    }
}

fn tiny_ckpt() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/layouts/tiny.ckpt")
}

/// Made by `reference/torch_file.py`.
#[test]
fn pytorch_checkpoints_are_read_without_running_them() {
    let file = open_checkpoint(&tiny_ckpt()).unwrap();
    let names: Vec<_> = file.entries().keys().map(String::as_str).collect();
    assert_eq!(names, ["module.half", "module.matrix", "module.steps", "module.view"]);
    let matrix = file.read("module.matrix").unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(matrix, [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]);
    let half = file.read("module.half").unwrap();
    assert_eq!(half.dtype(), DType::F16);
    assert_eq!(half.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap(), [0.5, -2.0]);
    assert_eq!(file.read("module.view").unwrap().to_vec2::<f32>().unwrap(), [[4.0, 5.0], [6.0, 7.0]]);
    assert_eq!(file.read("module.steps").unwrap().to_vec1::<i64>().unwrap(), [7, -1]);
    assert!(matches!(file.read("module.none"), Err(LayoutError::NoTensor { .. })));
}

/// No cut and no single changed byte may do worse than an error or another value.
#[test]
fn damaged_pytorch_checkpoints_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.ckpt");
    let bytes = std::fs::read(tiny_ckpt()).unwrap();
    let mut refused = 0;
    let mut attempt = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        match TorchFile::open(&path) {
            Ok(file) => file.entries().keys().for_each(|name| drop(file.read(name))),
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("x.ckpt"), "{error}");
            }
        }
    };
    for cut in (0..bytes.len()).step_by(7) {
        attempt(&bytes[..cut]);
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0xff;
        attempt(&changed);
    }
    assert!(refused > bytes.len() / 7, "{refused}");
}

#[test]
fn what_is_neither_archive_nor_safetensors_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.ckpt");
    std::fs::write(&path, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.").unwrap();
    let message = open_checkpoint(&path).unwrap_err().to_string();
    assert!(message.contains("old.ckpt") && message.contains("convert it to safetensors"), "{message}");
}
