//! PyTorch's `.ckpt`, `.bin` and `.pth`: an uncompressed ZIP of one pickle and raw storages.
//!
//! The pickle is read without ever calling anything ([`super::pickle`]); storages are read in
//! place, only those asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Device, Tensor};

use super::error::{LayoutError, Result};
use super::pickle;
use super::safetensors_file::SafetensorsFile;
use super::tensor_file::{TensorEntry, TensorFile};

/// Largest pickle accepted; SD1.5's has 0.3 MiB.
const MAX_PICKLE_BYTES: u64 = 16 << 20;
/// Largest archive directory accepted.
const MAX_DIRECTORY_BYTES: u64 = 32 << 20;
/// Bytes of the end record, and of the longest comment behind it.
const END_RECORD: u64 = 22;
const MAX_COMMENT: u64 = 65_535;

/// An open PyTorch checkpoint.
#[derive(Debug)]
pub struct TorchFile {
    label: String,
    file: Mutex<File>,
    entries: BTreeMap<String, TensorEntry>,
    /// First byte and length in the file.
    places: BTreeMap<String, (u64, usize)>,
}

/// Where an uncompressed member's bytes are.
#[derive(Debug, Clone, Copy)]
struct Member {
    header: u64,
    size: u64,
    compressed: bool,
}

/// Opens a checkpoint of either kind, told apart by its first bytes.
///
/// # Errors
/// [`LayoutError::Io`], [`LayoutError::Malformed`].
pub fn open_checkpoint(path: &Path) -> Result<Arc<dyn TensorFile>> {
    let io = |source| LayoutError::Io { file: path.display().to_string(), source };
    let mut magic = Vec::with_capacity(4);
    File::open(path).map_err(io)?.take(4).read_to_end(&mut magic).map_err(io)?;
    if magic == b"PK\x03\x04" {
        return Ok(Arc::new(TorchFile::open(path)?));
    }
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if matches!(extension, "ckpt" | "bin" | "pth" | "pt") {
        let problem =
            "not a PyTorch archive (files from before PyTorch 1.6 are not read); convert it to safetensors";
        return Err(LayoutError::malformed(&path.display().to_string(), problem));
    }
    Ok(Arc::new(SafetensorsFile::open(path)?))
}

impl TorchFile {
    /// Reads the archive's directory and its pickle; no weights.
    ///
    /// # Errors
    /// [`LayoutError::Malformed`] for anything but an uncompressed archive of contiguous tensors
    /// inside their storages.
    pub fn open(path: &Path) -> Result<Self> {
        let label = path.display().to_string();
        let bad = |problem: String| LayoutError::malformed(&label, problem);
        let mut file = File::open(path).map_err(|source| LayoutError::Io { file: label.clone(), source })?;
        let members = directory(&mut file).map_err(|e| bad(e.to_string()))?;
        let (pickle_name, member) = members
            .iter()
            .find(|(name, _)| *name == "data.pkl" || name.ends_with("/data.pkl"))
            .ok_or_else(|| bad("no data.pkl in the archive".to_owned()))?;
        if member.size > MAX_PICKLE_BYTES {
            return Err(bad(format!(
                "its pickle has {} bytes, the limit is {MAX_PICKLE_BYTES}",
                member.size
            )));
        }
        let start = data_start(&mut file, member).map_err(|e| bad(e.to_string()))?;
        let bytes = read_at(&mut file, start, member.size as usize).map_err(|e| bad(e.to_string()))?;
        let root = pickle_name.strip_suffix("data.pkl").unwrap_or_default();
        let mut entries = BTreeMap::new();
        let mut places = BTreeMap::new();
        for record in pickle::tensors(&bytes).map_err(bad)? {
            let name = record.name;
            let storage = format!("{root}data/{}", record.storage);
            let member =
                members.get(&storage).ok_or_else(|| bad(format!("{name}: no {storage} in the archive")))?;
            let width = record.dtype.size_in_bytes();
            let count = record.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
            let length = count.and_then(|n| n.checked_mul(width));
            let offset = record.offset.checked_mul(width);
            let end = length.zip(offset).and_then(|(length, offset)| length.checked_add(offset));
            let (Some(length), Some(offset)) =
                (length, offset.filter(|_| end.is_some_and(|end| end as u64 <= member.size)))
            else {
                return Err(bad(format!(
                    "{name} {:?} reaches beyond its storage of {} bytes",
                    record.shape, member.size
                )));
            };
            if !contiguous(&record.shape, &record.strides) {
                return Err(bad(format!("{name} is stored transposed; convert the file to safetensors")));
            }
            let start = data_start(&mut file, member).map_err(|e| bad(format!("{name}: {e}")))?;
            places.insert(name.clone(), (start + offset as u64, length));
            entries.insert(name, TensorEntry { dtype: record.dtype, shape: record.shape });
        }
        Ok(Self { label, file: Mutex::new(file), entries, places })
    }
}

