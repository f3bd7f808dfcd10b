//! Attention and its neighbours, the operations a video UNet spends its time in.
//!
//! Image-shaped tensors are **channels-last**: `[n, height, width, channels]`, contiguous. A
//! linear layer, a 1×1 convolution and an attention projection then read the same memory, and no
//! caller ever transposes between them.

#[allow(unsafe_code)]
pub(crate) mod attention;
mod autograd;
#[allow(unsafe_code)]
mod combine;
#[allow(unsafe_code)]
mod conv;
#[allow(unsafe_code)]
mod cpu;
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
mod cuda;
mod error;
mod gated;
#[allow(unsafe_code)]
mod linear;
#[allow(unsafe_code)]
mod norm;
mod plan;
#[allow(unsafe_code)]
mod pointwise;
#[allow(unsafe_code)]
mod rope;
#[allow(unsafe_code)]
mod softmax;
mod sums;
mod used;

pub use attention::{
    AttentionSpec, BlockList, Explained, Mask, Precision, attention, attention_backward, attention_with_lse,
    explain_attention,
};
pub use combine::weighted_sum;
pub use conv::{Conv2d, upsample_nearest2x};
pub use cpu::{Isa, threads, with_isa, with_poisoned_outputs};
#[cfg(feature = "cuda")]
pub use cuda::graph::Recorded;
#[cfg(feature = "cuda")]
pub use cuda::profile::{ProfileRow, profiled};
#[cfg(feature = "cuda")]
pub use cuda::streamed::{HostKeys, attention_streamed};
#[cfg(feature = "cuda")]
pub use cuda::{cards as cuda_cards, open as open_cuda, peak_memory, release_memory as release_cuda_memory};
pub use error::{KernelError, Result};
pub use gated::GatedLinear;
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm};
pub use plan::conv::{ConvCall, ConvKernel, ConvPlan, LastPass, linear_is_ours, plan_cuda_conv};
pub use plan::cuda::{Card, CudaCall, CudaPlan, MaskKind, plan_cuda_attention};
pub use plan::cuda_backward::{BackwardPass, BackwardPlan, plan_cuda_backward};
pub use plan::io::{AttentionIo, IoCall, Regime, attention_io};
pub use plan::stream::{StreamPlan, plan_streaming};
pub use plan::{AttentionKernel, AttentionPlan, AttentionShape, Target, plan_attention};
pub use pointwise::{Activation, geglu};
pub use rope::{RotaryPairs, rope};
pub use softmax::softmax;
pub use used::{KernelUse, observed, observed_so_far};
