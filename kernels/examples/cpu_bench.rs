//! Times the CPU kernels over the shapes of `benches/peers/cpu_peers.py`.
//!
//! Prints `name <tab> ms <tab> GFLOP/s <tab> processor ms`: the least of several runs, and the processor
//! time of a run, which other programs on the machine disturb less (Linux only, else 0). Arguments: a filter on names, or
//! `--isa portable|avx2|avx512`.

use std::time::Instant;

use candle_core::{Device, Tensor};
use kinora_kernels::*;

type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let mut filter = String::new();
    let mut isa = Isa::current();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next_if_isa(&arg)) {
            ("--isa", Some(name)) => isa = name,
            _ => filter = arg,
        }
    }
    with_isa(isa, || rows(&filter)).ok_or("this processor lacks that instruction set")?
}

trait NextIsa {
    fn next_if_isa(&mut self, arg: &str) -> Option<Isa>;
}

impl<I: Iterator<Item = String>> NextIsa for I {
    fn next_if_isa(&mut self, arg: &str) -> Option<Isa> {
        if arg != "--isa" {
            return None;
        }
        match self.next()?.as_str() {
            "portable" => Some(Isa::Portable),
            "avx2" => Some(Isa::Avx2),
            "avx512" => Some(Isa::Avx512),
            _ => None,
        }
    }
}

#[allow(clippy::print_stdout)]
fn time(filter: &str, name: &str, flops: f64, mut f: impl FnMut() -> Result<Tensor>) -> Outcome {
    if !name.contains(filter) {
        return Ok(());
    }
    f()?;
    let (mut best, begun, busy) = (f64::INFINITY, Instant::now(), processor_seconds());
    let mut runs = 0;
    while runs < 5 || begun.elapsed().as_secs_f64() < 0.35 {
        let start = Instant::now();
        f()?;
        best = best.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    let busy = (processor_seconds() - busy) / f64::from(runs);
    println!("{name}\t{:.3}\t{:.1}\t{:.3}", best * 1e3, flops / best / 1e9, busy * 1e3);
    Ok(())
}

/// Time all threads of this process have run.
fn processor_seconds() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0.0 };
    let nanoseconds = tasks.flatten().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e9
}

fn random(dims: &[usize]) -> Result<Tensor> {
    Ok(Tensor::randn(0f32, 1.0, dims, &Device::Cpu)?)
}

