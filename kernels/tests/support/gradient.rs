//! Every differentiable operation with its forward pass in f64, whose finite differences are the reference.

use candle_core::{DType, Device, Tensor, Var};
use kinora_kernels::*;

use crate::naive::{Random, activate};

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

fn group_norm(
    x: &[f64],
    (n, points, channels, groups): (usize, usize, usize, usize),
    map: impl Fn(usize, usize, f64) -> f64,
) -> Vec<f64> {
    let (width, mut y) = (channels / groups, vec![0.0; x.len()]);
    for (i, g) in (0..n).flat_map(|i| (0..groups).map(move |g| (i, g))) {
        let all = || (0..points).flat_map(|p| (0..width).map(move |c| (p, g * width + c)));
        let value = |p: usize, c: usize| x[(i * points + p) * channels + c];
        let count = (points * width) as f64;
        let mean = all().map(|(p, c)| value(p, c)).sum::<f64>() / count;
        let variance = all().map(|(p, c)| (value(p, c) - mean).powi(2)).sum::<f64>() / count;
        for (p, c) in all() {
            y[(i * points + p) * channels + c] = map(i, c, (value(p, c) - mean) / (variance + 1e-5).sqrt());
        }
    }
    y
}

type Norm = (usize, usize, usize, usize);

fn norms(all: &mut Vec<Case>, shape: Norm, activation: Activation) {
    let (n, points, channels, groups) = shape;
    let what = format!("{n}x{points}x{channels}/{groups} {activation:?}");
    let (x, c) = ([n, points, channels], [channels]);
    all.push(case(
        format!("group_norm {what}"),
        &[&x, &c, &c],
        move |v| group_norm(&v[0], shape, |_, c, y| activate(activation, y * v[1][c] + v[2][c])),
        move |v| GroupNorm::new(v[1].clone(), v[2].clone(), groups, 1e-5)?.forward(&v[0], activation),
    ));
    all.push(case(
        format!("group_norm film {what}"),
        &[&x, &c, &c, &[n, channels], &[n, channels]],
        move |v| {
            group_norm(&v[0], shape, |i, c, y| {
                let at = i * channels + c;
                activate(activation, (y * v[1][c] + v[2][c]) * (1.0 + v[3][at]) + v[4][at])
            })
        },
        move |v| {
            let norm = GroupNorm::new(v[1].clone(), v[2].clone(), groups, 1e-5)?;
            norm.forward_film(&v[0], &v[3], &v[4], activation)
        },
    ));
    let clips = if n % 2 == 0 { n / 2 } else { n };
    all.push(case(
        format!("group_norm added {what}"),
        &[&x, &c, &c, &[clips, channels]],
        move |v| {
            let row = |i: usize| i / (n / clips * points * channels) * channels + i % channels;
            let sum: Vec<f64> = v[0].iter().enumerate().map(|(i, x)| x + v[3][row(i)]).collect();
            group_norm(&sum, shape, |_, c, y| activate(activation, y * v[1][c] + v[2][c]))
        },
        move |v| {
            let norm = GroupNorm::new(v[1].clone(), v[2].clone(), groups, 1e-5)?;
            norm.forward_added(&v[0], &v[3], activation)
        },
    ));
}

fn layer_norm(all: &mut Vec<Case>, (outer, period, repeat, channels): Norm) {
    let rows = outer * period * repeat;
    let (x, c) = ([outer, period, repeat, channels], [channels]);
    let norm =
        move |v: &[Vec<f64>]| group_norm(&v[0], (rows, 1, channels, 1), |_, c, y| y * v[1][c] + v[2][c]);
    all.push(case(format!("layer_norm {rows}x{channels}"), &[&x, &c, &c], norm, |v| {
        LayerNorm::new(v[1].clone(), v[2].clone(), 1e-5).forward(&v[0])
    }));
    all.push(case(
        format!("layer_norm added {outer}x{period}x{repeat}x{channels}"),
        &[&x, &c, &c, &[period, channels]],
        move |v| {
            let place = |i: usize| i / channels / repeat % period * channels + i % channels;
            norm(v).iter().enumerate().map(|(i, y)| y + v[3][place(i)]).collect()
        },
        move |v| LayerNorm::new(v[1].clone(), v[2].clone(), 1e-5).forward_added(&v[0], &v[3], repeat),
    ));
}

fn product(x: &[f64], w: &[f64], inner: usize, out: usize) -> Vec<f64> {
    let dot = |r: &[f64], j: usize| r.iter().zip(&w[j * inner..]).map(|(x, w)| x * w).sum::<f64>();
    x.chunks(inner).flat_map(|r| (0..out).map(move |j| dot(r, j))).collect()
}

