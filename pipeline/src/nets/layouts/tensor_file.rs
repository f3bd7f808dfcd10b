//! A file of named tensors, read one at a time.

use std::collections::BTreeMap;
use std::fmt::Debug;

use candle_core::{DType, Tensor};

use super::error::{LayoutError, Result};

/// What a file says about one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Element type as stored.
    pub dtype: DType,
    /// Shape as stored.
    pub shape: Vec<usize>,
}

/// A source of named tensors. Listing costs nothing; reading reads only what is asked.
pub trait TensorFile: Debug + Send + Sync {
    /// What to call it in messages.
    fn label(&self) -> &str;

    /// Every tensor it holds.
    fn entries(&self) -> &BTreeMap<String, TensorEntry>;

    /// One tensor as stored, on the CPU.
    ///
    /// # Errors
    /// [`LayoutError::NoTensor`], or what the file system says.
    fn read(&self, name: &str) -> Result<Tensor>;
}

/// Tensors held in memory; also a bare list of names and shapes, whose reads are refused.
#[derive(Debug, Clone)]
pub struct MemoryFile {
    label: String,
    entries: BTreeMap<String, TensorEntry>,
    tensors: BTreeMap<String, Tensor>,
}

impl MemoryFile {
    /// These tensors.
    pub fn new(label: impl Into<String>, tensors: impl IntoIterator<Item = (String, Tensor)>) -> Self {
        let tensors: BTreeMap<_, _> = tensors.into_iter().collect();
        let entry = |t: &Tensor| TensorEntry { dtype: t.dtype(), shape: t.dims().to_vec() };
        let entries = tensors.iter().map(|(name, tensor)| (name.clone(), entry(tensor))).collect();
        Self { label: label.into(), entries, tensors }
    }

    /// Names and shapes without contents: enough to detect a layout and to fit a network.
    pub fn listing(label: impl Into<String>, shapes: impl IntoIterator<Item = (String, Vec<usize>)>) -> Self {
        let entry = |(name, shape)| (name, TensorEntry { dtype: DType::F16, shape });
        let entries = shapes.into_iter().map(entry).collect();
        Self { label: label.into(), entries, tensors: BTreeMap::new() }
    }
}

impl TensorFile for MemoryFile {
    fn label(&self) -> &str {
        &self.label
    }

    fn entries(&self) -> &BTreeMap<String, TensorEntry> {
        &self.entries
    }

    fn read(&self, name: &str) -> Result<Tensor> {
        let missing = || LayoutError::NoTensor { name: name.to_owned(), file: self.label.clone() };
        self.tensors.get(name).cloned().ok_or_else(missing)
    }
}
