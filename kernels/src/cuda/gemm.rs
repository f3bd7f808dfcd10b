//! Products with a weight through cuBLASLt, which adds bias and residual on the way out.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, OnceLock};

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::cublaslt::{result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::{DType, Tensor};

use super::{Held, Output, ready};
use crate::error::{KernelError, Result};

/// What an algorithm was chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    rows: usize,
    inner: usize,
    out: usize,
    dtype: DType,
    bias: bool,
    residual: bool,
    /// Largest power of two, at most 256, that divides every address.
    alignment: u32,
}

/// Descriptors of a shape and the algorithm for it. Owned by [`Library`] until the process ends.
#[derive(Debug)]
struct Plan {
    product: sys::cublasLtMatmulDesc_t,
    weight: sys::cublasLtMatrixLayout_t,
    input: sys::cublasLtMatrixLayout_t,
    output: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
    workspace: usize,
}

/// The library's handle and memory for one stream.
#[derive(Debug)]
struct Library {
    handle: sys::cublasLtHandle_t,
    workspace: CudaSlice<u8>,
    /// `None` for shapes the library refused.
    plans: HashMap<Shape, Option<Plan>>,
}

// SAFETY: handle and descriptors may be used from any thread, one at a time; the mutex around every
// `Library` sees to that.
unsafe impl Send for Library {}

/// What NVIDIA recommends for Hopper; older cards use less of it.
const WORKSPACE_BYTES: usize = 32 << 20;

fn refused(error: result::CublasError) -> KernelError {
    candle_core::Error::Msg(format!("cuBLASLt refused a product: {error}")).bt().into()
}

/// `x wᵀ + bias + residual` with `x` `[…, inner]`, `w` `[out, inner]`; `None` when the library has no
/// algorithm for it or operands differ in type or place.
pub(crate) fn product(
    device: &CudaDevice,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    dims: &[usize],
) -> Result<Option<Tensor>> {
    let (out, inner) = w.dims2()?;
    let same = |other: &Tensor| other.dtype() == x.dtype() && other.device().same_device(x.device());
    if ![Some(w), bias, residual].into_iter().flatten().all(same) {
        return Ok(None);
    }
    let rows: usize = dims.iter().rev().skip(1).product();
    if rows * inner * out == 0 || !w.is_contiguous() {
        return Ok(None);
    }
    super::profile::mark(|| {
        let more = if residual.is_some() { " + residual" } else { "" };
        format!("linear {rows}x{inner}x{out}{more}")
    });
    let held = |x: &Tensor| Held::new(&ready(x)?);
    let (input, weight) = (held(x)?, Held::new(w)?);
    let (bias, residual) = (bias.map(held).transpose()?, residual.map(held).transpose()?);
    let result = Output::new(device, x.dtype(), rows * out)?;
    let mut addresses = vec![input.address()?, weight.address()?, result.address];
    for more in [bias.as_ref(), residual.as_ref()].into_iter().flatten() {
        addresses.push(more.address()?);
    }
    let shared = addresses.iter().fold(256, |all, address| all | address);
    let shape = Shape {
        rows,
        inner,
        out,
        dtype: x.dtype(),
        bias: bias.is_some(),
        residual: residual.is_some(),
        alignment: 1 << shared.trailing_zeros().min(8),
    };
    static LIBRARIES: OnceLock<Mutex<HashMap<usize, Library>>> = OnceLock::new();
    let stream = device.cuda_stream();
    let mut libraries = LIBRARIES.get_or_init(Mutex::default).lock().unwrap_or_else(|e| e.into_inner());
    let library = match libraries.entry(stream.cu_stream() as usize) {
        std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::hash_map::Entry::Vacant(entry) => {
            let handle = result::create_handle().map_err(refused)?;
            // SAFETY: the library writes its workspace before it reads it.
            let workspace = unsafe { device.alloc::<u8>(WORKSPACE_BYTES) }?;
            entry.insert(Library { handle, workspace, plans: HashMap::new() })
        }
    };
    let handle = library.handle;
    // SAFETY: the handle is live; descriptors are made and used under the lock.
    let plan = library.plans.entry(shape).or_insert_with(|| unsafe { plan(handle, shape) }.ok());
    let Some(plan) = plan else { return Ok(None) };
    let beta = if shape.residual { 1f32 } else { 0f32 };
    let added = residual.as_ref().map_or(Ok(result.address), Held::address)?;
    // SAFETY: addresses are those of live, contiguous operands of the extents in `shape`, on the
    // stream's card; `held` keeps them past the call.
    unsafe {
        if let Some(bias) = &bias {
            let attribute = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
            let address = bias.address()?;
            set(plan.product, attribute, &address).map_err(refused)?;
        }
        result::matmul(
            handle,
            plan.product,
            (&raw const ONE).cast(),
            (&raw const beta).cast(),
            weight.address()? as *const c_void,
            plan.weight,
            input.address()? as *const c_void,
            plan.input,
            added as *const c_void,
            plan.output,
            result.address as *mut c_void,
            plan.output,
            &raw const plan.algorithm,
            library.workspace.device_ptr(&stream).0 as *mut c_void,
            plan.workspace,
            stream.cu_stream().cast(),
        )
        .map_err(refused)?;
    }
    Ok(Some(result.tensor(dims)))
}