fn linears(all: &mut Vec<Case>, rows: usize, inner: usize, out: usize) {
    let what = format!("{rows}x{inner}x{out}");
    for activation in [Activation::None, Activation::Silu] {
        all.push(case(
            format!("linear {what} {activation:?}"),
            &[&[rows, inner], &[out, inner], &[out], &[rows, out]],
            move |v| {
                let y = product(&v[0], &v[1], inner, out);
                let y = y.iter().enumerate().map(|(i, y)| activate(activation, y + v[2][i % out]) + v[3][i]);
                y.collect()
            },
            move |v| {
                let layer = Linear::new(v[1].clone(), Some(v[2].clone()))?;
                layer.forward_fused(&v[0], activation, Some(&v[3]))
            },
        ));
    }
    all.push(case(
        format!("linear stacked {what}"),
        &[&[rows, inner], &[out, inner], &[3, inner], &[out, inner]],
        move |v| {
            let w: Vec<f64> = v[1..].concat();
            product(&v[0], &w, inner, 2 * out + 3)
        },
        |v| Linear::stacked(v[1..].to_vec(), None)?.forward(&v[0]),
    ));
    all.push(case(
        format!("gated linear {what}"),
        &[&[rows, inner], &[2 * out, inner], &[2 * out]],
        move |v| {
            let y = product(&v[0], &v[1], inner, 2 * out);
            let value = |r: usize, j: usize| y[r * 2 * out + j] + v[2][j];
            let gated = |r, j| value(r, j) * activate(Activation::GeluErf, value(r, out + j));
            (0..rows).flat_map(|r| (0..out).map(move |j| (r, j))).map(|(r, j)| gated(r, j)).collect()
        },
        |v| GatedLinear::new(v[1].clone(), Some(v[2].clone()))?.forward(&v[0]),
    ));
}

/// Two inputs side by side, which a card reads where they lie as long as nobody wants a gradient.
fn joined(
    all: &mut Vec<Case>,
    (n, points, groups): (usize, usize, usize),
    (a, b): (usize, usize),
    out: usize,
) {
    let side_by_side = move |v: &[Vec<f64>]| -> Vec<f64> {
        v[0].chunks(a).zip(v[1].chunks(b)).flat_map(|(x, y)| [x, y].concat()).collect()
    };
    let (x, y, c) = ([n, points, a], [n, points, b], [a + b]);
    let what = format!("{n}x{points}x{a}+{b}");
    all.push(case(
        format!("group_norm joined {what}"),
        &[&x, &y, &c, &c],
        move |v| {
            group_norm(&side_by_side(v), (n, points, a + b, groups), |_, c, y| {
                activate(Activation::Silu, y * v[2][c] + v[3][c])
            })
        },
        move |v| {
            let norm = GroupNorm::new(v[2].clone(), v[3].clone(), groups, 1e-5)?;
            norm.forward_joined([&v[0], &v[1]], Activation::Silu)
        },
    ));
    all.push(case(
        format!("linear joined {what}x{out}"),
        &[&x, &y, &[out, a + b], &[out]],
        move |v| {
            let y = product(&side_by_side(v), &v[2], a + b, out);
            y.iter().enumerate().map(|(i, y)| y + v[3][i % out]).collect()
        },
        |v| Linear::new(v[2].clone(), Some(v[3].clone()))?.forward_joined([&v[0], &v[1]]),
    ));
}

type Picture = (usize, usize, usize);

fn conv(
    x: &[f64],
    weight: &[f64],
    (n, h, w): Picture,
    (inner, out): (usize, usize),
    (kernel, stride, padding): (usize, usize, usize),
) -> Vec<f64> {
    let size = |len: usize| (len + 2 * padding - kernel) / stride + 1;
    let (oh, ow) = (size(h), size(w));
    let mut y = vec![0.0; n * oh * ow * out];
    for (at, y) in y.iter_mut().enumerate() {
        let (j, pixel) = (at % out, at / out);
        let (i, oy, ox) = (pixel / ow / oh, pixel / ow % oh, pixel % ow);
        for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
            let (sy, sx) = (oy * stride + ky, ox * stride + kx);
            if sy < padding || sx < padding || sy - padding >= h || sx - padding >= w {
                continue;
            }
            let from = ((i * h + sy - padding) * w + sx - padding) * inner;
            for c in 0..inner {
                *y += x[from + c] * weight[((j * inner + c) * kernel + ky) * kernel + kx];
            }
        }
    }
    y
}

