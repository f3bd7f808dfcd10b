//! Text encoders, tokenizer, autoencoders and saliency against their references
//! (`tests/reference/nets_small.py`, `tokenizer_and_u2netp.py` and the embedded model's
//! `export_fixtures.py`).
// Test helpers outside #[test] functions may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

// Helpers outside test functions fail by panicking too.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use kinora_pipeline::nets::mini::{CaptionConfig, CaptionEncoder};
use kinora_pipeline::nets::tiling::TileSpec;
use kinora_pipeline::nets::{
    AutoencoderKl, AutoencoderKlConfig, AutoencoderTiny, AutoencoderTinyConfig, ClipText, ClipTextConfig,
    ClipTokenizer, NetError, U2Netp, U2NetpConfig,
};

struct Fixture {
    tensors: HashMap<String, Tensor>,
    config: String,
    weights: &'static str,
}

impl Fixture {
    fn open(area: &str, name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(area).join(name);
        let bytes = std::fs::read(&path).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let config = header.metadata().as_ref().unwrap()["config"].clone();
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
        Self { tensors, config, weights: if area == "mini" { "w." } else { "weights." } }
    }

    fn config<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.config).unwrap()
    }

    fn weight_map(&self) -> HashMap<String, Tensor> {
        let strip = |(k, v): (&String, &Tensor)| Some((k.strip_prefix(self.weights)?.to_owned(), v.clone()));
        self.tensors.iter().filter_map(strip).collect()
    }

    fn weights(&self) -> VarBuilder<'static> {
        builder(self.weight_map())
    }

    fn get(&self, name: &str) -> &Tensor {
        &self.tensors[name]
    }

    /// A channels-first tensor of the training code, channels last.
    fn nhwc(&self, name: &str) -> Tensor {
        self.get(name).permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
    }
}

fn builder(map: HashMap<String, Tensor>) -> VarBuilder<'static> {
    VarBuilder::from_tensors(map, DType::F32, &Device::Cpu)
}

/// Largest difference relative to the reference's largest value, at most `limit`.
fn assert_within(name: &str, got: &Tensor, expected: &Tensor, limit: f32) {
    assert_eq!(got.dims(), expected.dims(), "{name}");
    let largest = |t: &Tensor| t.abs().and_then(|t| t.max_all()?.to_scalar::<f32>()).unwrap();
    let error = largest(&(got - expected).unwrap()) / largest(expected).max(1e-6);
    assert!(error <= limit, "{name}: relative error {error:e}");
}

fn assert_close(name: &str, got: &Tensor, expected: &Tensor) {
    assert_within(name, got, expected, 1e-4);
}

#[test]
fn clip_text_matches_transformers_in_both_spellings_and_end_rules() {
    for name in ["clip_text_quick_gelu.safetensors", "clip_text_gelu.safetensors"] {
        let fixture = Fixture::open("nets", name);
        let net = ClipText::new(&fixture.config::<ClipTextConfig>(), fixture.weights()).unwrap();
        let out = net.forward(&fixture.get("io.ids").to_dtype(DType::U32).unwrap()).unwrap();
        assert_close(name, &out.hidden, fixture.get("io.hidden"));
        assert_close(name, &out.pooled, fixture.get("io.pooled"));
    }
}

#[test]
fn clip_text_refuses_long_and_foreign_tokens() {
    let fixture = Fixture::open("nets", "clip_text_gelu.safetensors");
    let net = ClipText::new(&fixture.config::<ClipTextConfig>(), fixture.weights()).unwrap();
    for bad in [Tensor::zeros((1, 78), DType::U32, &Device::Cpu), Tensor::new(&[[1u32, 1000]], &Device::Cpu)]
    {
        let error = net.forward(&bad.unwrap()).unwrap_err();
        assert!(matches!(error, NetError::Input { .. }), "{error}");
    }
}

