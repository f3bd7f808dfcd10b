//! CUDA: the embedded kernels, their loading, and memory as pointers.
//!
//! Everything goes through candle's storage and its stream; no call waits for the device.

pub(crate) mod attention;
pub(crate) mod attention_backward;
pub(crate) mod combine;
pub(crate) mod conv;
pub(crate) mod gemm;
pub(crate) mod graph;
pub(crate) mod norm;
pub(crate) mod norm_backward;
pub(crate) mod pointwise;
pub(crate) mod pointwise_backward;
pub(crate) mod profile;
pub(crate) mod rope;
pub(crate) mod streamed;
mod tensor_map;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
    SyncOnDrop, result as cudarc_result, sys,
};
use candle_core::cuda_backend::{CudaDevice, CudaStorage, WrapErr, cudarc::nvrtc::Ptx};
use candle_core::op::BackpropOp;
use candle_core::{DType, Device, Storage, Tensor};
use half::{bf16, f16};

use crate::error::{KernelError, Result};
use crate::plan::cuda::Card;

/// One compiled source.
struct Image {
    source: &'static str,
    element: &'static str,
    /// `80`, `90a`, or `ptx75`, `ptx80` for text that the driver compiles.
    arch: &'static str,
    bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// The element types kernels exist for.
pub(crate) fn element(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::F32 => Some("f32"),
        DType::F16 => Some("f16"),
        DType::BF16 => Some("bf16"),
        _ => None,
    }
}

/// The card behind a tensor when our kernels run there and know its type.
pub(crate) fn device(x: &Tensor) -> Option<CudaDevice> {
    match (x.device(), element(x.dtype())) {
        (Device::Cuda(device), Some(_)) => Some(device.clone()),
        _ => None,
    }
}

/// Reads the card's properties once a device.
pub(crate) fn card(device: &CudaDevice) -> Result<Card> {
    static CARDS: OnceLock<Mutex<HashMap<usize, Card>>> = OnceLock::new();
    let context = device.cuda_stream().context().clone();
    let mut cards = CARDS.get_or_init(Mutex::default).lock().unwrap_or_else(|e| e.into_inner());
    if let Some(card) = cards.get(&context.ordinal()) {
        return Ok(*card);
    }
    let (major, minor) = context.compute_capability().w()?;
    let own = (major.unsigned_abs(), minor.unsigned_abs());
    let count = context.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).w()?;
    let card =
        Card { capability: pretended().unwrap_or(own), multiprocessors: count.unsigned_abs() as usize };
    cards.insert(context.ordinal(), card);
    Ok(card)
}

/// The capability in `KINORA_CUDA_CAPABILITY` (such as 7.5): the kernels of an older card on a newer one, for tests.
fn pretended() -> Option<(u32, u32)> {
    let text = std::env::var("KINORA_CUDA_CAPABILITY").ok()?;
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Second-level cache of a card, in bytes.
pub(crate) fn cache_bytes(device: &CudaDevice) -> Result<u64> {
    let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE;
    Ok(device.cuda_stream().context().attribute(attribute).w()?.unsigned_abs().into())
}

/// The image of a source for a card, the best that was built.
fn image(source: &str, element: &str, card: Card) -> Option<&'static Image> {
    let find =
        |arch: &&str| IMAGES.iter().find(|i| i.source == source && i.element == element && i.arch == *arch);
    card.codes().iter().find_map(find)
}

/// What has been loaded into a context.
#[derive(Debug, Default)]
struct Loaded {
    modules: HashMap<(&'static str, &'static str), Arc<CudaModule>>,
    /// With the dynamic shared memory each may use.
    functions: HashMap<(&'static str, &'static str, String), (CudaFunction, u32)>,
}

/// Loads a kernel, compiling or copying its module at the first call on a device.
pub(crate) fn function(
    device: &CudaDevice,
    source: &'static str,
    element: &'static str,
    name: &str,
    shared_bytes: u32,
) -> Result<CudaFunction> {
    static LOADED: OnceLock<Mutex<HashMap<usize, Loaded>>> = OnceLock::new();
    let context = device.cuda_stream().context().clone();
    let mut contexts = LOADED.get_or_init(Mutex::default).lock().unwrap_or_else(|e| e.into_inner());
    let loaded = contexts.entry(context.cu_ctx() as usize).or_default();
    let key = (source, element, name.to_owned());
    if let Some((function, bytes)) = loaded.functions.get(&key)
        && *bytes >= shared_bytes
    {
        return Ok(function.clone());
    }
    let module = match loaded.modules.get(&(source, element)) {
        Some(module) => module.clone(),
        None => {
            let card = card(device)?;
            let image = image(source, element, card).ok_or(KernelError::Card { kernel: source, card })?;
            let ptx = match image.arch.strip_prefix("ptx") {
                Some(_) => Ptx::from_src(String::from_utf8_lossy(image.bytes).into_owned()),
                None => Ptx::from_binary(image.bytes.to_vec()),
            };
            let module = context.load_module(ptx).w()?;
            loaded.modules.insert((source, element), module.clone());
            module
        }
    };
    let function = module.load_function(name).w()?;
    if shared_bytes > 48 << 10 {
        let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(attribute, shared_bytes as i32).w()?;
    }
    let allowed = shared_bytes.max(48 << 10);
    loaded.functions.insert(key, (function.clone(), allowed));
    Ok(function)
}

