//! Which kernels really ran: what a receipt says about the arithmetic behind a result.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use crate::cpu::Isa;
use crate::plan::AttentionKernel;

/// One kernel with the instructions it was run with. The number of threads is no part of it: results do not depend
/// on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelUse {
    /// The operation, such as `attention`.
    pub op: &'static str,
    /// The algorithm chosen for it.
    pub kernel: &'static str,
    /// The instruction set; `None` for tensor operations of the library, on whatever device.
    pub isa: Option<Isa>,
}

impl fmt::Display for KernelUse {
    /// `attention flash avx512`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.op, self.kernel, self.isa.map_or("library", Isa::name))
    }
}

impl AttentionKernel {
    /// Name in receipts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Cross => "cross",
            Self::Flash => "flash",
            Self::Hopper => "hopper",
            Self::Exact => "exact",
            Self::Composed => "composed",
        }
    }
}

thread_local! {
    static SEEN: RefCell<Option<BTreeSet<KernelUse>>> = const { RefCell::new(None) };
}

/// Runs `f` and tells which kernels were called from this thread meanwhile, each once, in order of name.
///
/// Calls may nest; the outer one sees what the inner one saw.
pub fn observed<T>(f: impl FnOnce() -> T) -> (T, Vec<KernelUse>) {
    /// Puts the outer list back also when `f` panics.
    struct Outer(Option<BTreeSet<KernelUse>>);
    impl Drop for Outer {
        fn drop(&mut self) {
            let outer = self.0.take();
            SEEN.with(|seen| *seen.borrow_mut() = outer);
        }
    }
    let mut outer = Outer(SEEN.with(|seen| seen.borrow_mut().replace(BTreeSet::new())));
    let out = f();
    let inner = SEEN.with(|seen| seen.borrow_mut().take()).unwrap_or_default();
    if let Some(outer) = &mut outer.0 {
        outer.extend(inner.iter().copied());
    }
    drop(outer);
    (out, inner.into_iter().collect())
}

/// What [`observed`] has seen so far, for a caller inside it; empty outside.
pub fn observed_so_far() -> Vec<KernelUse> {
    SEEN.with(|seen| seen.borrow().iter().flatten().copied().collect())
}

/// Notes a kernel that is about to run.
pub(crate) fn note(op: &'static str, kernel: &'static str, isa: Option<Isa>) {
    #[cfg(feature = "cuda")]
    crate::cuda::profile::mark(|| format!("{op} {kernel}"));
    SEEN.with(|seen| {
        if let Some(seen) = seen.borrow_mut().as_mut() {
            seen.insert(KernelUse { op, kernel, isa });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activation, AttentionSpec, Conv2d, GroupNorm, Linear, attention, with_isa};
    use candle_core::{DType, Device, Tensor};

    fn names(uses: &[KernelUse]) -> Vec<String> {
        uses.iter().map(ToString::to_string).collect()
    }

    fn ones(shape: &[usize]) -> Tensor {
        Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap()
    }

    #[test]
    fn what_ran_is_told_with_its_instructions() {
        for isa in Isa::available() {
            let run = || {
                for keys in [16, 100, 300] {
                    let (q, k) = (ones(&[1, 2, 8, 8]), ones(&[1, 2, keys, 8]));
                    attention(&q, &k, &k, &AttentionSpec::new(8)).unwrap();
                }
                Linear::new(ones(&[4, 8]), None).unwrap().forward(&ones(&[3, 8])).unwrap();
                let conv = Conv2d::new(ones(&[4, 8, 3, 3]), None, 1, 1).unwrap();
                conv.forward_upsampled(
                    &conv.forward(&ones(&[1, 4, 4, 8])).unwrap().repeat((1, 1, 1, 2)).unwrap(),
                )
                .unwrap();
                GroupNorm::new(ones(&[8]), ones(&[8]), 2, 1e-5)
                    .unwrap()
                    .forward(&ones(&[1, 4, 8]), Activation::Silu)
                    .unwrap();
            };
            let ((), uses) = with_isa(isa, || observed(run)).unwrap();
            let expected = [
                "attention cross",
                "attention flash",
                "attention short",
                "conv2d packed",
                "conv2d upsampled",
                "group_norm fused",
                "linear packed",
            ];
            assert_eq!(names(&uses), expected.map(|name| format!("{name} {}", isa.name())));
        }
        let double = ones(&[1, 1, 4, 4]).to_dtype(DType::F64).unwrap();
        let (_, uses) = observed(|| attention(&double, &double, &double, &AttentionSpec::new(8)).unwrap());
        assert_eq!(names(&uses), ["attention composed library"]);
    }

    #[test]
    fn nothing_is_kept_outside_and_inner_observations_reach_outer_ones() {
        let linear = Linear::new(ones(&[4, 8]), None).unwrap();
        linear.forward(&ones(&[3, 8])).unwrap();
        let ((), nothing) = observed(|| ());
        assert!(nothing.is_empty());
        let (inner, outer) = observed(|| observed(|| linear.forward(&ones(&[3, 8])).unwrap()).1);
        assert_eq!((inner.len(), &inner), (1, &outer));
        let (so_far, _) = observed(|| linear.forward(&ones(&[3, 8])).map(|_| observed_so_far()).unwrap());
        assert_eq!(so_far, outer);
        assert!(observed_so_far().is_empty());
    }
}
