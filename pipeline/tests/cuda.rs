//! The networks on a card against the reference outputs that hold for the CPU: 1e-4 in f32, 1e-2 in f16.
//!
//! Without a driver or card the tests say so and pass. `KINORA_FIXTURES` names the folder of fixtures
//! where the sources are not.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use kinora_kernels::{Recorded, observed, open_cuda};
use kinora_pipeline::media::{Mask, Picture};
use kinora_pipeline::nets::unet_motion::{UnetError, UnetMotion, UnetMotionConfig, UnetMotionInput};
use kinora_pipeline::nets::{AutoencoderKl, AutoencoderKlConfig, ClipText, ClipTextConfig};
use kinora_pipeline::progress::NullProgress;
use kinora_pipeline::store::model_source::FolderModel;
use kinora_pipeline::systems::follow_your_click::embedded::Embedded;
use kinora_pipeline::systems::follow_your_click::{
    Animator as _, ClickAnimation, Ease, Hooks, Region, SamplingChoice,
};

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

/// The embedded model's clip of one click on `device`, and the seconds it took.
fn embedded_clip(device: &Device) -> (Vec<Picture>, f64) {
    let folder = std::env::var_os("KINORA_MODEL").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../assets/models/kinora-mini"),
        PathBuf::from,
    );
    let model = Embedded::load(&FolderModel::new(folder), device).unwrap();
    let side = 256u32;
    let inside = |x: u32, y: u32| (96..160).contains(&x) && (80..176).contains(&y);
    let pixel = |x: u32, y: u32| {
        let wave = (f64::from(x) / 9.0).sin() * (f64::from(y) / 13.0).cos();
        let shade = (128.0 + 60.0 * wave) as u8;
        if inside(x, y) { [230, shade, 40] } else { [40, 90, shade] }
    };
    let places = || (0..side).flat_map(|y| (0..side).map(move |x| (x, y)));
    let job = ClickAnimation {
        photo: Picture::new(side, side, places().flat_map(|(x, y)| pixel(x, y)).collect()).unwrap(),
        regions: vec![Region {
            mask: Mask::new(side, side, places().map(|(x, y)| f32::from(u8::from(inside(x, y)))).collect())
                .unwrap(),
            prompt: "drift to the left".to_owned(),
            magnitude: 0.7.into(),
        }],
        frames: 16,
        ease: Ease::Linear,
        seed: 5,
        steps: Some(2),
        guide: true,
        composite: true,
        size: None,
        sampling: SamplingChoice::default(),
    };
    let hooks = Hooks { progress: &NullProgress, node: "shot", checkpoint: None, resume: false };
    let mut render = || {
        let mut frames = Vec::new();
        let keep = &mut |picture| {
            frames.push(picture);
            Ok(())
        };
        model.animate(&job, &hooks, keep).unwrap();
        frames
    };
    // The first clip also pays for loading kernels.
    render();
    let began = Instant::now();
    (render(), began.elapsed().as_secs_f64())
}

#[test]
fn the_embedded_model_renders_the_same_clip() {
    let Some(card) = card() else { return };
    let (ours, seconds) = embedded_clip(&card);
    let (want, on_cpu) = embedded_clip(&Device::Cpu);
    assert_eq!(ours.len(), want.len());
    let pairs = || ours.iter().zip(&want).flat_map(|(a, b)| a.rgb().iter().zip(b.rgb()));
    let squares: f64 = pairs().map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    let psnr = 10.0 * (255.0 * 255.0 * pairs().count() as f64 / squares.max(1e-9)).log10();
    eprintln!(
        "16 frames of 256x256: {seconds:.2} s on the card, {on_cpu:.2} s on the processor, {psnr:.1} dB"
    );
    assert!(psnr >= 45.0, "{psnr:.1} dB between card and processor, expected 45");
}