/// Queues a kernel with one parameter.
///
/// # Safety
/// The kernel takes a `P` by value, its pointers are valid on the stream's device until it has run,
/// and the extents in it match them.
pub(crate) unsafe fn launch<P: DeviceRepr>(
    stream: &Arc<CudaStream>,
    function: &CudaFunction,
    (blocks, threads, shared_bytes): (u32, u32, u32),
    parameters: &P,
) -> Result<()> {
    let config =
        LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: shared_bytes };
    let mut builder = stream.launch_builder(function);
    builder.arg(parameters);
    // SAFETY: the caller's promises.
    unsafe { builder.launch(config) }.w()?;
    Ok(())
}

/// Address of the first value of a storage, with what orders later work behind the read.
pub(crate) fn address<'a>(storage: &'a Storage, stream: &'a CudaStream) -> Result<(u64, SyncOnDrop<'a>)> {
    let Storage::Cuda(storage) = storage else {
        return Err(candle_core::Error::Msg("a kernel input was not on the card".into()).bt().into());
    };
    Ok(match storage.dtype() {
        DType::F32 => storage.as_cuda_slice::<f32>()?.device_ptr(stream),
        DType::F16 => storage.as_cuda_slice::<f16>()?.device_ptr(stream),
        _ => storage.as_cuda_slice::<bf16>()?.device_ptr(stream),
    })
}

/// `x`, or a contiguous copy of it.
pub(crate) fn ready(x: &Tensor) -> Result<Tensor> {
    Ok(if x.is_contiguous() { x.clone() } else { x.contiguous()? })
}

/// A contiguous operand kept alive until its kernel is queued.
///
/// Its address needs no guard: operands, results and kernels of a device share one stream, so memory
/// freed after the launch is handed out again only behind the kernel.
#[derive(Debug)]
pub(crate) struct Held(Tensor);

impl Held {
    /// Refuses what is not contiguous.
    pub(crate) fn new(x: &Tensor) -> Result<Self> {
        if !x.is_contiguous() {
            return Err(KernelError::shape("cuda", "a contiguous operand", (x.dims(), x.stride())));
        }
        Ok(Self(x.clone()))
    }

    /// Where the first value lies.
    pub(crate) fn address(&self) -> Result<u64> {
        let Device::Cuda(device) = self.0.device() else {
            return Err(candle_core::Error::Msg("a kernel input was not on the card".into()).bt().into());
        };
        let stream = device.cuda_stream();
        let (storage, layout) = self.0.storage_and_layout();
        let base = address(&storage, &stream)?.0;
        Ok(base + (layout.start_offset() * self.0.dtype().size_in_bytes()) as u64)
    }

    /// Whether it can be read in vectors of 16 bytes.
    pub(crate) fn aligned(&self) -> bool {
        self.address().is_ok_and(|address| address % 16 == 0)
    }
}

/// Fresh memory that a kernel is about to write.
pub(crate) struct Output {
    storage: CudaStorage,
    pub(crate) address: u64,
}

impl Output {
    /// Room for `count` values; not cleared.
    pub(crate) fn new(device: &CudaDevice, dtype: DType, count: usize) -> Result<Self> {
        fn slice<T: DeviceRepr>(device: &CudaDevice, count: usize) -> Result<(CudaSlice<T>, u64)> {
            // SAFETY: every kernel writes all of its output, which the tests check on poisoned memory.
            let slice = unsafe { device.alloc::<T>(count.max(1)) }?;
            let address = slice.device_ptr(&device.cuda_stream()).0;
            Ok((slice, address))
        }
        let device = device.clone();
        let (storage, address) = match dtype {
            DType::F32 => {
                let (s, a) = slice::<f32>(&device, count)?;
                (CudaStorage::wrap_cuda_slice(s, device), a)
            }
            DType::F16 => {
                let (s, a) = slice::<f16>(&device, count)?;
                (CudaStorage::wrap_cuda_slice(s, device), a)
            }
            _ => {
                let (s, a) = slice::<bf16>(&device, count)?;
                (CudaStorage::wrap_cuda_slice(s, device), a)
            }
        };
        Ok(Self { storage, address })
    }

    /// The written memory as a contiguous tensor.
    pub(crate) fn tensor(self, dims: &[usize]) -> Tensor {
        Tensor::from_storage(Storage::Cuda(self.storage), dims, BackpropOp::none(), false)
    }
}

