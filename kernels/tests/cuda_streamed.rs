//! Attention over keys in host memory against naive f64 arithmetic, under artificial caps of device memory.
//!
//! Without a driver or card the tests say so and pass. `rates` is ignored unless asked for: it measures.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, dead_code)]

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use kinora_kernels::*;

#[path = "support/naive.rs"]
mod naive;
use naive::Random;

fn card() -> Option<Device> {
    open_cuda(0).map_err(|error| eprintln!("skipped: {error}")).ok()
}

fn flat(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

/// Random values as a tensor on the CPU, in heads apart or together.
fn part(random: &mut Random, dims: [usize; 4], dtype: DType, by: f32) -> Tensor {
    let values: Vec<f32> = random.fill(dims.iter().product()).iter().map(|x| x * by).collect();
    Tensor::from_vec(values, &dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

#[test]
fn any_cap_gives_the_whole_result() {
    let Some(device) = card() else { return };
    let mut random = Random(7);
    for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F16, 1.5e-3), (DType::BF16, 1e-2)] {
        for (batch, heads, key_heads, queries, keys, dim) in
            [(2, 4, 4, 300, 1000, 40), (1, 6, 2, 129, 777, 64), (2, 2, 1, 70, 130, 128)]
        {
            let q = part(&mut random, [batch, heads, queries, dim], dtype, 3.0);
            let (k, v) = (
                part(&mut random, [batch, key_heads, keys, dim], dtype, 1.0),
                part(&mut random, [batch, key_heads, keys, dim], dtype, 1.0),
            );
            let host = HostKeys::new(&device, &k, &v).unwrap();
            for lengths in [None, Some((0..batch).map(|b| keys / 3 * b).collect::<Vec<_>>())] {
                let every = |x: &Tensor| {
                    let x = x.unsqueeze(2).unwrap();
                    let x = x.broadcast_as((batch, key_heads, heads / key_heads, keys, dim)).unwrap();
                    flat(&x.contiguous().unwrap())
                };
                let hidden = |s: usize, _: usize, _: usize, j: usize| match &lengths {
                    Some(lengths) if j >= lengths[s] => f64::NEG_INFINITY,
                    _ => 0.0,
                };
                let extents = (batch, heads, queries, keys, dim);
                let (want, _) = naive::attention((&flat(&q), &every(&k), &every(&v)), extents, hidden);
                let mask = lengths.clone().map_or(Mask::None, Mask::Lengths);
                let spec = AttentionSpec::new(dim).with_mask(mask);
                let shape = AttentionShape { problems: batch * heads, queries, keys, dim };
                let size = dtype.size_in_bytes();
                let whole = plan_streaming(shape, batch * key_heads, size, u64::MAX).unwrap();
                let least = (1..)
                    .map(|i| i << 12)
                    .find(|cap| plan_streaming(shape, batch * key_heads, size, *cap).is_ok());
                for cap in [least.unwrap(), whole.device_bytes - 1, u64::MAX] {
                    let got = attention_streamed(&q.to_device(&device).unwrap(), &host, &spec, cap).unwrap();
                    let got = flat(&got);
                    assert_eq!(got.len(), want.len());
                    let norm = |it: &mut dyn Iterator<Item = f64>| it.map(|x| x * x).sum::<f64>().sqrt();
                    let error = norm(&mut got.iter().zip(&want).map(|(g, w)| f64::from(*g) - w));
                    let size = norm(&mut want.iter().copied());
                    let chunks =
                        plan_streaming(shape, batch * key_heads, dtype.size_in_bytes(), cap).unwrap().chunks;
                    assert!(
                        error <= tolerance * size,
                        "{dtype:?} {extents:?} {chunks} chunks: {error} of {size}"
                    );
                    eprintln!(
                        "ok {dtype:?} {extents:?} {chunks} chunks, locked {}: {:.1e}",
                        host.locked(),
                        error / size
                    );
                }
            }
        }
    }
}

#[test]
fn wrong_calls_are_refused() {
    let Some(device) = card() else { return };
    let x = |dims: [usize; 4], dtype: DType| Tensor::zeros(&dims, dtype, &Device::Cpu).unwrap();
    let k = x([1, 2, 300, 16], DType::F16);
    assert!(matches!(HostKeys::new(&Device::Cpu, &k, &k), Err(KernelError::NoCuda { .. })));
    assert!(HostKeys::new(&device, &k, &x([1, 2, 299, 16], DType::F16)).is_err());
    assert!(matches!(
        HostKeys::new(&device, &k, &x([1, 2, 300, 16], DType::F32)),
        Err(KernelError::DType { .. })
    ));
    let host = HostKeys::new(&device, &k, &k).unwrap();
    let spec = AttentionSpec::new(16);
    let on = |x: Tensor| x.to_device(&device).unwrap();
    let call = |q: Tensor, spec: &AttentionSpec, cap: u64| attention_streamed(&q, &host, spec, cap);
    let q = || x([1, 2, 5, 16], DType::F16);
    assert!(call(on(q()), &spec, 1 << 20).is_ok());
    assert!(matches!(call(q(), &spec, 1 << 20), Err(KernelError::NoCuda { .. })));
    assert!(call(on(q()), &spec, 100).unwrap_err().to_string().contains("bytes of device memory"));
    assert!(call(on(x([1, 3, 5, 16], DType::F16)), &spec, 1 << 20).is_err());
    assert!(call(on(x([1, 2, 5, 16], DType::F32)), &spec, 1 << 20).is_err());
    assert!(call(on(q()), &spec.clone().with_mask(Mask::Causal), 1 << 20).is_err());
}

/// Time over the link alone, in whole and streamed, for queries few and many.
#[test]
#[ignore = "measures; run with --ignored --nocapture"]
fn rates() {
    let Some(device) = card() else { return };
    let (heads, keys, dim) = (16, 131_072, 128);
    let zeros = || {
        let x =
            Tensor::randn(0f32, 1.0, (heads, 1024, dim), &Device::Cpu).unwrap().to_dtype(DType::F16).unwrap();
        x.repeat((1, keys / 1024, 1)).unwrap().unsqueeze(0).unwrap()
    };
    let (k, v) = (zeros(), zeros());
    let bytes = 2.0 * 2.0 * (heads * keys * dim) as f64;
    let host = HostKeys::new(&device, &k, &v).unwrap();
    let spec = AttentionSpec::new(dim);
    let time = |work: &dyn Fn()| {
        work();
        let mut times: Vec<f64> = (0..3)
            .map(|_| {
                device.synchronize().unwrap();
                let began = Instant::now();
                work();
                device.synchronize().unwrap();
                began.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[1]
    };
    let (kd, vd) = (k.to_device(&device).unwrap(), v.to_device(&device).unwrap());
    for queries in [64, 1024, 4096, 16_384, 32_768] {
        let q = Tensor::randn(0f32, 1.0, (1, heads, queries, dim), &device)
            .unwrap()
            .to_dtype(DType::F16)
            .unwrap();
        let resident = time(&|| drop(attention(&q, &kd, &vd, &spec).unwrap()));
        let flops = 4.0 * (heads * queries) as f64 * keys as f64 * dim as f64;
        for cap_mb in [128u64, 512] {
            let fixed = (heads * queries) as u64 * (dim as u64 * 6 + 8);
            let cap = fixed + (cap_mb << 20);
            peak_memory(&device).unwrap();
            let streamed = time(&|| drop(attention_streamed(&q, &host, &spec, cap).unwrap()));
            eprintln!(
                "{queries} queries, {cap_mb} MB of keys at once (of {:.0}), locked {}: resident {resident:.2} ms ({:.0} TFLOP/s), \
                 streamed {streamed:.2} ms ({:.1} GB/s over the link, {:.2} of resident)",
                bytes / 1e6,
                host.locked(),
                flops / resident / 1e9,
                bytes / streamed / 1e6,
                streamed / resident
            );
        }
    }
}