fn doubled(x: &[f64], (n, h, w): Picture, c: usize) -> Vec<f64> {
    let mut y = Vec::with_capacity(4 * x.len());
    for (line, pixel) in (0..2 * n * h).flat_map(|line| (0..2 * w).map(move |pixel| (line, pixel))) {
        let from = (line / 2 * w + pixel / 2) * c;
        y.extend_from_slice(&x[from..from + c]);
    }
    y
}

fn convolutions(all: &mut Vec<Case>, picture: Picture, io: (usize, usize), shape: (usize, usize, usize)) {
    let ((n, h, w), (inner, out), (kernel, stride, padding)) = (picture, io, shape);
    let what = format!("{picture:?} {io:?} {shape:?}");
    let (x, k) = ([n, h, w, inner], [out, inner, kernel, kernel]);
    let size = |len: usize| (len + 2 * padding - kernel) / stride + 1;
    let layer = move |v: &[Tensor]| Conv2d::new(v[1].clone(), Some(v[2].clone()), stride, padding);
    for activation in [Activation::None, Activation::Silu] {
        all.push(case(
            format!("conv2d {what} {activation:?}"),
            &[&x, &k, &[out], &[n, size(h), size(w), out]],
            move |v| {
                let y = conv(&v[0], &v[1], picture, io, shape);
                let y = y.iter().enumerate().map(|(i, y)| activate(activation, y + v[2][i % out]) + v[3][i]);
                y.collect()
            },
            move |v| layer(v)?.forward_fused(&v[0], activation, Some(&v[3])),
        ));
    }
    all.push(case(
        format!("conv2d upsampled {what}"),
        &[&x, &k, &[out]],
        move |v| {
            let y = conv(&doubled(&v[0], picture, inner), &v[1], (n, 2 * h, 2 * w), io, shape);
            y.iter().enumerate().map(|(i, y)| y + v[2][i % out]).collect()
        },
        move |v| layer(v)?.forward_upsampled(&v[0]),
    ));
}

fn pointwise(all: &mut Vec<Case>, rows: usize, half: usize) {
    for activation in [Activation::Silu, Activation::Relu, Activation::GeluErf, Activation::QuickGelu] {
        let forward = move |v: &[Vec<f64>]| v[0].iter().map(|x| activate(activation, *x)).collect();
        let mut one = case(format!("{activation:?} {rows}x{half}"), &[&[rows, half]], forward, move |v| {
            activation.apply(&v[0])
        });
        one.scale = 6.0;
        all.push(one);
    }
    let mut gates = case(
        format!("geglu {rows}x{half}"),
        &[&[rows, 2 * half]],
        move |v| {
            let gated = |row: &[f64], c: usize| row[c] * activate(Activation::GeluErf, row[half + c]);
            v[0].chunks(2 * half).flat_map(|row| (0..half).map(move |c| gated(row, c))).collect()
        },
        |v| geglu(&v[0]),
    );
    gates.scale = 4.0;
    all.push(gates);
    let mut rows_of = case(
        format!("softmax {rows}x{half}"),
        &[&[rows, half]],
        move |v| {
            let one = |row: &[f64]| {
                let exp: Vec<f64> = row.iter().map(|x| x.exp()).collect();
                let total: f64 = exp.iter().sum();
                exp.into_iter().map(move |x| x / total).collect::<Vec<_>>()
            };
            v[0].chunks(half).flat_map(one).collect()
        },
        |v| softmax(&v[0]),
    );
    rows_of.scale = 4.0;
    all.push(rows_of);
}

