//! Times the full-size networks of Stable Diffusion 1.5 with AnimateDiff v2 modules on a card, with random
//! f16 weights: one guided denoising step of 16 frames of 512×512, the autoencoder, the text encoder.
//!
//! Arguments: any of `unet`, `vae`, `clip` (all when none is given); `--frames N`; `--json FILE`; `--case FOLDER`
//! compares instead with the f32 results of diffusers that `benches/peers/cuda_networks.py --case` left there.
#![allow(clippy::print_stdout)]

#[cfg(not(feature = "cuda"))]
fn main() {
    println!("build with --features cuda");
}

#[cfg(feature = "cuda")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    bench::main()
}

#[cfg(feature = "cuda")]
mod bench {
    use std::collections::{BTreeMap, HashMap};
    use std::path::Path;
    use std::time::Instant;

    use candle_core::{DType, Device, Shape, Tensor};
    use candle_nn::var_builder::SimpleBackend;
    use candle_nn::{Init, VarBuilder};
    use kinora_kernels::{Recorded, observed, open_cuda, peak_memory, profiled};
    use kinora_pipeline::nets::unet_motion::{UnetError, UnetMotion, UnetMotionConfig, UnetMotionInput};
    use kinora_pipeline::nets::{AutoencoderKl, AutoencoderKlConfig, ClipText, ClipTextConfig};

    type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

    const VAE: &str = include_str!("../tests/fixtures/layouts/sd15_vae.txt");
    const CLIP: &str = include_str!("../tests/fixtures/layouts/sd15_text_encoder.txt");

    /// Weights made up where they are asked for: norms near one, maps that keep their input's size.
    struct Random(BTreeMap<String, Vec<usize>>);

    impl SimpleBackend for Random {
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
            let dims = self.0.get(name).ok_or_else(|| candle_core::Error::Msg(format!("no {name}")))?;
            let fan: usize = dims.iter().skip(1).product();
            let (mean, deviation) = match (dims.len(), name.ends_with("weight")) {
                (1, true) => (1.0, 0.1),
                (1, false) => (0.0, 0.1),
                _ => (0.0, 0.7 / (fan as f32).sqrt()),
            };
            Tensor::randn(mean, deviation, dims.as_slice(), device)?.to_dtype(dtype)
        }

