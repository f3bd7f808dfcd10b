//! Times the way back through convolutions and linear layers on the first CUDA card, f16, over shapes of the
//! UNet at 16 frames of 512×512 with guidance.
//!
//! One row a shape: median milliseconds of `Tensor::backward` from the layer's result (with candle's filling and
//! adding of gradients), TFLOP/s of the gradient's products. Arguments: a filter on names.
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

    use candle_core::{DType, Device, Tensor, Var};
    use kinora_kernels::*;

    struct Bench {
        device: Device,
        filter: String,
    }

    impl Bench {
        fn random(&self, dims: &[usize]) -> Result<Tensor> {
            Ok(Tensor::randn(0f32, 0.1, dims, &self.device)?.to_dtype(DType::F16)?)
        }

        /// `flops` of the gradients that `y` is differentiated for.
        fn row(&self, name: &str, flops: f64, y: impl FnOnce() -> Result<Tensor>) -> Result<()> {
            if !name.contains(&self.filter) {
                return Ok(());
            }
            let y = y()?;
            let run = |count: usize| -> Result<f64> {
                self.device.synchronize()?;
                let start = Instant::now();
                for _ in 0..count {
                    y.backward()?;
                }
                self.device.synchronize()?;
                Ok(start.elapsed().as_secs_f64() * 1e3 / count as f64)
            };
            let once = run(2)?.min(run(2)?);
            let count = ((20.0 / once) as usize).clamp(2, 100);
            let mut times = (0..5).map(|_| run(count)).collect::<Result<Vec<f64>>>()?;
            times.sort_by(f64::total_cmp);
            let ms = times[times.len() / 2];
            println!("{name:44} {ms:8.4} ms {:6.0} TFLOP/s", flops / ms / 1e9);
            Ok(())
        }
    }

    pub(super) fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let bench = Bench { device: open_cuda(0)?, filter: std::env::args().nth(1).unwrap_or_default() };
        for (n, size, inner, out, stride) in [
            (32, 64, 320, 320, 1),
            (32, 32, 640, 640, 1),
            (32, 16, 1280, 1280, 1),
            (32, 64, 640, 320, 1),
            (32, 64, 320, 320, 2),
        ] {
            let weight = bench.random(&[out, inner, 3, 3])?;
            let flops = 18.0 * (n * (size / stride) * (size / stride) * inner * out) as f64;
            let x = Var::from_tensor(&bench.random(&[n, size, size, inner])?)?;
            let name = format!("conv3x3/{stride} {n}x{size}x{size} {inner}->{out}");
            bench.row(&format!("{name} by input"), flops, || {
                Conv2d::new(weight.clone(), None, stride, 1)?.forward(&x)
            })?;
            let weight = Var::from_tensor(&weight)?;
            bench.row(&format!("{name} by weight"), flops, || {
                Conv2d::new(weight.as_tensor().clone(), None, stride, 1)?.forward(&x.detach())
            })?;
        }
        let (x, weight) =
            (Var::from_tensor(&bench.random(&[32, 32, 32, 640])?)?, bench.random(&[640, 640, 3, 3])?);
        let flops = 8.0 * (32 * 64 * 64 * 640 * 640usize) as f64;
        bench.row("upsample + conv3x3 32x32x32 640->640 by input", flops, || {
            Conv2d::new(weight, None, 1, 1)?.forward_upsampled(&x)
        })?;
        for (rows, inner, out) in
            [(131_072, 320, 320), (131_072, 320, 2560), (32_768, 640, 640), (8192, 1280, 1280)]
        {
            let (x, weight) = (bench.random(&[rows, inner])?, bench.random(&[out, inner])?);
            let flops = 2.0 * (rows * inner * out) as f64;
            let name = format!("linear {rows}x{inner}x{out}");
            let var = Var::from_tensor(&x)?;
            bench.row(&format!("{name} by input"), flops, || {
                Linear::new(weight.clone(), None)?.forward(&var)
            })?;
            let var = Var::from_tensor(&weight)?;
            bench.row(&format!("{name} by weight"), flops, || {
                Linear::new(var.as_tensor().clone(), None)?.forward(&x)
            })?;
        }
        let (x, weight) = (Var::from_tensor(&bench.random(&[131_072, 320])?)?, bench.random(&[2560, 320])?);
        let flops = 4.0 * (131_072 * 320 * 2560usize) as f64;
        bench.row("gated linear 131072x320x1280 by input", flops, || {
            GatedLinear::new(weight, None)?.forward(&x)
        })?;
        Ok(())
    }
}
