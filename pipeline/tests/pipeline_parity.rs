//! Whole 4-step pipelines against diffusers, through the code that renders with public checkpoints, and that code as
//! its callers use it, on tiny networks.
// Test helpers outside #[test] functions may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use kinora_pipeline::media::{Mask, Picture};
use kinora_pipeline::nets::unet_motion::{MotionConfig, PerLevel};
use kinora_pipeline::nets::{
    AutoencoderKl, AutoencoderKlConfig, ClipText, ClipTextConfig, UnetMotion, UnetMotionConfig,
};
use kinora_pipeline::progress::{Event, NullProgress, Preview, Progress};
use kinora_pipeline::sampling::denoise::StepReport;
use kinora_pipeline::sampling::noise::normal;
use kinora_pipeline::sampling::{SamplerKind, SamplerSpec};
use kinora_pipeline::systems::follow_your_click::public::{
    ClipRequest, ConditionLayout, Public, PublicOptions, PublicParts, image_channels, pia_affinity,
};
use kinora_pipeline::systems::follow_your_click::{
    AnimateError, Animator, ClickAnimation, Ease, Hooks, Region, SamplingChoice,
};

const TOLERANCE: f64 = 1e-4;

fn fixture(name: &str) -> HashMap<String, Tensor> {
    let folder = std::env::var_os("KINORA_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"), PathBuf::from);
    candle_core::safetensors::load(folder.join("pipeline").join(name), &Device::Cpu).unwrap()
}

fn part(all: &HashMap<String, Tensor>, prefix: &str) -> HashMap<String, Tensor> {
    let own =
        |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()));
    all.iter().filter_map(own).collect()
}

/// Weights as a checkpoint is loaded: f16 on a card, f32 on a processor.
fn builder(tensors: HashMap<String, Tensor>, device: &Device) -> VarBuilder<'static> {
    let dtype = if device.is_cuda() { DType::F16 } else { DType::F32 };
    let there =
        |(name, tensor): (String, Tensor)| (name, tensor.to_dtype(dtype).unwrap().to_device(device).unwrap());
    VarBuilder::from_tensors(tensors.into_iter().map(there).collect(), dtype, device)
}

fn unet_config(in_channels: usize) -> UnetMotionConfig {
    UnetMotionConfig {
        in_channels,
        block_out_channels: vec![8, 8],
        layers_per_block: PerLevel::All(1),
        down_attention: PerLevel::Each(vec![true, false]),
        heads: PerLevel::All(2),
        cross_attention_dim: 8,
        norm_groups: 2,
        temporal_norm_over_frames: true,
        motion: Some(MotionConfig { heads: PerLevel::All(2), norm_groups: 2, ..MotionConfig::default() }),
        ..UnetMotionConfig::default()
    }
}

/// The fixture's networks; with `words` the text encoder is widened to CLIP's vocabulary and length.
fn public(all: &HashMap<String, Tensor>, words: bool, device: &Device) -> Public {
    let mut text_config = ClipTextConfig {
        hidden_size: 8,
        intermediate_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        vocab_size: 40,
        max_position_embeddings: 7,
        ..ClipTextConfig::default()
    };
    let mut text = part(all, "text.");
    if words {
        (text_config.vocab_size, text_config.max_position_embeddings) = (49408, 77);
        for (end, rows) in [("token_embedding.weight", 49408), ("position_embedding.weight", 77)] {
            let name = text.keys().find(|name| name.ends_with(end)).unwrap().clone();
            text.insert(name, normal(9, rows as u64, &[rows, 8]).unwrap());
        }
    }
    let vae_config = AutoencoderKlConfig {
        block_out_channels: vec![8, 8],
        layers_per_block: 1,
        norm_num_groups: 2,
        ..AutoencoderKlConfig::default()
    };
    let in_channels = all["unet.conv_in.weight"].dim(1).unwrap();
    let parts = PublicParts {
        text: ClipText::new(&text_config, builder(text, device)).unwrap(),
        vae: AutoencoderKl::new(&vae_config, builder(part(all, "vae."), device)).unwrap(),
        unet: UnetMotion::new(&unet_config(in_channels), builder(part(all, "unet."), device)).unwrap(),
    };
    let mut options = PublicOptions::of(parts.unet.config());
    options.long_side = 32;
    Public::new("tiny", "digest", parts, options, device).unwrap()
}

