//! Descriptions of tensors for Hopper's copy engine.

use candle_core::Tensor;
use candle_core::cuda_backend::cudarc::driver::sys;

use crate::error::{KernelError, Result};

/// An opaque 128-byte map, passed to kernels by value.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct TensorMap(sys::CUtensorMap);

impl TensorMap {
    /// Boxes of `rows` tokens by 64 columns, swizzled over 128 bytes, of a 16-bit tensor
    /// `[batch, inner, heads, tokens, dim]` at `address`. What lies outside reads as zero.
    pub(crate) fn rows(address: u64, x: &Tensor, half: bool, rows: u32) -> Result<Self> {
        let (dims, stride) = (x.dims(), x.stride());
        let refused =
            |got: String| KernelError::shape("attention", "rows the tensor copy engine can address", got);
        let [batch, inner, heads, tokens, dim] = *dims else {
            return Err(refused(format!("{dims:?}")));
        };
        let extents = [dim, tokens, heads, inner, batch].map(|n| n as u64);
        // An axis of one element has any stride; the engine wants a multiple of 16 bytes.
        let bytes = |axis: usize| if dims[axis] <= 1 { 16 * dim as u64 } else { 2 * stride[axis] as u64 };
        let strides = [bytes(3), bytes(2), bytes(1), bytes(0)];
        let (sizes, steps) = ([64u32, rows, 1, 1, 1], [1u32; 5]);
        let kind = if half {
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16
        } else {
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
        };
        let mut map = std::mem::MaybeUninit::<sys::CUtensorMap>::zeroed();
        // SAFETY: all arrays have the rank's length and the map is aligned; the call only reads
        // them, and a successful one has written the map.
        let status = unsafe {
            sys::cuTensorMapEncodeTiled(
                map.as_mut_ptr(),
                kind,
                5,
                address as *mut std::ffi::c_void,
                extents.as_ptr(),
                strides.as_ptr(),
                sizes.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        if status != sys::CUresult::CUDA_SUCCESS {
            return Err(refused(format!("{dims:?} with strides {stride:?}: {status:?}")));
        }
        // SAFETY: zeroed, then written by the call above.
        Ok(Self(unsafe { map.assume_init() }))
    }
}
