//! What the UNet refuses.

use kinora_kernels::KernelError;

use crate::nets::weights::NetError;

/// A refused configuration or call.
#[derive(Debug, thiserror::Error)]
pub enum UnetError {
    /// A configuration no network can be built from.
    #[error("UNet configuration: {field} {problem}")]
    Config {
        /// The field at fault.
        field: &'static str,
        /// What was expected and what was found.
        problem: String,
    },
    /// More frames than the positional encoding was trained for.
    #[error(
        "this motion module was trained for at most {max} frames, got {frames}; render {max} \
         frames or fewer, or several overlapping windows"
    )]
    TooManyFrames {
        /// Frames asked for.
        frames: usize,
        /// Frames the positional encoding covers.
        max: usize,
    },
    /// An input whose shape does not fit the network or the other inputs.
    #[error("UNet input {name}: expected {expected}, got {got:?}")]
    Input {
        /// The input at fault.
        name: &'static str,
        /// What fits.
        expected: String,
        /// The shape or length found.
        got: Vec<usize>,
    },
    /// An input this configuration has no weights for, or needs and was not given.
    #[error("UNet input {name}: {problem}")]
    Conditioning {
        /// The input at fault.
        name: &'static str,
        /// What is wrong and what to do.
        problem: &'static str,
    },
    /// A weight is missing, misshapen or not finite.
    #[error(transparent)]
    Weights(#[from] NetError),
    /// A kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The tensor library refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

pub(super) type Result<T> = std::result::Result<T, UnetError>;