#[test]
fn autoencoder_kl_matches_diffusers_at_every_named_stage() {
    let fixture = Fixture::open("nets", "autoencoder_kl.safetensors");
    let net = AutoencoderKl::new(&fixture.config::<AutoencoderKlConfig>(), fixture.weights()).unwrap();
    let pictures = fixture.get("io.pictures");
    let mut seen = BTreeMap::new();
    let posterior = net
        .posterior_tapped(pictures, &mut |name, value| drop(seen.insert(name.to_owned(), value.clone())))
        .unwrap();
    assert_close("mean", &posterior.mean, fixture.get("io.mean"));
    assert_close("logvar", &posterior.logvar, fixture.get("io.logvar"));
    let latents = net.encode(pictures, Some(fixture.get("io.noise"))).unwrap();
    assert_close("latents", &latents, fixture.get("io.latents"));
    let decoded = net
        .decode_tapped(fixture.get("io.latents"), &mut |name, value| {
            drop(seen.insert(name.to_owned(), value.clone()))
        })
        .unwrap();
    assert_close("decoded", &decoded, fixture.get("io.decoded"));
    let named = fixture.tensors.keys().filter(|k| k.contains("coder.") && k.starts_with("io."));
    assert_eq!(seen.len(), named.count());
    for (name, value) in &seen {
        assert_close(name, value, fixture.get(&format!("io.{name}")));
    }
}

#[test]
fn autoencoder_kl_decodes_frame_by_frame_and_in_tiles() {
    let fixture = Fixture::open("nets", "autoencoder_kl.safetensors");
    let net = AutoencoderKl::new(&fixture.config::<AutoencoderKlConfig>(), fixture.weights()).unwrap();
    let (latents, whole) = (fixture.get("io.latents"), fixture.get("io.decoded"));
    let mut frames = Vec::new();
    net.decode_frames::<NetError>(latents, |i, frame| {
        assert_eq!(i, frames.len());
        frames.push(frame);
        Ok(())
    })
    .unwrap();
    assert_close("frames", &Tensor::cat(&frames, 0).unwrap(), whole);
    let one = net.decode_tiled(latents, TileSpec::default()).unwrap();
    assert_close("one tile", &one, whole);
    // Norms see the tile instead of the picture, so tiles only come near; sizes must fit.
    let tiled = net.decode_tiled(latents, TileSpec { tile: 5, overlap: 2 }).unwrap();
    assert_within("tiles", &tiled, whole, 0.5);
}

#[test]
fn autoencoder_kl_reads_the_old_attention_names() {
    let fixture = Fixture::open("nets", "autoencoder_kl.safetensors");
    let renamed = fixture.weight_map().into_iter().map(|(key, value)| {
        let new = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")]
            .iter()
            .fold(key.clone(), |key, (new, old)| key.replace(&format!(".{new}."), &format!(".{old}.")));
        // Old files keep these four as 1×1 convolutions.
        let value = match value.dims() {
            [a, b] if new != key => value.reshape((*a, *b, 1, 1)).unwrap(),
            _ => value,
        };
        (new, value)
    });
    let net =
        AutoencoderKl::new(&fixture.config::<AutoencoderKlConfig>(), builder(renamed.collect())).unwrap();
    let posterior = net.posterior(fixture.get("io.pictures")).unwrap();
    assert_close("mean", &posterior.mean, fixture.get("io.mean"));
}

#[test]
fn autoencoder_tiny_matches_diffusers() {
    let fixture = Fixture::open("nets", "autoencoder_tiny.safetensors");
    let net = AutoencoderTiny::new(&fixture.config::<AutoencoderTinyConfig>(), fixture.weights()).unwrap();
    let latents = net.encode(fixture.get("io.pictures")).unwrap();
    assert_close("latents", &latents, fixture.get("io.latents"));
    assert_close("decoded", &net.decode(fixture.get("io.latents")).unwrap(), fixture.get("io.decoded"));
}

#[test]
fn autoencoder_tiny_matches_the_embedded_models_training_code() {
    let fixture = Fixture::open("mini", "autoencoder.safetensors");
    let config: AutoencoderTinyConfig = fixture.config();
    let net = AutoencoderTiny::new(&config, fixture.weights()).unwrap();
    // The training code scales outside the network.
    let expected = (fixture.nhwc("out.latent") * config.scaling_factor).unwrap();
    let latents = net.encode(&fixture.nhwc("in.picture")).unwrap();
    assert_close("latent", &latents, &expected);
    assert_close("decoded", &net.decode(&latents).unwrap(), &fixture.nhwc("out.decoded"));
}

