//! Every differentiable operation with its forward pass in f64, whose finite differences are the reference.

#[path = "gradient/fixture.rs"]
mod fixture;
#[path = "gradient/operations.rs"]
mod operations;

use candle_core::{DType, Device, Tensor, Var};
use kinora_kernels::{Activation, Result, upsample_nearest2x};

pub(crate) use fixture::recorded;

use operations::{convolutions, doubled, joined, layer_norm, linears, norms, pointwise, rotations};

use crate::naive::Random;

type Forward = Box<dyn Fn(&[Vec<f64>]) -> Vec<f64>>;
type Run = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// An operation over operands of given shapes.
pub(crate) struct Case {
    pub(crate) name: String,
    dims: Vec<Vec<usize>>,
    forward: Forward,
    run: Run,
    /// What operands are multiplied with, to reach past the middle of an activation.
    scale: f32,
}

fn case(
    name: impl Into<String>,
    dims: &[&[usize]],
    forward: impl Fn(&[Vec<f64>]) -> Vec<f64> + 'static,
    run: impl Fn(&[Tensor]) -> Result<Tensor> + 'static,
) -> Case {
    let dims = dims.iter().map(|d| d.to_vec()).collect();
    Case { name: name.into(), dims, forward: Box::new(forward), run: Box::new(run), scale: 1.0 }
}

/// Largest difference over the largest magnitude of what is wanted; infinite on NaN.
fn relative(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let most = want.iter().fold(1e-30f64, |a, x| a.max(x.abs()));
    let pairs = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).abs());
    pairs.fold(0.0f64, |a, b| if b.is_nan() { f64::INFINITY } else { a.max(b) }) / most
}

