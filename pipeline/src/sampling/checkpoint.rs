//! Half-finished runs on disk: one safetensors file with the latents, what the sampler carries, and
//! metadata that says which job it belongs to.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{SafeTensors, View};

use super::scheduler::SchedulerState;
use crate::store::atomic::{AtomicError, AtomicFile};

const FORMAT: &str = "kinora.denoise/1";
const LATENTS: &str = "latents";
const STATE_PREFIX: &str = "scheduler.";
/// Latents of the longest supported clip at 4K are well below this.
const MOST_BYTES: u64 = 4 << 30;

/// Why a checkpoint was not written or not taken.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Readable, but of another job; resuming would mix two renders.
    #[error(
        "{} belongs to another job: it has {field} {found:?}, this job has {expected:?}. Run with the settings it was \
         made with, or delete it to start from the first step", path.display()
    )]
    OtherJob { path: PathBuf, field: &'static str, expected: String, found: String },
    /// Not a whole checkpoint; the caller may start from the first step.
    #[error("{} is not a usable checkpoint: {what}", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("cannot read the checkpoint {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Write(#[from] AtomicError),
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Which run a checkpoint belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunIdentity {
    /// Hash over everything that decides the result: model digests, prompt, picture, seed, settings.
    pub job: String,
    /// [`super::Scheduler::name`].
    pub scheduler: String,
    /// Number of network evaluations of the whole run.
    pub total: usize,
}

/// A run stopped before evaluation `done`.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    pub identity: RunIdentity,
    /// Evaluations finished, which is the index of the next one.
    pub done: usize,
    /// The sample, f32.
    pub latents: Tensor,
    /// [`super::Scheduler::state`].
    pub state: SchedulerState,
}

