//! Samplers against diffusers step by step, and the denoise loop as its callers use it.
// Test helpers outside #[test] functions may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Tensor};
use kinora_pipeline::progress::{Event, NullProgress, Progress};
use kinora_pipeline::sampling::schedule::{NoiseSchedule, ScheduleSpec};
use kinora_pipeline::sampling::schedulers::{
    Ddim, DdimOptions, Dpmpp2m, Dpmpp2mOptions, Euler, EulerAncestral, EulerOptions, FlowEuler, FlowHeun,
    FlowOptions, FlowSpacing, Lcm, LcmOptions,
};
use kinora_pipeline::sampling::{
    BetaKind, CheckpointError, CheckpointPolicy, DenoiseError, DenoiseSpec, Hooks, SamplerKind, SamplerSpec,
    Scheduler, StepReport, denoise, noise,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

const TOLERANCE: f64 = 1e-4;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sampling")
}

fn load(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixtures().join(name), &Device::Cpu).unwrap()
}

#[derive(Debug, Clone, Deserialize)]
struct Case {
    #[serde(default)]
    schedule: String,
    #[serde(default)]
    prediction: String,
    #[serde(default)]
    spacing: String,
    #[serde(default)]
    steps_offset: usize,
    steps: usize,
    #[serde(default)]
    karras: bool,
    #[serde(default)]
    eta: f64,
    clip: Option<f64>,
    set_alpha_to_one: Option<bool>,
    #[serde(default)]
    shift: f64,
}

fn named<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).unwrap()
}

fn schedule(name: &str) -> NoiseSchedule {
    let spec = match name {
        "zero_snr" => ScheduleSpec::follow_your_click(),
        kind => ScheduleSpec { kind: named::<BetaKind>(kind), ..ScheduleSpec::animatediff() },
    };
    NoiseSchedule::new(&spec).unwrap()
}

fn sampler(kind: &str, case: &Case) -> Box<dyn Scheduler> {
    let steps = case.steps;
    if kind.starts_with("flow") {
        let options =
            FlowOptions { spacing: FlowSpacing::Discrete, shift: case.shift, ..FlowOptions::default() };
        return match kind {
            "flow_euler" => Box::new(FlowEuler::new(steps, &options).unwrap()),
            _ => Box::new(FlowHeun::new(steps, &options).unwrap()),
        };
    }
    let schedule = schedule(&case.schedule);
    let (prediction, spacing) = (named(&case.prediction), named(&case.spacing));
    let (steps_offset, karras) = (case.steps_offset, case.karras);
    let euler = EulerOptions { prediction, spacing, steps_offset, karras };
    match kind {
        "ddim" => {
            let options = DdimOptions {
                prediction,
                spacing,
                steps_offset,
                eta: case.eta,
                set_alpha_to_one: case.set_alpha_to_one.unwrap_or(true),
                clip_sample: case.clip,
            };
            Box::new(Ddim::new(&schedule, steps, &options).unwrap())
        }
        "euler" => Box::new(Euler::new(&schedule, steps, &euler).unwrap()),
        "euler_ancestral" => Box::new(EulerAncestral::new(&schedule, steps, &euler).unwrap()),
        "dpmpp_2m" => {
            let options = Dpmpp2mOptions { prediction, spacing, steps_offset, karras };
            Box::new(Dpmpp2m::new(&schedule, steps, &options).unwrap())
        }
        "lcm" => {
            Box::new(Lcm::new(&schedule, steps, &LcmOptions { prediction, ..LcmOptions::default() }).unwrap())
        }
        other => panic!("no sampler {other}"),
    }
}

fn values(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_dtype(candle_core::DType::F64).unwrap().to_vec1().unwrap()
}

/// Largest difference over largest magnitude.
fn relative(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.dims(), want.dims());
    let (got, want) = (values(got), values(want));
    let most = want.iter().fold(0f64, |m, v| m.max(v.abs()));
    let difference = got.iter().zip(&want).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
    difference / most.max(1e-12)
}

