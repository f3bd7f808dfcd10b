//! Sound from files: by position, at one rate, as stereo or mono.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use ffmpeg_next as ffmpeg;
use ffmpeg_next::ChannelLayout;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::format::sample::{Sample, Type as Packing};
use ffmpeg_next::media::Type;
use ffmpeg_next::software::resampling;

use super::Channels;
use super::open::{self, Deadline};
use crate::media::error::MediaError;
use crate::media::ff;
use crate::media::limits::VideoLimits;

/// Damaged packets borne before the sound counts as damaged throughout.
const MAX_BAD_PACKETS: u32 = 1000;
/// Seconds decoded before a moment that was jumped to: coders of music need what came before.
const LEAD: f64 = 0.2;
/// Seconds that are rather decoded than jumped over.
const NEAR: i64 = 4;

/// A stretch of decoded sound.
struct Block {
    /// The place of its first sample, counted from second 0 of the clip.
    at: i64,
    /// Samples, the channels of one moment together.
    samples: Vec<f32>,
}

/// Reads the first sound stream of a file.
///
/// Second 0 is the first moment of the file's video, so that both have one time; of the sound where there
/// is no video. Packets are decoded one at a time, and only what was asked for is held.
pub struct SoundReader {
    path: PathBuf,
    limits: VideoLimits,
    input: Input,
    deadline: Deadline,
    stream: usize,
    decoder: ffmpeg::decoder::Audio,
    resampler: Option<resampling::Context>,
    channels: Channels,
    rate: u32,
    /// Seconds a unit of time stamps lasts.
    unit: f64,
    /// The second of the stream's own time that is second 0.
    origin: f64,
    blocks: VecDeque<Block>,
    /// The place before which nothing is held.
    floor: i64,
    /// The place of the next sample to be decoded; none before one was.
    next: Option<i64>,
    ended: bool,
    bad_packets: u32,
}

