//! What can go wrong in a kernel call.

/// Result of a kernel call.
pub type Result<T> = std::result::Result<T, KernelError>;

/// A refused call: names the operation, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Shapes that do not fit together.
    #[error("{op}: expected {expected}, got {got}")]
    Shape { op: &'static str, expected: String, got: String },
    /// An element type the operation has no kernel for.
    #[error("{op}: no kernel for {got:?} on this device, expected {expected}")]
    DType { op: &'static str, expected: &'static str, got: candle_core::DType },
    /// An operand whose gradient no kernel gives.
    #[error("{op}: expected a {operand} without a gradient, got one that wants it; {advice}")]
    NoGradient { op: &'static str, operand: &'static str, advice: &'static str },
    /// No driver or no card to run on.
    #[error("CUDA cannot be used: {reason}; run on the CPU or install the NVIDIA driver")]
    NoCuda { reason: String },
    /// A card that no embedded kernel was compiled for.
    #[cfg(feature = "cuda")]
    #[error(
        "no {kernel} kernel was built for this card ({card:?}); expected compute capability 8.0 or later, or 7.5 for \
         attention, or a build with its form in KINORA_CUDA_ARCHS"
    )]
    Card { kernel: &'static str, card: crate::plan::cuda::Card },
    /// The tensor library refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl KernelError {
    pub(crate) fn shape(op: &'static str, expected: impl Into<String>, got: impl std::fmt::Debug) -> Self {
        Self::Shape { op, expected: expected.into(), got: format!("{got:?}") }
    }
}

impl From<KernelError> for candle_core::Error {
    fn from(error: KernelError) -> Self {
        match error {
            KernelError::Tensor(inner) => inner,
            other => candle_core::Error::wrap(other),
        }
    }
}
