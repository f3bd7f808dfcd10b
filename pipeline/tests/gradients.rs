//! Gradients through the whole video UNet against PyTorch's, for what one-shot tuning trains.
//!
//! Fixtures come from `reference/unet_gradients.py`; `KINORA_FIXTURES` names their folder where the sources
//! are not. With the feature `cuda` the same network runs on a card too, where there is one.
// Test helpers outside test functions may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use kinora_pipeline::nets::unet_motion::{UnetMotion, UnetMotionConfig, UnetMotionInput};

fn open(name: &str) -> (HashMap<String, Tensor>, HashMap<String, String>) {
    let folder = std::env::var_os("KINORA_FIXTURES")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"), PathBuf::from);
    let bytes = std::fs::read(folder.join(format!("unet/{name}.safetensors"))).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
    (tensors, header.metadata().clone().unwrap_or_default())
}

fn flat(x: &Tensor) -> Vec<f32> {
    x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference over the reference's largest magnitude; infinite on NaN.
fn relative(found: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let (got, want) = (flat(found), flat(expected));
    let most = want.iter().fold(0f32, |a, x| a.max(x.abs()));
    let worst = got.iter().zip(&want).map(|(x, y)| (x - y).abs());
    worst.fold(0f32, |a, x| if x.is_nan() { f32::INFINITY } else { a.max(x) }) / most
}

/// Every gradient of the fixture for the mean squared difference from its target.
fn check(dtype: DType, device: &Device, limit: f32) {
    let (network, header) = open("motion_v3");
    let (reference, _) = open("motion_v3_gradients");
    let place = |x: &Tensor| x.to_device(device).unwrap().to_dtype(dtype).unwrap();
    let config: UnetMotionConfig = serde_json::from_str(&header["config"]).unwrap();
    let mut vars = HashMap::new();
    let mut weights = HashMap::new();
    for (name, x) in network.iter().filter_map(|(name, x)| Some((name.strip_prefix("weights.")?, x))) {
        let mut tensor = place(x);
        if reference.contains_key(&format!("grad.{name}")) {
            let var = Var::from_tensor(&tensor).unwrap();
            tensor = var.as_tensor().clone();
            vars.insert(name.to_owned(), var);
        }
        weights.insert(name.to_owned(), tensor);
    }
    let unet = UnetMotion::new(&config, VarBuilder::from_tensors(weights, dtype, device)).unwrap();
    let mut input = |name: &str| {
        let var = Var::from_tensor(&place(&network[&format!("in.{name}")])).unwrap();
        let tensor = var.as_tensor().clone();
        vars.insert(format!("in.{name}"), var);
        tensor
    };
    let (sample, text) = (input("sample"), input("text"));
    let times: Vec<f64> = network["in.timesteps"].to_dtype(DType::F64).unwrap().to_vec1().unwrap();
    let out = unet.forward(&UnetMotionInput::new(&sample, &times, &text)).unwrap();
    let out = out.to_dtype(DType::F32).unwrap();
    let target = reference["target"].to_device(device).unwrap();
    let loss = (out - target).unwrap().sqr().unwrap().mean_all().unwrap();
    let wanted = reference["loss"].to_scalar::<f32>().unwrap();
    let found = loss.to_scalar::<f32>().unwrap();
    assert!((found - wanted).abs() <= limit * wanted, "loss {found} against {wanted}");
    let grads = loss.backward().unwrap();
    let mut worst = (0f32, "");
    for (name, var) in &vars {
        let grad = grads.get(var).unwrap_or_else(|| panic!("no gradient of {name}"));
        let error = relative(grad, &reference[&format!("grad.{name}")]);
        if error > worst.0 {
            worst = (error, name);
        }
    }
    eprintln!("{dtype:?}: {} gradients, worst {:e} of {}", vars.len(), worst.0, worst.1);
    assert!(vars.len() > 50 && worst.0 <= limit, "{dtype:?}: {worst:?}");
}

#[test]
fn attention_projections_and_inputs_match_torch() {
    check(DType::F32, &Device::Cpu, 1e-4);
}

#[cfg(feature = "cuda")]
#[test]
fn on_a_card_too() {
    match kinora_kernels::open_cuda(0) {
        Ok(device) => {
            check(DType::F32, &device, 1e-4);
            check(DType::BF16, &device, 0.2);
            check(DType::F16, &device, 3e-2);
        }
        Err(error) => eprintln!("skipped: {error}"),
    }
}
