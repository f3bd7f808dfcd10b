//! Every CUDA convolution kernel against f64 arithmetic on the same rounded inputs.
//!
//! Without a driver or card the tests say so and pass: there is nothing to run.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, dead_code)]

use candle_core::{DType, Device, Tensor, Var};
use kinora_kernels::*;

#[path = "support/naive.rs"]
mod naive;
use naive::Random;

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
    x.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

/// `‖got − want‖ / ‖want‖`; infinite on NaN or another length.
fn relative(got: &[f32], want: &[f64]) -> f64 {
    if got.len() != want.len() {
        return f64::INFINITY;
    }
    let norm = |it: &mut dyn Iterator<Item = f64>| it.map(|x| x * x).sum::<f64>().sqrt();
    let error = norm(&mut got.iter().zip(want).map(|(g, w)| f64::from(*g) - w));
    let size = norm(&mut want.iter().copied());
    let ratio = if size == 0.0 { error } else { error / size };
    if ratio.is_nan() { f64::INFINITY } else { ratio }
}

#[derive(Debug, Clone, Copy)]
struct Case {
    /// Pictures, height, width.
    picture: (usize, usize, usize),
    /// Channels in and out.
    channels: (usize, usize),
    /// Kernel, stride, padding.
    geometry: (usize, usize, usize),
    activation: Activation,
    residual: bool,
    bias: bool,
    doubled: bool,
}

const fn case(picture: (usize, usize, usize), channels: (usize, usize), geometry: (usize, usize, usize)) -> Case {
    Case { picture, channels, geometry, activation: Activation::None, residual: false, bias: true, doubled: false }
}

fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Relu => x.max(0.0),
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        // Abramowitz and Stegun 7.1.26 is good to 1.5e-7.
        Activation::GeluErf => {
            let z = x.abs() / std::f64::consts::SQRT_2;
            let t = 1.0 / (1.0 + 0.327_591_1 * z);
            let p = t
                * (0.254_829_592
                    + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
            let erf = (1.0 - p * (-z * z).exp()).copysign(x);
            0.5 * x * (1.0 + erf)
        }
    }
}

/// The definition, one thread a slice of output lines.
fn reference(case: &Case, x: &[f32], weight: &[f32], bias: &[f32], residual: &[f32]) -> Vec<f64> {
    let ((n, height, width), (inner, out), (kernel, stride, padding)) = (case.picture, case.channels, case.geometry);
    let side = if case.doubled { 2 } else { 1 };
    let (h, w) = (height * side, width * side);
    let (oh, ow) = ((h + 2 * padding - kernel) / stride + 1, (w + 2 * padding - kernel) / stride + 1);
    let mut want = vec![0f64; n * oh * ow * out];
    let threads = std::thread::available_parallelism().map_or(4, usize::from);
    let lines = (n * oh).div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        for (part, slice) in want.chunks_mut(lines * ow * out).enumerate() {
            scope.spawn(move || {
                for (i, value) in slice.iter_mut().enumerate() {
                    let i = part * lines * ow * out + i;
                    let (c, ox, oy, image) = (i % out, i / out % ow, i / out / ow % oh, i / out / ow / oh);
                    let mut sum = 0f64;
                    for ky in 0..kernel {
                        for kx in 0..kernel {
                            let (y, x_) = (oy * stride + ky, ox * stride + kx);
                            if y < padding || x_ < padding || y - padding >= h || x_ - padding >= w {
                                continue;
                            }
                            let pixel = (image * height + (y - padding) / side) * width + (x_ - padding) / side;
                            let values = &x[pixel * inner..][..inner];
                            let taps = &weight[c * inner * kernel * kernel + ky * kernel + kx..];
                            for (q, value) in values.iter().enumerate() {
                                sum += f64::from(*value) * f64::from(taps[q * kernel * kernel]);
                            }
                        }
                    }
                    if case.bias {
                        sum += f64::from(bias[c]);
                    }
                    *value = activated(case.activation, sum);
                    if case.residual {
                        *value += f64::from(residual[i]);
                    }
                }
            });
        }
    });
    want
}

/// Fills memory that the next allocations are likely to get with NaN.
fn poison(device: &Device, values: usize) {
    let nan = Tensor::full(f32::NAN, values.max(1), device).unwrap();
    drop(nan);
}