#[test]
fn autoencoders_refuse_sizes_they_cannot_halve() {
    let fixture = Fixture::open("mini", "autoencoder.safetensors");
    let net = AutoencoderTiny::new(&fixture.config::<AutoencoderTinyConfig>(), fixture.weights()).unwrap();
    let odd = Tensor::zeros((1, 12, 16, 3), DType::F32, &Device::Cpu).unwrap();
    let error = net.encode(&odd).unwrap_err().to_string();
    assert!(error.contains("multiples of 8") && error.contains("12"), "{error}");
}

#[test]
fn damaged_weights_are_refused_by_name() {
    let fixture = Fixture::open("nets", "autoencoder_kl.safetensors");
    let config: AutoencoderKlConfig = fixture.config();
    let key = "decoder.up_blocks.0.resnets.1.conv2.weight";
    let refusal = |change: &dyn Fn(&mut HashMap<String, Tensor>)| {
        let mut map = fixture.weight_map();
        change(&mut map);
        AutoencoderKl::new(&config, builder(map)).unwrap_err()
    };
    let missing = refusal(&|map| drop(map.remove(key)));
    assert!(matches!(&missing, NetError::Missing { name, .. } if name == key), "{missing}");
    let misshapen = refusal(&|map| {
        map.insert(key.into(), Tensor::zeros((8, 8, 1, 1), DType::F32, &Device::Cpu).unwrap());
    });
    assert!(matches!(&misshapen, NetError::Shape { name, .. } if name == key), "{misshapen}");
    let nan = refusal(&|map| {
        let bad = (Tensor::zeros((8, 8, 3, 3), DType::F32, &Device::Cpu).unwrap() + f64::NAN).unwrap();
        map.insert(key.into(), bad);
    });
    assert!(matches!(&nan, NetError::NotFinite { name } if name == key), "{nan}");
}

#[test]
fn the_caption_encoder_matches_its_training_code() {
    let fixture = Fixture::open("mini", "text.safetensors");
    let net = CaptionEncoder::new(&fixture.config::<CaptionConfig>(), fixture.weights()).unwrap();
    let out = net.forward(&fixture.get("in.ids").to_dtype(DType::U32).unwrap()).unwrap();
    assert_close("states", &out.hidden, fixture.get("out.states"));
    assert_close("pooled", &out.pooled, fixture.get("out.pooled"));
    let probabilities = candle_nn::ops::sigmoid(fixture.get("out.kinds")).unwrap();
    assert_close("kinds", &Tensor::new(out.kinds, &Device::Cpu).unwrap(), &probabilities);
}

fn vocabulary() -> ClipTokenizer {
    let file = include_bytes!("../../assets/models/kinora-mini/bpe_simple_vocab_16e6.txt.gz");
    ClipTokenizer::from_bpe_file(file).unwrap()
}

#[derive(serde::Deserialize)]
struct TokenCase {
    text: String,
    ids: Vec<u32>,
}

#[test]
fn the_tokenizer_matches_transformers_on_awkward_texts() {
    let cases: Vec<TokenCase> =
        serde_json::from_str(include_str!("fixtures/nets/clip_tokenizer.json")).unwrap();
    assert!(cases.len() >= 200);
    let tokenizer = vocabulary();
    for case in cases {
        // The fixture is not padded, so that it stays small.
        let got = tokenizer.encode(&case.text, 77).unwrap().ids;
        let (head, padding) = got.split_at(case.ids.len());
        assert_eq!(head, case.ids, "{:?}", case.text);
        assert!(padding.iter().all(|&id| id == tokenizer.end()), "{:?}", case.text);
    }
}