fn values(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

fn relative(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.dims(), want.dims());
    let (got, want) = (values(got), values(want));
    let most = want.iter().fold(0f64, |m, v| m.max(v.abs()));
    got.iter().zip(&want).fold(0f64, |m, (a, b)| m.max((a - b).abs())) / most
}

fn quiet<'a>() -> Hooks<'a> {
    Hooks { progress: &NullProgress, node: "shot", checkpoint: None, resume: false }
}

/// Text, every step's latents and the decoded frames of a whole pipeline.
fn parity(name: &str) {
    let all = fixture(name);
    let public = public(&all, false, &Device::Cpu);
    let parts = public.parts().unwrap();
    let hidden = parts.text.forward(&all["in.ids"]).unwrap().hidden;
    let error = relative(&hidden, &all["out.text"]);
    assert!(error <= TOLERANCE, "{name}: text {error:.2e}");
    let noise = &all["in.latents"];
    let frames = noise.dim(0).unwrap();
    let image = all.get("in.image").map(|image| {
        // diffusers takes 0..1, the autoencoder −1..1.
        let first = parts.vae.encode(&image.affine(2.0, -1.0).unwrap(), None).unwrap();
        let affinity = pia_affinity(0.5, frames, false);
        let first = first.squeeze(0).unwrap();
        let mask = vec![1.0; first.dim(0).unwrap() * first.dim(1).unwrap()];
        image_channels(ConditionLayout::Pia, &first, &mask, &affinity).unwrap().unwrap()
    });
    let request = ClipRequest {
        text: &hidden.narrow(0, 0, 1).unwrap(),
        negative: &hidden.narrow(0, 1, 1).unwrap(),
        regions: &[],
        image: image.as_ref(),
        strength: None,
        pin: None,
        noise,
        sampler: &SamplerSpec::animatediff(),
        guidance: public.options().guidance,
        steps: 4,
        seed: 0,
        identity: "parity",
    };
    let mut worst = 0f64;
    let mut step = 0;
    let mut seen = |report: &StepReport<'_>| {
        let error = relative(report.latents, &all["out.steps"].get(step).unwrap());
        assert!(error <= TOLERANCE, "{name}: step {step} {error:.2e}");
        worst = worst.max(error);
        step += 1;
    };
    let (latents, run) = public.denoise_clip(&request, &quiet(), Some(&mut seen)).unwrap();
    assert_eq!((run, step), (4, 4));
    let decoded = parts.vae.decode(&latents).unwrap();
    let pictures = decoded.affine(0.5, 0.5).unwrap().clamp(0.0, 1.0).unwrap();
    let error = relative(&pictures, &all["out.frames"]);
    println!("{name}: steps {worst:.2e}, frames {error:.2e}");
    assert!(error <= TOLERANCE, "{name}: frames {error:.2e}");
}

#[test]
fn animatediff_equals_diffusers() {
    parity("animatediff.safetensors");
}

#[test]
fn pia_equals_diffusers() {
    parity("pia.safetensors");
}

fn job() -> ClickAnimation {
    let (width, height) = (48, 32);
    let rgb = (0..width * height * 3).map(|i| (i * 37 % 211) as u8).collect();
    let inside = |x: u32, y: u32| f32::from(u8::from((20..28).contains(&x) && (12..20).contains(&y)));
    let alpha = (0..height).flat_map(|y| (0..width).map(move |x| inside(x, y))).collect();
    ClickAnimation {
        photo: Picture::new(width, height, rgb).unwrap(),
        regions: vec![Region {
            mask: Mask::new(width, height, alpha).unwrap(),
            prompt: "drift to the left".to_owned(),
            magnitude: 0.6.into(),
        }],
        frames: 4,
        ease: Ease::Linear,
        seed: 3,
        steps: Some(3),
        guide: false,
        composite: true,
        size: None,
        sampling: SamplingChoice::default(),
    }
}

