//! The video UNet against PyTorch: tiny networks of every kind, each named intermediate.
//!
//! Fixtures come from `reference/unet.py`.
// Test helpers outside #[test] functions may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use kinora_pipeline::nets::unet_motion::{
    MotionConfig, PhraseAttentionConfig, Region, UnetError, UnetMotion, UnetMotionConfig, UnetMotionInput,
};

const TOLERANCE: f32 = 1e-4;

struct Fixture {
    tensors: HashMap<String, Tensor>,
    config: UnetMotionConfig,
}

impl Fixture {
    fn open(name: &str) -> Self {
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/unet/{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let config = metadata.metadata().as_ref().unwrap()["config"].clone();
        Self {
            tensors: candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap(),
            config: serde_json::from_str(&config).unwrap(),
        }
    }

    fn get(&self, name: &str) -> Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("no {name}")).to_dtype(DType::F32).unwrap()
    }

    fn values(&self, name: &str) -> Option<Vec<f64>> {
        let tensor = self.tensors.get(name)?;
        Some(tensor.to_dtype(DType::F64).unwrap().to_vec1().unwrap())
    }

    fn weights(&self) -> HashMap<String, Tensor> {
        let named = self.tensors.iter();
        named.filter_map(|(k, v)| Some((k.strip_prefix("weights.")?.to_string(), v.clone()))).collect()
    }

    fn unet(&self, config: &UnetMotionConfig) -> UnetMotion {
        let names: BTreeMap<String, Vec<usize>> =
            self.weights().into_iter().map(|(name, tensor)| (name, tensor.dims().to_vec())).collect();
        assert_eq!(config.parameters().unwrap(), names, "parameters() and the reference's state dict");
        UnetMotion::new(config, VarBuilder::from_tensors(self.weights(), DType::F32, &Device::Cpu)).unwrap()
    }

    /// Runs one case and checks the result and every intermediate the file has for it.
    fn check(&self, case: &str, config: &UnetMotionConfig, regions: &[Region]) {
        let unet = self.unet(config);
        let [sample, text] = ["in.sample", "in.text"].map(|name| self.get(name));
        let phrase = self.tensors.contains_key("in.phrase").then(|| self.get("in.phrase"));
        let (strength, fps) = (self.values("in.strength"), self.values("in.fps"));
        let timesteps = self.values("in.timesteps").unwrap();
        let input = UnetMotionInput {
            phrase: phrase.as_ref(),
            strength: strength.as_deref(),
            fps: fps.as_deref(),
            regions,
            ..UnetMotionInput::new(&sample, &timesteps, &text)
        };
        let seen = Mutex::new(BTreeMap::new());
        let probe = |name: &str, x: &Tensor| {
            seen.lock().unwrap().insert(name.to_string(), x.clone());
        };
        let out = unet.forward_probed(&input, &probe).unwrap();
        let seen = seen.into_inner().unwrap();
        let prefix = format!("mid.{case}.");
        for name in self.tensors.keys().filter(|name| name.starts_with(&prefix)) {
            let short = name.strip_prefix(&prefix).unwrap();
            let found = seen.get(short).unwrap_or_else(|| panic!("{short} was not shown to the probe"));
            assert_close(found, &self.get(name), short);
        }
        assert_close(&out, &self.get(&format!("out.{case}")), case);
    }

    fn traced(&self, case: &str) -> usize {
        self.tensors.keys().filter(|name| name.starts_with(&format!("mid.{case}."))).count()
    }
}

/// Largest difference over the reference's largest magnitude.
fn relative(found: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let max =
        |x: &Tensor| x.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
    max(&(found - expected).unwrap()) / max(expected)
}

fn assert_close(found: &Tensor, expected: &Tensor, what: &str) {
    let error = relative(found, expected);
    assert!(error <= TOLERANCE, "{what}: relative error {error:e}");
}

#[test]
fn spatial_unet_of_odd_sizes_matches_diffusers() {
    let fixture = Fixture::open("spatial");
    assert_eq!(fixture.traced("plain"), 22);
    fixture.check("plain", &fixture.config, &[]);
}

#[test]
fn linear_projections_scale_shift_and_per_level_settings_match_diffusers() {
    let fixture = Fixture::open("variants");
    fixture.check("plain", &fixture.config, &[]);
}

#[test]
fn attention_to_frame_zero_matches_torch() {
    let fixture = Fixture::open("variants");
    let config = UnetMotionConfig { first_frame_attention: true, ..fixture.config.clone() };
    fixture.check("first_frame", &config, &[]);
}

#[test]
fn regions_with_their_own_text_match_torch() {
    let fixture = Fixture::open("variants");
    let (texts, masks) = (fixture.get("in.region_text"), fixture.get("in.region_mask"));
    let regions: Vec<Region> = (0..2)
        .map(|i| Region { text: texts.get(i).unwrap(), phrase: None, mask: masks.get(i).unwrap() })
        .collect();
    fixture.check("regions", &fixture.config, &regions);
}

