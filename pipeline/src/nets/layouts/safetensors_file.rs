//! Safetensors by positioned reads: the header when opened, then only the tensors asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::error::{LayoutError, Result};
use super::tensor_file::{TensorEntry, TensorFile};

/// Largest header accepted: a UNet with motion modules needs 0.2 MiB.
const MAX_HEADER_BYTES: u64 = 16 << 20;

/// An open safetensors file.
#[derive(Debug)]
pub struct SafetensorsFile {
    label: String,
    file: Mutex<File>,
    entries: BTreeMap<String, TensorEntry>,
    /// First byte and length in the file.
    places: BTreeMap<String, (u64, usize)>,
}

impl SafetensorsFile {
    /// Reads and checks the header; no weights.
    ///
    /// # Errors
    /// [`LayoutError::Malformed`] for a truncated file, an oversized header, or offsets that do not
    /// cover the file; [`LayoutError::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let label = path.display().to_string();
        let io = |source| LayoutError::Io { file: label.clone(), source };
        let mut file = File::open(path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        if bytes < 8 {
            return Err(LayoutError::malformed(
                &label,
                format!("{bytes} bytes, expected a header of at least 8"),
            ));
        }
        let mut length = [0u8; 8];
        file.read_exact(&mut length).map_err(io)?;
        let header = u64::from_le_bytes(length);
        if header > MAX_HEADER_BYTES {
            let problem = format!("its header claims {header} bytes, the limit is {MAX_HEADER_BYTES}");
            return Err(LayoutError::malformed(&label, problem));
        }
        if header > bytes - 8 {
            let problem = format!("its header claims {header} bytes, the file has {bytes}; it is truncated");
            return Err(LayoutError::malformed(&label, problem));
        }
        let mut buffer = Vec::with_capacity(header as usize);
        let read = (&file).take(header).read_to_end(&mut buffer).map_err(io)?;
        if read as u64 != header {
            return Err(LayoutError::malformed(&label, "it shrank while it was read"));
        }
        // Deserialising also checks that the tensors follow each other without gaps or overlaps.
        let metadata: Metadata = serde_json::from_slice(&buffer)
            .map_err(|e| LayoutError::malformed(&label, format!("its header: {e}")))?;
        let expected = (8 + header).saturating_add(metadata.data_len() as u64);
        if expected != bytes {
            let problem =
                format!("its header describes {expected} bytes, the file has {bytes}; download it again");
            return Err(LayoutError::malformed(&label, problem));
        }
        let mut entries = BTreeMap::new();
        let mut places = BTreeMap::new();
        for (name, info) in metadata.tensors() {
            let dtype = element_type(info.dtype).ok_or_else(|| {
                let problem = format!(
                    "{name} has element type {:?}, expected f16, bf16, f32, f64 or an integer",
                    info.dtype
                );
                LayoutError::malformed(&label, problem)
            })?;
            let (start, end) = info.data_offsets;
            places.insert(name.clone(), (8 + header + start as u64, end - start));
            entries.insert(name, TensorEntry { dtype, shape: info.shape.clone() });
        }
        Ok(Self { label, file: Mutex::new(file), entries, places })
    }
}

fn element_type(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::I64 => DType::I64,
        Dtype::U32 => DType::U32,
        Dtype::U8 => DType::U8,
        _ => return None,
    })
}

impl TensorFile for SafetensorsFile {
    fn label(&self) -> &str {
        &self.label
    }

    fn entries(&self) -> &BTreeMap<String, TensorEntry> {
        &self.entries
    }

    fn read(&self, name: &str) -> Result<Tensor> {
        let (Some(entry), Some(&(start, length))) = (self.entries.get(name), self.places.get(name)) else {
            return Err(LayoutError::NoTensor { name: name.to_owned(), file: self.label.clone() });
        };
        let io = |source| LayoutError::Io { file: self.label.clone(), source };
        let mut buffer = vec![0u8; length];
        {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(start)).map_err(io)?;
            file.read_exact(&mut buffer).map_err(io)?;
        }
        Ok(Tensor::from_raw_buffer(&buffer, entry.dtype, &entry.shape, &Device::Cpu)?)
    }
}
