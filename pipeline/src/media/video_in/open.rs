//! Opening a container: our own file access only, bounded probing, known formats.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ffmpeg_next as ffmpeg;
use ffmpeg_next::format::context::{Input, StreamIo};

use crate::media::error::MediaError;
use crate::media::ff;
use crate::media::limits::VideoLimits;

pub(super) const KINDS: &str = "a clip (MP4, MOV, MKV, WebM, AVI, MPEG, GIF and others)";

/// Demuxers that read one file and nothing else. Playlists (hls, dash, concat), devices and
/// `image2` are absent on purpose: they open other files by name.
const DEMUXERS: &str = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,\
flv,live_flv,ogg,asf,mxf,mxf_opatom,gif,apng,ivf,obu,av1,yuv4mpegpipe,h264,hevc,m4v,h263,vc1,\
vc1test,dv,nut,rm,wtv,dxa,bink,smk,flic,film_cpk,ivr,gxf,nsv,\
wav,w64,aiff,flac,mp3,aac,ac3,eac3,dts,caf,au,amr,tta,wv,ape";

/// A point in time shared with FFmpeg's callbacks; renewed at every call of ours.
#[derive(Debug, Clone)]
pub(super) struct Deadline {
    start: Instant,
    /// Nanoseconds after `start`.
    at: Arc<AtomicU64>,
}

impl Deadline {
    fn new() -> Self {
        Self { start: Instant::now(), at: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// Allows `time` from now.
    pub(super) fn renew(&self, time: Duration) {
        let at = (self.start.elapsed() + time).as_nanos();
        self.at.store(u64::try_from(at).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether the time is over.
    pub(super) fn passed(&self) -> bool {
        self.start.elapsed().as_nanos() > u128::from(self.at.load(Ordering::Relaxed))
    }
}

/// The one file a demuxer may read.
struct Source {
    file: File,
    deadline: Deadline,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.deadline.passed() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        self.file.read(buffer)
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(to)
    }
}

/// Opens and probes `path` within `limits`.
pub(super) fn open(path: &Path, limits: &VideoLimits) -> Result<(Input, Deadline), MediaError> {
    ff::start();
    let file = File::open(path).map_err(|e| MediaError::read(path, e))?;
    let meta = file.metadata().map_err(|e| MediaError::read(path, e))?;
    if !meta.is_file() {
        return Err(MediaError::WrongKind {
            path: path.to_path_buf(),
            expected: KINDS,
            found: if meta.is_dir() { "a folder" } else { "a device or pipe" }.into(),
        });
    }
    if meta.len() == 0 {
        return Err(MediaError::Empty { path: path.to_path_buf(), expected: KINDS });
    }
    let deadline = Deadline::new();
    deadline.renew(limits.call_deadline);
    let source = Source { file, deadline: deadline.clone() };
    let fail = |error| from_open(path, error, &deadline, limits, meta.len());
    let io = StreamIo::from_read_seek(source).map_err(fail)?;
    let mut options = ffmpeg::Dictionary::new();
    options.set("protocol_whitelist", "file");
    options.set("format_whitelist", DEMUXERS);
    options.set("probesize", &limits.probe_bytes.max(32).to_string());
    options.set("formatprobesize", &limits.probe_bytes.clamp(2048, 1 << 20).to_string());
    options.set("analyzeduration", &((limits.probe_seconds * 1e6) as i64).max(0).to_string());
    options.set("max_streams", &limits.max_streams.max(1).to_string());
    let stop = deadline.clone();
    let input =
        ffmpeg::format::input_from_stream_with_interrupt(io, None, Some(options), move || stop.passed())
            .map_err(fail)?;
    if input.nb_streams() > limits.max_streams {
        return Err(MediaError::OverLimit {
            path: path.to_path_buf(),
            limit: format!("{} streams", limits.max_streams),
            found: format!("{} streams", input.nb_streams()),
        });
    }
    Ok((input, deadline))
}

/// The first of `keys` among the container's metadata.
pub(crate) fn container_tag(path: &Path, keys: &[&str]) -> Result<Option<String>, MediaError> {
    let (input, _) = open(path, &VideoLimits::default())?;
    Ok(keys.iter().filter_map(|key| CString::new(*key).ok()).find_map(|key| ff::tag(&input.metadata(), &key)))
}

/// Names a deadline, else what FFmpeg said.
pub(super) fn timed_out(path: &Path, limits: &VideoLimits) -> MediaError {
    MediaError::OverLimit {
        path: path.to_path_buf(),
        limit: format!("{} s for one step", limits.call_deadline.as_secs_f64()),
        found: "a longer one".into(),
    }
}

fn from_open(
    path: &Path,
    error: ffmpeg::Error,
    deadline: &Deadline,
    limits: &VideoLimits,
    length: u64,
) -> MediaError {
    if deadline.passed() {
        return timed_out(path, limits);
    }
    match error {
        ffmpeg::Error::InvalidData | ffmpeg::Error::Eof => {
            if has_no_index(path) {
                return MediaError::Truncated {
                    path: path.to_path_buf(),
                    expected: "a clip with its index (moov)".into(),
                    found: format!("{length} bytes without one"),
                };
            }
            MediaError::WrongKind {
                path: path.to_path_buf(),
                expected: KINDS,
                found: format!("{length} bytes of no clip format known here"),
            }
        }
        // What FFmpeg says of a format outside the list.
        ffmpeg::Error::Other { errno } if errno == ffmpeg::error::EINVAL => MediaError::WrongKind {
            path: path.to_path_buf(),
            expected: KINDS,
            found: "a playlist, a still or another format that is not read here".into(),
        },
        other => MediaError::Damaged {
            path: path.to_path_buf(),
            expected: "a readable clip",
            found: other.to_string(),
        },
    }
}

/// Whether it begins as MP4 or QuickTime; then a failed open means that its index is missing.
fn has_no_index(path: &Path) -> bool {
    let mut head = [0; 8];
    File::open(path).and_then(|mut f| f.read_exact(&mut head)).is_ok()
        && matches!(&head[4..], b"ftyp" | b"mdat" | b"moov" | b"wide" | b"free")
}
