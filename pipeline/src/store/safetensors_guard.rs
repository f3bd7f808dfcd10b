//! Checks a safetensors file before anything is allocated for its tensors.
//!
//! The format puts an 8-byte length and a JSON header before the data. A hostile or damaged file can
//! lie in each of them; here the header is bounded, and every tensor must be a sane shape whose
//! bytes lie inside the file, cover it and do not overlap.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde::Deserialize;

/// Largest header read, that of the format itself.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;
const MAX_TENSORS: usize = 100_000;
const MAX_RANK: usize = 8;
const MAX_NAME_BYTES: usize = 1024;
const SCAN_BYTES: usize = 1 << 20;

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{} is empty (0 bytes); the download or copy did not finish, fetch it again", path.display())]
    Empty { path: PathBuf },
    #[error("{} is too short for a safetensors file: {found} bytes, at least 8 expected", path.display())]
    Short { path: PathBuf, found: u64 },
    #[error("{} says its header has {found} bytes, the limit is {MAX_HEADER_BYTES}; it is not a safetensors file or is hostile", path.display())]
    HeaderTooLarge { path: PathBuf, found: u64 },
    #[error("{} says its header has {found} bytes but the file ends after {available}; it is cut short, fetch it again", path.display())]
    HeaderCut { path: PathBuf, found: u64, available: u64 },
    #[error("{} has no readable header: {what}", path.display())]
    Header { path: PathBuf, what: String },
    #[error("{}: tensor {name:?} {what}", path.display())]
    Tensor { path: PathBuf, name: String, what: String },
    #[error("{}: its tensors need {expected} bytes of data, the file has {found}; it is cut short or has something appended", path.display())]
    Length { path: PathBuf, expected: u64, found: u64 },
    #[error("{} has no tensor {name:?}, expected with shape {expected:?}", path.display())]
    Missing { path: PathBuf, name: String, expected: Vec<usize> },
    #[error("{}: tensor {name:?} has shape {found:?}, expected {expected:?}", path.display())]
    Shape { path: PathBuf, name: String, expected: Vec<usize>, found: Vec<usize> },
    #[error("{}: tensor {name:?} holds {value} at element {element}; the weights are damaged, fetch them again", path.display())]
    NotFinite { path: PathBuf, name: String, element: u64, value: f64 },
}

/// One tensor as the header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// First byte, counted from the start of the data.
    pub begin: u64,
    /// Byte after the last.
    pub end: u64,
}

/// A file whose header has been checked against its length.
#[derive(Debug)]
pub struct CheckedFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    tensors: BTreeMap<String, TensorEntry>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Field {
    Tensor { dtype: Dtype, shape: Vec<u64>, data_offsets: (u64, u64) },
    Metadata(BTreeMap<String, String>),
}

/// Opens a file and checks its header; reads no tensor.
///
/// # Errors
/// Any [`GuardError`] except those about expectations and values.
pub fn open_checked(path: &Path) -> Result<CheckedFile, GuardError> {
    let owned = || path.to_path_buf();
    let io = |source| GuardError::Io { path: owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    if length == 0 {
        return Err(GuardError::Empty { path: owned() });
    }
    if length < 8 {
        return Err(GuardError::Short { path: owned(), found: length });
    }
    let mut prefix = [0u8; 8];
    file.read_exact(&mut prefix).map_err(io)?;
    let header_bytes = u64::from_le_bytes(prefix);
    if header_bytes > MAX_HEADER_BYTES {
        return Err(GuardError::HeaderTooLarge { path: owned(), found: header_bytes });
    }
    if header_bytes > length - 8 {
        return Err(GuardError::HeaderCut { path: owned(), found: header_bytes, available: length - 8 });
    }
    let mut header = Vec::new();
    Read::by_ref(&mut file).take(header_bytes).read_to_end(&mut header).map_err(io)?;
    let unreadable = |what: String| GuardError::Header { path: owned(), what };
    let fields: BTreeMap<String, Field> =
        serde_json::from_slice(&header).map_err(|e| unreadable(e.to_string()))?;
    if fields.len() > MAX_TENSORS {
        return Err(unreadable(format!("it lists {} tensors, at most {MAX_TENSORS} are read", fields.len())));
    }
    let mut tensors = BTreeMap::new();
    let mut metadata = BTreeMap::new();
    for (name, field) in fields {
        match field {
            Field::Metadata(values) if name == "__metadata__" => metadata = values,
            Field::Tensor { dtype, shape, data_offsets: (begin, end) } => {
                let entry = checked_entry(&name, dtype, &shape, begin, end)
                    .map_err(|what| GuardError::Tensor { path: owned(), name: name.clone(), what })?;
                tensors.insert(name, entry);
            }
            Field::Metadata(_) => {
                return Err(unreadable(format!("{name:?} is neither a tensor nor the metadata")));
            }
        }
    }
    let data_start = 8 + header_bytes;
    check_cover(path, &tensors, length - data_start)?;
    Ok(CheckedFile { path: owned(), file, data_start, tensors, metadata })
}

fn checked_entry(
    name: &str,
    dtype: Dtype,
    shape: &[u64],
    begin: u64,
    end: u64,
) -> Result<TensorEntry, String> {
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("has a name of {} bytes, at most {MAX_NAME_BYTES} are read", name.len()));
    }
    if shape.len() > MAX_RANK {
        return Err(format!("has {} dimensions, at most {MAX_RANK} are read", shape.len()));
    }
    let elements = shape.iter().try_fold(1u64, |product, &side| product.checked_mul(side));
    let bits = elements.and_then(|count| count.checked_mul(dtype.bitsize() as u64));
    let bytes = bits.filter(|bits| bits % 8 == 0).map(|bits| bits / 8);
    let bytes = bytes.ok_or_else(|| format!("has an impossible shape {shape:?}"))?;
    if end.checked_sub(begin) != Some(bytes) {
        return Err(format!("has bytes {begin}..{end} but its shape {shape:?} of {dtype:?} needs {bytes}"));
    }
    let shape = shape.iter().map(|&side| usize::try_from(side)).collect::<Result<_, _>>();
    let shape = shape.map_err(|_| "has a side beyond this machine's address space".to_owned())?;
    Ok(TensorEntry { dtype, shape, begin, end })
}

