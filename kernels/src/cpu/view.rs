//! From candle tensors to slices and back.

use candle_core::{CpuStorage, DType, Storage, StorageRef, Tensor};

use crate::error::Result;

/// A tensor whose kernels are ours: on the CPU and of a float type we compute in f32.
pub(crate) fn ours(x: &Tensor) -> bool {
    x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16)
}

/// `x` in f32, without a copy when it is already.
pub(crate) fn single(x: &Tensor) -> Result<Tensor> {
    Ok(if x.dtype() == DType::F32 { x.clone() } else { x.to_dtype(DType::F32)? })
}

/// `values` as a CPU tensor of `like`'s type.
pub(crate) fn tensor(values: Vec<f32>, dims: &[usize], like: &Tensor) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, dims, like.device())?.to_dtype(like.dtype())?)
}

/// Keeps a tensor's memory readable.
pub(crate) struct Guard<'a> {
    storage: StorageRef<'a>,
    start: usize,
    len: Option<usize>,
}

impl<'a> Guard<'a> {
    /// The memory of a contiguous tensor, exactly its elements.
    pub(crate) fn new(x: &'a Tensor) -> Result<Self> {
        let (storage, layout) = x.storage_and_layout();
        let Some((start, end)) = layout.contiguous_offsets() else {
            return Err(candle_core::Error::Msg("a kernel input was not contiguous".into()).bt().into());
        };
        Ok(Self { storage, start, len: Some(end - start) })
    }

    /// The memory from a tensor's first element on, whatever its strides.
    pub(crate) fn strided(x: &'a Tensor) -> Self {
        let (storage, layout) = x.storage_and_layout();
        Self { storage, start: layout.start_offset(), len: None }
    }

    /// The values.
    pub(crate) fn values(&self) -> Result<&[f32]> {
        let all: &[f32] = match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => values,
            _ => {
                return Err(candle_core::Error::Msg("a kernel input was not f32 on the CPU".into())
                    .bt()
                    .into());
            }
        };
        let end = self.len.map_or(all.len(), |len| self.start + len);
        all.get(self.start..end)
            .ok_or_else(|| candle_core::Error::Msg("a tensor's layout passes its memory".into()).bt().into())
    }
}
