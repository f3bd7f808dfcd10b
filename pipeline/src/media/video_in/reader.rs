//! Decodes the first video stream, one frame in memory at a time.

mod seek;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use ffmpeg_next as ffmpeg;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::media::Type;

use super::open::{self, Deadline};
use super::orient::Orientation;
use super::{TimedPicture, VideoInfo, colour};
use crate::media::error::MediaError;
use crate::media::ff::{self, Converter, Side};
use crate::media::limits::VideoLimits;
use crate::media::picture::Picture;

/// Damaged packets borne before a clip counts as damaged throughout.
const MAX_BAD_PACKETS: u64 = 1000;

/// Streams the frames of a clip.
///
/// Frames come in presentation order, turned upright, as 8-bit sRGB, with their own times
/// (variable rates are kept). Only what the decoder itself needs is held in memory.
pub struct VideoReader {
    path: PathBuf,
    limits: VideoLimits,
    input: Input,
    decoder: ffmpeg::decoder::Video,
    deadline: Deadline,
    stream: usize,
    /// Seconds a unit of time stamps lasts, as a fraction.
    time_base: (i64, i64),
    /// The stamp that counts as second 0.
    origin: i64,
    info: VideoInfo,
    converter: Option<(Side, u32, u32, Converter)>,
    decoded: ffmpeg::frame::Video,
    /// Frames decoded ahead by opening or seeking, at most two.
    pending: VecDeque<TimedPicture>,
    /// The frame after those, decoded and not converted, with its time.
    ahead: Option<(f64, ffmpeg::frame::Video)>,
    /// The moment decoding hurries to: pictures no other picture needs are left out well before it.
    hurry: Option<f64>,
    state: State,
    given: u64,
    bad_packets: u64,
    notices: Vec<String>,
    last_seconds: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Draining,
    Done,
}

impl std::fmt::Debug for VideoReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VideoReader")
            .field("path", &self.path)
            .field("info", &self.info)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

impl VideoReader {
    /// Opens the first video stream of `path`.
    ///
    /// # Errors
    /// Empty, no clip, no video stream (audio only), over `limits`, or no decoder for it.
    pub fn open(path: &Path, limits: &VideoLimits) -> Result<Self, MediaError> {
        let (input, deadline) = open::open(path, limits)?;
        let Some(stream) = input.streams().best(Type::Video) else {
            let kinds: Vec<String> =
                input.streams().map(|s| format!("{:?}", s.parameters().medium()).to_lowercase()).collect();
            // A container cut within its index leaves streams of no kind.
            if kinds.iter().all(|k| k == "data" || k == "unknown") {
                return Err(MediaError::Truncated {
                    path: path.to_path_buf(),
                    expected: "a clip with its index".into(),
                    found: "streams without a description".into(),
                });
            }
            return Err(MediaError::NoVideo {
                path: path.to_path_buf(),
                found: format!("only {}", kinds.join(", ")),
            });
        };
        let damaged = |error: ffmpeg::Error| MediaError::Damaged {
            path: path.to_path_buf(),
            expected: "a decodable video stream",
            found: error.to_string(),
        };
        let index = stream.index();
        let time_base = stream.time_base();
        let time_base = (i64::from(time_base.numerator()), i64::from(time_base.denominator()).max(1));
        let start = stream.start_time();
        let mut notices = Vec::new();
        let orientation = stream
            .side_data()
            .find(|data| data.kind() == ffmpeg::packet::side_data::Type::DisplayMatrix)
            .map_or(Some(Orientation::default()), |data| Orientation::from_display_matrix(data.data()))
            .unwrap_or_else(|| {
                notices.push("its rotation is no whole number of quarter turns and was left aside".into());
                Orientation::default()
            });
        let rate = stream.avg_frame_rate();
        let fps = (rate.numerator() > 0 && rate.denominator() > 0)
            .then(|| (rate.numerator() as u32, rate.denominator() as u32));
        let frames = u64::try_from(stream.frames()).ok().filter(|&n| n > 0);
        let unit = time_base.0 as f64 / time_base.1 as f64;
        let seconds = if stream.duration() > 0 {
            Some(stream.duration() as f64 * unit)
        } else {
            (input.duration() > 0).then(|| input.duration() as f64 / 1e6)
        };
        if let Some(seconds) = seconds.filter(|&s| s > limits.max_seconds) {
            return Err(over(path, format!("{} s", limits.max_seconds), format!("{seconds:.1} s")));
        }
        let mut context = ffmpeg::codec::Context::from_parameters(stream.parameters()).map_err(damaged)?;
        let codec_id = context.id();
        let Some(codec) = ffmpeg::decoder::find(codec_id) else {
            return Err(MediaError::MissingPart {
                path: path.to_path_buf(),
                kind: "decoder",
                name: codec_id.name().to_owned(),
            });
        };
        let (stated_w, stated_h) = ff::stated_size(&context);
        check_size(path, limits, stated_w, stated_h)?;
        // Two threads: the frames in flight are what bounds memory.
        context.set_threading(ffmpeg::threading::Config {
            kind: ffmpeg::threading::Type::Frame,
            count: 2,
            ..ffmpeg::threading::Config::default()
        });
        let mut options = ffmpeg::Dictionary::new();
        options.set("max_pixels", &limits.max_pixels.min(i32::MAX as u64).to_string());
        let decoder = context
            .decoder()
            .open_as_with(codec, options)
            .and_then(|opened| opened.video())
            .map_err(damaged)?;
        let (w, h) = (decoder.width(), decoder.height());
        check_size(path, limits, w, h)?;
        let (width, height) = if orientation.swaps_sides() { (h, w) } else { (w, h) };
        let info = VideoInfo {
            width,
            height,
            fps,
            seconds,
            frames,
            codec: codec.name().to_owned(),
            container: input.format().name().to_owned(),
            pixel_format: decoder.format().descriptor().map_or("unknown", |d| d.name()).to_owned(),
            orientation,
            interlaced: false,
            notices: notices.clone(),
        };
        let mut reader = Self {
            path: path.to_path_buf(),
            limits: limits.clone(),
            input,
            decoder,
            deadline,
            stream: index,
            time_base,
            origin: if start == ffmpeg::ffi::AV_NOPTS_VALUE { 0 } else { start },
            info,
            converter: None,
            decoded: ffmpeg::frame::Video::empty(),
            pending: VecDeque::new(),
            ahead: None,
            hurry: None,
            state: State::Reading,
            given: 0,
            bad_packets: 0,
            notices,
            last_seconds: f64::NEG_INFINITY,
        };
        // The first frame tells what containers do not: true size, fields, whether any decodes.
        if let Some(first) = reader.decode_next()? {
            reader.info.width = first.picture.width();
            reader.info.height = first.picture.height();
            reader.pending.push_back(first);
        } else {
            return Err(MediaError::Truncated {
                path: path.to_path_buf(),
                expected: "at least one frame that decodes".into(),
                found: "none".into(),
            });
        }
        reader.info.notices = reader.notices.clone();
        Ok(reader)
    }