        fn contains_tensor(&self, name: &str) -> bool {
            self.0.contains_key(name)
        }
    }

    fn builder(shapes: BTreeMap<String, Vec<usize>>, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(Random(shapes)), DType::F16, device.clone())
    }

    /// Lines `name 512x4x3x3`.
    fn listed(text: &str) -> BTreeMap<String, Vec<usize>> {
        let line = |line: &str| {
            let (name, dims) = line.split_once(' ')?;
            Some((name.to_owned(), dims.split('x').map(|n| n.parse().ok()).collect::<Option<_>>()?))
        };
        text.lines().filter_map(line).collect()
    }

    /// Median milliseconds of warm runs with one wait at the end of each, and of the host's part.
    fn timed<T>(device: &Device, runs: usize, mut f: impl FnMut() -> Result<T>) -> Result<(f64, f64)> {
        let (mut whole, mut host) = (Vec::new(), Vec::new());
        for run in 0..runs + 2 {
            device.synchronize()?;
            let start = Instant::now();
            let kept = f()?;
            let queued = start.elapsed().as_secs_f64() * 1e3;
            device.synchronize()?;
            if run >= 2 {
                whole.push(start.elapsed().as_secs_f64() * 1e3);
                host.push(queued);
            }
            drop(kept);
        }
        whole.sort_by(f64::total_cmp);
        host.sort_by(f64::total_cmp);
        Ok((whole[runs / 2], host[runs / 2]))
    }

    struct Report {
        device: Device,
        lines: Vec<String>,
    }

    impl Report {
        fn add(&mut self, name: &str, (ms, host): (f64, f64)) -> Result<()> {
            let peak = peak_memory(&self.device)? as f64 / 1e9;
            println!("{name:34} {ms:9.3} ms   host {host:8.3} ms   peak {peak:6.3} GB");
            self.lines.push(format!(
                "{{\"name\": \"{name}\", \"ms\": {ms:.4}, \"host_ms\": {host:.4}, \"peak_gb\": {peak:.4}}}"
            ));
            Ok(())
        }

        /// The longest entries of one call's profile.
        fn profile(&self, rows: &[kinora_kernels::ProfileRow], most: usize) {
            let total: f64 = rows.iter().map(|row| row.milliseconds).sum();
            println!("  profile of one run, {total:.2} ms between events:");
            for row in rows.iter().take(most) {
                println!("  {:9.3} ms {:5} x  {}", row.milliseconds, row.calls, row.name);
            }
        }
    }

    fn finite(x: &Tensor) -> Result<f32> {
        let size = x.to_dtype(DType::F32)?.sqr()?.mean_all()?.to_scalar::<f32>()?;
        if size.is_finite() { Ok(size.sqrt()) } else { Err("the result is not finite".into()) }
    }

    pub(super) fn main() -> Result<()> {
        let (mut wanted, mut json, mut frames, mut case) = (Vec::new(), None, 16, None);
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--json" => json = args.next(),
                "--case" => case = args.next(),
                "--frames" => frames = args.next().ok_or("--frames needs a number")?.parse()?,
                _ => wanted.push(arg),
            }
        }
        let device = open_cuda(0)?;
        if let Some(folder) = case {
            return compare(&device, folder.as_ref());
        }
        let mut report = Report { device: device.clone(), lines: Vec::new() };
        let asked = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
        if asked("clip") {
            clip(&device, &mut report)?;
        }
        if asked("unet") {
            unet(&device, frames, &mut report)?;
        }
        if asked("vae") {
            vae(&device, frames, &mut report)?;
        }
        if let Some(path) = json {
            std::fs::write(path, format!("[\n{}\n]\n", report.lines.join(",\n")))?;
        }
        Ok(())
    }

    fn compare(device: &Device, folder: &Path) -> Result<()> {
        let load = |name: &str| candle_core::safetensors::load(folder.join(name), device);
        let network = |name: &str| -> Result<VarBuilder<'static>> {
            Ok(VarBuilder::from_tensors(load(&format!("{name}.safetensors"))?, DType::F16, device))
        };
        let tensor = |case: &HashMap<String, Tensor>, name: &str| -> Result<Tensor> {
            Ok(case.get(name).ok_or_else(|| format!("the case has no {name}"))?.clone())
        };
        let vae = AutoencoderKl::new(&AutoencoderKlConfig::default(), network("vae")?)?;
        let case = load("vae_case.safetensors")?;
        // Latents of a checkpoint are scaled, the case's are as the decoder takes them.
        let latents = (tensor(&case, "latents")?.permute((0, 2, 3, 1))?.contiguous()? * 0.18215)?;
        apart("decoded pictures", &vae.decode(&latents)?.permute((0, 3, 1, 2))?, &tensor(&case, "want")?)?;
        drop(vae);
        let unet = UnetMotion::new(&UnetMotionConfig::animatediff_v2(), network("unet")?)?;
        let case = load("unet_case.safetensors")?;
        let sample = tensor(&case, "sample")?.permute((0, 2, 3, 4, 1))?.contiguous()?;
        let (clips, frames) = (sample.dim(0)?, sample.dim(1)?);
        let text = tensor(&case, "text")?.reshape((clips, frames, 77, 768))?.narrow(1, 0, 1)?;
        let text = text.squeeze(1)?.contiguous()?;
        let out = unet.forward(&UnetMotionInput::new(&sample, &vec![801.0; clips], &text))?;
        apart("predicted noise", &out.permute((0, 4, 1, 2, 3))?, &tensor(&case, "want")?)
    }

    /// Prints the distance of two results as decibels of a range of 2 and relative to the second.
    fn apart(name: &str, got: &Tensor, want: &Tensor) -> Result<()> {
        let mean = |x: &Tensor| -> Result<f64> { Ok(f64::from(x.sqr()?.mean_all()?.to_scalar::<f32>()?)) };
        let want = want.to_dtype(DType::F32)?;
        let (error, size) = (mean(&(got.to_dtype(DType::F32)? - &want)?)?, mean(&want)?);
        let (decibels, relative) = (10.0 * (4.0 / error).log10(), (error / size).sqrt());
        println!("{name}: {decibels:.1} dB of a range of 2, relative {relative:.2e}");
        Ok(())
    }

    fn unet(device: &Device, frames: usize, report: &mut Report) -> Result<()> {
        let config = UnetMotionConfig::animatediff_v2();
        let start = Instant::now();
        let unet = UnetMotion::new(&config, builder(config.parameters()?, device))?;
        println!("network built in {:.1} s", start.elapsed().as_secs_f64());
        let weights = peak_memory(device)? as f64 / 1e9;
        println!("memory while building {weights:.3} GB");
        let noise = Tensor::randn(0f32, 1.0, (1, frames, 64, 64, 4), device)?.to_dtype(DType::F16)?;
        let text = Tensor::randn(0f32, 1.0, (2, 77, 768), device)?.to_dtype(DType::F16)?;
        let guided = |out: &Tensor| -> candle_core::Result<Tensor> {
            let (plain, asked) = (out.narrow(0, 0, 1)?, out.narrow(0, 1, 1)?);
            ((asked - &plain)? * 7.5)? + plain
        };
        let step = |noise: &Tensor, time: &Tensor, text: &Tensor| -> std::result::Result<Tensor, UnetError> {
            let sample = Tensor::cat(&[noise, noise], 0)?;
            let out = unet.forward_with_states(&UnetMotionInput::new(&sample, &[0.0; 2], text), time)?;
            Ok(guided(&out)?)
        };
        let states = |t: f64| -> Result<Tensor> {
            let sample = Tensor::cat(&[&noise, &noise], 0)?;
            Ok(unet.time_states(&UnetMotionInput::new(&sample, &[t, t], &text))?)
        };
        let (out, used) =
            observed(|| step(&noise, &states(801.0)?, &text).map_err(Box::<dyn std::error::Error>::from));
        let out = out?;
        println!("result's root mean square {:.3}", finite(&out)?);
        for kernel in used {
            println!("  ran {kernel}");
        }
        peak_memory(device)?;
        let eager = timed(device, 9, || Ok(step(&noise, &states(801.0)?, &text)?))?;
        report.add(&format!("denoise step {frames}x512x512"), eager)?;
        let time = states(801.0)?;
        let (_, rows) = profiled(device, || step(&noise, &time, &text))?;
        report.profile(&rows, 60);
        let inputs = |t: f64| -> Result<[Tensor; 3]> { Ok([noise.clone(), states(t)?, text.clone()]) };
        let recorded = match Recorded::new(device, &inputs(1.0)?, |x| step(&x[0], &x[1], &x[2])) {
            Ok(recorded) => recorded,
            Err(error) => {
                println!("graph: not recorded: {error}");
                return Ok(());
            }
        };
        for t in [801.0, 401.0, 7.0] {
            let (replayed, eager) = (recorded.run(&inputs(t)?)?, step(&noise, &states(t)?, &text)?);
            let bits = |x: &Tensor| -> Result<Vec<half::f16>> { Ok(x.flatten_all()?.to_vec1()?) };
            let same = bits(&replayed)?.iter().zip(bits(&eager)?).all(|(a, b)| a.to_bits() == b.to_bits());
            println!("graph replay at step {t}: {}", if same { "equal bit for bit" } else { "DIFFERS" });
        }
        peak_memory(device)?;
        let replay = timed(device, 15, || Ok(recorded.run(&inputs(801.0)?)?))?;
        report.add(&format!("denoise step {frames}x512x512, graph"), replay)
    }

    fn vae(device: &Device, frames: usize, report: &mut Report) -> Result<()> {
        let vae = AutoencoderKl::new(&AutoencoderKlConfig::default(), builder(listed(VAE), device))?;
        let latents = Tensor::randn(0f32, 0.2, (frames, 64, 64, 4), device)?.to_dtype(DType::F16)?;
        println!("decoded root mean square {:.3}", finite(&vae.decode(&latents.narrow(0, 0, 1)?)?)?);
        peak_memory(device)?;
        let one_by_one = timed(device, 3, || {
            (0..frames).map(|i| Ok(vae.decode(&latents.narrow(0, i, 1)?)?)).collect::<Result<Vec<_>>>()
        })?;
        report.add(&format!("decode {frames} frames one by one"), one_by_one)?;
        let together = timed(device, 3, || Ok(vae.decode(&latents)?))?;
        report.add(&format!("decode {frames} frames at once"), together)?;
        let (_, rows) = profiled(device, || vae.decode(&latents.narrow(0, 0, 1)?))?;
        report.profile(&rows, 30);
        let pictures = Tensor::randn(0f32, 0.5, (frames, 512, 512, 3), device)?.to_dtype(DType::F16)?;
        peak_memory(device)?;
        let encoded = timed(device, 3, || {
            (0..frames).map(|i| Ok(vae.encode(&pictures.narrow(0, i, 1)?, None)?)).collect::<Result<Vec<_>>>()
        })?;
        report.add(&format!("encode {frames} frames one by one"), encoded)
    }

    fn clip(device: &Device, report: &mut Report) -> Result<()> {
        let clip = ClipText::new(&ClipTextConfig::default(), builder(listed(CLIP), device))?;
        let ids = Tensor::from_iter((0..154).map(|i| (i * 311 % 49_000) as u32), device)?.reshape((2, 77))?;
        println!("text states' root mean square {:.3}", finite(&clip.forward(&ids)?.hidden)?);
        peak_memory(device)?;
        let encoded = timed(device, 9, || Ok(clip.forward(&ids)?))?;
        report.add("text encoder, 2 prompts", encoded)
    }
}