/// The least memory a card gives, to leave behind where a tensor's was moved out.
pub(crate) fn nothing(device: &CudaDevice) -> candle_core::Result<CudaStorage> {
    // SAFETY: nobody reads it.
    Ok(CudaStorage::wrap_cuda_slice(unsafe { device.alloc::<f32>(1) }?, device.clone()))
}

/// Opens a CUDA card with a stream of its own, or says why that is impossible.
///
/// A machine without a driver gets [`KernelError::NoCuda`] instead of an abort. Tensors of the device
/// are ordered by its one stream: give them to another thread only together with the device.
pub fn open(ordinal: usize) -> Result<Device> {
    available()?;
    let device = Device::new_cuda_with_stream(ordinal)?;
    if let Device::Cuda(cuda) = &device {
        // SAFETY: everything on this device goes through its one stream, which orders it; events would
        // only cost time, and waiting for one recorded outside a graph's capture is an error.
        unsafe { cuda.disable_event_tracking() };
        keep_freed_memory(cuda)?;
    }
    Ok(device)
}

/// Lets the pool keep what tensors gave back, instead of unmapping it whenever the host waits.
fn keep_freed_memory(device: &CudaDevice) -> Result<()> {
    let pool = pool(device)?;
    let mut threshold = u64::MAX;
    let attribute = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the pool is the device's own and the attribute is a 64-bit number.
    unsafe { sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()) }.result().w()?;
    Ok(())
}

/// The names of the cards in the order of their numbers; none on a machine without a driver.
pub fn cards() -> Vec<String> {
    let named = || -> Result<Vec<String>> {
        available()?;
        cudarc_result::init().w()?;
        let count = cudarc_result::device::get_count().w()?;
        let name = |ordinal| {
            let card = cudarc_result::device::get(ordinal).w()?;
            Ok(cudarc_result::device::get_name(card).w()?)
        };
        (0..count).map(name).collect()
    };
    named().unwrap_or_default()
}

/// Waits for a card and gives the memory of tensors that were dropped back to its driver, which [`open`] tells to keep
/// it. Other devices have nothing to give back.
///
/// # Errors
/// What the driver says.
pub fn release_memory(device: &Device) -> Result<()> {
    let Device::Cuda(device) = device else { return Ok(()) };
    device.cuda_stream().synchronize().w()?;
    // SAFETY: the pool is the device's own; memory in use stays.
    unsafe { sys::cuMemPoolTrimTo(pool(device)?, 0) }.result().w()?;
    Ok(())
}

fn pool(device: &CudaDevice) -> Result<sys::CUmemoryPool> {
    let context = device.cuda_stream().context().clone();
    let mut pool = std::ptr::null_mut();
    let card = cudarc_result::device::get(context.ordinal() as i32).w()?;
    // SAFETY: the device was just looked up; its default pool lives as long as it does.
    unsafe { sys::cuDeviceGetDefaultMemPool(&raw mut pool, card) }.result().w()?;
    Ok(pool)
}

/// The most memory tensors on a card have held at once since the last call, in bytes; starts anew.
///
/// # Errors
/// [`KernelError::NoCuda`] for a device that is no card.
pub fn peak_memory(device: &Device) -> Result<u64> {
    let Device::Cuda(cuda) = device else {
        return Err(KernelError::NoCuda { reason: "the device is not a card".into() });
    };
    let pool = pool(cuda)?;
    let attribute = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
    let (mut most, mut zero) = (0u64, 0u64);
    // SAFETY: the pool is the device's own and the attribute is a 64-bit number, reset by writing zero.
    unsafe {
        sys::cuMemPoolGetAttribute(pool, attribute, (&raw mut most).cast()).result().w()?;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut zero).cast()).result().w()?;
    }
    Ok(most)
}

/// Checks that the driver library is there and has a card.
fn available() -> Result<()> {
    // The driver's name on Linux and Windows.
    let name = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };
    type Count = unsafe extern "C" fn(*mut i32) -> u32;
    type Init = unsafe extern "C" fn(u32) -> u32;
    let missing = |reason: String| KernelError::NoCuda { reason };
    // SAFETY: loading the driver runs its initialisers, as linking to it would; both functions have
    // had these signatures since CUDA 2.0.
    unsafe {
        let library = libloading::Library::new(name)
            .map_err(|error| missing(format!("the NVIDIA driver is missing: {error}")))?;
        let init: libloading::Symbol<'_, Init> =
            library.get(b"cuInit\0").map_err(|e| missing(e.to_string()))?;
        let count: libloading::Symbol<'_, Count> =
            library.get(b"cuDeviceGetCount\0").map_err(|e| missing(e.to_string()))?;
        let status = init(0);
        if status != 0 {
            return Err(missing(format!("the NVIDIA driver refused to start (code {status})")));
        }
        let mut cards = 0;
        if count(&mut cards) != 0 || cards < 1 {
            return Err(missing("the NVIDIA driver sees no card".into()));
        }
    }
    Ok(())
}