fn render(public: &Public, job: &ClickAnimation, hooks: &Hooks<'_>) -> Result<Vec<Picture>, AnimateError> {
    let mut frames = Vec::new();
    let report = public.animate(job, hooks, &mut |picture| {
        frames.push(picture);
        Ok(())
    })?;
    assert_eq!(report.frames, frames.len());
    assert!(frames.iter().all(|f| (f.width(), f.height()) == (report.width, report.height)));
    Ok(frames)
}

#[test]
fn a_clip_is_rendered_with_the_photograph_around_the_moving_thing() {
    for name in ["animatediff.safetensors", "pia.safetensors"] {
        let public = public(&fixture(name), true, &Device::Cpu);
        let job = job();
        let frames = render(&public, &job, &quiet()).unwrap();
        assert_eq!(frames.len(), 4);
        for frame in &frames {
            assert_eq!((frame.width(), frame.height()), (48, 32));
            // The corner is far from the mask, its middle is not.
            assert_eq!(frame.rgb()[..30], job.photo.rgb()[..30], "{name}");
            let middle = (16 * 48 + 24) * 3;
            assert_ne!(frame.rgb()[middle..middle + 3], job.photo.rgb()[middle..middle + 3], "{name}");
        }
        assert_eq!(render(&public, &job, &quiet()).unwrap(), frames, "{name}: the seed decides");
        let other = ClickAnimation { seed: 4, ..job.clone() };
        assert_ne!(render(&public, &other, &quiet()).unwrap(), frames, "{name}");
        let half = ClickAnimation { size: Some(24), composite: false, ..job };
        assert_eq!(render(&public, &half, &quiet()).unwrap()[0].width(), 24);
    }
}

/// The whole path on a card, where networks compute in f16, against the processor: the same clip to the eye. Without a
/// card the test says so and passes.
#[cfg(feature = "cuda")]
#[test]
fn a_card_renders_the_clip_of_the_processor() {
    let card = match kinora_kernels::open_cuda(0) {
        Ok(card) => card,
        Err(error) => return println!("skipped: {error}"),
    };
    for name in ["animatediff.safetensors", "pia.safetensors"] {
        let all = fixture(name);
        for regions in [1, 2] {
            let mut job = ClickAnimation { composite: false, ..job() };
            let mut second = job.regions[0].clone();
            second.prompt = "spin".to_owned();
            second.mask.alpha_mut().rotate_right(10);
            job.regions.extend((1..regions).map(|_| second.clone()));
            let ours = render(&public(&all, true, &card), &job, &quiet()).unwrap();
            let want = render(&public(&all, true, &Device::Cpu), &job, &quiet()).unwrap();
            let pairs = || ours.iter().zip(&want).flat_map(|(a, b)| a.rgb().iter().zip(b.rgb()));
            let squares: f64 = pairs().map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
            let psnr = 10.0 * (255.0 * 255.0 * pairs().count() as f64 / squares.max(1e-9)).log10();
            println!("{name}, {regions} regions: {psnr:.1} dB");
            assert_eq!(ours.len(), want.len());
            assert!(psnr >= 40.0, "{name}, {regions} regions: {psnr:.1} dB, expected 40");
        }
    }
}

#[test]
fn two_regions_with_their_own_words_change_the_clip() {
    let public = public(&fixture("pia.safetensors"), true, &Device::Cpu);
    let one = job();
    let mut two = job();
    let mut second = two.regions[0].clone();
    second.prompt = "spin".to_owned();
    second.mask.alpha_mut().rotate_right(10);
    two.regions.push(second);
    assert_ne!(render(&public, &one, &quiet()).unwrap(), render(&public, &two, &quiet()).unwrap());
}