#[test]
fn the_tokenizer_matches_the_embedded_models_training_code() {
    let cases: Vec<TokenCase> = serde_json::from_str(include_str!("fixtures/mini/tokenizer.json")).unwrap();
    let tokenizer = vocabulary();
    // The training code also unescapes HTML, for scraped captions; users type what they mean, and
    // transformers leaves it alone too.
    for case in cases.iter().filter(|case| !case.text.contains("&amp;")) {
        assert_eq!(tokenizer.encode(&case.text, case.ids.len()).unwrap().ids, case.ids, "{:?}", case.text);
    }
}

#[test]
fn u2netp_matches_onnxruntime() {
    let weights = include_bytes!("../../assets/models/u2netp/u2netp.safetensors");
    let config: U2NetpConfig =
        serde_json::from_str(include_str!("../../assets/models/u2netp/config.json")).unwrap();
    let vb = VarBuilder::from_slice_safetensors(weights, DType::F32, &Device::Cpu).unwrap();
    let net = U2Netp::new(&config, vb).unwrap();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/nets/u2netp.safetensors");
    let fixture = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    for name in ["disc", "bars"] {
        let small = fixture[&format!("{name}.picture")].to_dtype(DType::F32).unwrap();
        // Each stored pixel stands for 4 × 4 of the 320 × 320 input.
        let (_, h, w, c) = small.dims4().unwrap();
        let large =
            small.reshape(&[1, h, 1, w, 1, c]).unwrap().broadcast_as(&[1, h, 4, w, 4, c][..]).unwrap();
        let large = (large.reshape((1, 4 * h, 4 * w, c)).unwrap() / 255.0).unwrap();
        let saliency = net.forward(&large).unwrap();
        let cells = saliency.reshape((80, 4, 80, 4)).unwrap().mean((1, 3)).unwrap();
        let expected = &fixture[&format!("{name}.saliency")];
        let worst = (cells - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(worst < 1e-4, "{name}: {worst}");
    }
}

/// Hands out zeros of the listed shapes and remembers which keys were asked for.
struct Listed {
    shapes: BTreeMap<String, Vec<usize>>,
    used: Arc<Mutex<BTreeSet<String>>>,
}

impl SimpleBackend for Listed {
    fn get(
        &self,
        _: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        self.get_unchecked(name, dtype, device)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.used.lock().unwrap().insert(name.to_owned());
        Tensor::zeros(self.shapes[name].as_slice(), dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.shapes.contains_key(name)
    }
}

/// Builds a network over a full-size key list; every key must be used and none may be missing.
fn assert_consumed(list: &str, build: impl Fn(VarBuilder) -> Option<NetError>) {
    let shapes: BTreeMap<String, Vec<usize>> = list
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(key, dims)| (key.to_owned(), dims.split('x').map(|d| d.parse().unwrap()).collect()))
        .collect();
    let listed: BTreeSet<String> = shapes.keys().cloned().collect();
    let used = Arc::default();
    let backend = Listed { shapes, used: Arc::clone(&used) };
    let error = build(VarBuilder::from_backend(Box::new(backend), DType::F32, Device::Cpu));
    assert!(error.is_none(), "{error:?}");
    assert_eq!(*used.lock().unwrap(), listed);
}

#[test]
fn stable_diffusion_text_encoder_keys_are_consumed_exactly() {
    let list = include_str!("fixtures/layouts/sd15_text_encoder.txt");
    assert_consumed(list, |vb| ClipText::new(&ClipTextConfig::default(), vb).err());
    // The spelling of transformers 5.
    assert_consumed(&list.replace("text_model.", ""), |vb| {
        ClipText::new(&ClipTextConfig::default(), vb).err()
    });
}

#[test]
fn stable_diffusion_autoencoder_keys_are_consumed_exactly() {
    let list = include_str!("fixtures/layouts/sd15_vae.txt");
    assert_consumed(list, |vb| AutoencoderKl::new(&AutoencoderKlConfig::default(), vb).err());
}

#[test]
fn taesd_keys_are_consumed_exactly() {
    let list = include_str!("fixtures/layouts/taesd.txt");
    assert_consumed(list, |vb| AutoencoderTiny::new(&AutoencoderTinyConfig::default(), vb).err());
}