impl std::fmt::Debug for SoundReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SoundReader").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SoundReader {
    /// Opens the sound of `path`, to be given with `rate` samples a second; `None` when it has none.
    ///
    /// # Errors
    /// The file cannot be opened within `limits`, or there is no decoder for its sound.
    pub fn open(
        path: &Path,
        rate: u32,
        channels: Channels,
        limits: &VideoLimits,
    ) -> Result<Option<Self>, MediaError> {
        let (mut input, deadline) = open::open(path, limits)?;
        let Some(stream) = input.streams().best(Type::Audio) else { return Ok(None) };
        let damaged = |error: ffmpeg::Error| damaged(path, error);
        let index = stream.index();
        let (unit, own) = (seconds_of(stream.time_base()), stream.start_time());
        let origin = match input.streams().best(Type::Video) {
            Some(video) => stamp(video.start_time()).map(|at| at as f64 * seconds_of(video.time_base())),
            None => stamp(own).map(|at| at as f64 * unit),
        };
        let context = ffmpeg::codec::Context::from_parameters(stream.parameters()).map_err(damaged)?;
        let mut decoder = context.decoder();
        // Else a decoder that leaves out the start of a packet keeps the packet's stamp.
        decoder.set_packet_time_base(stream.time_base());
        let decoder = decoder.audio().map_err(damaged)?;
        ff::read_only(&mut input, index);
        Ok(Some(Self {
            path: path.to_path_buf(),
            limits: limits.clone(),
            input,
            deadline,
            stream: index,
            decoder,
            resampler: None,
            channels,
            rate: rate.clamp(1000, 384_000),
            unit,
            origin: origin.unwrap_or(0.0),
            blocks: VecDeque::new(),
            floor: i64::MIN,
            next: None,
            ended: false,
            bad_packets: 0,
        }))
    }

    /// Fills `out` with the sound from the sample `from` on, counted from second 0; silence where there is
    /// none. The samples of one moment's channels stand together.
    ///
    /// # Errors
    /// The sound is damaged beyond going on.
    pub fn read(&mut self, from: i64, out: &mut [f32]) -> Result<(), MediaError> {
        out.fill(0.0);
        let width = self.channels.count();
        let until = from.saturating_add((out.len() / width) as i64);
        let reach = self.next.unwrap_or(0).saturating_add(NEAR * i64::from(self.rate));
        if from < self.floor || from > reach {
            self.go_to(from)?;
        }
        self.floor = from;
        while !self.ended && self.next.is_none_or(|next| next < until) {
            self.decode()?;
            self.blocks.retain(|block| block.end(width) > from);
        }
        for block in &self.blocks {
            // What lies before second 0 only fills the coder.
            let (first, last) = (block.at.max(from).max(0), block.end(width).min(until));
            if first >= last {
                continue;
            }
            let count = (last - first) as usize * width;
            let (to, of) = ((first - from) as usize * width, (first - block.at) as usize * width);
            if let (Some(to), Some(of)) = (out.get_mut(to..to + count), block.samples.get(of..of + count)) {
                to.copy_from_slice(of);
            }
        }
        Ok(())
    }

    /// Every sample from the present place on, block by block, until `take` wants no more.
    pub(super) fn stream(&mut self, mut take: impl FnMut(&[f32]) -> bool) -> Result<(), MediaError> {
        let mut on = true;
        while on && !self.ended {
            self.decode()?;
            for block in self.blocks.drain(..) {
                on = on && take(&block.samples);
            }
        }
        Ok(())
    }

    fn go_to(&mut self, place: i64) -> Result<(), MediaError> {
        self.deadline.renew(self.limits.call_deadline);
        // Before second 0 too: what fills the coder lies there.
        let seconds = place as f64 / f64::from(self.rate) - LEAD + self.origin;
        ff::seek_stream(&mut self.input, self.stream, (seconds / self.unit).floor() as i64)
            .map_err(|error| damaged(&self.path, error))?;
        self.decoder.flush();
        self.blocks.clear();
        (self.resampler, self.next, self.ended) = (None, None, false);
        Ok(())
    }

    /// Reads one packet of the stream, or the end.
    fn decode(&mut self) -> Result<(), MediaError> {
        self.deadline.renew(self.limits.call_deadline);
        let mut packet = ffmpeg::Packet::empty();
        let fed = match packet.read(&mut self.input) {
            Ok(()) if packet.stream() != self.stream => return Ok(()),
            Ok(()) => self.decoder.send_packet(&packet),
            Err(_) if self.deadline.passed() => return Err(open::timed_out(&self.path, &self.limits)),
            Err(_) => {
                self.ended = true;
                self.decoder.send_eof()
            }
        };
        if let Err(error) = fed.and_then(|()| self.drain()) {
            self.bad_packets += 1;
            if self.bad_packets > MAX_BAD_PACKETS {
                return Err(damaged(&self.path, error));
            }
        }
        if self.ended {
            self.flush();
        }
        Ok(())
    }

    /// Takes in every frame the decoder has ready.
    fn drain(&mut self) -> Result<(), ffmpeg::Error> {
        let mut frame = ffmpeg::frame::Audio::empty();
        loop {
            match self.decoder.receive_frame(&mut frame) {
                Ok(()) => self.take(&mut frame)?,
                Err(ffmpeg::Error::Eof) => return Ok(()),
                Err(ffmpeg::Error::Other { errno }) if errno == ffmpeg::error::EAGAIN => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, frame: &mut ffmpeg::frame::Audio) -> Result<(), ffmpeg::Error> {
        if frame.channel_layout().is_empty() {
            frame.set_channel_layout(ChannelLayout::default(i32::from(frame.channels())));
        }
        // The best guess of a stamp does not know what the decoder left out at the start.
        let stamped = frame
            .pts()
            .or(frame.timestamp())
            .map(|stamp| ((stamp as f64 * self.unit - self.origin) * f64::from(self.rate)).round() as i64);
        // Stamps are coarse in some containers; only a real gap, or an overlap, moves what follows.
        let slack = i64::from(self.rate / 20);
        let place = match (self.next, stamped) {
            (Some(next), Some(stamped)) if (stamped - next).abs() > slack => {
                self.resampler = None;
                stamped
            }
            (Some(next), _) => next,
            // Whole milliseconds, as Matroska has them, are no reason to begin beside the picture.
            (None, Some(stamped)) if stamped.abs() < i64::from(self.rate / 500) => 0,
            (None, stamped) => stamped.unwrap_or(0),
        };
        self.next = Some(place);
        let known = self.resampler.as_ref().is_some_and(|known| {
            let of = known.input();
            (of.format, of.channel_layout, of.rate) == (frame.format(), frame.channel_layout(), frame.rate())
        });
        if !known {
            self.flush();
            // FFmpeg makes one channel quieter when it becomes two; here each is the one.
            let mono = frame.channels() == 1 || self.channels == Channels::Mono;
            self.resampler = Some(resampling::Context::get(
                frame.format(),
                frame.channel_layout(),
                frame.rate(),
                Sample::F32(Packing::Packed),
                if mono { ChannelLayout::MONO } else { ChannelLayout::STEREO },
                self.rate,
            )?);
        }
        let Some(resampler) = &mut self.resampler else { return Ok(()) };
        let held = resampler.delay().map_or(0, |delay| delay.output.max(0) as usize);
        let room = frame.samples() * self.rate as usize / (frame.rate().max(1) as usize) + held + 64;
        let mut out =
            ffmpeg::frame::Audio::new(resampler.output().format, room, resampler.output().channel_layout);
        resampler.run(frame, &mut out)?;
        self.keep(&out);
        Ok(())
    }

    /// What the resampler still holds.
    fn flush(&mut self) {
        let Some(mut resampler) = self.resampler.take() else { return };
        let Some(delay) = resampler.delay() else { return };
        let room = delay.output.max(0) as usize + 64;
        let output = *resampler.output();
        let mut out = ffmpeg::frame::Audio::new(output.format, room, output.channel_layout);
        if resampler.flush(&mut out).is_ok() {
            self.keep(&out);
        }
    }

    fn keep(&mut self, frame: &ffmpeg::frame::Audio) {
        let count = frame.samples();
        let Some(at) = self.next.filter(|_| count > 0 && frame.planes() > 0) else { return };
        let sane = |sample: f32| if sample.is_finite() { sample } else { 0.0 };
        let mono = frame.channels() == 1;
        let bytes = frame.data(0).as_chunks::<4>().0.iter().map(|bytes| sane(f32::from_ne_bytes(*bytes)));
        let samples: Vec<f32> = if mono && self.channels == Channels::Stereo {
            bytes.take(count).flat_map(|sample| [sample, sample]).collect()
        } else {
            bytes.take(count * self.channels.count()).collect()
        };
        self.next = Some(at + count as i64);
        self.blocks.push_back(Block { at, samples });
    }
}

impl Block {
    fn end(&self, width: usize) -> i64 {
        self.at + (self.samples.len() / width) as i64
    }
}

fn stamp(value: i64) -> Option<i64> {
    (value != ffmpeg::ffi::AV_NOPTS_VALUE).then_some(value)
}

fn seconds_of(base: ffmpeg::Rational) -> f64 {
    f64::from(base.numerator()) / f64::from(base.denominator().max(1))
}

fn damaged(path: &Path, error: ffmpeg::Error) -> MediaError {
    MediaError::Damaged { path: path.to_path_buf(), expected: "sound that decodes", found: error.to_string() }
}
