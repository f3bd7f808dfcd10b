//! What travels between nodes, and how it lies in the cache.

use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::context::RunError;
use super::fields::PortKind;
use crate::media::{ImageLimits, Mask, Picture, SOUND_RATE, read_picture, write_png};
use crate::store::atomic::AtomicError;
use crate::store::cache::{Cache, CacheKey, Draft, Entry};

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

/// Frames with their rate, on disk or put together on demand; only the frame asked for is in memory.
#[derive(Debug, Clone)]
pub struct Clip {
    frames: Arc<dyn Frames>,
    sound: Option<Arc<dyn Sound>>,
    meta: ClipMeta,
}

/// Where the sound of a clip comes from.
pub(super) trait Sound: std::fmt::Debug + Send + Sync {
    /// Fills `out` with the sound from the sample `from` on, counted from the first frame: left and right in
    /// turn, [`SOUND_RATE`] of each a second; silence where there is none.
    fn read(&self, from: u64, out: &mut [f32]) -> Result<(), RunError>;
}

impl Sound for Entry {
    fn read(&self, from: u64, out: &mut [f32]) -> Result<(), RunError> {
        out.fill(0.0);
        let path = self.path().join(SOUND);
        let fail = |source| AtomicError::from_io("read", &path, source);
        let mut file = std::fs::File::open(&path).map_err(fail)?;
        file.seek(SeekFrom::Start(from.saturating_mul(8))).map_err(fail)?;
        let mut bytes = Vec::with_capacity(out.len() * 4);
        file.take(out.len() as u64 * 4).read_to_end(&mut bytes).map_err(fail)?;
        for (to, of) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *to = f32::from_le_bytes(*of);
        }
        Ok(())
    }
}

/// Where the frames of a clip come from.
pub(super) trait Frames: std::fmt::Debug + Send + Sync {
    /// One frame; `index` from 0 to below the clip's count.
    fn frame(&self, index: usize) -> Result<Picture, RunError>;
}

