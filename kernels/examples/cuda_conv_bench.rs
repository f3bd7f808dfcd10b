//! Times convolutions on the first CUDA card over the rows of `benches/peers/cuda_conv_peers.py`.
//!
//! One row a shape: median milliseconds of warm runs, TFLOP/s of the direct convolution's products, the two
//! floors (bytes at 3.0 TB/s, products at 790 TFLOP/s) and the kernel. Arguments: a filter on names;
//! `--json FILE`.
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

    struct Row {
        name: &'static str,
        /// Pictures, height, width.
        picture: (usize, usize, usize),
        /// Channels in and out.
        channels: (usize, usize),
        kernel: usize,
        stride: usize,
        doubled: bool,
    }

    const fn row(
        name: &'static str,
        picture: (usize, usize, usize),
        channels: (usize, usize),
        kernel: usize,
    ) -> Row {
        Row { name, picture, channels, kernel, stride: 1, doubled: false }
    }

    const ROWS: [Row; 24] = [
        row("320 64", (32, 64, 64), (320, 320), 3),
        row("640 32", (32, 32, 32), (640, 640), 3),
        row("1280 16", (32, 16, 16), (1280, 1280), 3),
        row("1280 8", (32, 8, 8), (1280, 1280), 3),
        row("960-320 64", (32, 64, 64), (960, 320), 3),
        row("1920-640 32", (32, 32, 32), (1920, 640), 3),
        row("2560-1280 16", (32, 16, 16), (2560, 1280), 3),
        Row { stride: 2, ..row("320 64 s2", (32, 64, 64), (320, 320), 3) },
        Row { doubled: true, ..row("up 640 32", (32, 32, 32), (640, 640), 3) },
        Row { doubled: true, ..row("up 1280 16", (32, 16, 16), (1280, 1280), 3) },
        row("conv_in 4-320 64", (32, 64, 64), (4, 320), 3),
        row("conv_out 320-4 64", (32, 64, 64), (320, 4), 3),
        row("vae 512 64", (16, 64, 64), (512, 512), 3),
        row("vae 512 128", (16, 128, 128), (512, 512), 3),
        row("vae 256 256", (16, 256, 256), (256, 256), 3),
        row("vae 128 512", (16, 512, 512), (128, 128), 3),
        row("vae 128-3 512", (16, 512, 512), (128, 3), 3),
        row("1x1 320 64", (32, 64, 64), (320, 320), 1),
        row("1x1 640 32", (32, 32, 32), (640, 640), 1),
        row("1x1 1280 16", (32, 16, 16), (1280, 1280), 1),
        row("1x1 320-2560 64", (32, 64, 64), (320, 2560), 1),
        row("1x1 1280-320 64", (32, 64, 64), (1280, 320), 1),
        row("1x1 1920-640 32", (32, 32, 32), (1920, 640), 1),
        row("gemm 8192", (1, 1, 8192), (8192, 8192), 1),
    ];

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
        let device = open_cuda(0)?;
        let mut lines = Vec::new();
        println!(
            "{:18} {:>8} {:>7} {:>9} {:>9} {:>9}  kernel",
            "shape", "ms", "TFLOP/s", "bytes ms", "mma ms", "+residual"
        );
        for row in ROWS.iter().filter(|row| row.name.contains(&filter)) {
            lines.push(time(&device, row)?);
        }
        if let Some(path) = json {
            std::fs::write(path, format!("[\n{}\n]\n", lines.join(",\n")))?;
        }
        Ok(())
    }

    fn time(device: &Device, row: &Row) -> Result<String> {
        let Row { name, picture: (n, height, width), channels: (inner, out), kernel, stride, doubled } = *row;
        let normal = |dims: &[usize], by: f64| -> Result<Tensor> {
            Ok(Tensor::randn(0f32, by as f32, dims, device)?.to_dtype(DType::F16)?)
        };
        let x = normal(&[n, height, width, inner], 1.0)?;
        let weight =
            normal(&[out, inner, kernel, kernel], 1.0 / ((inner * kernel * kernel) as f64).sqrt())?;
        let layer = Conv2d::new(weight, Some(normal(&[out], 1.0)?), stride, kernel / 2)?;
        let call = |residual: Option<&Tensor>| {
            if doubled { layer.forward_upsampled(&x) } else { layer.forward_fused(&x, Activation::None, residual) }
        };
        let (first, used) = observed(|| call(None));
        let residual = first?;
        let used = used.iter().map(|u| u.kernel).collect::<Vec<_>>().join("+");
        // Batches long enough that the host's launch time does not show, each closed by a wait.
        let run = |count: usize, residual: Option<&Tensor>| -> Result<f64> {
            device.synchronize()?;
            let start = Instant::now();
            for _ in 0..count {
                call(residual)?;
            }
            device.synchronize()?;
            Ok(start.elapsed().as_secs_f64() * 1e3 / count as f64)
        };
        let median = |residual: Option<&Tensor>| -> Result<f64> {
            let once = run(3, residual)?.min(run(3, residual)?);
            let count = ((12.0 / once) as usize).clamp(2, 200);
            let mut times = (0..5).map(|_| run(count, residual)).collect::<Result<Vec<f64>>>()?;
            times.sort_by(f64::total_cmp);
            Ok(times[times.len() / 2])
        };
        let ms = median(None)?;
        let added = if doubled { f64::NAN } else { median(Some(&residual))? };
        let pixels = residual.elem_count() as f64;
        let area = (kernel * kernel * inner) as f64;
        let flops = 2.0 * pixels * area;
        // Four 2x2 kernels do 4/9 of the products of a doubled picture.
        let least = if doubled { flops * 4.0 / 9.0 } else { flops };
        let bytes = 2.0 * ((n * height * width * inner) as f64 + area * out as f64 + pixels);
        let (tera, bytes_ms, mma_ms) = (flops / ms / 1e9, bytes / 3.0e9, least / 7.9e11);
        println!("{name:18} {ms:8.4} {tera:7.0} {bytes_ms:9.4} {mma_ms:9.4} {added:9.4}  {used}");
        let added = if doubled { "null".to_owned() } else { format!("{added:.5}") };
        Ok(format!(
            "{{\"shape\": \"{name}\", \"kernel\": \"{used}\", \"ms\": {ms:.5}, \"with_residual_ms\": {added}, \
             \"tflops\": {tera:.1}, \"floor_bytes_ms\": {bytes_ms:.4}, \"floor_mma_ms\": {mma_ms:.4}}}"
        ))
    }
}