    /// What the container says.
    pub fn info(&self) -> &VideoInfo {
        &self.info
    }

    /// Things met so far that a user should know, such as damaged parts left out.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The next frame, or `None` after the last one that decodes.
    ///
    /// # Errors
    /// A limit is passed, or the stream is damaged beyond going on.
    pub fn next_frame(&mut self) -> Result<Option<TimedPicture>, MediaError> {
        let next = match self.pending.pop_front() {
            Some(frame) => Some(frame),
            None => self.decode_next()?,
        };
        let Some(frame) = next else { return Ok(None) };
        if self.given >= self.limits.max_frames {
            return Err(over(&self.path, format!("{} frames", self.limits.max_frames), "more".into()));
        }
        if frame.seconds > self.limits.max_seconds {
            return Err(over(
                &self.path,
                format!("{} s", self.limits.max_seconds),
                format!("a frame at {:.1} s", frame.seconds),
            ));
        }
        self.given += 1;
        Ok(Some(frame))
    }

    fn decode_next(&mut self) -> Result<Option<TimedPicture>, MediaError> {
        match self.receive()? {
            Some(seconds) => self.convert(seconds).map(Some),
            None => Ok(None),
        }
    }

    /// Decodes the next frame into `decoded`. Gives its time.
    fn receive(&mut self) -> Result<Option<f64>, MediaError> {
        if let Some((seconds, frame)) = self.ahead.take() {
            self.decoded = frame;
            return Ok(Some(seconds));
        }
        self.deadline.renew(self.limits.call_deadline);
        loop {
            if self.deadline.passed() {
                return Err(open::timed_out(&self.path, &self.limits));
            }
            match self.decoder.receive_frame(&mut self.decoded) {
                Ok(()) => return Ok(Some(self.stamp())),
                Err(ffmpeg::Error::Eof) => {
                    self.end();
                    return Ok(None);
                }
                Err(ffmpeg::Error::Other { errno }) if errno == ffmpeg::error::EAGAIN => {
                    if self.state != State::Reading {
                        self.end();
                        return Ok(None);
                    }
                    self.feed()?;
                }
                Err(error) => self.bad_packet(error)?,
            }
        }
    }

    /// Nothing more comes; said where the file promised more.
    fn end(&mut self) {
        self.state = State::Done;
        // Sound often runs on after the last frame, and slow pictures stand long.
        let (frames, seconds) = self.info.fps.unwrap_or((1, 1));
        let slack = 2.0 + 4.0 * f64::from(seconds) / f64::from(frames);
        if let Some(stated) = self.info.seconds
            && self.last_seconds.is_finite()
            && stated > self.last_seconds + slack
        {
            let last = self.last_seconds;
            self.notice(format!(
                "it says it lasts {stated:.1} s and its frames end at {last:.1} s; it may be cut short"
            ));
        }
    }

