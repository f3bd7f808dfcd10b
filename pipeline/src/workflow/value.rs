//! What travels between nodes, and how it lies in the cache.

mod clip;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use clip::{Clip, ClipWriter, frame_at, rational_fps, sample_at};
pub(super) use clip::{Frames, Sound};

use clip::ClipMeta;

use super::context::RunError;
use super::fields::PortKind;
use crate::media::{ImageLimits, Mask, Picture, read_picture, write_png};
use crate::store::atomic::AtomicError;
use crate::store::cache::{Draft, Entry};

/// The result of a node.
#[derive(Debug, Clone)]
pub enum Value {
    /// A still picture.
    Picture(Arc<Picture>),
    /// Coverage 0..1 per pixel.
    Mask(Arc<Mask>),
    /// Frames on disk.
    Clip(Clip),
    /// A file in its place.
    File(Written),
    /// One number.
    Number(f64),
}

/// A file or folder a node wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Where it is.
    pub path: PathBuf,
    /// Its size; of all files for a folder.
    pub bytes: u64,
    /// Digest of its bytes; for a folder of its files' names and digests.
    pub blake3: String,
    /// Pictures in it.
    pub frames: usize,
    /// Digest of the pixels given to the encoder: equal clips have equal ones whatever the
    /// encoder does.
    pub pixels: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Meta {
    Picture,
    Mask { width: u32, height: u32 },
    Clip(ClipMeta),
}

const META: &str = "value.json";
const PICTURE: &str = "picture.png";
const MASK: &str = "mask.f32";
const KERNELS: &str = "kernels.json";

/// The kind of value, and the kernels that have run for it, so that a later receipt can name them too.
fn write_meta(draft: &Draft, meta: &Meta) -> Result<(), RunError> {
    let kernels: Vec<String> = kinora_kernels::observed_so_far().iter().map(ToString::to_string).collect();
    write_json(draft, KERNELS, &kernels)?;
    write_json(draft, META, meta)
}

fn write_json(draft: &Draft, name: &str, value: &impl Serialize) -> Result<(), RunError> {
    let path = draft.path().join(name);
    let text = serde_json::to_vec(value).map_err(|error| RunError::bug(error.to_string()))?;
    std::fs::write(&path, text).map_err(|source| AtomicError::from_io("write", &path, source))?;
    Ok(())
}