#[test]
fn motion_modules_match_diffusers() {
    let fixture = Fixture::open("motion_v3");
    assert!(fixture.traced("diffusers") > 15);
    fixture.check("diffusers", &fixture.config, &[]);
}

#[test]
fn both_group_norm_rules_of_animatediff_match_torch() {
    let fixture = Fixture::open("motion_v3");
    for (case, resnet_norm_over_frames) in [("per_frame", false), ("resnets_over_frames", true)] {
        let config = UnetMotionConfig {
            temporal_norm_over_frames: false,
            resnet_norm_over_frames,
            ..fixture.config.clone()
        };
        fixture.check(case, &config, &[]);
    }
}

#[test]
fn the_three_group_norm_rules_differ() {
    let fixture = Fixture::open("motion_v3");
    let outs =
        ["diffusers", "per_frame", "resnets_over_frames"].map(|case| fixture.get(&format!("out.{case}")));
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        assert!(relative(&outs[a], &outs[b]) > 10.0 * TOLERANCE, "{a} and {b} cannot be told apart");
    }
}

#[test]
fn mid_module_and_nine_channels_match_diffusers() {
    let fixture = Fixture::open("motion_v2");
    assert!(fixture.tensors.contains_key("mid.diffusers.mid_block.motion_modules.0"));
    fixture.check("diffusers", &fixture.config, &[]);
}

#[test]
fn phrase_attention_strength_and_fps_match_torch() {
    for (name, self_attentions) in [("phrase_two", 2), ("phrase_one", 1)] {
        let fixture = Fixture::open(name);
        assert_eq!(fixture.config.motion.as_ref().unwrap().self_attentions, self_attentions);
        fixture.check("positions", &fixture.config, &[]);
        let motion = MotionConfig {
            phrase_attention: Some(PhraseAttentionConfig { ma_query_pe: false }),
            ..fixture.config.motion.clone().unwrap()
        };
        let config = UnetMotionConfig { motion: Some(motion), ..fixture.config.clone() };
        fixture.check("no_positions", &config, &[]);
    }
}

/// A region that covers everything is the same as its texts given for the whole picture, in the
/// spatial and in the phrase attention.
#[test]
fn a_region_over_everything_replaces_both_texts() {
    let fixture = Fixture::open("phrase_two");
    let unet = fixture.unet(&fixture.config);
    let [sample, text, phrase] = ["in.sample", "in.text", "in.phrase"].map(|name| fixture.get(name));
    let (other_text, other_phrase) = (text.affine(-1.0, 0.3).unwrap(), phrase.affine(0.5, -0.2).unwrap());
    let times = [981.0, 37.0];
    let whole =
        UnetMotionInput { phrase: Some(&other_phrase), ..UnetMotionInput::new(&sample, &times, &other_text) };
    let region = Region {
        text: other_text.clone(),
        phrase: Some(other_phrase.clone()),
        mask: Tensor::ones((4, 4), DType::F32, &Device::Cpu).unwrap(),
    };
    let regions = [region];
    let covered = UnetMotionInput {
        phrase: Some(&phrase),
        regions: &regions,
        ..UnetMotionInput::new(&sample, &times, &text)
    };
    let (whole, covered) = (unet.forward(&whole).unwrap(), unet.forward(&covered).unwrap());
    assert_close(&covered, &whole, "covered");
    let plain = UnetMotionInput { phrase: Some(&phrase), ..UnetMotionInput::new(&sample, &times, &text) };
    assert!(relative(&unet.forward(&plain).unwrap(), &whole) > 10.0 * TOLERANCE);
}

#[test]
fn a_clip_batch_equals_its_clips_alone() {
    let fixture = Fixture::open("motion_v3");
    let unet = fixture.unet(&fixture.config);
    let (sample, text) = (fixture.get("in.sample"), fixture.get("in.text"));
    let both = unet.forward(&UnetMotionInput::new(&sample, &[981.0, 37.0], &text)).unwrap();
    let sample = sample.narrow(0, 1, 1).unwrap();
    let text = text.narrow(0, 1, 1).unwrap();
    let alone = unet.forward(&UnetMotionInput::new(&sample, &[37.0], &text)).unwrap();
    assert!(relative(&alone, &both.narrow(0, 1, 1).unwrap()) < 1e-5);
}