fn check(device: &Device, dtype: DType, case: Case) -> String {
    let ((n, height, width), (inner, out), (kernel, stride, padding)) = (case.picture, case.channels, case.geometry);
    let mut random = Random((inner * 131 + out * 7 + height) as u64);
    let mut make = |dims: &[usize], by: f32| {
        let values: Vec<f32> = random.fill(dims.iter().product()).iter().map(|x| x * by).collect();
        Tensor::from_vec(values, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    };
    let x = make(&[n, height, width, inner], 1.0);
    let weight = make(&[out, inner, kernel, kernel], 1.0 / ((inner * kernel * kernel) as f32).sqrt());
    let bias = make(&[out], 1.0);
    let side = if case.doubled { 2 } else { 1 };
    let size = |len: usize| (len * side + 2 * padding - kernel) / stride + 1;
    let residual = make(&[n, size(height), size(width), out], 1.0);
    let want = reference(&case, &flat(&x), &flat(&weight), &flat(&bias), &flat(&residual));
    let put = |x: &Tensor| x.to_device(device).unwrap();
    let layer = Conv2d::new(put(&weight), case.bias.then(|| put(&bias)), stride, padding).unwrap();
    let (x, residual) = (put(&x), put(&residual));
    poison(device, want.len() * 8);
    let (result, used) = observed(|| {
        if case.doubled {
            layer.forward_upsampled(&x)
        } else {
            layer.forward_fused(&x, case.activation, case.residual.then_some(&residual))
        }
    });
    let got = result.unwrap_or_else(|error| panic!("{dtype:?} {case:?}: {error}"));
    let tolerance = match dtype {
        DType::F32 => 5e-6,
        DType::F16 => 1e-3,
        _ => 8e-3,
    };
    let error = relative(&flat(&got), &want);
    assert!(error < tolerance, "{used:?} {dtype:?} {case:?}: {error}");
    let again = if case.doubled {
        layer.forward_upsampled(&x)
    } else {
        layer.forward_fused(&x, case.activation, case.residual.then_some(&residual))
    };
    assert_eq!(flat(&got), flat(&again.unwrap()), "{dtype:?} {case:?}: two calls differ");
    used.iter().map(|u| u.kernel).collect::<Vec<_>>().join("+")
}

const DTYPES: [DType; 3] = [DType::F16, DType::BF16, DType::F32];

fn table(cases: &[Case]) {
    let Some(device) = card() else { return };
    for dtype in DTYPES {
        for case in cases {
            let kernel = check(&device, dtype, *case);
            eprintln!("ok {kernel} {dtype:?} {case:?}");
        }
    }
}

const SAME: (usize, usize, usize) = (3, 1, 1);

#[test]
fn channels_of_every_kind() {
    let mut cases = Vec::new();
    for inner in [3, 4, 8, 9, 16, 40, 64, 72, 320, 328] {
        for out in [3, 4, 8, 40, 100, 160, 328] {
            cases.push(case((2, 9, 13), (inner, out), SAME));
        }
    }
    table(&cases);
}

#[test]
fn sizes_strides_and_kernels() {
    let mut cases = Vec::new();
    for picture in [(1, 1, 1), (1, 5, 7), (3, 8, 8), (5, 16, 16), (4, 17, 33), (1, 3, 300), (2, 130, 6)] {
        for geometry in [SAME, (3, 2, 1), (1, 1, 0), (1, 2, 0), (5, 1, 2), (7, 3, 3), (3, 1, 3), (2, 2, 1)] {
            cases.push(case(picture, (64, 72), geometry));
            cases.push(case(picture, (12, 4), geometry));
        }
    }
    cases.push(case((1, 9, 9), (32, 32), (3, 2, 0)));
    cases.push(case((1, 9, 9), (32, 32), (4, 4, 0)));
    table(&cases);
}

#[test]
fn the_last_pass_is_fused() {
    let mut cases = Vec::new();
    for activation in
        [Activation::None, Activation::Silu, Activation::Relu, Activation::QuickGelu, Activation::GeluErf]
    {
        for residual in [false, true] {
            for bias in [false, true] {
                for channels in [(64, 160), (40, 4), (4, 36), (64, 20), (1280, 64)] {
                    cases.push(Case { activation, residual, bias, ..case((2, 8, 11), channels, SAME) });
                }
            }
        }
    }
    table(&cases);
}

#[test]
fn doubled_pictures() {
    let mut cases = Vec::new();
    for picture in [(1, 1, 1), (2, 5, 7), (3, 8, 8), (1, 17, 33), (2, 30, 4)] {
        for channels in [(64, 64), (40, 320), (320, 40), (4, 8), (64, 100)] {
            cases.push(Case { doubled: true, ..case(picture, channels, SAME) });
        }
    }
    table(&cases);
}

#[test]
fn every_tile() {
    let cases = [
        case((2, 64, 64), (64, 320), SAME),
        case((5, 32, 32), (128, 640), SAME),
        case((8, 16, 16), (128, 1280), SAME),
        case((3, 64, 64), (64, 512), SAME),
        case((3, 64, 64), (64, 256), SAME),
        case((4, 96, 96), (64, 128), SAME),
        case((2, 64, 64), (320, 640), (1, 1, 0)),
        case((4, 64, 64), (128, 3), SAME),
        case((1, 8, 8), (1280, 1280), (1, 1, 0)),
        case((1, 8, 8), (640, 320), SAME),
        Case { residual: true, ..case((2, 64, 64), (64, 320), (3, 2, 1)) },
        Case { residual: true, activation: Activation::Silu, ..case((1, 8, 8), (640, 320), SAME) },
    ];
    table(&cases);
}

#[test]
fn gated_layers() {
    let Some(device) = card() else { return };
    for dtype in DTYPES {
        for (rows, inner, out) in [(1, 8, 4), (77, 40, 100), (300, 320, 1280), (5000, 64, 160)] {
            let mut random = Random(rows as u64);
            let mut make = |dims: &[usize], by: f32| {
                let values: Vec<f32> = random.fill(dims.iter().product()).iter().map(|x| x * by).collect();
                Tensor::from_vec(values, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
            };
            let x = make(&[1, rows, inner], 1.0);
            let weight = make(&[2 * out, inner], 2.0 / (inner as f32).sqrt());
            let bias = make(&[2 * out], 1.0);
            let whole = Case { bias: true, ..case((1, 1, rows), (inner, 2 * out), (1, 1, 0)) };
            let both = reference(&whole, &flat(&x), &flat(&weight), &flat(&bias), &[]);
            let want: Vec<f64> = both
                .chunks(2 * out)
                .flat_map(|line| {
                    let (value, gate) = line.split_at(out);
                    value.iter().zip(gate).map(|(v, g)| v * activated(Activation::GeluErf, *g)).collect::<Vec<_>>()
                })
                .collect();
            let put = |x: &Tensor| x.to_device(&device).unwrap();
            let layer = GatedLinear::new(put(&weight), Some(put(&bias))).unwrap();
            poison(&device, want.len() * 4);
            let got = layer.forward(&put(&x)).unwrap();
            assert_eq!(got.dims(), [1, rows, out]);
            let tolerance = match dtype {
                DType::F32 => 5e-6,
                DType::F16 => 1e-3,
                _ => 8e-3,
            };
            let error = relative(&flat(&got), &want);
            assert!(error < tolerance, "{dtype:?} {rows} {inner} {out}: {error}");
        }
    }
}

#[test]
fn views_are_read_right() {
    let Some(device) = card() else { return };
    for dtype in DTYPES {
        let x = Tensor::randn(0f32, 1.0, (3, 6, 7, 9), &device).unwrap().to_dtype(dtype).unwrap();
        let weight = Tensor::randn(0f32, 0.2, (16, 9, 3, 3), &device).unwrap().to_dtype(dtype).unwrap();
        let layer = Conv2d::new(weight, None, 1, 1).unwrap();
        let all = layer.forward(&x).unwrap();
        // Starts at an odd address; and a transposed picture.
        let last = layer.forward(&x.narrow(0, 1, 2).unwrap()).unwrap();
        assert_eq!(flat(&last), flat(&all.narrow(0, 1, 2).unwrap()));
        let turned = x.transpose(1, 2).unwrap();
        assert_eq!(flat(&layer.forward(&turned).unwrap()), flat(&layer.forward(&turned.contiguous().unwrap()).unwrap()));
        let none = layer.forward(&x.narrow(0, 0, 0).unwrap()).unwrap();
        assert_eq!(none.dims(), [0, 6, 7, 16]);
    }
}

#[test]
fn gradients_reach_inputs_and_weights() {
    let Some(device) = card() else { return };
    for (inner, out) in [(64, 64), (9, 16), (64, 4)] {
        let weight = Tensor::randn(0f32, 0.1, (out, inner, 3, 3), &device).unwrap();
        let x = Tensor::randn(0f32, 1.0, (2, 6, 5, inner), &device).unwrap();
        let gradient = |x: &Tensor, weight: &Tensor, of: &Tensor| {
            let y = Conv2d::new(weight.clone(), None, 1, 1).unwrap().forward(x).unwrap();
            let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            flat(grads.get(of).unwrap())
        };
        let (xv, wv) = (Var::from_tensor(&x).unwrap(), Var::from_tensor(&weight).unwrap());
        let through = gradient(&xv, &weight, &xv);
        let both = gradient(&xv, &wv, &xv);
        let want: Vec<f64> = both.iter().map(|x| f64::from(*x)).collect();
        assert!(relative(&through, &want) < 1e-5);
        assert!(gradient(&x, &wv, &wv).iter().any(|g| *g != 0.0));
    }
}

#[test]
fn mixed_types_are_refused() {
    let Some(device) = card() else { return };
    let weight = Tensor::zeros((8, 8, 3, 3), DType::F16, &device).unwrap();
    let layer = Conv2d::new(weight, None, 1, 1).unwrap();
    let x = Tensor::zeros((1, 4, 4, 8), DType::F32, &device).unwrap();
    assert!(matches!(layer.forward(&x), Err(KernelError::DType { .. })));
    let x = x.to_dtype(DType::F16).unwrap();
    assert!(layer.forward(&x.to_device(&Device::Cpu).unwrap()).is_err());
    let y = layer.forward(&x).unwrap().to_dtype(DType::F32).unwrap();
    assert!(layer.forward_fused(&x, Activation::None, Some(&y)).is_err());
}
