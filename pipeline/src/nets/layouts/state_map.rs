//! Weights under a network's names, each read from its file when the network asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use super::error::{Difference, LayoutError, Misshapen, Result};
use super::tensor_file::TensorFile;
use crate::nets::unet_motion::Parameters;

/// One tensor in one file.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) file: Arc<dyn TensorFile>,
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) dtype: DType,
}

/// `scale · up · down`, added to a weight.
#[derive(Debug, Clone)]
pub(super) struct LowRank {
    pub(super) up: Stored,
    pub(super) down: Stored,
    pub(super) scale: f64,
}

/// One weight: a stored tensor, perhaps continued along its input channels by another, perhaps
/// with low-rank updates.
#[derive(Debug, Clone)]
struct Entry {
    stored: Stored,
    /// Take `stored`'s first input channels, then all of the other's from that channel on.
    continued: Option<(usize, Stored)>,
    updates: Vec<LowRank>,
    /// As the network sees it.
    shape: Vec<usize>,
}

/// Weights of one network. Cloning copies names only.
#[derive(Debug, Clone, Default)]
pub struct StateMap {
    entries: BTreeMap<String, Entry>,
}

impl Entry {
    fn misshapen(&self, name: &str, expected: &[usize]) -> Misshapen {
        Misshapen {
            name: name.to_owned(),
            expected: expected.to_vec(),
            found: self.shape.clone(),
            dtype: self.stored.dtype,
            file: self.stored.file.label().to_owned(),
        }
    }
}

impl Stored {
    pub(super) fn read(&self) -> Result<Tensor> {
        self.file.read(&self.name)
    }
}

impl StateMap {
    /// Adds `file`'s tensor `source` under `name`; a later one of the same name wins.
    pub(super) fn insert(&mut self, name: String, file: &Arc<dyn TensorFile>, source: &str) {
        let Some(entry) = file.entries().get(source) else { return };
        let stored = Stored {
            file: Arc::clone(file),
            name: source.to_owned(),
            shape: entry.shape.clone(),
            dtype: entry.dtype,
        };
        let shape = stored.shape.clone();
        self.entries.insert(name, Entry { stored, continued: None, updates: Vec::new(), shape });
    }

    /// Names and shapes, as the network will see them.
    pub fn parameters(&self) -> Parameters {
        self.entries.iter().map(|(name, entry)| (name.clone(), entry.shape.clone())).collect()
    }

    /// Number of weights tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Without the names `keep` refuses; returns how many those were.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) -> usize {
        let before = self.entries.len();
        self.entries.retain(|name, _| keep(name));
        before - self.entries.len()
    }

    /// Puts another map's weights over this one's.
    pub fn overlay(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    /// PIA's rule for the widened `conv_in`: the first `channels` input channels stay this map's,
    /// the rest are `wider`'s (which replaces the tensor if this map has none of that name).
    pub fn continue_input(&mut self, name: &str, wider: &Self) {
        let Some(other) = wider.entries.get(name) else { return };
        match self.entries.get_mut(name) {
            Some(entry) if entry.shape.get(1) < other.shape.get(1) => {
                let channels = entry.shape.get(1).copied().unwrap_or_default();
                entry.continued = Some((channels, other.stored.clone()));
                entry.shape.clone_from(&other.shape);
            }
            _ => {
                self.entries.insert(name.to_owned(), other.clone());
            }
        }
    }

    pub(super) fn shape_of(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    pub(super) fn update(&mut self, name: &str, update: LowRank) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.updates.push(update);
        }
    }

    /// How this map differs from `parameters`. A shape that differs only by trailing ones (a matrix
    /// kept as a 1×1 convolution) is no difference.
    pub fn difference(&self, parameters: &Parameters) -> Difference {
        let mut difference = Difference::default();
        for (name, expected) in parameters {
            match self.entries.get(name) {
                None => difference.missing.push((name.clone(), expected.clone())),
                Some(entry) if significant(&entry.shape) != significant(expected) => {
                    difference.misshapen.push(entry.misshapen(name, expected));
                }
                Some(_) => {}
            }
        }
        let unknown = self.entries.keys().filter(|name| !parameters.contains_key(*name));
        difference.left_over = unknown.cloned().collect();
        difference
    }

    /// This map in exactly the shapes of `parameters`.
    ///
    /// # Errors
    /// [`LayoutError::Mismatch`] with everything that is missing, left over or misshapen.
    pub fn fit(mut self, parameters: &Parameters) -> Result<Self> {
        let difference = self.difference(parameters);
        if !difference.is_empty() {
            return Err(LayoutError::Mismatch(difference));
        }
        for (name, entry) in &mut self.entries {
            if let Some(shape) = parameters.get(name) {
                entry.shape.clone_from(shape);
            }
        }
        Ok(self)
    }

    /// Reads one weight, updates applied, in `dtype` on `device`.
    ///
    /// # Errors
    /// What the file says, or [`LayoutError::NotFinite`].
    pub fn read(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let Some(entry) = self.entries.get(name) else {
            return Err(LayoutError::NoTensor { name: name.to_owned(), file: "the checkpoint".to_owned() });
        };
        let mut tensor = entry.stored.read()?;
        if let Some((channels, wider)) = &entry.continued {
            let wider = wider.read()?.to_dtype(tensor.dtype())?;
            let rest = wider.narrow(1, *channels, wider.dim(1)?.saturating_sub(*channels))?;
            tensor = Tensor::cat(&[&tensor, &rest], 1)?;
        }
        let mut tensor = tensor.reshape(entry.shape.as_slice())?;
        if !entry.updates.is_empty() {
            // Sums in f32: an update is often smaller than an f16 step of the weight.
            let mut sum = tensor.to_dtype(DType::F32)?;
            for update in &entry.updates {
                let up = update.up.read()?.to_dtype(DType::F32)?;
                let down = update.down.read()?.to_dtype(DType::F32)?;
                sum = (sum + (up.matmul(&down)? * update.scale)?.reshape(entry.shape.as_slice())?)?;
            }
            tensor = sum;
        }
        if !finite(&tensor)? {
            let file = entry.stored.file.label().to_owned();
            return Err(LayoutError::NotFinite { name: name.to_owned(), file });
        }
        Ok(tensor.to_dtype(dtype)?.to_device(device)?)
    }

    /// A builder that reads each weight when asked for it.
    pub fn into_var_builder(self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self), dtype, device.clone())
    }
}

fn significant(shape: &[usize]) -> &[usize] {
    let mut shape = shape;
    while let [rest @ .., 1] = shape {
        shape = rest;
    }
    shape
}

fn finite(tensor: &Tensor) -> Result<bool> {
    if !tensor.dtype().is_float() || tensor.elem_count() == 0 {
        return Ok(true);
    }
    // The largest magnitude is infinite or NaN as soon as one value is; a sum in f32 of finite f16
    // weights cannot overflow, one of f64 may, and such a weight is unusable too.
    Ok(tensor.to_dtype(DType::F32)?.abs()?.sum_all()?.to_scalar::<f32>()?.is_finite())
}

impl SimpleBackend for StateMap {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        if tensor.shape() != &shape {
            let misshapen = self.entries.get(name).map(|entry| entry.misshapen(name, shape.dims()));
            let difference =
                Difference { misshapen: misshapen.into_iter().collect(), ..Difference::default() };
            return Err(candle_core::Error::wrap(LayoutError::Mismatch(difference)));
        }
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.read(name, dtype, device).map_err(candle_core::Error::wrap)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }
}