#[test]
fn too_many_frames_are_refused_with_the_number_that_fits() {
    let fixture = Fixture::open("motion_v2");
    let unet = fixture.unet(&fixture.config);
    let sample = Tensor::zeros((1, 25, 2, 2, 9), DType::F32, &Device::Cpu).unwrap();
    let text = fixture.get("in.text");
    let error = unet.forward(&UnetMotionInput::new(&sample, &[1.0], &text)).unwrap_err();
    assert!(matches!(error, UnetError::TooManyFrames { frames: 25, max: 24 }), "{error}");
    assert!(error.to_string().contains("at most 24 frames, got 25"), "{error}");
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let fixture = Fixture::open("motion_v3");
    let unet = fixture.unet(&fixture.config);
    let (sample, text) = (fixture.get("in.sample"), fixture.get("in.text"));
    let base = UnetMotionInput::new(&sample, &[1.0, 2.0], &text);
    let narrow = text.narrow(2, 0, 5).unwrap();
    let four = sample.squeeze(0).unwrap().narrow(4, 0, 3).unwrap();
    let cases = [
        (UnetMotionInput { sample: &four, ..base }, "sample"),
        (UnetMotionInput { timesteps: &[1.0], ..base }, "timesteps"),
        (UnetMotionInput { text: &narrow, ..base }, "text"),
        (UnetMotionInput { phrase: Some(&text), ..base }, "phrase"),
        (UnetMotionInput { strength: Some(&[1.0, 1.0]), ..base }, "strength"),
        (UnetMotionInput { fps: Some(&[1.0]), ..base }, "fps"),
    ];
    for (input, expected) in cases {
        let error = unet.forward(&input).unwrap_err();
        assert!(error.to_string().starts_with(&format!("UNet input {expected}:")), "{error}");
    }
}

/// The embedded model's training code, in both of its settings.
#[test]
fn the_embedded_networks_match_their_training_code() {
    for name in ["unet_mini", "unet_sd_switches"] {
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/mini/{name}.safetensors"));
        let bytes = std::fs::read(path).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let said: serde_json::Value =
            serde_json::from_str(&metadata.metadata().as_ref().unwrap()["config"]).unwrap();
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
        let config = mini_config(&said);
        let weights: HashMap<String, Tensor> = tensors
            .iter()
            .filter_map(|(k, v)| Some((k.strip_prefix("w.")?.to_string(), v.clone())))
            .collect();
        let shapes: BTreeMap<_, _> = weights.iter().map(|(k, v)| (k.clone(), v.dims().to_vec())).collect();
        assert_eq!(config.parameters().unwrap(), shapes);
        let unet =
            UnetMotion::new(&config, VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu)).unwrap();
        let list = |name: &str| tensors[name].to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
        let last = |x: &Tensor| x.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
        let sample = last(&tensors["in.sample"]);
        let (n, h, w, c) = sample.dims4().unwrap();
        let sample = sample.reshape((2, n / 2, h, w, c)).unwrap();
        let (time, strength) = (list("in.timestep"), list("in.strength"));
        let input = UnetMotionInput {
            strength: Some(&strength),
            ..UnetMotionInput::new(&sample, &time, &tensors["in.context"])
        };
        let seen = Mutex::new(HashMap::new());
        let probe = |name: &str, x: &Tensor| {
            seen.lock().unwrap().insert(format!("mid.{name}"), x.clone());
        };
        let out = unet.forward_probed(&input, &probe).unwrap();
        let mut compared = 0;
        for (name, found) in seen.into_inner().unwrap() {
            if let Some(expected) = tensors.get(&name).filter(|x| x.rank() == 4) {
                assert_close(&found, &last(expected), &name);
                compared += 1;
            }
        }
        assert_eq!(compared, tensors.keys().filter(|k| k.starts_with("mid.")).count() - 3);
        // The training code norms the output per frame whatever `resnet_norm_over_frames` says;
        // AnimateDiff v1 does not, and `both_group_norm_rules_of_animatediff_match_torch` follows it.
        if !config.resnet_norm_over_frames {
            assert_close(&out.flatten(0, 1).unwrap(), &last(&tensors["out.sample"]), name);
        }
    }
}

fn mini_config(said: &serde_json::Value) -> UnetMotionConfig {
    let renamed = serde_json::json!({
        "in_channels": said["in_channels"], "out_channels": said["out_channels"],
        "block_out_channels": said["block_out_channels"], "layers_per_block": said["layers_per_block"],
        "down_attention": said["attention_levels"], "mid_attention": said["mid_attention"],
        "heads": said["num_attention_heads"], "time_embed_dim": said["time_embed_dim"],
        "cross_attention_dim": said["cross_attention_dim"], "ff_mult": said["ff_mult"],
        "use_linear_projection": said["use_linear_projection"], "norm_groups": said["norm_num_groups"],
        "norm_eps": said["norm_eps"], "resnet_time_scale_shift": said["resnet_time_scale_shift"],
        "resnet_norm_over_frames": said["resnet_norm_over_frames"],
        "temporal_norm_over_frames": said["temporal_norm_over_frames"],
        "first_frame_attention": said["first_frame_attention"], "strength_embedding": true,
        "motion": {
            "levels": said["motion_levels"], "mid": said["mid_motion"],
            "self_attentions": said["motion_num_self_attention"], "heads": said["motion_num_attention_heads"],
            "max_frames": said["motion_max_seq_length"], "norm_groups": said["norm_num_groups"],
            "ff_mult": said["ff_mult"],
        },
    });
    serde_json::from_value(renamed).unwrap()
}