/// The data must be covered once, without holes: anything else hides bytes or shares them.
fn check_cover(path: &Path, tensors: &BTreeMap<String, TensorEntry>, found: u64) -> Result<(), GuardError> {
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by_key(|(_, entry)| (entry.begin, entry.end));
    let mut expected = 0;
    for (name, entry) in order {
        if entry.begin != expected {
            let what = format!("begins at byte {} of the data, expected {expected}", entry.begin);
            return Err(GuardError::Tensor { path: path.to_path_buf(), name: name.clone(), what });
        }
        expected = entry.end;
    }
    if expected == found {
        return Ok(());
    }
    Err(GuardError::Length { path: path.to_path_buf(), expected, found })
}

impl CheckedFile {
    /// The tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorEntry> {
        &self.tensors
    }

    /// The free-form strings of the header.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Requires a tensor of this shape.
    ///
    /// # Errors
    /// [`GuardError::Missing`] or [`GuardError::Shape`].
    pub fn require(&self, name: &str, shape: &[usize]) -> Result<&TensorEntry, GuardError> {
        let (path, expected) = (self.path.clone(), shape.to_vec());
        match self.tensors.get(name) {
            None => Err(GuardError::Missing { path, name: name.to_owned(), expected }),
            Some(entry) if entry.shape != shape => {
                let found = entry.shape.clone();
                Err(GuardError::Shape { path, name: name.to_owned(), expected, found })
            }
            Some(entry) => Ok(entry),
        }
    }

    /// Reads every floating-point tensor once, a megabyte at a time, and refuses NaN and infinity.
    ///
    /// # Errors
    /// [`GuardError::NotFinite`] with the first such value, or a read that failed.
    pub fn scan_finite(&mut self) -> Result<(), GuardError> {
        let mut buffer = vec![0u8; SCAN_BYTES];
        for (name, entry) in &self.tensors {
            let width = match entry.dtype {
                Dtype::F64 => 8,
                Dtype::F32 => 4,
                Dtype::F16 | Dtype::BF16 => 2,
                _ => continue,
            };
            let io = |source| GuardError::Io { path: self.path.clone(), source };
            self.file.seek(SeekFrom::Start(self.data_start + entry.begin)).map_err(io)?;
            let mut left = entry.end - entry.begin;
            let mut element = 0;
            while left > 0 {
                let take = usize::try_from(left).unwrap_or(SCAN_BYTES).min(SCAN_BYTES);
                let Some(part) = buffer.get_mut(..take) else { break };
                self.file.read_exact(part).map_err(io)?;
                let bad = part
                    .chunks_exact(width)
                    .map(|bytes| float(entry.dtype, bytes))
                    .position(|v| !v.is_finite());
                if let Some(at) = bad {
                    let value =
                        part.chunks_exact(width).nth(at).map_or(f64::NAN, |bytes| float(entry.dtype, bytes));
                    let (path, name) = (self.path.clone(), name.clone());
                    return Err(GuardError::NotFinite { path, name, element: element + at as u64, value });
                }
                element += (take / width) as u64;
                left -= take as u64;
            }
        }
        Ok(())
    }
}

