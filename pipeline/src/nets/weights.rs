//! Reads checked tensors and layers out of a checkpoint.
//!
//! Every network asks for its weights here, so that a missing key, a wrong shape or a NaN is
//! refused while loading, with the key's full name, instead of surfacing as a grey picture.

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;
use kinora_kernels::{Conv2d, GroupNorm, KernelError, LayerNorm, Linear};

/// Result of building or running a network.
pub type Result<T> = std::result::Result<T, NetError>;

/// Why a network could not be built from a checkpoint, or refused its input.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The checkpoint has no tensor of that name.
    #[error(
        "the checkpoint has no tensor \"{name}\" (expected shape {expected:?}); it belongs to another network or layout, or the file is incomplete"
    )]
    Missing { name: String, expected: Vec<usize> },
    /// The tensor is there with another shape.
    #[error(
        "tensor \"{name}\" has shape {got:?} where the configuration needs {expected:?}; use the config.json that belongs to this checkpoint"
    )]
    Shape { name: String, expected: Vec<usize>, got: Vec<usize> },
    /// The tensor holds a NaN or an infinity.
    #[error("tensor \"{name}\" holds a NaN or infinite value; the file is damaged, fetch it again")]
    NotFinite { name: String },
    /// The configuration contradicts itself or asks for something not built.
    #[error("{net} configuration: {message}")]
    Config { net: &'static str, message: String },
    /// The input does not fit the network.
    #[error("{net}: expected {expected}, got {got}")]
    Input { net: &'static str, expected: String, got: String },
    /// A kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The tensor library refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl NetError {
    /// A refused configuration.
    pub fn config(net: &'static str, message: impl Into<String>) -> Self {
        Self::Config { net, message: message.into() }
    }

    /// A refused input.
    pub fn input(net: &'static str, expected: impl Into<String>, got: impl std::fmt::Debug) -> Self {
        Self::Input { net, expected: expected.into(), got: format!("{got:?}") }
    }
}

impl From<NetError> for candle_core::Error {
    fn from(error: NetError) -> Self {
        match error {
            NetError::Tensor(inner) => inner,
            other => Self::wrap(other),
        }
    }
}

/// The tensor `name` below `vb`'s prefix with exactly the shape `dims`, every value finite.
///
/// # Errors
/// [`NetError::Missing`], [`NetError::Shape`] or [`NetError::NotFinite`], each with the full key.
pub fn tensor(vb: &VarBuilder, dims: &[usize], name: &str) -> Result<Tensor> {
    let found = any_shape(vb, dims, name)?;
    if found.dims() != dims {
        return Err(NetError::Shape {
            name: full_name(vb, name),
            expected: dims.to_vec(),
            got: found.dims().to_vec(),
        });
    }
    Ok(found)
}

/// Like [`tensor`], and a trailing `[1, 1]` is dropped: old checkpoints keep linear maps as 1×1
/// convolutions.
pub fn matrix(vb: &VarBuilder, rows: usize, columns: usize, name: &str) -> Result<Tensor> {
    let found = any_shape(vb, &[rows, columns], name)?;
    match *found.dims() {
        [r, c] | [r, c, 1, 1] if r == rows && c == columns => Ok(found.reshape((rows, columns))?),
        _ => Err(NetError::Shape {
            name: full_name(vb, name),
            expected: vec![rows, columns],
            got: found.dims().to_vec(),
        }),
    }
}

/// A linear map `inner -> out` from `weight` (`[out, inner]` or a 1×1 convolution) and `bias`.
pub fn linear(vb: &VarBuilder, inner: usize, out: usize) -> Result<Linear> {
    let bias = tensor(vb, &[out], "bias")?;
    Ok(Linear::new(matrix(vb, out, inner, "weight")?, Some(bias))?)
}

/// A linear map without bias.
pub fn linear_no_bias(vb: &VarBuilder, inner: usize, out: usize) -> Result<Linear> {
    Ok(Linear::new(matrix(vb, out, inner, "weight")?, None)?)
}

/// A square convolution `inner -> out`.
pub fn conv2d(
    vb: &VarBuilder,
    inner: usize,
    out: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Result<Conv2d> {
    let weight = tensor(vb, &[out, inner, kernel, kernel], "weight")?;
    let bias = tensor(vb, &[out], "bias")?;
    Ok(Conv2d::new(weight, Some(bias), stride, padding)?)
}

/// A square convolution without bias.
pub fn conv2d_no_bias(
    vb: &VarBuilder,
    inner: usize,
    out: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Result<Conv2d> {
    let weight = tensor(vb, &[out, inner, kernel, kernel], "weight")?;
    Ok(Conv2d::new(weight, None, stride, padding)?)
}

/// Group normalisation of `channels`.
pub fn group_norm(vb: &VarBuilder, channels: usize, groups: usize, eps: f64) -> Result<GroupNorm> {
    let weight = tensor(vb, &[channels], "weight")?;
    Ok(GroupNorm::new(weight, tensor(vb, &[channels], "bias")?, groups, eps)?)
}

/// Layer normalisation of `channels`.
pub fn layer_norm(vb: &VarBuilder, channels: usize, eps: f64) -> Result<LayerNorm> {
    let weight = tensor(vb, &[channels], "weight")?;
    Ok(LayerNorm::new(weight, tensor(vb, &[channels], "bias")?, eps))
}

fn any_shape(vb: &VarBuilder, expected: &[usize], name: &str) -> Result<Tensor> {
    if !vb.contains_tensor(name) {
        return Err(NetError::Missing { name: full_name(vb, name), expected: expected.to_vec() });
    }
    let found = vb.get_unchecked(name)?;
    // A NaN or infinity anywhere makes the sum non-finite; f32 holds the sum of any sane weights.
    if !found.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?.is_finite() {
        return Err(NetError::NotFinite { name: full_name(vb, name) });
    }
    Ok(found)
}

fn full_name(vb: &VarBuilder, name: &str) -> String {
    let prefix = vb.prefix();
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::Device;

    use super::*;

    fn builder(values: Vec<f32>, dims: &[usize]) -> VarBuilder<'static> {
        let weight = Tensor::from_vec(values, dims, &Device::Cpu).unwrap();
        let map = HashMap::from([("a.b.weight".to_owned(), weight)]);
        VarBuilder::from_tensors(map, DType::F32, &Device::Cpu)
    }

    #[test]
    fn a_missing_key_is_named_in_full() {
        let vb = builder(vec![0.0; 4], &[2, 2]);
        let error = tensor(&vb.pp("a").pp("c"), &[2, 2], "weight").unwrap_err();
        assert!(matches!(&error, NetError::Missing { name, .. } if name == "a.c.weight"), "{error}");
    }

    #[test]
    fn a_wrong_shape_says_both_shapes() {
        let vb = builder(vec![0.0; 4], &[2, 2]);
        let error = tensor(&vb.pp("a.b"), &[4, 2], "weight").unwrap_err().to_string();
        assert!(error.contains("[2, 2]") && error.contains("[4, 2]"), "{error}");
    }

    #[test]
    fn nan_and_infinity_are_refused() {
        for bad in [f32::NAN, f32::INFINITY] {
            let vb = builder(vec![0.0, 1.0, bad, 2.0], &[2, 2]);
            let error = tensor(&vb.pp("a.b"), &[2, 2], "weight").unwrap_err();
            assert!(matches!(&error, NetError::NotFinite { name } if name == "a.b.weight"), "{error}");
        }
    }

    #[test]
    fn a_one_by_one_convolution_is_a_matrix() {
        let vb = builder(vec![1.0, 2.0, 3.0, 4.0], &[2, 2, 1, 1]);
        assert_eq!(matrix(&vb.pp("a.b"), 2, 2, "weight").unwrap().dims(), [2, 2]);
    }
}