fn rows(filter: &str) -> Outcome {
    for (n, size, inner, out, kernel, stride) in [
        (16, 32, 34, 96, 3, 1),
        (16, 32, 96, 96, 3, 1),
        (16, 32, 96, 96, 3, 2),
        (16, 16, 192, 192, 3, 1),
        (16, 8, 256, 256, 3, 1),
        (16, 8, 448, 256, 3, 1),
        (16, 16, 448, 192, 3, 1),
        (16, 32, 288, 96, 3, 1),
        (16, 32, 96, 8, 3, 1),
        (16, 32, 192, 96, 1, 1),
        (16, 128, 48, 48, 3, 1),
        (16, 64, 96, 96, 3, 1),
        (16, 32, 128, 128, 3, 1),
        (16, 64, 320, 320, 3, 1),
        (2, 32, 640, 640, 3, 1),
        (2, 16, 1280, 1280, 3, 1),
        (1, 256, 128, 128, 3, 1),
        (2, 32, 640, 640, 1, 1),
    ] {
        let layer =
            Conv2d::new(random(&[out, inner, kernel, kernel])?, Some(random(&[out])?), stride, kernel / 2)?;
        let x = random(&[n, size, size, inner])?;
        let flops = 2.0 * (n * (size / stride).pow(2) * inner * out * kernel * kernel) as f64;
        time(
            filter,
            &format!("conv{kernel}x{kernel}/{stride} {inner}->{out} {n}x{size}x{size}"),
            flops,
            || layer.forward(&x),
        )?;
    }
    for (n, size, inner, out) in [(16, 8, 256, 192), (16, 16, 192, 96), (16, 64, 96, 48)] {
        let layer = Conv2d::new(random(&[out, inner, 3, 3])?, Some(random(&[out])?), 1, 1)?;
        let x = random(&[n, size, size, inner])?;
        let flops = 2.0 * (n * 4 * size * size * inner * out * 9) as f64;
        time(filter, &format!("upsample+conv {inner}->{out} {n}x{size}x{size}"), flops, || {
            layer.forward_upsampled(&x)
        })?;
    }
    for (m, inner, out) in [
        (16384, 96, 96),
        (4096, 192, 192),
        (1024, 256, 256),
        (1024, 1024, 1024),
        (8192, 320, 1280),
        (2, 1280, 1280),
        (77, 768, 768),
    ] {
        let layer = Linear::new(random(&[out, inner])?, Some(random(&[out])?))?;
        let x = random(&[m, inner])?;
        time(filter, &format!("linear {m}x{inner}->{out}"), 2.0 * (m * inner * out) as f64, || {
            layer.forward(&x)
        })?;
    }
    // The `gemm` crate through candle, against the same rows of the peer.
    for (m, inner, out) in [(16384, 96, 96), (4096, 192, 192), (1024, 1024, 1024), (8192, 320, 1280)] {
        let (x, w) = (random(&[m, inner])?, random(&[out, inner])?.t()?);
        let flops = 2.0 * (m * inner * out) as f64;
        time(filter, &format!("gemm crate {m}x{inner}->{out}"), flops, || Ok(x.matmul(&w)?))?;
    }
    for (m, half) in [(16384, 192), (4096, 384), (8192, 1280)] {
        let x = random(&[m, 2 * half])?;
        time(filter, &format!("geglu {m}x{half}"), 0.0, || geglu(&x))?;
    }
    let x = random(&[16, 64, 64, 320])?;
    time(filter, "silu 16x64x64x320", 0.0, || Activation::Silu.apply(&x))?;
    for (n, size, c) in [(16, 32, 96), (16, 16, 192), (16, 8, 256), (16, 64, 320), (1, 128, 96)] {
        let layer = GroupNorm::new(random(&[c])?, random(&[c])?, 32, 1e-5)?;
        let x = random(&[n, size, size, c])?;
        time(filter, &format!("groupnorm+silu {n}x{size}x{size}x{c}"), 0.0, || {
            layer.forward(&x, Activation::Silu)
        })?;
    }
    for (m, c) in [(16384, 96), (4096, 192), (8192, 320)] {
        let layer = LayerNorm::new(random(&[c])?, random(&[c])?, 1e-5);
        let x = random(&[m, c])?;
        time(filter, &format!("layernorm {m}x{c}"), 0.0, || layer.forward(&x))?;
    }
    // Heads come out of a projection: [batch, tokens, heads, dim] seen as [batch, heads, tokens, dim].
    for (b, heads, queries, keys, dim) in [
        (16, 6, 256, 512, 32),
        (16, 8, 64, 128, 32),
        (16, 6, 256, 20, 32),
        (2, 8, 4096, 4096, 40),
        (2, 8, 4096, 77, 40),
        (2, 8, 1024, 1024, 80),
        (1, 8, 4096, 4096, 64),
    ] {
        let q = random(&[b, queries, heads, dim])?.transpose(1, 2)?;
        let (k, v) = (
            random(&[b, keys, heads, dim])?.transpose(1, 2)?,
            random(&[b, keys, heads, dim])?.transpose(1, 2)?,
        );
        let spec = AttentionSpec::new(dim);
        let flops = 4.0 * (b * heads * queries * keys * dim) as f64;
        time(filter, &format!("attention {b}x{heads} {queries}x{keys} d{dim}"), flops, || {
            attention(&q, &k, &v, &spec)
        })?;
    }
    for (places, frames, heads, dim) in [(1024, 16, 3, 32), (256, 16, 6, 32), (1024, 16, 8, 40)] {
        let part = || -> Result<Tensor> {
            Ok(random(&[1, frames, places, heads, dim])?.permute((0, 2, 3, 1, 4))?.squeeze(0)?)
        };
        let (q, k, v) = (part()?, part()?, part()?);
        let spec = AttentionSpec::new(dim);
        let flops = 4.0 * (places * heads * frames * frames * dim) as f64;
        time(filter, &format!("temporal {places} places {frames} frames {heads}x{dim}"), flops, || {
            attention(&q, &k, &v, &spec)
        })?;
    }
    gradients(filter)
}

/// The backward pass alone, as `gradient …`.
fn gradients(filter: &str) -> Outcome {
    let one = |name: String, q: Tensor, k: Tensor, v: Tensor, grad: Tensor| -> Outcome {
        if !name.contains(filter) {
            return Ok(());
        }
        let (batch, heads, queries, dim) = q.dims4()?;
        let spec = AttentionSpec::new(dim);
        let (out, lse) = attention_with_lse(&q, &k, &v, &spec)?;
        let flops = 10.0 * (batch * heads * queries * k.dim(2)? * dim) as f64;
        time(filter, &name, flops, || {
            let [dq, _, _] = attention_backward([&q, &k, &v], &out, &lse, &grad, &spec)?;
            Ok(dq)
        })
    };
    for (b, heads, queries, keys, dim) in [
        (16, 6, 256, 512, 32),
        (16, 6, 256, 20, 32),
        (2, 8, 4096, 77, 40),
        (2, 8, 1024, 1024, 80),
        (1, 8, 2048, 2048, 64),
        (1, 1, 4096, 4096, 64),
    ] {
        let part =
            |tokens: usize| -> Result<Tensor> { Ok(random(&[b, tokens, heads, dim])?.transpose(1, 2)?) };
        let (q, k, v, grad) = (part(queries)?, part(keys)?, part(keys)?, part(queries)?);
        one(format!("gradient {b}x{heads} {queries}x{keys} d{dim}"), q, k, v, grad)?;
    }
    for (places, frames, heads, dim) in [(1024, 16, 3, 32), (256, 16, 6, 32), (1024, 16, 8, 40)] {
        let part = || -> Result<Tensor> { Ok(random(&[frames, places, heads, dim])?.permute((1, 2, 0, 3))?) };
        let name = format!("gradient temporal {places} places {frames} frames {heads}x{dim}");
        one(name, part()?, part()?, part()?, part()?)?;
    }
    Ok(())
}