impl Frames for Entry {
    fn frame(&self, index: usize) -> Result<Picture, RunError> {
        Ok(read_picture(&self.path().join(frame_name(index)), &ImageLimits::default())?)
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct ClipMeta {
    width: u32,
    height: u32,
    frames: usize,
    fps: (u32, u32),
    /// Whether its sound lies beside its frames.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    sound: bool,
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
const SOUND: &str = "sound.f32";
const KERNELS: &str = "kernels.json";

fn frame_name(index: usize) -> String {
    format!("{index:06}.png")
}

impl Clip {
    /// The clip a node of this key made, if the cache still has it whole.
    pub fn open(cache: &Cache, key: &CacheKey) -> Option<Self> {
        match Value::load(&cache.get(key)?)? {
            Value::Clip(clip) => Some(clip),
            _ => None,
        }
    }

    /// The clip of an entry of the cache.
    fn kept(entry: &Arc<Entry>, meta: ClipMeta) -> Self {
        let sound: Option<Arc<dyn Sound>> = if meta.sound { Some(Arc::<Entry>::clone(entry)) } else { None };
        Self { frames: Arc::<Entry>::clone(entry), sound, meta }
    }

    /// A clip whose frames, and sound if there is any, are put together when they are asked for.
    pub(super) fn composed(
        frames: Arc<dyn Frames>,
        sound: Option<Arc<dyn Sound>>,
        (width, height): (u32, u32),
        count: usize,
        fps: (u32, u32),
    ) -> Self {
        let meta = ClipMeta { width, height, frames: count.max(1), fps, sound: sound.is_some() };
        Self { frames, sound, meta }
    }

    /// Width of every frame in pixels.
    pub fn width(&self) -> u32 {
        self.meta.width
    }

    /// Height of every frame in pixels.
    pub fn height(&self) -> u32 {
        self.meta.height
    }

    /// How many frames, at least 1.
    pub fn frames(&self) -> usize {
        self.meta.frames
    }

    /// Frames per second as a fraction.
    pub fn fps(&self) -> (u32, u32) {
        self.meta.fps
    }

    /// Reads one frame; `index` from 0 to below [`Self::frames`].
    pub fn frame(&self, index: usize) -> Result<Picture, RunError> {
        self.frames.frame(index)
    }

    /// Whether it has sound.
    pub fn has_sound(&self) -> bool {
        self.sound.is_some()
    }

    /// Fills `out` with its sound from the sample `from` on, counted from its first frame: left and right in
    /// turn, [`SOUND_RATE`] of each a second; silence where there is none.
    pub fn sound(&self, from: u64, out: &mut [f32]) -> Result<(), RunError> {
        match &self.sound {
            Some(sound) => sound.read(from, out),
            None => {
                out.fill(0.0);
                Ok(())
            }
        }
    }
}

/// The sample of a clip's sound that begins with a frame, as a clip of that rate has it.
pub fn sample_at(frame: u64, (rate, base): (u32, u32)) -> u64 {
    let (frame, rate) = (u128::from(frame), u128::from(rate.max(1)));
    let samples = (frame * u128::from(SOUND_RATE) * u128::from(base) * 2 + rate) / (rate * 2);
    u64::try_from(samples).unwrap_or(u64::MAX)
}

/// The frame of `count` at `fps` that is seen at a moment of a clip, in seconds.
pub fn frame_at(seconds: f64, fps: f64, count: usize) -> usize {
    // A hair forward, so that a moment computed from a frame, and kept to a hundredth of a
    // millisecond, gives that frame.
    let frame = (seconds.max(0.0) * fps + 2.5e-3) as usize;
    frame.min(count.saturating_sub(1))
}

/// Receives the frames of a clip into the cache.
#[derive(Debug)]
pub struct ClipWriter {
    draft: Draft,
    fps: (u32, u32),
    size: Option<(u32, u32)>,
    frames: usize,
    sound: Option<BufWriter<std::fs::File>>,
}

impl ClipWriter {
    pub(super) fn new(draft: Draft, fps: (u32, u32)) -> Self {
        Self { draft, fps, size: None, frames: 0, sound: None }
    }

    /// Adds sound: left and right in turn, [`SOUND_RATE`] of each a second, from the first frame on.
    pub fn push_sound(&mut self, samples: &[f32]) -> Result<(), RunError> {
        let path = self.draft.path().join(SOUND);
        let fail = |source| AtomicError::from_io("write", &path, source);
        let file = match &mut self.sound {
            Some(file) => file,
            None => {
                let file = std::fs::File::create(&path).map_err(fail)?;
                self.sound.insert(BufWriter::with_capacity(1 << 16, file))
            }
        };
        for sample in samples {
            file.write_all(&sample.to_le_bytes()).map_err(fail)?;
        }
        Ok(())
    }

    /// Frames so far.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Adds a frame; all have the size of the first.
    pub fn push(&mut self, picture: &Picture) -> Result<(), RunError> {
        let got = (picture.width(), picture.height());
        let size = *self.size.get_or_insert(got);
        if size != got {
            return Err(RunError::input(format!(
                "frame {} is {}x{}, expected {}x{} like the first",
                self.frames, got.0, got.1, size.0, size.1
            )));
        }
        write_png(&self.draft.path().join(frame_name(self.frames)), picture, false)?;
        self.frames += 1;
        Ok(())
    }

    /// Seals the clip.
    pub fn finish(self) -> Result<Value, RunError> {
        let Some((width, height)) = self.size else {
            return Err(RunError::bug("a clip without frames was finished".into()));
        };
        let sound = self.sound.is_some();
        if let Some(mut file) = self.sound {
            let path = self.draft.path().join(SOUND);
            file.flush().map_err(|source| AtomicError::from_io("write", &path, source))?;
        }
        let meta = ClipMeta { width, height, frames: self.frames, fps: self.fps, sound };
        write_meta(&self.draft, &Meta::Clip(meta))?;
        Ok(Value::Clip(Clip::kept(&self.draft.commit()?, meta)))
    }
}

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

/// A rate as the fraction video files use: whole, NTSC's n·1000/1001, or thousandths.
pub fn rational_fps(fps: f64) -> (u32, u32) {
    let fps = fps.clamp(0.001, 1000.0);
    let whole = fps.round();
    let ntsc = (fps * 1.001).round();
    if (fps - whole).abs() < 1e-6 {
        (whole as u32, 1)
    } else if (fps - ntsc / 1.001).abs() < 2e-3 {
        (ntsc as u32 * 1000, 1001)
    } else {
        ((fps * 1000.0).round() as u32, 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_become_the_usual_fractions() {
        assert_eq!(rational_fps(8.0), (8, 1));
        assert_eq!(rational_fps(23.976), (24000, 1001));
        assert_eq!(rational_fps(29.97), (30000, 1001));
        assert_eq!(rational_fps(12.5), (12500, 1000));
    }

    #[test]
    fn a_frame_begins_at_the_nearest_sample() {
        assert_eq!([0, 1, 2, 3].map(|frame| sample_at(frame, (24, 1))), [0, 2000, 4000, 6000]);
        assert_eq!([1, 5, 30_000].map(|frame| sample_at(frame, (30_000, 1001))), [1602, 8008, 48_048_000]);
    }

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