#[test]
fn what_the_model_cannot_do_is_refused_with_a_reason() {
    let public = public(&fixture("pia.safetensors"), true, &Device::Cpu);
    let refuse = |change: &dyn Fn(&mut ClickAnimation)| {
        let mut job = job();
        change(&mut job);
        render(&public, &job, &quiet()).unwrap_err()
    };
    let error = refuse(&|job| job.frames = 17);
    assert!(matches!(error, AnimateError::Frames { max: 16, got: 17, .. }), "{error}");
    let error = refuse(&|job| job.regions[0].prompt = "left ".repeat(76));
    assert!(matches!(error, AnimateError::PromptTooLong { tokens: 76, limit: 75, .. }), "{error}");
    assert!(matches!(
        refuse(&|job| job.regions[0].prompt = " ".to_owned()),
        AnimateError::EmptyPrompt { .. }
    ));
    assert!(matches!(refuse(&|job| job.steps = Some(0)), AnimateError::Steps { got: 0 }));
}

struct StopAfter {
    steps: AtomicUsize,
    limit: usize,
}

impl Progress for StopAfter {
    fn event(&self, event: Event) {
        if let Event::Step { stage: "denoise", .. } = event {
            self.steps.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn cancelled(&self) -> bool {
        self.steps.load(Ordering::SeqCst) >= self.limit
    }
}

#[test]
fn an_interrupted_render_resumes_to_the_same_frames() {
    let folder = tempfile::tempdir().unwrap();
    let mut public = public(&fixture("pia.safetensors"), true, &Device::Cpu);
    for kind in [SamplerKind::Ddim, SamplerKind::EulerAncestral, SamplerKind::Dpmpp2m, SamplerKind::Lcm] {
        public.options_mut().sampler.kind = kind;
        let whole = render(&public, &job(), &quiet()).unwrap();
        let path = folder.path().join(format!("{kind:?}"));
        std::fs::create_dir(&path).unwrap();
        let stop = StopAfter { steps: AtomicUsize::new(0), limit: 2 };
        let hooks = Hooks { progress: &stop, node: "shot", checkpoint: Some(&path), resume: true };
        assert!(matches!(render(&public, &job(), &hooks), Err(AnimateError::Cancelled)));
        let hooks = Hooks { progress: &NullProgress, ..hooks };
        assert_eq!(render(&public, &job(), &hooks).unwrap(), whole, "{kind:?}");
        let other = ClickAnimation { seed: 99, ..job() };
        assert!(matches!(render(&public, &other, &hooks), Err(AnimateError::Checkpoint { .. })));
    }
}

/// Looks at every preview.
#[derive(Default)]
struct Onlooker(Mutex<Vec<Preview>>);

impl Progress for Onlooker {
    fn event(&self, _: Event) {}

    fn wants_previews(&self) -> bool {
        true
    }

    fn preview(&self, preview: Preview) {
        self.0.lock().unwrap().push(preview);
    }
}

#[test]
fn every_step_is_seen_and_changes_nothing() {
    let public = public(&fixture("pia.safetensors"), true, &Device::Cpu);
    let onlooker = Onlooker::default();
    let hooks = Hooks { progress: &onlooker, node: "shot", checkpoint: None, resume: false };
    let seen = render(&public, &job(), &hooks).unwrap();
    assert_eq!(render(&public, &job(), &quiet()).unwrap(), seen);
    let previews = onlooker.0.into_inner().unwrap();
    let steps: Vec<usize> = previews.iter().map(|preview| preview.done).collect();
    assert_eq!(steps, (1..=previews[0].total).collect::<Vec<_>>());
    assert!(previews.iter().all(|preview| preview.frames.len() == job().frames.min(8)));
}
