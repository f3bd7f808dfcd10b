//! The networks on a card against the reference outputs that hold for the CPU: 1e-4 in f32, 1e-2 in f16.
//!
//! Without a driver or card the tests say so and pass. `KINORA_FIXTURES` names the folder of fixtures
//! where the sources are not.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use kinora_kernels::{Recorded, observed, open_cuda};
use kinora_pipeline::nets::unet_motion::{UnetError, UnetMotion, UnetMotionConfig, UnetMotionInput};
use kinora_pipeline::nets::{AutoencoderKl, AutoencoderKlConfig, ClipText, ClipTextConfig};

fn card() -> Option<Device> {
    match open_cuda(0) {
        Ok(device) => Some(device),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

struct Fixture {
    tensors: HashMap<String, Tensor>,
    config: String,
}

impl Fixture {
    fn open(name: &str) -> Self {
        let folder = std::env::var_os("KINORA_FIXTURES")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"), PathBuf::from);
        let bytes = std::fs::read(folder.join(name)).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let config = header.metadata().as_ref().unwrap()["config"].clone();
        Self { tensors: candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap(), config }
    }

    fn config<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.config).unwrap()
    }

    fn weights(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        let named = self.tensors.iter().filter_map(|(name, x)| {
            let x = x.to_device(device).unwrap();
            Some((name.strip_prefix("weights.")?.to_owned(), x))
        });
        VarBuilder::from_tensors(named.collect(), dtype, device)
    }

    fn get(&self, name: &str, dtype: DType, device: &Device) -> Tensor {
        self.tensors[name].to_dtype(dtype).unwrap().to_device(device).unwrap()
    }

    fn values(&self, name: &str) -> Option<Vec<f64>> {
        Some(self.tensors.get(name)?.to_dtype(DType::F64).unwrap().to_vec1().unwrap())
    }
}

fn flat(x: &Tensor) -> Vec<f32> {
    x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference over the reference's largest magnitude, at most the type's share.
fn assert_close(what: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let (got, want) = (flat(found), flat(expected));
    let most = want.iter().fold(0f32, |a, x| a.max(x.abs()));
    let worst = got
        .iter()
        .zip(&want)
        .fold(0f32, |a, (x, y)| if (x - y).is_nan() { f32::INFINITY } else { a.max((x - y).abs()) });
    let limit = if found.dtype() == DType::F32 { 1e-4 } else { 1e-2 };
    eprintln!("{what} {:?}: {:e}", found.dtype(), worst / most);
    assert!(worst <= limit * most, "{what} {:?}: relative error {:e}", found.dtype(), worst / most);
}

#[test]
fn every_unet_matches_its_reference() {
    let Some(device) = card() else { return };
    let cases =
        [("spatial", "plain"), ("variants", "plain"), ("motion_v3", "diffusers"), ("motion_v2", "diffusers")];
    for (name, case) in cases {
        let fixture = Fixture::open(&format!("unet/{name}.safetensors"));
        let config: UnetMotionConfig = fixture.config();
        for dtype in [DType::F32, DType::F16] {
            let unet = UnetMotion::new(&config, fixture.weights(dtype, &device)).unwrap();
            let [sample, text] = ["in.sample", "in.text"].map(|name| fixture.get(name, dtype, &device));
            let (timesteps, strength, fps) = (
                fixture.values("in.timesteps").unwrap(),
                fixture.values("in.strength"),
                fixture.values("in.fps"),
            );
            let input = UnetMotionInput {
                strength: strength.as_deref(),
                fps: fps.as_deref(),
                ..UnetMotionInput::new(&sample, &timesteps, &text)
            };
            let (out, used) = observed(|| unet.forward(&input).unwrap());
            assert_close(name, &out, &fixture.get(&format!("out.{case}"), DType::F32, &Device::Cpu));
            let composed: Vec<_> =
                used.iter().filter(|u| u.kernel == "composed" && u.op != "conv2d").collect();
            assert!(composed.is_empty(), "{name} {dtype:?} fell back: {composed:?}");
        }
    }
}

#[test]
fn a_recorded_step_repeats_the_eager_one_bit_for_bit() {
    let Some(device) = card() else { return };
    let fixture = Fixture::open("unet/motion_v3.safetensors");
    let config: UnetMotionConfig = fixture.config();
    for dtype in [DType::F32, DType::F16] {
        let unet = UnetMotion::new(&config, fixture.weights(dtype, &device)).unwrap();
        let [sample, text] = ["in.sample", "in.text"].map(|name| fixture.get(name, dtype, &device));
        let zeros = vec![0.0; sample.dim(0).unwrap()];
        let step = |x: &[Tensor]| -> Result<Tensor, UnetError> {
            unet.forward_with_states(&UnetMotionInput::new(&x[0], &zeros, &x[2]), &x[1])
        };
        let inputs = |t: f64, by: f64| {
            let (sample, times) = ((&sample * by).unwrap(), vec![t; zeros.len()]);
            let states = unet.time_states(&UnetMotionInput::new(&sample, &times, &text)).unwrap();
            [sample, states, text.clone()]
        };
        let recorded = Recorded::new(&device, &inputs(1.0, 0.0), step).unwrap();
        for (t, by) in [(801.0, 1.0), (7.0, 0.5), (801.0, 1.0)] {
            let inputs = inputs(t, by);
            let (again, eager) = (flat(&recorded.run(&inputs).unwrap()), flat(&step(&inputs).unwrap()));
            assert!(eager.iter().all(|x| x.is_finite()) && eager.iter().any(|x| *x != 0.0));
            assert!(again.iter().zip(&eager).all(|(a, b)| a.to_bits() == b.to_bits()), "{dtype:?} step {t}");
        }
    }
}

#[test]
fn autoencoder_and_text_encoder_match_their_references() {
    let Some(device) = card() else { return };
    for dtype in [DType::F32, DType::F16] {
        let fixture = Fixture::open("nets/autoencoder_kl.safetensors");
        let config: AutoencoderKlConfig = fixture.config();
        let cpu = AutoencoderKl::new(&config, fixture.weights(DType::F32, &Device::Cpu)).unwrap();
        let vae = AutoencoderKl::new(&config, fixture.weights(dtype, &device)).unwrap();
        let picture = Tensor::randn(0f32, 0.5, (2, 32, 24, 3), &Device::Cpu).unwrap();
        let latents = cpu.encode(&picture, None).unwrap();
        let place = |x: &Tensor| x.to_dtype(dtype).unwrap().to_device(&device).unwrap();
        assert_close("encoded", &vae.encode(&place(&picture), None).unwrap(), &latents);
        assert_close("decoded", &vae.decode(&place(&latents)).unwrap(), &cpu.decode(&latents).unwrap());
        let fixture = Fixture::open("nets/clip_text_quick_gelu.safetensors");
        let config: ClipTextConfig = fixture.config();
        let cpu = ClipText::new(&config, fixture.weights(DType::F32, &Device::Cpu)).unwrap();
        let clip = ClipText::new(&config, fixture.weights(dtype, &device)).unwrap();
        let count = config.max_position_embeddings.min(9);
        let ids = Tensor::from_iter((0..2 * count).map(|i| (i * 7 % config.vocab_size) as u32), &Device::Cpu)
            .unwrap();
        let ids = ids.reshape((2, count)).unwrap();
        let found = clip.forward(&ids.to_device(&device).unwrap()).unwrap();
        assert_close("text states", &found.hidden, &cpu.forward(&ids).unwrap().hidden);
    }
}