pub(crate) fn flat(x: &Tensor) -> Vec<f32> {
    if x.elem_count() == 0 {
        return Vec::new();
    }
    let x = x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// Fills memory of a card that will be handed out next with NaN; the CPU's kernels do it themselves.
fn poison(device: &Device, dtype: DType) {
    if !device.is_cpu() {
        let fill =
            |i: usize| Tensor::full(f32::NAN, 1usize << (6 + i), device).unwrap().to_dtype(dtype).unwrap();
        drop((0..16).map(fill).collect::<Vec<_>>());
    }
}

impl Case {
    /// Values and gradients by every operand, all wanted at once and one at a time, against differences
    /// of at most `most` elements an operand.
    ///
    /// Returns what was further off than `limit`.
    pub(crate) fn check(&self, device: &Device, dtype: DType, limit: f64, most: usize) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut random =
            Random(self.name.bytes().fold(17, |a, b| a.wrapping_mul(31).wrapping_add(u64::from(b))));
        let mut put = |dims: &[usize], scale: f32| {
            let values = random.fill(dims.iter().product()).iter().map(|x| x * scale).collect();
            let x = Tensor::from_vec(values, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            (x.to_device(device).unwrap(), flat(&x).iter().map(|x| f64::from(*x)).collect::<Vec<f64>>())
        };
        let (operands, mut values): (Vec<Tensor>, Vec<Vec<f64>>) =
            self.dims.iter().map(|dims| put(dims, self.scale)).unzip();
        let plain = (self.run)(&operands).unwrap();
        let error = relative(&flat(&plain), &(self.forward)(&values));
        if error > limit {
            wrong.push(format!("{} {dtype:?}: forward {error:e}", self.name));
        }
        let (r, weights) = put(plain.dims(), 1.0);
        let loss = |values: &[Vec<f64>]| -> f64 {
            (self.forward)(values).iter().zip(&weights).map(|(y, r)| y * r).sum()
        };
        let vars: Vec<Var> = operands.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
        let tensors: Vec<Tensor> = vars.iter().map(|x| x.as_tensor().clone()).collect();
        let gradients = |operands: &[Tensor]| {
            poison(device, dtype);
            let y = (self.run)(operands).unwrap();
            // What is one kernel without gradients may round in between with them.
            let exact = dtype == DType::F32 && device.is_cpu();
            let error = relative(&flat(&y), &flat(&plain).iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
            assert!(
                error <= if exact { 0.0 } else { limit },
                "{} {dtype:?}: with gradients {error:e}",
                self.name
            );
            (y * &r).unwrap().sum_all().unwrap().backward().unwrap()
        };
        let all = gradients(&tensors);
        for (at, var) in vars.iter().enumerate() {
            let got = all.get(var).unwrap_or_else(|| panic!("{}: no gradient of operand {at}", self.name));
            assert_eq!((got.dims(), got.dtype()), (var.dims(), dtype), "{}", self.name);
            let got = flat(got);
            let mut alone: Vec<Tensor> = operands.clone();
            alone[at] = tensors[at].clone();
            let single = gradients(&alone);
            assert_eq!(flat(single.get(var).unwrap()), got, "{}: operand {at} alone", self.name);
            for (other, var) in vars.iter().enumerate().filter(|(other, _)| *other != at) {
                assert!(single.get(var).is_none(), "{}: a gradient of operand {other}", self.name);
            }
            let step = (got.len() / most).max(1);
            let places: Vec<usize> =
                (0..got.len()).step_by(step).map(|i| (i + i / step % step).min(got.len() - 1)).collect();
            let mut want = Vec::new();
            for place in &places {
                let (h, x) = (1e-5, values[at][*place]);
                values[at][*place] = x + h;
                let above = loss(&values);
                values[at][*place] = x - h;
                want.push((above - loss(&values)) / (2.0 * h));
                values[at][*place] = x;
            }
            let got: Vec<f32> = places.iter().map(|place| got[*place]).collect();
            let error = relative(&got, &want);
            if error > limit {
                wrong.push(format!("{} {dtype:?}: operand {at} {error:e}", self.name));
            }
        }
        wrong
    }
}

/// Operations over small, odd extents.
pub(crate) fn small() -> Vec<Case> {
    let mut all = Vec::new();
    for shape in [(2, 9, 12, 3), (1, 300, 32, 8), (4, 7, 10, 5), (3, 5, 3, 1)] {
        norms(&mut all, shape, Activation::Silu);
        norms(&mut all, shape, Activation::None);
    }
    norms(&mut all, (2, 11, 20, 2), Activation::GeluErf);
    for shape in [(1, 2, 3, 15), (2, 3, 2, 96), (1, 1, 5, 257), (3, 4, 1, 40)] {
        layer_norm(&mut all, shape);
    }
    for (rows, inner, out) in [(1, 1, 1), (3, 7, 5), (17, 24, 33), (5, 40, 8)] {
        linears(&mut all, rows, inner, out);
    }
    joined(&mut all, (2, 7, 3), (4, 5), 6);
    for (picture, io, shape) in [
        ((1, 1, 1), (1, 1), (3, 1, 1)),
        ((2, 5, 7), (3, 8), (3, 1, 1)),
        ((1, 4, 3), (34, 9), (3, 1, 1)),
        ((2, 9, 6), (5, 4), (3, 2, 1)),
        ((1, 8, 8), (4, 3), (3, 2, 1)),
        ((1, 6, 5), (6, 4), (1, 1, 0)),
        ((1, 11, 5), (4, 3), (5, 2, 2)),
        ((1, 4, 8), (5, 6), (4, 4, 0)),
        ((1, 3, 2), (2, 3), (3, 1, 3)),
        ((1, 7, 6), (2, 3), (2, 3, 1)),
    ] {
        convolutions(&mut all, picture, io, shape);
    }
    for (rows, half) in [(1, 1), (3, 7), (9, 40), (2, 130)] {
        pointwise(&mut all, rows, half);
    }
    for (picture, c) in [((1, 1, 1), 1), ((2, 3, 5), 7), ((1, 4, 2), 24)] {
        let (n, h, w) = picture;
        all.push(case(
            format!("upsample {picture:?} {c}"),
            &[&[n, h, w, c]],
            move |v| doubled(&v[0], picture, c),
            |v| upsample_nearest2x(&v[0]),
        ));
    }
    for (dims, pairs) in [([1, 1, 1, 2], 1), ([2, 5, 3, 16], 8), ([2, 3, 1, 20], 6), ([1, 4, 2, 7], 3)] {
        rotations(&mut all, dims, pairs);
    }
    all
}

/// Operations over extents a video network has, for the kernels that take whole vectors and many blocks.
pub(crate) fn large() -> Vec<Case> {
    let mut all = Vec::new();
    norms(&mut all, (4, 257, 320, 32), Activation::Silu);
    norms(&mut all, (2, 70, 1920, 32), Activation::None);
    norms(&mut all, (1, 2000, 64, 32), Activation::QuickGelu);
    for shape in [(2, 4, 8, 320), (1, 3, 5, 1280), (2, 1, 9, 2560), (1, 2, 2, 3000), (300, 1, 1, 64)] {
        layer_norm(&mut all, shape);
    }
    for (rows, inner, out) in [(200, 320, 24), (77, 96, 160)] {
        linears(&mut all, rows, inner, out);
    }
    joined(&mut all, (2, 65, 32), (64, 32), 40);
    for (picture, io, shape) in [
        ((2, 8, 8), (64, 64), (3, 1, 1)),
        ((1, 16, 14), (32, 48), (3, 2, 1)),
        ((1, 8, 8), (160, 4), (3, 1, 1)),
        ((1, 8, 8), (4, 160), (3, 1, 1)),
    ] {
        convolutions(&mut all, picture, io, shape);
    }
    for (rows, half) in [(65, 320), (1000, 40), (7, 1000)] {
        pointwise(&mut all, rows, half);
    }
    for (dims, pairs) in [([2, 9, 8, 64], 32), ([1, 30, 3, 128], 48)] {
        rotations(&mut all, dims, pairs);
    }
    all
}
