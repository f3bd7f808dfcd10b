//! Group and layer normalisation against f64.

use kinora_kernels::*;
use proptest::prelude::*;

use crate::naive::{Random, activate, max_error};
use crate::{cpu, flat, on_every_isa};

fn check_group(n: usize, points: usize, channels: usize, groups: usize, offset: f32, film: bool) {
    let mut random = Random(21);
    let x: Vec<f32> = random.fill(n * points * channels).iter().map(|v| v + offset).collect();
    let (weight, bias) = (random.fill(channels), random.fill(channels));
    let (scale, shift) = (random.fill(n * channels), random.fill(n * channels));
    let width = channels / groups;
    let mut want = vec![0.0; x.len()];
    for i in 0..n {
        for g in 0..groups {
            let at = |p: usize, c: usize| (i * points + p) * channels + g * width + c;
            let all = || (0..points).flat_map(|p| (0..width).map(move |c| (p, c)));
            let count = (points * width) as f64;
            let mean = all().map(|(p, c)| f64::from(x[at(p, c)])).sum::<f64>() / count;
            let variance = all().map(|(p, c)| (f64::from(x[at(p, c)]) - mean).powi(2)).sum::<f64>() / count;
            for (p, c) in all() {
                let channel = g * width + c;
                let y = (f64::from(x[at(p, c)]) - mean) / (variance + 1e-5).sqrt();
                let mut y = y * f64::from(weight[channel]) + f64::from(bias[channel]);
                if film {
                    y = y * (1.0 + f64::from(scale[i * channels + channel]))
                        + f64::from(shift[i * channels + channel]);
                }
                want[at(p, c)] = activate(Activation::Silu, y);
            }
        }
    }
    on_every_isa(|isa| {
        let norm = GroupNorm::new(cpu(&weight, &[channels]), cpu(&bias, &[channels]), groups, 1e-5).unwrap();
        let input = cpu(&x, &[n, points, channels]);
        let got = if film {
            let (scale, shift) = (cpu(&scale, &[n, channels]), cpu(&shift, &[n, channels]));
            norm.forward_film(&input, &scale, &shift, Activation::Silu).unwrap()
        } else {
            norm.forward(&input, Activation::Silu).unwrap()
        };
        let error = max_error(&flat(&got), &want);
        let tolerance = 6e-6 + 1e-6 * f64::from(offset);
        assert!(error < tolerance, "{isa:?} {n}x{points}x{channels}/{groups} offset {offset}: {error}");
    });
}

#[test]
fn group_norm_cases() {
    for (n, points, channels, groups) in [
        (1, 1, 32, 32),
        (2, 300, 48, 16),
        (3, 7, 10, 5),
        (2, 1000, 96, 32),
        (1, 5, 3, 1),
        (0, 5, 4, 2),
        (2, 0, 4, 2),
    ] {
        for film in [false, true] {
            if points * channels / groups != 1 {
                check_group(n, points, channels, groups, 0.0, film);
            }
        }
    }
    // A mean a thousand times the deviation: sums of plain squares would lose everything.
    check_group(1, 700, 64, 32, 600.0, false);
}

fn check_layer(rows: usize, channels: usize) {
    let mut random = Random(23);
    let (x, weight, bias) = (random.fill(rows * channels), random.fill(channels), random.fill(channels));
    let mut want = Vec::new();
    for row in x.chunks(channels) {
        let mean = row.iter().map(|v| f64::from(*v)).sum::<f64>() / channels as f64;
        let variance = row.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / channels as f64;
        want.extend((0..channels).map(|c| {
            (f64::from(row[c]) - mean) / (variance + 1e-5).sqrt() * f64::from(weight[c]) + f64::from(bias[c])
        }));
    }
    on_every_isa(|isa| {
        let norm = LayerNorm::new(cpu(&weight, &[channels]), cpu(&bias, &[channels]), 1e-5);
        let error = max_error(&flat(&norm.forward(&cpu(&x, &[rows, channels])).unwrap()), &want);
        // Two nearly equal values make a large factor of a small difference.
        assert!(error < if channels < 4 { 2e-3 } else { 1e-5 }, "{isa:?} {rows}x{channels}: {error}");
    });
}

#[test]
fn layer_norm_cases() {
    for (rows, channels) in [(1, 1), (5, 2), (3, 15), (300, 96), (40, 320), (7, 257), (0, 8)] {
        check_layer(rows, channels);
    }
}

#[test]
fn nan_stays_in_its_group_and_errors_are_typed() {
    on_every_isa(|isa| {
        let mut x = vec![1.0f32; 2 * 4 * 6];
        x.iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
        x[1] = f32::NAN;
        let norm = GroupNorm::new(cpu(&[1.0; 6], &[6]), cpu(&[0.0; 6], &[6]), 2, 1e-5).unwrap();
        let got = flat(&norm.forward(&cpu(&x, &[2, 4, 6]), Activation::None).unwrap());
        for (i, y) in got.iter().enumerate() {
            assert_eq!(y.is_nan(), i < 24 && i % 6 < 3, "{isa:?} at {i}");
        }
    });
    assert!(matches!(
        GroupNorm::new(cpu(&[1.0; 6], &[6]), cpu(&[0.0; 6], &[6]), 4, 1e-5),
        Err(KernelError::Shape { .. })
    ));
    let norm = GroupNorm::new(cpu(&[1.0; 6], &[6]), cpu(&[0.0; 6], &[6]), 2, 1e-5).unwrap();
    let x = cpu(&[0.0; 12], &[2, 6]);
    assert!(matches!(
        norm.forward(&cpu(&[0.0; 4], &[2, 2]), Activation::None),
        Err(KernelError::Shape { .. })
    ));
    assert!(matches!(
        norm.forward_film(&x, &cpu(&[0.0; 6], &[6]), &x, Activation::None),
        Err(KernelError::Shape { .. })
    ));
    let layer = LayerNorm::new(cpu(&[1.0; 6], &[6]), cpu(&[0.0; 5], &[5]), 1e-5);
    assert!(matches!(layer.forward(&x), Err(KernelError::Shape { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_norm(n in 1usize..4, points in 2usize..600, width in 1usize..9, groups in 1usize..9, film in any::<bool>()) {
        check_group(n, points, width * groups, groups, 0.0, film);
        check_layer(points, width * groups * 4);
    }
}