static ONE: f32 = 1.0;

unsafe fn set<V>(
    product: sys::cublasLtMatmulDesc_t,
    attribute: sys::cublasLtMatmulDescAttributes_t,
    value: &V,
) -> std::result::Result<(), result::CublasError> {
    // SAFETY: the caller passes a live descriptor and the attribute's own type.
    unsafe {
        result::set_matmul_desc_attribute(product, attribute, (&raw const *value).cast(), size_of::<V>())
    }
}

/// Descriptors and the library's first choice for a shape. In its column-major words the result is
/// `[out, rows] = wᵀ x` with `w` `[inner, out]` and `x` `[inner, rows]`.
///
/// # Safety
/// The handle is live.
unsafe fn plan(
    handle: sys::cublasLtHandle_t,
    shape: Shape,
) -> std::result::Result<Plan, result::CublasError> {
    use sys::cublasLtMatmulDescAttributes_t as Attribute;
    use sys::cublasLtMatmulPreferenceAttributes_t as Preference;
    let kind = match shape.dtype {
        DType::F32 => sys::cudaDataType_t::CUDA_R_32F,
        DType::F16 => sys::cudaDataType_t::CUDA_R_16F,
        _ => sys::cudaDataType_t::CUDA_R_16BF,
    };
    let layout = |rows: usize, columns: usize| {
        result::create_matrix_layout(kind, rows as u64, columns as u64, rows as i64)
    };
    let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
    let product = result::create_matmul_desc(compute, sys::cudaDataType_t::CUDA_R_32F)?;
    let (weight, input) = (layout(shape.inner, shape.out)?, layout(shape.inner, shape.rows)?);
    let output = layout(shape.out, shape.rows)?;
    let preference = result::create_matmul_pref()?;
    // SAFETY: the descriptors were made above and each attribute is given its documented type.
    unsafe {
        set(product, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &1i32)?;
        if shape.bias {
            set(
                product,
                Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE,
                &sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            )?;
        }
        let prefer = |attribute, value: *const c_void, size| {
            result::set_matmul_pref_attribute(preference, attribute, value, size)
        };
        let bytes = WORKSPACE_BYTES;
        prefer(
            Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            (&raw const bytes).cast(),
            size_of::<usize>(),
        )?;
        for attribute in [
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            prefer(attribute, (&raw const shape.alignment).cast(), size_of::<u32>())?;
        }
        let found =
            result::get_matmul_algo_heuristic(handle, product, weight, input, output, output, preference);
        result::destroy_matmul_pref(preference)?;
        let found = found?;
        Ok(Plan { product, weight, input, output, algorithm: found.algo, workspace: found.workspaceSize })
    }
}
