//! The operations, each with its forward pass in f64.

use candle_core::Tensor;
use kinora_kernels::*;

use super::{Case, case};
use crate::naive::activate;

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

pub(super) fn norms(all: &mut Vec<Case>, shape: Norm, activation: Activation) {
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

pub(super) fn layer_norm(all: &mut Vec<Case>, (outer, period, repeat, channels): Norm) {
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

pub(super) fn linears(all: &mut Vec<Case>, rows: usize, inner: usize, out: usize) {
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
pub(super) fn joined(
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

pub(super) fn doubled(x: &[f64], (n, h, w): Picture, c: usize) -> Vec<f64> {
    let mut y = Vec::with_capacity(4 * x.len());
    for (line, pixel) in (0..2 * n * h).flat_map(|line| (0..2 * w).map(move |pixel| (line, pixel))) {
        let from = (line / 2 * w + pixel / 2) * c;
        y.extend_from_slice(&x[from..from + c]);
    }
    y
}

pub(super) fn convolutions(
    all: &mut Vec<Case>,
    picture: Picture,
    io: (usize, usize),
    shape: (usize, usize, usize),
) {
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

pub(super) fn pointwise(all: &mut Vec<Case>, rows: usize, half: usize) {
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

pub(super) fn rotations(all: &mut Vec<Case>, dims: [usize; 4], pairs: usize) {
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
