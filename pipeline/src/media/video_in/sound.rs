//! How loud a clip's sound is over time, for drawing it.

use std::path::Path;

use ffmpeg_next as ffmpeg;
use ffmpeg_next::ChannelLayout;
use ffmpeg_next::format::sample::{Sample, Type as Packing};
use ffmpeg_next::media::Type;
use ffmpeg_next::software::resampling;

use super::open::{self, Deadline};
use crate::media::error::MediaError;
use crate::media::limits::VideoLimits;

/// Samples a second that loudness is taken from: enough for what a drawing shows.
const RATE: u32 = 8000;
/// Damaged packets borne before the sound counts as damaged throughout.
const MAX_BAD_PACKETS: u32 = 1000;

/// The loudest sample, 0..=1, of each of `per_second` stretches of every second of a file's first
/// sound stream; `None` when it has none. Packets are read one at a time and none is kept.
///
/// `stop` is asked now and then; what was read until then is given.
///
/// # Errors
/// The file cannot be opened within `limits`, or its sound cannot be decoded.
pub fn loudness(
    path: &Path,
    per_second: u32,
    limits: &VideoLimits,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Vec<f32>>, MediaError> {
    let (mut input, deadline) = open::open(path, limits)?;
    let Some(stream) = input.streams().best(Type::Audio) else { return Ok(None) };
    let damaged = |error: ffmpeg::Error| MediaError::Damaged {
        path: path.to_path_buf(),
        expected: "sound that decodes",
        found: error.to_string(),
    };
    let index = stream.index();
    let context = ffmpeg::codec::Context::from_parameters(stream.parameters()).map_err(damaged)?;
    let decoder = context.decoder().audio().map_err(damaged)?;
    let most = (limits.max_seconds * f64::from(per_second)) as usize;
    let mut meter = Meter {
        decoder,
        mono: None,
        stretch: (RATE / per_second.clamp(1, RATE)) as usize,
        held: 0,
        loudest: 0.0,
        out: vec![],
        most,
    };
    let mut bad = 0;
    let mut ended = false;
    while !ended && meter.out.len() < most && !stop() {
        renewed(&deadline, limits);
        let mut packet = ffmpeg::Packet::empty();
        let fed = match packet.read(&mut input) {
            Ok(()) if packet.stream() != index => continue,
            Ok(()) => meter.decoder.send_packet(&packet),
            Err(_) if deadline.passed() => return Err(open::timed_out(path, limits)),
            Err(_) => {
                ended = true;
                meter.decoder.send_eof()
            }
        };
        if let Err(error) = fed.and_then(|()| meter.drain()) {
            bad += 1;
            if bad > MAX_BAD_PACKETS {
                return Err(damaged(error));
            }
        }
    }
    meter.finish();
    Ok(Some(meter.out))
}

fn renewed(deadline: &Deadline, limits: &VideoLimits) {
    deadline.renew(limits.call_deadline);
}

struct Meter {
    decoder: ffmpeg::decoder::Audio,
    mono: Option<resampling::Context>,
    /// Samples of one stretch.
    stretch: usize,
    held: usize,
    loudest: f32,
    out: Vec<f32>,
    most: usize,
}

impl Meter {
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
        let mono = match &mut self.mono {
            Some(mono) => mono,
            None => self.mono.insert(resampling::Context::get(
                frame.format(),
                frame.channel_layout(),
                frame.rate(),
                Sample::F32(Packing::Packed),
                ChannelLayout::MONO,
                RATE,
            )?),
        };
        let mut out = ffmpeg::frame::Audio::empty();
        mono.run(frame, &mut out)?;
        if out.samples() == 0 {
            return Ok(());
        }
        for &sample in out.plane::<f32>(0) {
            self.loudest = self.loudest.max(if sample.is_finite() { sample.abs().min(1.0) } else { 0.0 });
            self.held += 1;
            if self.held >= self.stretch.max(1) {
                self.close();
            }
        }
        Ok(())
    }

    fn close(&mut self) {
        if self.out.len() < self.most {
            self.out.push(self.loudest);
        }
        (self.held, self.loudest) = (0, 0.0);
    }

    fn finish(&mut self) {
        if self.held > 0 {
            self.close();
        }
    }
}
