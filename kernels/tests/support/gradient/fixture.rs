//! Results and gradients that PyTorch recorded.

use candle_core::{Device, Tensor, Var};
use kinora_kernels::*;

use super::{flat, relative};

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
