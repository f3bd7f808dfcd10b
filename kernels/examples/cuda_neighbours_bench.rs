//! Times norms, gates, activations, products and upsampling on the first CUDA card, f16, over the shapes of
//! one denoising step of 16 frames of 512×512 with guidance.
//!
//! One row a shape: median milliseconds of warm runs, GB/s of what must be read and written once, and the
//! share of 3.0 TB/s. Arguments: a filter on names; `--json FILE`.
#![allow(clippy::print_stdout)]

#[cfg(not(feature = "cuda"))]
fn main() {
    println!("build with --features cuda");
}

#[cfg(feature = "cuda")]
fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    bench::main()
}

#[cfg(feature = "cuda")]
mod bench {
    use std::time::Instant;

    use candle_core::{DType, Device, Tensor};
    use kinora_kernels::*;

    struct Bench {
        device: Device,
        filter: String,
        lines: Vec<String>,
    }

    impl Bench {
        fn random(&self, dims: &[usize]) -> Result<Tensor> {
            Ok(Tensor::randn(0f32, 1.0, dims, &self.device)?.to_dtype(DType::F16)?)
        }

        /// `values` are those read once and written once.
        fn row(&mut self, name: &str, values: usize, mut f: impl FnMut() -> Result<Tensor>) -> Result<()> {
            if !name.contains(&self.filter) {
                return Ok(());
            }
            let device = self.device.clone();
            let mut run = |count: usize| -> Result<f64> {
                device.synchronize()?;
                let start = Instant::now();
                for _ in 0..count {
                    f()?;
                }
                device.synchronize()?;
                Ok(start.elapsed().as_secs_f64() * 1e3 / count as f64)
            };
            let once = run(3)?.min(run(3)?);
            let count = ((10.0 / once) as usize).clamp(2, 300);
            let mut times = (0..7).map(|_| run(count)).collect::<Result<Vec<f64>>>()?;
            times.sort_by(f64::total_cmp);
            let ms = times[times.len() / 2];
            let giga = 2.0 * values as f64 / ms / 1e6;
            println!("{name:34} {ms:8.4} ms {giga:6.0} GB/s {:4.0} %", giga / 30.0);
            self.lines.push(format!("{{\"name\": \"{name}\", \"ms\": {ms:.5}, \"gbytes\": {giga:.1}}}"));
            Ok(())
        }
    }

    pub(super) fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let (mut filter, mut json) = (String::new(), None);
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            if arg == "--json" {
                json = args.next();
            } else {
                filter = arg;
            }
        }
        let mut bench = Bench { device: open_cuda(0)?, filter, lines: Vec::new() };
        for (n, points, c) in [
            (32, 4096, 320),
            (2, 65_536, 320),
            (32, 4096, 640),
            (32, 4096, 960),
            (32, 1024, 640),
            (32, 1024, 1920),
            (32, 256, 1280),
            (32, 256, 2560),
            (32, 64, 1280),
            (1, 262_144, 128),
        ] {
            let x = bench.random(&[n, points, c])?;
            let norm = GroupNorm::new(bench.random(&[c])?, bench.random(&[c])?, 32, 1e-5)?;
            let name = format!("group_norm silu {n}x{points}x{c}");
            bench.row(&name, 2 * n * points * c, || norm.forward(&x, Activation::Silu))?;
        }
        for (rows, c) in [(131_072, 320), (32_768, 640), (8192, 1280), (2048, 1280)] {
            let x = bench.random(&[rows, c])?;
            let norm = LayerNorm::new(bench.random(&[c])?, bench.random(&[c])?, 1e-5);
            bench.row(&format!("layer_norm {rows}x{c}"), 2 * rows * c, || norm.forward(&x))?;
            let (x, weight) = (bench.random(&[rows, 8 * c])?, bench.random(&[c, c])?);
            bench.row(&format!("geglu {rows}x{}", 4 * c), 12 * rows * c, || geglu(&x))?;
            drop(x);
            let (x, residual) = (bench.random(&[rows, c])?, bench.random(&[rows, c])?);
            let linear = Linear::new(weight, Some(bench.random(&[c])?))?;
            bench.row(&format!("linear {rows}x{c}x{c}"), 2 * rows * c, || linear.forward(&x))?;
            let name = format!("linear {rows}x{c}x{c} + residual");
            bench.row(&name, 3 * rows * c, || linear.forward_fused(&x, Activation::None, Some(&residual)))?;
            let name = format!("linear {rows}x{c}x{c} silu + residual");
            bench.row(&name, 3 * rows * c, || linear.forward_fused(&x, Activation::Silu, Some(&residual)))?;
        }
        let x = bench.random(&[32, 32, 32, 640])?;
        bench.row("upsample 32x32x32x640", 5 * x.elem_count(), || upsample_nearest2x(&x))?;
        bench.row("silu 32x32x32x640", 2 * x.elem_count(), || Activation::Silu.apply(&x))?;
        if let Some(path) = json {
            std::fs::write(path, format!("[\n{}\n]\n", bench.lines.join(",\n")))?;
        }
        Ok(())
    }
}