/// Runs every case of one file and returns the largest relative error of any step.
fn parity(kind: &str) -> f64 {
    let bank = load("bank.safetensors");
    let tensors = load(&format!("{kind}.safetensors"));
    let bytes = std::fs::read(fixtures().join(format!("{kind}.safetensors"))).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&header.metadata().as_ref().unwrap()["cases"]).unwrap();
    assert!(cases.len() >= 4);
    let mut worst = 0f64;
    for (index, case) in cases.iter().enumerate() {
        let want = |key: &str| &tensors[&format!("{index}.{key}")];
        let mut scheduler = sampler(kind, case);
        let times = values(want("timesteps"));
        assert_eq!(scheduler.timesteps().len(), times.len(), "{kind} {case:?}");
        for (got, want) in scheduler.timesteps().iter().zip(&times) {
            assert!(
                (got - want).abs() <= 1e-4 * want.max(1.0),
                "{kind} {case:?}: time {got}, expected {want}"
            );
        }
        let sigma = values(want("init_noise_sigma"))[0];
        assert!((scheduler.init_noise_sigma() / sigma - 1.0).abs() < TOLERANCE, "{kind} {case:?}");
        let samples = want("samples");
        let scales = values(want("scale"));
        let mut x = (&bank["sample"] * scheduler.init_noise_sigma()).unwrap();
        for i in 0..times.len() {
            let scaled = scheduler.scale_model_input(i, &x).unwrap();
            let factor = values(&scaled)[0] / values(&x)[0];
            assert!((factor / scales[i] - 1.0).abs() < TOLERANCE, "{kind} {case:?} step {i}: scale {factor}");
            let noise = bank["noise"].get(i).unwrap();
            let noise = scheduler.wants_noise(i).then_some(&noise);
            x = scheduler.step(i, &bank["outputs"].get(i).unwrap(), &x, noise).unwrap();
            let error = relative(&x, &samples.get(i + 1).unwrap());
            assert!(error <= TOLERANCE, "{kind} {case:?} step {i}: relative error {error:.2e}");
            worst = worst.max(error);
        }
    }
    println!("{kind}: {} cases, worst relative error {worst:.2e}", cases.len());
    worst
}

#[test]
fn ddim_equals_diffusers() {
    assert!(parity("ddim") <= TOLERANCE);
}

#[test]
fn euler_equals_diffusers() {
    assert!(parity("euler") <= TOLERANCE);
}

#[test]
fn euler_ancestral_equals_diffusers() {
    assert!(parity("euler_ancestral") <= TOLERANCE);
}

#[test]
fn dpmpp_2m_equals_diffusers() {
    assert!(parity("dpmpp_2m") <= TOLERANCE);
}

#[test]
fn lcm_equals_diffusers() {
    assert!(parity("lcm") <= TOLERANCE);
}

#[test]
fn rectified_flows_equal_diffusers() {
    assert!(parity("flow_euler") <= TOLERANCE);
    assert!(parity("flow_heun") <= TOLERANCE);
}

/// Counts events and cancels once a number of steps is done.
#[derive(Default)]
struct Watch {
    cancel_after: Option<usize>,
    steps: AtomicUsize,
    notices: Mutex<Vec<String>>,
}

impl Progress for Watch {
    fn event(&self, event: Event) {
        match event {
            Event::Step { stage: "denoise", .. } => drop(self.steps.fetch_add(1, Ordering::SeqCst)),
            Event::Notice { message, .. } => self.notices.lock().unwrap().push(message),
            _ => {}
        }
    }

    fn cancelled(&self) -> bool {
        self.cancel_after.is_some_and(|n| self.steps.load(Ordering::SeqCst) >= n)
    }
}

const KINDS: [SamplerKind; 9] = [
    SamplerKind::Ddim,
    SamplerKind::Euler,
    SamplerKind::EulerKarras,
    SamplerKind::EulerAncestral,
    SamplerKind::Dpmpp2m,
    SamplerKind::Dpmpp2mKarras,
    SamplerKind::Lcm,
    SamplerKind::FlowEuler,
    SamplerKind::FlowHeun,
];

fn spec(kind: SamplerKind) -> SamplerSpec {
    let eta = if kind == SamplerKind::Ddim { 0.7 } else { 0.0 };
    SamplerSpec { kind, eta, ..SamplerSpec::follow_your_click() }
}