/// The kernels that made the value of an entry; none where none were needed or nobody noted them.
pub(super) fn kernels_of(entry: &Entry) -> Vec<String> {
    let noted = std::fs::read(entry.path().join(KERNELS)).ok();
    noted.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

impl Value {
    /// Wraps a picture.
    pub fn picture(picture: Picture) -> Self {
        Self::Picture(Arc::new(picture))
    }

    /// Wraps a mask.
    pub fn mask(mask: Mask) -> Self {
        Self::Mask(Arc::new(mask))
    }

    /// What kind of value.
    pub fn kind(&self) -> PortKind {
        match self {
            Self::Picture(_) => PortKind::Picture,
            Self::Mask(_) => PortKind::Mask,
            Self::Clip(_) => PortKind::Clip,
            Self::File(_) => PortKind::File,
            Self::Number(_) => PortKind::Number,
        }
    }

    /// The value at one of a node's further ports.
    pub(super) fn port(&self, name: &str) -> Option<Self> {
        let number = match (self, name) {
            (Self::Picture(p), "width") => f64::from(p.width()),
            (Self::Picture(p), "height") => f64::from(p.height()),
            (Self::Mask(mask), "area") => mask.area_fraction(),
            (Self::Clip(clip), "fps") => f64::from(clip.meta.fps.0) / f64::from(clip.meta.fps.1),
            (Self::Clip(clip), "frames") => clip.meta.frames as f64,
            (Self::Clip(clip), "width") => f64::from(clip.meta.width),
            (Self::Clip(clip), "height") => f64::from(clip.meta.height),
            (value, "image" | "mask" | "video" | "file") => return Some(value.clone()),
            _ => return None,
        };
        Some(Self::Number(number))
    }

    pub(super) fn unexpected(&self, expected: &str) -> RunError {
        RunError::bug(format!("expected {expected}, a link brought {}", self.kind().name()))
    }

    /// Keeps the value under `draft`; clips were written there frame by frame already.
    pub(super) fn store(&self, draft: Draft) -> Result<(), RunError> {
        match self {
            Self::Picture(picture) => {
                write_png(&draft.path().join(PICTURE), picture, false)?;
                write_meta(&draft, &Meta::Picture)?;
            }
            Self::Mask(mask) => {
                let bytes: Vec<u8> = mask.alpha().iter().flat_map(|a| a.to_le_bytes()).collect();
                let path = draft.path().join(MASK);
                std::fs::write(&path, bytes).map_err(|e| AtomicError::from_io("write", &path, e))?;
                write_meta(&draft, &Meta::Mask { width: mask.width(), height: mask.height() })?;
            }
            Self::Clip(_) | Self::File(_) | Self::Number(_) => return Ok(()),
        }
        draft.commit()?;
        Ok(())
    }

    /// The value of a whole entry; `None` when the entry is not of this layout.
    pub(super) fn load(entry: &Arc<Entry>) -> Option<Self> {
        let meta: Meta = serde_json::from_slice(&std::fs::read(entry.path().join(META)).ok()?).ok()?;
        match meta {
            Meta::Picture => {
                read_picture(&entry.path().join(PICTURE), &ImageLimits::default()).ok().map(Self::picture)
            }
            Meta::Mask { width, height } => {
                let bytes = std::fs::read(entry.path().join(MASK)).ok()?;
                let (values, rest) = bytes.as_chunks::<4>();
                let alpha = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
                rest.is_empty().then(|| Mask::new(width, height, alpha).ok())?.map(Self::mask)
            }
            Meta::Clip(meta) => Some(Self::Clip(Clip::kept(entry, meta))),
        }
    }
}

/// Digest of pixels, independent of how they are encoded.
#[derive(Debug, Default)]
pub(super) struct Digester(blake3::Hasher);

impl Digester {
    /// Adds a picture.
    pub(super) fn picture(&mut self, picture: &Picture) {
        self.0.update(&picture.width().to_le_bytes());
        self.0.update(&picture.height().to_le_bytes());
        self.0.update(picture.rgb());
    }

    /// Adds sound.
    pub(super) fn sound(&mut self, samples: &[f32]) {
        samples.iter().for_each(|sample| {
            self.0.update(&sample.to_le_bytes());
        });
    }

    /// Adds a mask.
    pub(super) fn mask(&mut self, mask: &Mask) {
        self.0.update(&mask.width().to_le_bytes());
        self.0.update(&mask.height().to_le_bytes());
        mask.alpha().iter().for_each(|alpha| {
            self.0.update(&alpha.to_le_bytes());
        });
    }

    /// The digits.
    pub(super) fn finish(self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

/// Size and digest of a file, or of a folder's files with their names.
pub(super) fn measure(path: &Path) -> std::io::Result<(u64, String)> {
    use crate::store::cache::digest_file;
    if !path.is_dir() {
        return Ok((path.metadata()?.len(), digest_file(path)?));
    }
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(path)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    names.sort();
    let mut hasher = blake3::Hasher::new();
    let mut bytes = 0;
    for name in names {
        bytes += name.metadata()?.len();
        hasher.update(name.file_name().unwrap_or_default().as_encoded_bytes());
        hasher.update(&[0]);
        hasher.update(digest_file(&name)?.as_bytes());
    }
    Ok((bytes, hasher.finalize().to_hex().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::cache::{Cache, CacheKey};

    #[test]
    fn values_come_back_from_the_cache_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let picture = Picture::new(5, 3, (0..45).map(|v| v * 5).collect()).unwrap();
        let mask = Mask::new(3, 1, vec![0.0, 0.123_456_79, 1.0]).unwrap();
        let key = |name: &str| CacheKey::of(name.as_bytes());
        Value::picture(picture.clone()).store(cache.create(&key("p")).unwrap()).unwrap();
        Value::mask(mask.clone()).store(cache.create(&key("m")).unwrap()).unwrap();
        let mut writer = ClipWriter::new(cache.create(&key("c")).unwrap(), (24000, 1001));
        writer.push(&picture).unwrap();
        writer.push(&picture).unwrap();
        assert!(writer.push(&Picture::new(1, 1, vec![0; 3]).unwrap()).is_err());
        writer.push_sound(&[0.25, -0.25, 0.5, -0.5]).unwrap();
        writer.finish().unwrap();
        let load = |name: &str| Value::load(&cache.get(&key(name)).unwrap()).unwrap();
        assert!(matches!(load("p"), Value::Picture(p) if *p == picture));
        assert!(matches!(load("m"), Value::Mask(m) if *m == mask));
        let Value::Clip(clip) = load("c") else { panic!("not a clip") };
        assert_eq!((clip.frames(), clip.fps(), clip.width()), (2, (24000, 1001), 5));
        assert_eq!(clip.frame(1).unwrap(), picture);
        let mut sound = [9.0; 4];
        clip.sound(1, &mut sound).unwrap();
        assert_eq!((clip.has_sound(), sound), (true, [0.5, -0.5, 0.0, 0.0]));
        assert_eq!(Clip::open(&cache, &key("c")).unwrap().frames(), 2);
        assert!(Clip::open(&cache, &key("p")).is_none() && Clip::open(&cache, &key("absent")).is_none());
    }
}
