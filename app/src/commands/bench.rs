//! `kinora bench`: the parts of an embedded render, beside `pipeline/benches/peers/embedded_cpu.py`.

use std::time::Instant;

use candle_core::{Device, Tensor};
use kinora_pipeline::nets::unet_motion::UnetMotionInput;
use kinora_pipeline::store::atomic::AtomicFile;
use kinora_pipeline::store::model_store::ModelStore;
use serde_json::json;

use crate::cli::{BenchArgs, BenchCommand};
use crate::engines::Machinery;
use crate::failure::{Failure, Kind, OrFail as _, Outcome};
use crate::output::{say, table};

pub(crate) fn run(args: &BenchArgs) -> Outcome {
    if let Some(BenchCommand::Attention(args)) = &args.what {
        return super::bench_attention::run(args);
    }
    // Opened before the long work: a place that cannot be written is no news to have after it.
    let json_file = args.json.as_deref().map(AtomicFile::create).transpose().or_fail(Kind::Io)?;
    let machinery = Machinery::new(Device::Cpu, &ModelStore::default_root())?;
    let model = machinery.embedded().or_fail(Kind::Unavailable)?;
    let parts = model.parts();
    let frames = 16usize;
    let random = |shape: &[usize]| Tensor::randn(0f32, 1f32, shape, &Device::Cpu).or_fail(Kind::Bug);
    let config = parts.unet.config();
    let sample = random(&[1, frames, 32, 32, config.in_channels])?;
    let text = random(&[1, 32, config.cross_attention_dim])?;
    let pictures = random(&[frames, 256, 256, 3])?;
    let latents = parts.autoencoder.encode(&pictures).or_fail(Kind::Bug)?;
    let (times, strength) = ([500.0], [600.0]);
    let input = UnetMotionInput { strength: Some(&strength), ..UnetMotionInput::new(&sample, &times, &text) };

    let step = timed(args.runs, || parts.unet.forward(&input).map(drop).or_fail(Kind::Bug))?;
    let encode = timed(args.runs, || parts.autoencoder.encode(&pictures).map(drop).or_fail(Kind::Bug))?;
    let decode = timed(args.runs, || parts.autoencoder.decode(&latents).map(drop).or_fail(Kind::Bug))?;
    let mut rows = vec![["part (16 frames of 256x256)", "median ms", "min ms"].map(str::to_owned).to_vec()];
    for (name, (median, min)) in [("unet_step", step), ("encode", encode), ("decode", decode)] {
        rows.push(vec![name.to_owned(), format!("{median:.1}"), format!("{min:.1}")]);
    }
    table(&rows);
    if let Some(mut file) = json_file {
        let value = |(median, min): (f64, f64)| json!({ "median_ms": median, "min_ms": min });
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let figures = json!({ "threads": threads, "unet_step": value(step), "encode": value(encode), "decode": value(decode) });
        std::io::Write::write_all(file.file_mut(), format!("{figures:#}\n").as_bytes()).or_fail(Kind::Io)?;
        say(file.dest().display());
        file.commit(true).or_fail(Kind::Io)?;
    }
    Ok(())
}

fn timed(runs: usize, mut work: impl FnMut() -> Result<(), Failure>) -> Result<(f64, f64), Failure> {
    work()?;
    let mut samples = Vec::with_capacity(runs.max(1));
    for _ in 0..runs.max(1) {
        let began = Instant::now();
        work()?;
        samples.push(began.elapsed().as_secs_f64() * 1e3);
    }
    samples.sort_by(f64::total_cmp);
    let middle = samples.get(samples.len() / 2).copied().unwrap_or(0.0);
    Ok((middle, samples.first().copied().unwrap_or(0.0)))
}
