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
        let promotion = sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B;
        tiled(address, half, extents, strides, [64, rows, 1, 1, 1], promotion)
            .map_err(|status| refused(format!("{dims:?} with strides {stride:?}: {status:?}")))
    }

    /// Columns of `pixels` pixels by 64 channels of a 16-bit picture `[n, height, width, channels]`: the
    /// places of a kernel's corner in reading order, `stride` apart. What lies outside reads as zero.
    pub(crate) fn pixels(
        address: u64,
        half: bool,
        [n, height, width, channels]: [usize; 4],
        (kernel, stride, padding): (usize, usize, usize),
        pixels: u32,
    ) -> Result<Self> {
        let extents = [channels, width, height, n].map(|n| n as u64);
        let row = 2 * channels as u64;
        let strides = [row, row * extents[1], row * extents[1] * extents[2]];
        let (lower, upper) = ([-(padding as i32); 2], [padding as i32 - kernel as i32 + 1; 2]);
        let steps = [1, stride as u32, stride as u32, 1];
        let mut map = std::mem::MaybeUninit::<sys::CUtensorMap>::zeroed();
        // SAFETY: all arrays have the length the rank asks for and the map is aligned; the call only
        // reads them, and a successful one has written the map.
        let status = unsafe {
            sys::cuTensorMapEncodeIm2col(
                map.as_mut_ptr(),
                kind(half),
                4,
                address as *mut std::ffi::c_void,
                extents.as_ptr(),
                strides.as_ptr(),
                lower.as_ptr(),
                upper.as_ptr(),
                64,
                pixels,
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        if status != sys::CUresult::CUDA_SUCCESS {
            let got = format!("{:?}: {status:?}", [n, height, width, channels]);
            return Err(KernelError::shape("conv2d", "a picture the tensor copy engine can address", got));
        }
        // SAFETY: zeroed, then written by the call above.
        Ok(Self(unsafe { map.assume_init() }))
    }

    /// Boxes of `rows` rows by 64 channels of one tap of a 16-bit weight `[rows, taps, channels]`.
    pub(crate) fn weights(address: u64, half: bool, weight: [usize; 3], rows: u32) -> Result<Self> {
        let extents = [weight[2], weight[1], weight[0]].map(|n| n as u64);
        let strides = [2 * extents[0], 2 * extents[0] * extents[1]];
        let promotion = sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B;
        tiled(address, half, extents, strides, [64, 1, rows], promotion)
            .map_err(|status| unaddressable(&weight, status))
    }

    /// Boxes of `columns` rows by 64 channels of a 16-bit weight `[32 n, channels]`, the rows of every 32 in
    /// the order of the matrix units: row 8 j + 2 t + e of a box is row 8 t + 2 j + e of the weight.
    pub(crate) fn plain_weights(
        address: u64,
        half: bool,
        [rows, channels]: [usize; 2],
        columns: u32,
    ) -> Result<Self> {
        let (row, channels_) = (2 * channels as u64, channels as u64);
        let (extents, strides) = ([channels_, 2, 4, 4, rows as u64 / 32], [row, 8 * row, 2 * row, 32 * row]);
        let promotion = sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B;
        tiled(address, half, extents, strides, [64, 2, 4, 4, columns / 32], promotion)
            .map_err(|status| unaddressable(&[rows, channels], status))
    }
}

fn unaddressable(weight: &[usize], status: sys::CUresult) -> KernelError {
    let got = format!("{weight:?}: {status:?}");
    KernelError::shape("conv2d", "a weight the tensor copy engine can address", got)
}

/// Boxes of `sizes` of a tensor with these extents, fastest axis first; `strides` in bytes, of all axes but
/// the first. Swizzled over 128 bytes; what lies outside reads as zero.
fn tiled<const RANK: usize, const STRIDES: usize>(
    address: u64,
    half: bool,
    extents: [u64; RANK],
    strides: [u64; STRIDES],
    sizes: [u32; RANK],
    promotion: sys::CUtensorMapL2promotion,
) -> std::result::Result<TensorMap, sys::CUresult> {
    const { assert!(STRIDES + 1 == RANK) };
    let steps = [1u32; RANK];
    let mut map = std::mem::MaybeUninit::<sys::CUtensorMap>::zeroed();
    // SAFETY: all arrays have the rank's length and the map is aligned; the call only reads them, and a
    // successful one has written the map.
    let status = unsafe {
        sys::cuTensorMapEncodeTiled(
            map.as_mut_ptr(),
            kind(half),
            RANK as u32,
            address as *mut std::ffi::c_void,
            extents.as_ptr(),
            strides.as_ptr(),
            sizes.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            promotion,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    if status != sys::CUresult::CUDA_SUCCESS {
        return Err(status);
    }
    // SAFETY: zeroed, then written by the call above.
    Ok(TensorMap(unsafe { map.assume_init() }))
}

fn kind(half: bool) -> sys::CUtensorMapDataType {
    if half {
        sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16
    } else {
        sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
    }
}