impl TensorFile for TorchFile {
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
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = read_at(&mut file, start, length)
            .map_err(|source| LayoutError::Io { file: self.label.clone(), source })?;
        drop(file);
        Ok(Tensor::from_raw_buffer(&bytes, entry.dtype, &entry.shape, &Device::Cpu)?)
    }
}

fn contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size == 1 || stride == expected;
        expected = expected.saturating_mul(size);
        fits
    })
}

fn read_at(file: &mut File, start: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let size = file.metadata()?.len();
    if start.checked_add(length as u64).is_none_or(|end| end > size) {
        return Err(broken("it ends before its contents"));
    }
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = vec![0u8; length];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn broken(problem: &'static str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, problem)
}

/// A little-endian number of `width` bytes at `at`; 0 past the end, which the callers' own length
/// checks exclude.
fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    let field = bytes.get(at..at + width).unwrap_or_default();
    field.iter().rev().fold(0, |value, &byte| (value << 8) | u64::from(byte))
}

/// The archive's central directory, 64-bit extensions included.
fn directory(file: &mut File) -> std::io::Result<BTreeMap<String, Member>> {
    let size = file.metadata()?.len();
    let tail_start = size.saturating_sub(END_RECORD + MAX_COMMENT);
    let tail = read_at(file, tail_start, (size - tail_start) as usize)?;
    let end = tail
        .windows(4)
        .rposition(|w| w == b"PK\x05\x06")
        .ok_or_else(|| broken("it is no ZIP archive or is truncated"))?;
    if tail.len() - end < END_RECORD as usize {
        return Err(broken("its end record is cut off"));
    }
    let (mut length, mut start) = (number(&tail, end + 12, 4), number(&tail, end + 16, 4));
    let locator = end.checked_sub(20).filter(|&at| tail.get(at..at + 4) == Some(b"PK\x06\x07"));
    if let Some(at) = locator {
        let record = read_at(file, number(&tail, at + 8, 8), 56)?;
        if record.get(..4) != Some(b"PK\x06\x06") {
            return Err(broken("its 64-bit end record is not where it says"));
        }
        (length, start) = (number(&record, 40, 8), number(&record, 48, 8));
    }
    if length > MAX_DIRECTORY_BYTES {
        return Err(broken("its directory is larger than any checkpoint's"));
    }
    let bytes = read_at(file, start, length as usize)?;
    let mut members = BTreeMap::new();
    let mut rest = bytes.as_slice();
    while rest.len() >= 46 && rest.starts_with(b"PK\x01\x02") {
        let (name, extra, comment) =
            (number(rest, 28, 2) as usize, number(rest, 30, 2) as usize, number(rest, 32, 2) as usize);
        let Some((record, next)) = rest.split_at_checked(46 + name + extra + comment) else {
            return Err(broken("its directory is cut off"));
        };
        let mut member = Member {
            header: number(record, 42, 4),
            size: number(record, 24, 4),
            compressed: number(record, 10, 2) != 0,
        };
        widen(
            &mut member,
            number(record, 20, 4),
            record.get(46 + name..46 + name + extra).unwrap_or_default(),
        );
        let name = String::from_utf8_lossy(record.get(46..46 + name).unwrap_or_default()).into_owned();
        members.insert(name, member);
        rest = next;
    }
    Ok(members)
}

/// Takes the 64-bit values from the extra field where the 32-bit ones say so.
fn widen(member: &mut Member, packed_size: u64, extra: &[u8]) {
    const WIDE: u64 = 0xffff_ffff;
    let mut at = 0;
    while at + 4 <= extra.len() {
        let (kind, length) = (number(extra, at, 2), number(extra, at + 2, 2) as usize);
        if kind == 1 {
            let mut field = at + 4;
            for (value, is_wide) in [
                (Some(&mut member.size), None),
                (None, Some(packed_size == WIDE)),
                (Some(&mut member.header), None),
            ] {
                let wide = is_wide.unwrap_or_else(|| value.as_ref().is_some_and(|value| **value == WIDE));
                if wide && field + 8 <= at + 4 + length {
                    if let Some(value) = value {
                        *value = number(extra, field, 8);
                    }
                    field += 8;
                }
            }
        }
        at += 4 + length;
    }
}

fn data_start(file: &mut File, member: &Member) -> std::io::Result<u64> {
    if member.compressed {
        return Err(broken("its contents are compressed, which PyTorch never does"));
    }
    let header = read_at(file, member.header, 30)?;
    if !header.starts_with(b"PK\x03\x04") {
        return Err(broken("a member is not where the directory says"));
    }
    let start = member.header + 30 + number(&header, 26, 2) + number(&header, 28, 2);
    let end = start.checked_add(member.size).ok_or_else(|| broken("a member's size is impossible"))?;
    if end > file.metadata()?.len() {
        return Err(broken("it ends before its contents"));
    }
    Ok(start)
}