fn rotations(all: &mut Vec<Case>, dims: [usize; 4], pairs: usize) {
    let [batch, tokens, heads, dim] = dims;
    let angles: Vec<f32> = (0..batch * tokens * pairs).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
    for (kind, per_batch) in [(RotaryPairs::Halves, false), (RotaryPairs::Interleaved, true)] {
        let (a, b) = (angles.clone(), angles.clone());
        all.push(case(
            format!("rope {dims:?} {pairs} {kind:?}"),
            &[&dims],
            move |v| {
                let mut y = v[0].clone();
                for (at, head) in y.chunks_mut(dim).enumerate() {
                    let token = if per_batch { at / heads } else { at / heads % tokens };
                    for i in 0..pairs {
                        let (sin, cos) = f64::from(a[token * pairs + i]).sin_cos();
                        let (p, q) =
                            if kind == RotaryPairs::Halves { (i, i + pairs) } else { (2 * i, 2 * i + 1) };
                        (head[p], head[q]) = (head[p] * cos - head[q] * sin, head[q] * cos + head[p] * sin);
                    }
                }
                y
            },
            move |v| {
                let device = v[0].device();
                let table = |f: fn(f32) -> f32| {
                    let values: Vec<f32> = b.iter().map(|x| f(*x)).collect();
                    let all = Tensor::from_vec(values, (batch, tokens, pairs), device)?;
                    Ok::<_, KernelError>(if per_batch { all } else { all.get(0)? })
                };
                rope(&v[0], &table(f32::cos)?, &table(f32::sin)?, kind)
            },
        ));
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

/// An operation of the fixture: its name, its operands' names and the call.
type Recorded = (&'static str, &'static [&'static str], fn(&[Tensor]) -> Result<Tensor>);

const RECORDED: [Recorded; 14] = [
    ("group_norm_silu", &["x", "w", "b"], |v| {
        GroupNorm::new(v[1].clone(), v[2].clone(), 5, 1e-5)?.forward(&v[0], Activation::Silu)
    }),
    ("group_norm_film", &["x", "w", "b", "scale", "shift"], |v| {
        let norm = GroupNorm::new(v[1].clone(), v[2].clone(), 5, 1e-5)?;
        norm.forward_film(&v[0], &v[3], &v[4], Activation::Silu)
    }),
    ("group_norm_added", &["x", "w", "b", "added"], |v| {
        GroupNorm::new(v[1].clone(), v[2].clone(), 5, 1e-5)?.forward_added(&v[0], &v[3], Activation::Silu)
    }),
    ("layer_norm", &["x", "w", "b"], |v| LayerNorm::new(v[1].clone(), v[2].clone(), 1e-5).forward(&v[0])),
    ("silu", &["x"], |v| Activation::Silu.apply(&(&v[0] * 4.0)?)),
    ("gelu", &["x"], |v| Activation::GeluErf.apply(&(&v[0] * 4.0)?)),
    ("relu", &["x"], |v| Activation::Relu.apply(&v[0])),
    ("quick_gelu", &["x"], |v| Activation::QuickGelu.apply(&v[0])),
    ("geglu", &["x"], |v| geglu(&v[0])),
    ("softmax", &["x"], |v| softmax(&v[0])),
    ("linear", &["x", "w", "b", "r"], |v| {
        Linear::new(v[1].clone(), Some(v[2].clone()))?.forward_fused(&v[0], Activation::None, Some(&v[3]))
    }),
    ("conv2d", &["x", "w", "b"], |v| Conv2d::new(v[1].clone(), Some(v[2].clone()), 1, 1)?.forward(&v[0])),
    ("conv2d_stride", &["x", "w", "b"], |v| {
        Conv2d::new(v[1].clone(), Some(v[2].clone()), 2, 1)?.forward(&v[0])
    }),
    ("conv2d_upsampled", &["x", "w", "b"], |v| {
        Conv2d::new(v[1].clone(), Some(v[2].clone()), 1, 1)?.forward_upsampled(&v[0])
    }),
];

/// Results and gradients of PyTorch's fixture (`reference/gradients.py`); returns what was further off.
/// `KINORA_FIXTURES` names the folder of fixtures where the sources are not.
pub(crate) fn recorded(device: &Device, limit: f64) -> Vec<String> {
    let folder = std::env::var_os("KINORA_FIXTURES").map_or_else(
        || std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"),
        std::path::PathBuf::from,
    );
    let all = candle_core::safetensors::load(folder.join("gradients.safetensors"), &Device::Cpu).unwrap();
    let wanted = |name: String| flat(&all[&name]).into_iter().map(f64::from).collect::<Vec<_>>();
    let mut wrong = Vec::new();
    for (case, names, run) in RECORDED {
        let on = |name: &str| all[&format!("{case}.{name}")].to_device(device).unwrap();
        let vars: Vec<Var> = names.iter().map(|name| Var::from_tensor(&on(name)).unwrap()).collect();
        let operands: Vec<Tensor> = vars.iter().map(|x| x.as_tensor().clone()).collect();
        let out = run(&operands).unwrap();
        let grads = (&out * on("weight_of_out")).unwrap().sum_all().unwrap().backward().unwrap();
        let mut errors = vec![("out", relative(&flat(&out), &wanted(format!("{case}.out"))))];
        for (name, var) in names.iter().zip(&vars) {
            let got = flat(grads.get(var).unwrap());
            errors.push((name, relative(&got, &wanted(format!("{case}.grad.{name}")))));
        }
        let further = errors.into_iter().filter(|(_, error)| *error > limit);
        wrong.extend(further.map(|(what, error)| format!("{case} {what}: {error:e}")));
    }
    wrong
}
