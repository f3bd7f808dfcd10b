//! Times attention on the first CUDA card over the shapes of `benches/peers/cuda_peers.py`.
//!
//! One row a shape: median milliseconds of warm runs, TFLOP/s, GB/s, the two floors (bytes at 3.0
//! TB/s, products at 790 TFLOP/s) and the kernel. Arguments: a filter on names; `--json FILE`.
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
    use candle_core::cuda_backend::WrapErr;
    use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
    use candle_core::{DType, Device, Tensor};
    use kinora_kernels::*;

    /// Name, batch, heads, queries, keys, head dimension, causal.
    type Row = (&'static str, usize, usize, usize, usize, usize, bool);

    const ROWS: [Row; 20] = [
        ("sd15 spatial64", 32, 8, 4096, 4096, 40, false),
        ("sd15 spatial32", 32, 8, 1024, 1024, 80, false),
        ("sd15 spatial16", 32, 8, 256, 256, 160, false),
        ("sd15 cross64", 32, 8, 4096, 77, 40, false),
        ("sd15 temporal64", 8192, 8, 16, 16, 40, false),
        ("sd15 temporal32", 2048, 8, 16, 16, 80, false),
        ("sd15 temporal16", 512, 8, 16, 16, 160, false),
        ("temporal64 f32", 8192, 8, 32, 32, 40, false),
        ("temporal64 f64", 4096, 8, 64, 64, 40, false),
        ("sparse-causal64", 16, 8, 4096, 8192, 40, false),
        ("dynami spatial", 32, 5, 2560, 2560, 64, false),
        ("dynami temporal", 5120, 5, 16, 16, 64, false),
        ("vision tower 16k", 1, 16, 16384, 16384, 72, false),
        ("dit 32k d128", 1, 24, 32768, 32768, 128, false),
        ("prefill 16k", 1, 12, 16384, 16384, 128, true),
        ("4k d64", 4, 32, 4096, 4096, 64, false),
        ("16k d64", 1, 32, 16384, 16384, 64, false),
        ("4k d128", 4, 16, 4096, 4096, 128, false),
        ("16k d128", 1, 16, 16384, 16384, 128, false),
        ("16k d128 causal", 1, 16, 16384, 16384, 128, true),
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
            "{:18} {:>8} {:>7} {:>7} {:>9} {:>9}  kernel",
            "shape", "ms", "TFLOP/s", "GB/s", "bytes ms", "mma ms"
        );
        for row in ROWS.into_iter().filter(|row| row.0.contains(&filter)) {
            // Heads apart, as a peer's fastest layout has them, and together, as projections leave them.
            for layout in ["apart", "together"] {
                lines.push(time(&device, row, layout)?);
            }
        }
        if let Some(path) = json {
            std::fs::write(path, format!("[\n{}\n]\n", lines.join(",\n")))?;
        }
        Ok(())
    }

    fn time(device: &Device, row: Row, layout: &str) -> Result<String> {
        let (name, batch, heads, queries, keys, dim, causal) = row;
        let part = |tokens: usize| -> Result<Tensor> {
            Ok(match layout {
                "apart" => {
                    Tensor::randn(0f32, 1.0, (batch, heads, tokens, dim), device)?.to_dtype(DType::F16)?
                }
                // Time axes: [tokens, batch, heads, dim] as the network stores its frames.
                _ if tokens <= 64 && batch > 64 => {
                    Tensor::randn(0f32, 1.0, (tokens, batch, heads, dim), device)?
                        .to_dtype(DType::F16)?
                        .permute((1, 2, 0, 3))?
                }
                _ => Tensor::randn(0f32, 1.0, (batch, tokens, heads, dim), device)?
                    .to_dtype(DType::F16)?
                    .transpose(1, 2)?,
            })
        };
        let (q, k, v) = (part(queries)?, part(keys)?, part(keys)?);
        let spec = AttentionSpec::new(dim).with_mask(if causal { Mask::Causal } else { Mask::None });
        let (first, used) = observed(|| attention(&q, &k, &v, &spec));
        first?;
        let kernel = used.first().map_or("none", |u| u.kernel);
        // The card's own clock between two events, over batches long enough that the host's launch
        // time does not show.
        let stream = device.as_cuda_device()?.cuda_stream();
        let mark = || stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).w();
        let run = |count: usize| -> Result<f64> {
            let start = mark()?;
            for _ in 0..count {
                attention(&q, &k, &v, &spec)?;
            }
            Ok(f64::from(start.elapsed_ms(&mark()?).w()?) / count as f64)
        };
        let once = run(3)?.min(run(3)?);
        let count = ((20.0 / once) as usize).clamp(2, 200);
        let mut times = (0..9).map(|_| run(count)).collect::<Result<Vec<f64>>>()?;
        times.sort_by(f64::total_cmp);
        let ms = times[times.len() / 2];
        let halved = if causal { 2.0 } else { 1.0 };
        let flops = 4.0 * (batch * heads * dim) as f64 * queries as f64 * keys as f64 / halved;
        let bytes = 2.0 * (batch * heads * dim) as f64 * (2 * queries + 2 * keys) as f64;
        let (tera, giga) = (flops / ms / 1e9, bytes / ms / 1e6);
        let (bytes_ms, mma_ms) = (bytes / 3.0e9, flops / 7.9e11);
        println!(
            "{name:18} {ms:8.4} {tera:7.0} {giga:7.0} {bytes_ms:9.3} {mma_ms:9.3}  {kernel}, heads {layout}"
        );
        Ok(format!(
            "{{\"shape\": \"{name}\", \"heads\": \"{layout}\", \"kernel\": \"{kernel}\", \"ms\": {ms:.5}, \
             \"tflops\": {tera:.1}, \"gbytes\": {giga:.1}, \"floor_bytes_ms\": {bytes_ms:.4}, \"floor_mma_ms\": {mma_ms:.4}}}"
        ))
    }
}