    /// Sends the decoder one packet of our stream, or the end.
    fn feed(&mut self) -> Result<(), MediaError> {
        let mut packet = ffmpeg::Packet::empty();
        match packet.read(&mut self.input) {
            Ok(()) => {
                if packet.stream() != self.stream {
                    return Ok(());
                }
                self.leave_out(&packet);
                // Decoders leave such a packet out without a word.
                if packet.is_corrupt() {
                    self.notice("it is cut short or damaged: a frame's data is not whole".into());
                }
                if let Err(error) = self.decoder.send_packet(&packet) {
                    self.bad_packet(error)?;
                }
            }
            Err(ffmpeg::Error::InvalidData) => self.bad_packet(ffmpeg::Error::InvalidData)?,
            Err(error) => {
                if self.deadline.passed() {
                    return Err(open::timed_out(&self.path, &self.limits));
                }
                if error != ffmpeg::Error::Eof {
                    self.notice(format!("reading stopped early ({error})"));
                }
                self.state = State::Draining;
                // A second end is refused, and is no news.
                let _ = self.decoder.send_eof();
            }
        }
        Ok(())
    }

    /// A stamp in seconds of the clip.
    fn seconds(&self, stamp: i64) -> f64 {
        (stamp.saturating_sub(self.origin) as f64) * self.time_base.0 as f64 / self.time_base.1 as f64
    }

    /// The time of the frame that was decoded.
    fn stamp(&mut self) -> f64 {
        let seconds = match ff::best_timestamp(&self.decoded) {
            Some(stamp) => self.seconds(stamp),
            None => {
                let step = self.info.fps.map_or(0.04, |(n, d)| f64::from(d) / f64::from(n));
                if self.last_seconds.is_finite() { self.last_seconds + step } else { 0.0 }
            }
        };
        self.last_seconds = seconds;
        seconds
    }

    fn bad_packet(&mut self, error: ffmpeg::Error) -> Result<(), MediaError> {
        self.bad_packets += 1;
        if self.bad_packets == 1 {
            self.notice(format!("parts of it are damaged and were left out ({error})"));
        }
        if self.bad_packets > MAX_BAD_PACKETS {
            return Err(MediaError::Damaged {
                path: self.path.clone(),
                expected: "frames that decode",
                found: format!("{MAX_BAD_PACKETS} damaged packets, the last: {error}"),
            });
        }
        Ok(())
    }

    fn notice(&mut self, message: String) {
        tracing::warn!("{}: {message}", self.path.display());
        if !self.notices.contains(&message) {
            self.notices.push(message);
        }
    }

    fn convert(&mut self, seconds: f64) -> Result<TimedPicture, MediaError> {
        let (w, h) = (self.decoded.width(), self.decoded.height());
        check_size(&self.path, &self.limits, w, h)?;
        let tags = ff::colour_tags(&self.decoded);
        let side = colour::source_side(self.decoded.format(), tags, w, h);
        if let Some(message) = colour::notice(tags)
            && !self.notices.iter().any(|n| n == message)
        {
            self.notice(message.to_owned());
        }
        if self.decoded.is_interlaced() && !self.info.interlaced {
            self.info.interlaced = true;
            self.notice("it is interlaced: fields are shown woven together".into());
        }
        if side.format != self.decoded.format() {
            self.decoded.set_format(side.format);
        }
        let known = matches!(&self.converter, Some((s, cw, ch, _)) if (*s, *cw, *ch) == (side, w, h));
        if !known {
            let rgb =
                Side { format: ffmpeg::format::Pixel::RGB24, matrix: ff::Matrix::Bt709, full_range: true };
            let made = Converter::new(&self.path, w, h, side, rgb)?;
            self.converter = Some((side, w, h, made));
        }
        let mut rgb = ffmpeg::frame::Video::empty();
        if let Some((_, _, _, converter)) = &mut self.converter {
            converter.run(&self.decoded, &mut rgb).map_err(|error| MediaError::Damaged {
                path: self.path.clone(),
                expected: "a frame that converts to RGB",
                found: error.to_string(),
            })?;
        }
        let row = w as usize * 3;
        let mut bytes = Vec::with_capacity(row * h as usize);
        if rgb.planes() > 0 {
            for line in rgb.data(0).chunks(rgb.stride(0)).take(h as usize) {
                bytes.extend_from_slice(line.get(..row).unwrap_or_default());
            }
        }
        let picture = self.info.orientation.apply(Picture::new(w, h, bytes)?)?;
        Ok(TimedPicture { seconds, picture })
    }
}

fn check_size(path: &Path, limits: &VideoLimits, w: u32, h: u32) -> Result<(), MediaError> {
    if u64::from(w) * u64::from(h) > limits.max_pixels {
        return Err(over(path, format!("{} pixels a frame", limits.max_pixels), format!("{w}x{h}")));
    }
    Ok(())
}

fn over(path: &Path, limit: String, found: String) -> MediaError {
    MediaError::OverLimit { path: path.to_path_buf(), limit, found }
}