struct Raw {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for &Raw {
    fn dtype(&self) -> safetensors::Dtype {
        safetensors::Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        self.bytes.as_slice().into()
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn raw(tensor: &Tensor) -> candle_core::Result<Raw> {
    let values = tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Ok(Raw { shape: tensor.dims().to_vec(), bytes })
}

/// Digest over names, shapes and values, so that a flipped bit is found.
fn digest<'a>(tensors: impl Iterator<Item = (&'a str, &'a [usize], &'a [u8])>) -> String {
    let mut sorted: Vec<_> = tensors.collect();
    sorted.sort_unstable_by_key(|(name, _, _)| *name);
    let mut hasher = blake3::Hasher::new();
    for (name, shape, bytes) in sorted {
        hasher.update(format!("{name} {shape:?}\n").as_bytes());
        hasher.update(bytes);
    }
    hasher.finalize().to_hex().to_string()
}

impl Checkpoint {
    /// Writes the checkpoint in one piece; an older one at `path` is replaced only by a whole one.
    ///
    /// # Errors
    /// A tensor that cannot be read back from its device, or a file system that refuses.
    pub fn save(&self, path: &Path) -> Result<(), CheckpointError> {
        let mut tensors = vec![(LATENTS.to_owned(), raw(&self.latents)?)];
        for (name, tensor) in &self.state {
            tensors.push((format!("{STATE_PREFIX}{name}"), raw(tensor)?));
        }
        let content =
            digest(tensors.iter().map(|(n, t)| (n.as_str(), t.shape.as_slice(), t.bytes.as_slice())));
        let metadata: HashMap<String, String> = [
            ("format", FORMAT.to_owned()),
            ("job", self.identity.job.clone()),
            ("scheduler", self.identity.scheduler.clone()),
            ("total", self.identity.total.to_string()),
            ("done", self.done.to_string()),
            ("content", content),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        let bytes = safetensors::serialize(tensors.iter().map(|(n, t)| (n.as_str(), t)), Some(metadata))
            .map_err(candle_core::Error::wrap)?;
        let mut file = AtomicFile::create(path)?;
        file.file_mut().write_all(&bytes).map_err(|source| AtomicError::from_io("write", path, source))?;
        file.commit(true)?;
        Ok(())
    }

    /// Reads the checkpoint of the run `identity`; `None` if there is no file. Tensors come on the CPU.
    ///
    /// # Errors
    /// [`CheckpointError::OtherJob`] for a checkpoint of another run, [`CheckpointError::Damaged`] for one
    /// that is cut, changed or not a checkpoint.
    pub fn load(path: &Path, identity: &RunIdentity) -> Result<Option<Self>, CheckpointError> {
        let Some(bytes) = read_bounded(path)? else { return Ok(None) };
        let damaged = |what: String| CheckpointError::Damaged { path: path.to_path_buf(), what };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(error.to_string()))?;
        let none = HashMap::new();
        let metadata = header.metadata().as_ref().unwrap_or(&none);
        let field = |name: &str| metadata.get(name).ok_or_else(|| damaged(format!("it has no {name:?}")));
        if field("format")? != FORMAT {
            return Err(damaged(format!("its format is {:?}, expected {FORMAT:?}", field("format")?)));
        }
        for (name, expected) in [
            ("job", identity.job.clone()),
            ("scheduler", identity.scheduler.clone()),
            ("total", identity.total.to_string()),
        ] {
            let found = field(name)?.clone();
            if found != expected {
                return Err(CheckpointError::OtherJob {
                    path: path.to_path_buf(),
                    field: name,
                    expected,
                    found,
                });
            }
        }
        let done = field("done")?.parse::<usize>().ok().filter(|done| *done <= identity.total);
        let done = done.ok_or_else(|| damaged("its step is out of range".to_owned()))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
        let views = tensors.tensors();
        let content = digest(views.iter().map(|(n, v)| (n.as_str(), v.shape(), v.data())));
        if &content != field("content")? {
            return Err(damaged("its tensors do not have the recorded digest".to_owned()));
        }
        let mut latents = None;
        let mut state = SchedulerState::new();
        for (name, view) in &views {
            if view.dtype() != safetensors::Dtype::F32 {
                return Err(damaged(format!("tensor {name:?} is {:?}, expected F32", view.dtype())));
            }
            let values: Vec<f32> =
                view.data().as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
            let tensor = Tensor::from_vec(values, view.shape(), &Device::Cpu)?;
            match name.strip_prefix(STATE_PREFIX) {
                Some(key) => drop(state.insert(key.to_owned(), tensor)),
                None => latents = Some(tensor),
            }
        }
        let latents = latents.ok_or_else(|| damaged(format!("it has no tensor {LATENTS:?}")))?;
        Ok(Some(Self { identity: identity.clone(), done, latents, state }))
    }
}

fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, CheckpointError> {
    let read = |source| CheckpointError::Read { path: path.to_path_buf(), source };
    let size = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    if size > MOST_BYTES {
        let what = format!("it has {size} bytes, at most {MOST_BYTES} are read");
        return Err(CheckpointError::Damaged { path: path.to_path_buf(), what });
    }
    std::fs::read(path).map(Some).map_err(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::noise::normal;

    fn identity() -> RunIdentity {
        RunIdentity { job: "abc".to_owned(), scheduler: "ddim".to_owned(), total: 8 }
    }

    fn sample() -> Checkpoint {
        let state = [("half".to_owned(), normal(1, 1, &[2, 2]).unwrap())].into();
        Checkpoint { identity: identity(), done: 3, latents: normal(1, 0, &[2, 3]).unwrap(), state }
    }

    #[test]
    fn comes_back_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.checkpoint");
        assert!(Checkpoint::load(&path, &identity()).unwrap().is_none());
        sample().save(&path).unwrap();
        sample().save(&path).unwrap();
        let back = Checkpoint::load(&path, &identity()).unwrap().unwrap();
        assert_eq!(back.done, 3);
        assert_eq!(back.latents.to_vec2::<f32>().unwrap(), sample().latents.to_vec2::<f32>().unwrap());
        assert_eq!(
            back.state["half"].to_vec2::<f32>().unwrap(),
            sample().state["half"].to_vec2::<f32>().unwrap()
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn another_job_is_refused_by_field() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.checkpoint");
        sample().save(&path).unwrap();
        for (other, field) in [
            (RunIdentity { job: "abd".to_owned(), ..identity() }, "job"),
            (RunIdentity { scheduler: "lcm".to_owned(), ..identity() }, "scheduler"),
            (RunIdentity { total: 9, ..identity() }, "total"),
        ] {
            let refused = Checkpoint::load(&path, &other);
            assert!(
                matches!(&refused, Err(CheckpointError::OtherJob { field: f, .. }) if *f == field),
                "{refused:?}"
            );
        }
    }

    /// Every cut and every flipped byte is either found or does not change what is read.
    #[test]
    fn cuts_and_flips_are_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.checkpoint");
        sample().save(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(
                matches!(Checkpoint::load(&path, &identity()), Err(CheckpointError::Damaged { .. })),
                "{length}"
            );
        }
        for at in whole.len() - 40..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            std::fs::write(&path, &changed).unwrap();
            assert!(
                matches!(Checkpoint::load(&path, &identity()), Err(CheckpointError::Damaged { .. })),
                "{at}"
            );
        }
    }

    #[test]
    fn a_folder_in_its_place_is_a_read_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Checkpoint::load(folder.path(), &identity()), Err(CheckpointError::Read { .. })));
    }
}
