//! CPU kernels: instruction-set choice and the pieces they share.

pub(crate) mod attention;
pub(crate) mod attention_backward;
pub(crate) mod combine;
pub(crate) mod gemm;
pub(crate) mod math;
pub(crate) mod micro;

pub(crate) mod norm;
pub(crate) mod norm_backward;
pub(crate) mod operand;
pub(crate) mod patches;
pub(crate) mod pointwise;
pub(crate) mod pointwise_backward;
pub(crate) mod rope;
mod short;
pub(crate) mod simd;
pub(crate) mod softmax;
pub(crate) mod view;

use std::cell::Cell;
use std::sync::OnceLock;

use simd::Simd;

/// An instruction set the CPU kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// No intrinsics; runs anywhere.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F and DQ.
    Avx512,
}

/// Work written once over [`Simd`] and compiled for every instruction set.
pub(crate) trait Kernel {
    /// What a run returns.
    type Out;
    /// Must be `#[inline(always)]`, or the body is compiled without the instruction set.
    ///
    /// # Safety
    /// The processor has `S`'s instruction set, and the kernel's own pointers are valid.
    unsafe fn run<S: Simd>(self) -> Self::Out;
}

thread_local! {
    static FORCED: Cell<Option<Isa>> = const { Cell::new(None) };
}

impl Isa {
    /// Every set this processor can run, slowest first.
    pub fn available() -> Vec<Self> {
        [Self::Portable, Self::Avx2, Self::Avx512].into_iter().filter(|isa| isa.supported()).collect()
    }

    /// Name in receipts and numeric paths.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    fn supported(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.supported()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// What calls from this thread use: the best supported set unless [`with_isa`] says otherwise.
    pub fn current() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        FORCED.get().unwrap_or_else(|| {
            *BEST.get_or_init(|| Self::available().last().copied().unwrap_or(Self::Portable))
        })
    }

    /// Runs `kernel` compiled for this set.
    ///
    /// # Safety
    /// `self` came from [`Isa::current`] and the kernel's pointers are valid.
    pub(crate) unsafe fn run<K: Kernel>(self, kernel: K) -> K::Out {
        // SAFETY: `current` only hands out supported sets; pointers are the caller's promise.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => run_avx512(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => run_avx2(kernel),
                _ => kernel.run::<simd::Portable>(),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Out {
    // SAFETY: the caller checked the features.
    unsafe { kernel.run::<simd::Avx512>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Out {
    // SAFETY: the caller checked the features.
    unsafe { kernel.run::<simd::Avx2>() }
}

/// Runs `f` with every CPU kernel called from this thread held to `isa`; `None` without calling
/// `f` when the processor lacks it. For tests and benchmarks.
pub fn with_isa<T>(isa: Isa, f: impl FnOnce() -> T) -> Option<T> {
    if !isa.supported() {
        return None;
    }
    struct Restore(Option<Isa>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.set(self.0);
        }
    }
    let _restore = Restore(FORCED.replace(Some(isa)));
    Some(f())
}

/// A pointer that tasks share because they write disjoint parts.
#[derive(Clone, Copy)]
pub(crate) struct Shared(pub(crate) *mut f32);
// SAFETY: every user writes a range of its own, as noted where it is used.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    #[inline(always)]
    pub(crate) fn at(&self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// Calls `task` for every index below `count`, over the thread pool when there is enough work.
///
/// `work` is a rough count of floating-point operations or bytes in all.
pub(crate) fn for_each(count: usize, work: usize, task: impl Fn(usize) + Sync + Send) {
    use rayon::prelude::*;
    if count <= 1 || work < 1 << 17 {
        (0..count).for_each(task);
    } else {
        (0..count).into_par_iter().with_max_len(1).for_each(task);
    }
}

/// Threads the kernels share their work over.
pub fn threads() -> usize {
    rayon::current_num_threads().max(1)
}

/// Second-level cache of one core in bytes, as Linux tells it; 1 MiB where nothing tells.
pub(crate) fn cache_bytes() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let told = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index2/size").ok();
        let kib = told.as_deref().and_then(|size| size.trim().strip_suffix('K')?.parse::<u64>().ok());
        kib.map_or(1 << 20, |kib| kib << 10)
    })
}

thread_local! {
    static POISON: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` with every CPU kernel output filled with NaN before its kernel writes it, so that a
/// test sees an element nobody wrote.
pub fn with_poisoned_outputs<T>(f: impl FnOnce() -> T) -> T {
    POISON.set(true);
    let out = f();
    POISON.set(false);
    out
}

/// From here on the system is asked for large pages: touching fresh memory page by page then takes as
/// long as a quick kernel itself.
const LARGE: usize = 4 << 20;

/// Asks Linux to back `bytes` of fresh memory with large pages; elsewhere, and for less, nothing happens.
fn ask_for_large_pages(at: *mut u8, bytes: usize) {
    #[cfg(target_os = "linux")]
    if bytes >= LARGE {
        const PAGE: usize = 4096;
        let skip = at.align_offset(PAGE);
        let whole = (bytes - skip) / PAGE * PAGE;
        // SAFETY: the range lies inside memory we own, and the advice changes no value in it.
        let _ = unsafe {
            rustix::mm::madvise(at.wrapping_add(skip).cast(), whole, rustix::mm::Advice::LinuxHugepage)
        };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (at, bytes);
}

/// Room for `len` values that `fill` must write, every one of them, through the pointer.
///
/// # Safety
/// `fill` writes all `len` values before it returns.
pub(crate) unsafe fn output(len: usize, fill: impl FnOnce(Shared)) -> Vec<f32> {
    let mut out: Vec<f32> = Vec::with_capacity(len);
    ask_for_large_pages(out.as_mut_ptr().cast(), 4 * len);
    if POISON.get() {
        out.resize(len, f32::NAN);
    }
    fill(Shared(out.as_mut_ptr()));
    // SAFETY: the capacity is there and the caller promises that every value was written.
    unsafe { out.set_len(len) };
    out
}
