//! What is wrong with a checkpoint.

use std::fmt;

use candle_core::DType;

/// How a checkpoint differs from what a network asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Names the network asks for and the checkpoint lacks, each with the expected shape.
    pub missing: Vec<(String, Vec<usize>)>,
    /// Names the checkpoint holds and the network does not know.
    pub left_over: Vec<String>,
    /// Names both know, with different shapes.
    pub misshapen: Vec<Misshapen>,
}

/// A tensor of another shape than the network asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshapen {
    /// Its name in the network.
    pub name: String,
    /// What the network asks for.
    pub expected: Vec<usize>,
    /// What the checkpoint holds.
    pub found: Vec<usize>,
    /// Its element type in the file.
    pub dtype: DType,
    /// The file that holds it.
    pub file: String,
}

/// Lines of each kind that a message shows.
const SHOWN: usize = 5;

impl Difference {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.left_over.is_empty() && self.misshapen.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Misshapen { name, expected, found, dtype, file } in self.misshapen.iter().take(SHOWN) {
            let dtype = dtype.as_str();
            writeln!(f, "  expected {expected:?} at {name}, found {found:?} {dtype} in {file}")?;
        }
        for (name, expected) in self.missing.iter().take(SHOWN) {
            writeln!(f, "  missing {name} {expected:?}")?;
        }
        for name in self.left_over.iter().take(SHOWN) {
            writeln!(f, "  left over {name}")?;
        }
        let (misshapen, missing, left) = (self.misshapen.len(), self.missing.len(), self.left_over.len());
        write!(f, "  in all {misshapen} misshapen, {missing} missing, {left} left over")
    }
}

/// A checkpoint that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The file could not be opened or read.
    #[error("cannot read {file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is not what its name says.
    #[error("{file} is not a usable checkpoint: {problem}")]
    Malformed {
        /// The file.
        file: String,
        /// What was expected and found.
        problem: String,
    },
    /// The names belong to no known layout.
    #[error(
        "{file} holds none of the known layouts (SD1.5 UNet or single file, AnimateDiff, MotionAdapter, \
         MotionLoRA, PIA, Follow-Your-Click); its first name is {first:?}"
    )]
    Unknown {
        /// The file.
        file: String,
        /// The first name found.
        first: String,
    },
    /// The names or shapes are not those of the network.
    #[error("the checkpoint does not fit the network:\n{0}")]
    Mismatch(Difference),
    /// A tensor is not there.
    #[error("no tensor {name} in {file}")]
    NoTensor {
        /// The name asked for.
        name: String,
        /// The file.
        file: String,
    },
    /// A tensor holds values no network can compute with.
    #[error("{name} in {file} holds NaN or infinite values; the file is damaged, download it again")]
    NotFinite {
        /// The tensor.
        name: String,
        /// The file.
        file: String,
    },
    /// A low-rank update that fits no weight.
    #[error("MotionLoRA {name}: {problem}")]
    Lora {
        /// The update's key.
        name: String,
        /// What was expected and found.
        problem: String,
    },
    /// The tensor library refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl LayoutError {
    pub(super) fn malformed(file: &str, problem: impl Into<String>) -> Self {
        Self::Malformed { file: file.to_owned(), problem: problem.into() }
    }
}

pub(super) type Result<T> = std::result::Result<T, LayoutError>;