/// A stand-in for a network that depends on everything it is given.
fn network(sample: &Tensor, timestep: f64) -> candle_core::Result<Tensor> {
    sample.tanh()?.affine(0.8, timestep * 1e-4)
}

fn job(policy: Option<CheckpointPolicy>) -> DenoiseSpec {
    DenoiseSpec { seed: 5, job: "job".to_owned(), start: 0, checkpoint: policy }
}

fn start(scheduler: &dyn Scheduler) -> Tensor {
    (noise::normal(5, 0, &[1, 3, 4, 2]).unwrap() * scheduler.init_noise_sigma()).unwrap()
}

fn bits(t: &Tensor) -> Vec<u32> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

fn whole_run(kind: SamplerKind) -> Vec<u32> {
    let mut scheduler = spec(kind).build(6).unwrap();
    let latents = start(scheduler.as_ref());
    let mut hooks = Hooks::new(&NullProgress, "shot");
    let outcome = denoise::run(&job(None), &mut network, scheduler.as_mut(), &latents, &mut hooks).unwrap();
    assert_eq!(outcome.resumed_from, None);
    bits(&outcome.latents)
}

#[test]
fn a_cancelled_run_resumes_to_the_same_bits_wherever_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let whole = whole_run(kind);
        let total = spec(kind).build(6).unwrap().timesteps().len();
        for stop in 1..total {
            let path = folder.path().join(format!("{kind:?}-{stop}.checkpoint"));
            let policy = CheckpointPolicy { path: path.clone(), every: 2, resume: true };
            let watch = Watch { cancel_after: Some(stop), ..Watch::default() };
            let mut scheduler = spec(kind).build(6).unwrap();
            let latents = start(scheduler.as_ref());
            let mut hooks = Hooks::new(&watch, "shot");
            let run = denoise::run(
                &job(Some(policy.clone())),
                &mut network,
                scheduler.as_mut(),
                &latents,
                &mut hooks,
            );
            match run {
                Err(DenoiseError::Cancelled { done, checkpoint, .. }) => {
                    assert_eq!((done, checkpoint), (stop, Some(path.clone())));
                }
                other => panic!("{kind:?} at {stop}: {other:?}"),
            }
            let mut fresh = spec(kind).build(6).unwrap();
            let mut hooks = Hooks::new(&NullProgress, "shot");
            let outcome =
                denoise::run(&job(Some(policy)), &mut network, fresh.as_mut(), &latents, &mut hooks).unwrap();
            assert_eq!(outcome.resumed_from, Some(stop));
            assert_eq!(bits(&outcome.latents), whole, "{kind:?} stopped at {stop}");
        }
    }
}

#[test]
fn a_finished_run_is_taken_from_its_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let policy = CheckpointPolicy { path: folder.path().join("run.checkpoint"), every: 0, resume: true };
    let run = |network: &mut dyn denoise::Denoiser| {
        let mut scheduler = spec(SamplerKind::FlowHeun).build(6).unwrap();
        let latents = start(scheduler.as_ref());
        let mut hooks = Hooks::new(&NullProgress, "shot");
        denoise::run(&job(Some(policy.clone())), network, scheduler.as_mut(), &latents, &mut hooks).unwrap()
    };
    let first = run(&mut network);
    let mut never =
        |_: &Tensor, _: f64| -> candle_core::Result<Tensor> { panic!("nothing is left to compute") };
    let second = run(&mut never);
    assert_eq!(second.resumed_from, Some(11));
    assert_eq!(bits(&first.latents), bits(&second.latents));
}