fn float(dtype: Dtype, bytes: &[u8]) -> f64 {
    match (dtype, bytes) {
        (Dtype::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
        (Dtype::F32, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
        (Dtype::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).to_f64(),
        (Dtype::BF16, &[a, b]) => half::bf16::from_le_bytes([a, b]).to_f64(),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
        let path = folder.path().join("w.safetensors");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn built(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    const ONE: &str = r#"{"__metadata__":{"k":"v"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;

    #[test]
    fn a_sound_file_is_described() {
        let folder = tempfile::tempdir().unwrap();
        let mut checked = open_checked(&file(&folder, &built(ONE, &[0; 8]))).unwrap();
        assert_eq!(checked.metadata()["k"], "v");
        assert_eq!(checked.require("w", &[2]).unwrap().end, 8);
        checked.scan_finite().unwrap();
        assert!(matches!(checked.require("w", &[3]), Err(GuardError::Shape { .. })));
        assert!(matches!(checked.require("v", &[3]), Err(GuardError::Missing { .. })));
    }

    #[test]
    fn empty_short_cut_and_huge_headers_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let open = |bytes: &[u8]| open_checked(&file(&folder, bytes)).unwrap_err();
        assert!(matches!(open(&[]), GuardError::Empty { .. }));
        assert!(matches!(open(&[1, 2, 3]), GuardError::Short { found: 3, .. }));
        assert!(matches!(open(&100_000_001u64.to_le_bytes()), GuardError::HeaderTooLarge { .. }));
        assert!(matches!(open(&u64::MAX.to_le_bytes()), GuardError::HeaderTooLarge { .. }));
        assert!(matches!(open(&100_000_000u64.to_le_bytes()), GuardError::HeaderCut { available: 0, .. }));
        assert!(matches!(open(&built("{\"w\":", &[])), GuardError::Header { .. }));
        assert!(matches!(open(&built("not json", &[])), GuardError::Header { .. }));
        let whole = built(ONE, &[0; 8]);
        for cut in 1..whole.len() {
            let error = open(&whole[..cut]).to_string();
            assert!(error.contains("w.safetensors"), "{error}");
        }
        assert!(matches!(open(&built(ONE, &[0; 9])), GuardError::Length { expected: 8, found: 9, .. }));
        assert!(matches!(open(&built(ONE, &[0; 7])), GuardError::Length { expected: 8, found: 7, .. }));
    }

    #[test]
    fn lies_about_tensors_are_refused_before_allocation() {
        let folder = tempfile::tempdir().unwrap();
        for (dtype, shape, offsets) in [
            ("F32", "[3]", "[0,8]"),
            ("F32", "[18446744073709551615,2]", "[0,8]"),
            ("F32", "[4611686018427387904]", "[0,0]"),
            ("F32", "[2]", "[8,0]"),
            ("F32", "[2]", "[4,12]"),
            ("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]"),
        ] {
            let header = format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#);
            let error = open_checked(&file(&folder, &built(&header, &[0; 12]))).unwrap_err();
            assert!(matches!(&error, GuardError::Tensor { name, .. } if name == "w"), "{error}");
        }
        let overlap = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
        assert!(matches!(
            open_checked(&file(&folder, &built(overlap, &[0; 8]))),
            Err(GuardError::Tensor { .. })
        ));
        for wrong in
            [r#"{"w":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#, r#"{"w":{"x":"y"}}"#, r#"{"w":3}"#]
        {
            let error = open_checked(&file(&folder, &built(wrong, &[0; 8]))).unwrap_err();
            assert!(matches!(error, GuardError::Header { .. }), "{wrong}: {error}");
        }
    }

    #[test]
    fn nan_and_infinity_are_found_in_every_float_type() {
        let folder = tempfile::tempdir().unwrap();
        let cases: [(&str, usize, Vec<u8>); 4] = [
            ("F64", 8, f64::NAN.to_le_bytes().to_vec()),
            ("F32", 4, f32::INFINITY.to_le_bytes().to_vec()),
            ("F16", 2, half::f16::NEG_INFINITY.to_le_bytes().to_vec()),
            ("BF16", 2, half::bf16::NAN.to_le_bytes().to_vec()),
        ];
        for (dtype, width, bad) in cases {
            // Beyond the first megabyte, so that the scan has to go on.
            let count = (SCAN_BYTES + 4096) / width;
            let mut data = vec![0u8; count * width];
            let at = count - 3;
            data[at * width..(at + 1) * width].copy_from_slice(&bad);
            let header = format!(
                r#"{{"w":{{"dtype":"{dtype}","shape":[{count}],"data_offsets":[0,{}]}}}}"#,
                data.len()
            );
            let error =
                open_checked(&file(&folder, &built(&header, &data))).unwrap().scan_finite().unwrap_err();
            assert!(
                matches!(error, GuardError::NotFinite { element, .. } if element == at as u64),
                "{error}"
            );
        }
    }
}
