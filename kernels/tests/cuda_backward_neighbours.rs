//! Gradients on a card against finite differences of f64 arithmetic on the same rounded operands.
//!
//! Memory handed to every kernel is filled with NaN first. Without a driver or card the tests say so and pass.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, dead_code)]

use candle_core::DType;
use kinora_kernels::open_cuda;

#[path = "support/gradient.rs"]
mod gradient;
#[path = "support/naive.rs"]
mod naive;
use gradient::{Case, large, recorded, small};

/// Types with the share of the largest gradient that an error may be.
const TYPES: [(DType, f64); 3] = [(DType::F32, 1e-4), (DType::F16, 6e-3), (DType::BF16, 5e-2)];

fn check(cases: Vec<Case>, most: usize) {
    let device = match open_cuda(0) {
        Ok(device) => device,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let only = std::env::var("KINORA_CASES").unwrap_or_default();
    let chosen = cases.iter().filter(|case| case.name.contains(&only));
    let all = chosen.flat_map(|case| TYPES.map(|(dtype, limit)| (case, dtype, limit)));
    let wrong: Vec<String> =
        all.flat_map(|(case, dtype, limit)| case.check(&device, dtype, limit, most)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn small_and_odd() {
    check(small(), 16);
}

#[test]
fn as_a_network_has_them() {
    check(large(), 8);
}

#[test]
fn as_torch_has_them() {
    match open_cuda(0) {
        Ok(device) => {
            let wrong = recorded(&device, 1e-4);
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
        Err(error) => eprintln!("skipped: {error}"),
    }
}