#[test]
fn another_jobs_checkpoint_is_refused_and_a_damaged_one_ignored_with_a_notice() {
    let folder = tempfile::tempdir().unwrap();
    let policy = CheckpointPolicy { path: folder.path().join("run.checkpoint"), every: 1, resume: true };
    let run = |job: &DenoiseSpec, watch: &Watch| {
        let mut scheduler = spec(SamplerKind::Ddim).build(6).unwrap();
        let latents = start(scheduler.as_ref());
        denoise::run(job, &mut network, scheduler.as_mut(), &latents, &mut Hooks::new(watch, "shot"))
    };
    let mine = job(Some(policy.clone()));
    let stopped = run(&mine, &Watch { cancel_after: Some(3), ..Watch::default() });
    assert!(matches!(stopped, Err(DenoiseError::Cancelled { done: 3, total: 6, .. })));

    let other = DenoiseSpec { job: "another".to_owned(), ..mine.clone() };
    let refused = run(&other, &Watch::default());
    assert!(
        matches!(&refused, Err(DenoiseError::Checkpoint(CheckpointError::OtherJob { field: "job", .. }))),
        "{refused:?}"
    );

    let bytes = std::fs::read(&policy.path).unwrap();
    std::fs::write(&policy.path, &bytes[..bytes.len() / 2]).unwrap();
    let watch = Watch::default();
    let outcome = run(&mine, &watch).unwrap();
    assert_eq!(outcome.resumed_from, None);
    assert_eq!(bits(&outcome.latents), whole_run(SamplerKind::Ddim));
    let notices = watch.notices.lock().unwrap();
    assert!(notices.len() == 1 && notices[0].contains("not a usable checkpoint"), "{notices:?}");
}

#[test]
fn hooks_see_every_step_and_pinning_holds_known_latents() {
    for kind in KINDS {
        let mut scheduler = spec(kind).build(6).unwrap();
        let latents = start(scheduler.as_ref());
        let total = scheduler.timesteps().len();
        let known = latents.affine(0.0, 0.25).unwrap();
        let pin_noise = noise::normal(5, noise::PIN_STREAM, latents.dims()).unwrap();
        let mut reports = Vec::new();
        let mut step = |report: &StepReport<'_>| {
            assert_eq!(report.clean.dims(), report.latents.dims());
            assert!(report.elapsed >= 0.0 && report.remaining >= 0.0);
            reports.push((report.done, report.remaining));
        };
        let mut pin = |scheduler: &dyn Scheduler, next: usize, _: &Tensor| -> candle_core::Result<Tensor> {
            scheduler.noised(next, &known, &pin_noise).map_err(candle_core::Error::wrap)
        };
        let watch = Watch::default();
        let mut hooks = Hooks { progress: &watch, node: "shot", step: Some(&mut step), pin: Some(&mut pin) };
        let outcome =
            denoise::run(&job(None), &mut network, scheduler.as_mut(), &latents, &mut hooks).unwrap();
        assert_eq!(watch.steps.load(Ordering::SeqCst), total);
        assert_eq!(reports.len(), total);
        assert_eq!(reports.last().unwrap(), &(total, 0.0));
        assert_eq!(bits(&outcome.latents), bits(&known), "{kind:?}");
    }
}

#[test]
fn a_network_that_fails_or_loses_its_numbers_is_named_with_the_step() {
    let mut scheduler = spec(SamplerKind::Dpmpp2m).build(4).unwrap();
    let latents = start(scheduler.as_ref());
    let mut calls = 0;
    let mut failing = |sample: &Tensor, _: f64| {
        calls += 1;
        if calls == 3 { Err(candle_core::Error::msg("no memory left")) } else { sample.zeros_like() }
    };
    let mut hooks = Hooks::new(&NullProgress, "shot");
    let failed = denoise::run(&job(None), &mut failing, scheduler.as_mut(), &latents, &mut hooks);
    assert!(matches!(failed, Err(DenoiseError::Network { step: 2, .. })));

    let mut scheduler = spec(SamplerKind::Dpmpp2m).build(4).unwrap();
    let mut lost = |sample: &Tensor, _: f64| sample.affine(f64::NAN, 0.0);
    let failed = denoise::run(&job(None), &mut lost, scheduler.as_mut(), &latents, &mut hooks);
    assert!(matches!(failed, Err(DenoiseError::NotFinite { step: 0 })));
}

#[test]
fn the_seed_decides_the_noise_of_the_steps() {
    let run = |seed: u64| {
        let mut scheduler = spec(SamplerKind::EulerAncestral).build(4).unwrap();
        let latents = start(scheduler.as_ref());
        let job = DenoiseSpec { seed, ..job(None) };
        let mut hooks = Hooks::new(&NullProgress, "shot");
        bits(&denoise::run(&job, &mut network, scheduler.as_mut(), &latents, &mut hooks).unwrap().latents)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
