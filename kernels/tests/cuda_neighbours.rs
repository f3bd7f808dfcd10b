//! CUDA norms, gated units, activations, linear layers and upsampling against f64 on the same rounded inputs.
//!
//! Memory handed to every kernel is filled with NaN first, so a value left unwritten shows. Without a
//! driver or card the tests say so and pass: there is nothing to run.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, dead_code)]

use candle_core::{DType, Device, Tensor};
use kinora_kernels::*;

#[path = "support/naive.rs"]
mod naive;
use naive::{Random, activate, linear};

const DTYPES: [DType; 3] = [DType::F16, DType::BF16, DType::F32];
const ACTIVATIONS: [Activation; 5] =
    [Activation::None, Activation::Silu, Activation::Relu, Activation::GeluErf, Activation::QuickGelu];

fn card() -> Option<Device> {
    match open_cuda(0) {
        Ok(device) => Some(device),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

fn flat(x: &Tensor) -> Vec<f32> {
    // candle starts a kernel without blocks for an empty tensor, which the driver refuses.
    if x.elem_count() == 0 {
        return Vec::new();
    }
    x.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

/// A tensor of a type on the card, and the values it has after rounding.
fn put(device: &Device, dtype: DType, values: Vec<f32>, dims: &[usize]) -> (Tensor, Vec<f64>) {
    let x = Tensor::from_vec(values, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    let rounded = flat(&x).into_iter().map(f64::from).collect();
    (x.to_device(device).unwrap(), rounded)
}

/// Fills memory that the pool will hand out next with NaN.
fn poison(device: &Device, dtype: DType, count: usize) {
    for count in [count.max(1), 1 << 16] {
        drop(Tensor::full(f32::NAN, count, device).unwrap().to_dtype(dtype).unwrap());
    }
}

/// The largest difference over `1 + |want|`; infinite on NaN or another length.
fn worst(got: &[f32], want: &[f64]) -> f64 {
    if got.len() != want.len() {
        return f64::INFINITY;
    }
    got.iter()
        .zip(want)
        .map(|(g, w)| (f64::from(*g) - w).abs() / (1.0 + w.abs()))
        .fold(0.0, |a, b| if b.is_nan() { f64::INFINITY } else { a.max(b) })
}

/// Half a unit in the last place of the type, doubled, plus what f32 arithmetic adds.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 4e-6,
        DType::F16 => 8e-4,
        _ => 6e-3,
    }
}

fn assert_close(what: &str, dtype: DType, got: &Tensor, want: &[f64], looser: f64) {
    assert_eq!(got.dtype(), dtype, "{what}");
    let error = worst(&flat(got), want);
    assert!(error < tolerance(dtype) * looser, "{what} {dtype:?}: {error}");
}

/// Samples, points, channels, groups, clips of the added rows (0: none), scale and shift, mean.
type GroupCase = (usize, usize, usize, usize, usize, bool, f32);

fn check_group(device: &Device, dtype: DType, case: GroupCase, activation: Activation) {
    let (n, points, channels, groups, clips, film, offset) = case;
    let mut random = Random(21 + channels as u64);
    let mut part = |dims: &[usize], offset: f32| {
        let values = random.fill(dims.iter().product()).iter().map(|v| v + offset).collect();
        put(device, dtype, values, dims)
    };
    let (x, xs) = part(&[n, points, channels], offset);
    let ((weight, weights), (bias, biases)) = (part(&[channels], 0.0), part(&[channels], 0.0));
    let ((scale, scales), (shift, shifts)) = (part(&[n, channels], 0.0), part(&[n, channels], 0.0));
    let (added, addeds) = part(&[clips.max(1), channels], 0.0);
    let width = channels / groups;
    let mut want = vec![0.0; xs.len()];
    for (i, g) in (0..n).flat_map(|i| (0..groups).map(move |g| (i, g))) {
        let all = || (0..points).flat_map(|p| (0..width).map(move |c| (p, g * width + c)));
        let value = |p: usize, c: usize| {
            let more = if clips > 0 { addeds[i / (n / clips) * channels + c] } else { 0.0 };
            xs[(i * points + p) * channels + c] + more
        };
        let count = (points * width) as f64;
        let mean = all().map(|(p, c)| value(p, c)).sum::<f64>() / count;
        let variance = all().map(|(p, c)| (value(p, c) - mean).powi(2)).sum::<f64>() / count;
        for (p, c) in all() {
            let mut y = (value(p, c) - mean) / (variance + 1e-5).sqrt() * weights[c] + biases[c];
            if film {
                y = y * (1.0 + scales[i * channels + c]) + shifts[i * channels + c];
            }
            want[(i * points + p) * channels + c] = activate(activation, y);
        }
    }
    let norm = GroupNorm::new(weight, bias, groups, 1e-5).unwrap();
    poison(device, dtype, xs.len());
    let (got, used) = observed(|| match (film, clips) {
        (true, _) => norm.forward_film(&x, &scale, &shift, activation),
        (_, 0) => norm.forward(&x, activation),
        _ => norm.forward_added(&x, &added, activation),
    });
    // Small samples in one launch where the card can.
    let least = if points * channels * 2 > 8 * (113 << 10) * 32 { "split" } else { used[0].kernel };
    assert!(["once", "split"].contains(&used[0].kernel) && used[0].kernel == least, "{used:?}");
    // f32 keeps 24 bits of a value that is `offset` deviations away.
    let looser = if dtype == DType::F32 { 1.0 + f64::from(offset) } else { 1.0 };
    assert_close(&format!("{case:?} {activation:?}"), dtype, &got.unwrap(), &want, looser);
}

#[test]
fn group_norm() {
    let Some(device) = card() else { return };
    let cases: [GroupCase; 20] = [
        (2, 4096, 320, 32, 2, false, 0.0),
        (3, 1000, 640, 32, 0, true, 0.0),
        (1, 1700, 960, 32, 1, false, 0.0),
        (1, 90_000, 320, 32, 0, false, 0.0),
        (2, 300, 320, 32, 0, false, 0.0),
        (2, 300, 320, 32, 1, false, 0.0),
        (4, 70, 320, 32, 2, false, 0.5),
        (3, 64, 640, 32, 0, true, 0.0),
        (1, 2000, 64, 32, 0, false, 0.0),
        (5, 33, 1920, 32, 0, false, 0.0),
        (1, 9, 2560, 32, 0, true, 0.0),
        (1, 5, 8320, 32, 0, false, 0.0),
        (2, 257, 128, 8, 0, false, 0.0),
        (3, 7, 10, 5, 3, false, 0.0),
        (2, 1000, 96, 32, 0, true, 0.0),
        (1, 5, 3, 1, 0, false, 0.0),
        (300, 6, 24, 3, 0, false, 0.0),
        (0, 5, 4, 2, 0, false, 0.0),
        (2, 0, 4, 2, 0, false, 0.0),
        (1, 700, 64, 32, 0, false, 64.0),
    ];
    for dtype in DTYPES {
        for case in cases {
            for activation in [Activation::None, Activation::Silu] {
                check_group(&device, dtype, case, activation);
            }
        }
        check_group(&device, dtype, cases[0], Activation::GeluErf);
    }
}

#[test]
fn group_norm_of_a_view_and_of_misaligned_memory() {
    let Some(device) = card() else { return };
    for dtype in DTYPES {
        let (whole, _) = put(&device, dtype, Random(3).fill(2 * 50 * 64 + 1), &[2 * 50 * 64 + 1]);
        let shifted = whole.narrow(0, 1, 2 * 50 * 64).unwrap().reshape((2, 50, 64)).unwrap();
        let view = shifted.narrow(1, 7, 31).unwrap();
        let (ones, zeros) =
            (Tensor::ones(64, dtype, &device).unwrap(), Tensor::zeros(64, dtype, &device).unwrap());
        let norm = GroupNorm::new(ones, zeros, 8, 1e-5).unwrap();
        for x in [shifted, view] {
            let plain = x.to_device(&Device::Cpu).unwrap().contiguous().unwrap().to_device(&device).unwrap();
            let want: Vec<f64> =
                flat(&norm.forward(&plain, Activation::Silu).unwrap()).into_iter().map(f64::from).collect();
            assert_close("view", dtype, &norm.forward(&x, Activation::Silu).unwrap(), &want, 1.0);
        }
    }
}

#[test]
fn nan_stays_in_its_group_and_row() {
    let Some(device) = card() else { return };
    for dtype in DTYPES {
        let mut values: Vec<f32> = (0..2 * 40 * 64).map(|i| (i % 37) as f32).collect();
        values[9] = f32::NAN;
        let (x, _) = put(&device, dtype, values, &[2, 40, 64]);
        let (ones, zeros) =
            (Tensor::ones(64, dtype, &device).unwrap(), Tensor::zeros(64, dtype, &device).unwrap());
        let norm = GroupNorm::new(ones.clone(), zeros.clone(), 8, 1e-5).unwrap();
        for (i, y) in flat(&norm.forward(&x, Activation::None).unwrap()).iter().enumerate() {
            assert_eq!(y.is_nan(), i < 40 * 64 && (8..16).contains(&(i % 64)), "{dtype:?} group at {i}");
        }
        for (i, y) in flat(&LayerNorm::new(ones, zeros, 1e-5).forward(&x).unwrap()).iter().enumerate() {
            assert_eq!(y.is_nan(), i < 64, "{dtype:?} layer at {i}");
        }
    }
}

#[test]
fn layer_norm() {
    let Some(device) = card() else { return };
    let cases = [
        (1, 8),
        (5, 16),
        (3, 15),
        (300, 96),
        (77, 320),
        (41, 640),
        (19, 1280),
        (7, 2560),
        (6, 257),
        (4, 3000),
        (2, 8200),
        (33, 768),
        (12, 1024),
        (0, 8),
    ];
    for dtype in DTYPES {
        for (rows, channels) in cases {
            for (period, repeat) in [(0, 1), (rows, 1), (1, rows)] {
                let mut random = Random(channels as u64);
                let mut part = |dims: &[usize]| put(&device, dtype, random.fill(dims.iter().product()), dims);
                let ((x, xs), (weight, weights)) = (part(&[rows, channels]), part(&[channels]));
                let ((bias, biases), (added, addeds)) = (part(&[channels]), part(&[period.max(1), channels]));
                let mut want = Vec::new();
                for (r, row) in xs.chunks(channels).enumerate() {
                    let mean = row.iter().sum::<f64>() / channels as f64;
                    let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / channels as f64;
                    let place = if period > 0 { r / repeat % period * channels } else { 0 };
                    want.extend((0..channels).map(|c| {
                        let more = if period > 0 { addeds[place + c] } else { 0.0 };
                        (row[c] - mean) / (variance + 1e-5).sqrt() * weights[c] + biases[c] + more
                    }));
                }
                let norm = LayerNorm::new(weight, bias, 1e-5);
                poison(&device, dtype, rows * channels);
                let got = match rows * period {
                    0 => norm.forward(&x).unwrap(),
                    _ => norm.forward_added(&x, &added, repeat).unwrap(),
                };
                assert_close(&format!("{rows}x{channels} {period}"), dtype, &got, &want, 2.0);
            }
        }
    }
}

#[test]
fn activations_and_gates() {
    let Some(device) = card() else { return };
    for dtype in DTYPES {
        for (rows, half) in [(1, 1), (3, 7), (65, 320), (9, 1280), (1000, 40), (0, 8)] {
            let values: Vec<f32> =
                Random(half as u64).fill(rows * 2 * half).iter().map(|x| x * 9.0).collect();
            let (x, xs) = put(&device, dtype, values, &[rows, 2 * half]);
            for activation in ACTIVATIONS {
                let want: Vec<f64> = xs.iter().map(|x| activate(activation, *x)).collect();
                poison(&device, dtype, xs.len());
                let what = format!("{activation:?} {rows}x{half}");
                assert_close(&what, dtype, &activation.apply(&x).unwrap(), &want, 1.0);
            }
            let want: Vec<f64> = xs
                .chunks(2 * half)
                .flat_map(|row| (0..half).map(|c| row[c] * activate(Activation::GeluErf, row[half + c])))
                .collect();
            poison(&device, dtype, xs.len() / 2);
            assert_close(&format!("geglu {rows}x{half}"), dtype, &geglu(&x).unwrap(), &want, 1.0);
        }
    }
}

#[test]
fn linear_layers() {
    let Some(device) = card() else { return };
    for dtype in DTYPES {
        for (rows, inner, out) in [
            (1, 1, 1),
            (3, 5, 7),
            (77, 768, 320),
            (300, 320, 24),
            (130, 64, 129),
            (2, 320, 1280),
            (2048, 320, 640),
            (2100, 72, 96),
            (2049, 648, 160),
        ] {
            let mut random = Random(inner as u64);
            let mut part = |dims: &[usize], by: f32| {
                let values = random.fill(dims.iter().product()).iter().map(|x| x * by).collect();
                put(&device, dtype, values, dims)
            };
            let by = 1.0 / (inner as f32).sqrt();
            let ((x, xs), (w, ws)) = (part(&[rows, inner], 1.0), part(&[out, inner], by));
            let ((b, bs), (r, rs)) = (part(&[out], 1.0), part(&[rows, out], 1.0));
            let single = |x: &[f64]| x.iter().map(|x| *x as f32).collect::<Vec<f32>>();
            let plain = linear(&single(&xs), &single(&ws), &vec![0.0; out], rows, inner, out);
            for (bias, residual) in [(false, false), (true, false), (false, true), (true, true)] {
                for activation in [Activation::None, Activation::Silu, Activation::QuickGelu] {
                    let want: Vec<f64> = (0..rows * out)
                        .map(|i| {
                            let y = plain[i] + if bias { bs[i % out] } else { 0.0 };
                            activate(activation, y) + if residual { rs[i] } else { 0.0 }
                        })
                        .collect();
                    let layer = Linear::new(w.clone(), bias.then(|| b.clone())).unwrap();
                    poison(&device, dtype, rows * out);
                    let (got, used) =
                        observed(|| layer.forward_fused(&x, activation, residual.then_some(&r)).unwrap());
                    let what = format!("{used:?} {rows}x{inner}x{out} {bias} {residual} {activation:?}");
                    assert_close(&what, dtype, &got, &want, 2.0);
                }
            }
        }
    }
}

#[test]
fn pixels_are_doubled() {
    let Some(device) = card() else { return };
    for dtype in DTYPES {
        for (n, h, w, c) in [(1, 1, 1, 1), (2, 3, 5, 7), (3, 4, 6, 64), (1, 9, 1, 320), (0, 2, 2, 8)] {
            let (x, xs) = put(&device, dtype, Random(5).fill(n * h * w * c), &[n, h, w, c]);
            let mut want = Vec::new();
            for (i, y) in (0..n).flat_map(|i| (0..2 * h).map(move |y| (i, y))) {
                for x in 0..2 * w {
                    let at = ((i * h + y / 2) * w + x / 2) * c;
                    want.extend_from_slice(&xs[at..at + c]);
                }
            }
            poison(&device, dtype, want.len());
            let got = upsample_nearest2x(&x).unwrap();
            assert_eq!(got.dims(), [n, 2 * h, 2 * w, c]);
            assert_eq!(flat(&got).into_iter().map(f64::from).collect::<Vec<_>>(), want);
        }
    }
}

#[test]
fn two_inputs_are_read_as_one() {
    let Some(device) = card() else { return };
    for dtype in DTYPES {
        for (points, first, second) in [(64, 320, 640), (1100, 640, 320), (30_000, 320, 320), (50, 12, 8)] {
            let channels = first + second;
            let mut random = Random(points as u64);
            let mut part = |dims: &[usize], by: f32| {
                let values = random.fill(dims.iter().product()).iter().map(|x| x * by).collect();
                put(&device, dtype, values, dims).0
            };
            let (x, rest) = (part(&[2, points, first], 1.0), part(&[2, points, second], 1.0));
            let joined = Tensor::cat(&[&x, &rest], 2).unwrap();
            let norm = GroupNorm::new(part(&[channels], 1.0), part(&[channels], 1.0), 4, 1e-5).unwrap();
            let (got, want) =
                (norm.forward_joined([&x, &rest], Activation::Silu), norm.forward(&joined, Activation::Silu));
            assert_eq!(flat(&got.unwrap()), flat(&want.unwrap()), "{dtype:?} norm {points}x{first}+{second}");
            let weight = part(&[320, channels], 1.0 / (channels as f32).sqrt());
            let layer = Linear::new(weight, Some(part(&[320], 1.0))).unwrap();
            let (got, want) = (layer.forward_joined([&x, &rest]), layer.forward(&joined));
            let want: Vec<f64> = flat(&want.unwrap()).into_iter().map(f64::from).collect();
            assert_close(&format!("linear {points}x{first}+{second}"), dtype, &got.unwrap(), &want, 1.0);
        }
    }
}
