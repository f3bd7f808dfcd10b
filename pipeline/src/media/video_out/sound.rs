//! The sound of a clip as a second stream of its file.

use std::path::Path;

use ffmpeg_next as ffmpeg;
use ffmpeg_next::ChannelLayout;
use ffmpeg_next::format::context::Output;
use ffmpeg_next::format::sample::{Sample, Type as Packing};

use super::{Codec, Quality};
use crate::media::error::MediaError;
use crate::media::ff;
use crate::media::video_in::SOUND_RATE;

/// Samples a moment that encoders without a block length of their own are given at once.
const BLOCK: usize = 1024;

/// How sound is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    encoder: &'static str,
    format: Sample,
    /// Bits a second; none where nothing is lost.
    bit_rate: Option<usize>,
}

impl Plan {
    /// What goes with a family of pictures in a container: nothing is lost where the pictures lose
    /// (nearly) nothing, WebM takes Opus alone, and AAC is for the rest.
    fn of(codec: Codec, muxer: &str, quality: Quality) -> Self {
        match (codec, muxer) {
            (Codec::ProRes | Codec::Ffv1, _) => {
                Self { encoder: "pcm_s24le", format: Sample::I32(Packing::Packed), bit_rate: None }
            }
            (_, "webm") => Self {
                encoder: "libopus",
                format: Sample::F32(Packing::Packed),
                bit_rate: Some(quality.pick(96_000, 160_000, 256_000)),
            },
            _ => Self {
                encoder: "aac",
                format: Sample::F32(Packing::Planar),
                bit_rate: Some(quality.pick(128_000, 192_000, 256_000)),
            },
        }
    }
}

/// Encodes stereo sound into a stream of an open container.
pub(super) struct SoundTrack {
    encoder: ffmpeg::encoder::Audio,
    format: Sample,
    stream: usize,
    block: usize,
    /// Samples not encoded yet, left and right in turn.
    waiting: Vec<f32>,
    /// Moments encoded.
    sent: i64,
}

impl SoundTrack {
    /// Adds the stream; the container's header is not written yet.
    pub(super) fn add(
        path: &Path,
        output: &mut Output,
        codec: Codec,
        muxer: &str,
        quality: Quality,
    ) -> Result<Self, MediaError> {
        let plan = Plan::of(codec, muxer, quality);
        let found = ff::encoder(path, plan.encoder)?;
        let fail = |error: ffmpeg::Error| MediaError::Encode {
            path: path.to_path_buf(),
            step: "setting up the sound",
            reason: error.to_string(),
        };
        let mut context = ffmpeg::codec::Context::new_with_codec(found);
        let mut flags = ffmpeg::codec::Flags::BITEXACT;
        if output.format().flags().contains(ffmpeg::format::Flags::GLOBAL_HEADER) {
            flags |= ffmpeg::codec::Flags::GLOBAL_HEADER;
        }
        context.set_flags(flags);
        let mut audio = context.encoder().audio().map_err(fail)?;
        audio.set_rate(SOUND_RATE as i32);
        audio.set_format(plan.format);
        audio.set_channel_layout(ChannelLayout::STEREO);
        audio.set_time_base(ffmpeg::Rational(1, SOUND_RATE as i32));
        if let Some(bits) = plan.bit_rate {
            audio.set_bit_rate(bits);
        }
        let encoder = audio.open_as(found).map_err(fail)?;
        let mut stream = output.add_stream(found).map_err(fail)?;
        ff::copy_parameters(&mut stream, &encoder).map_err(fail)?;
        stream.set_time_base(ffmpeg::Rational(1, SOUND_RATE as i32));
        let (stream, block) = (stream.index(), encoder.frame_size() as usize);
        let block = if block == 0 { BLOCK } else { block };
        Ok(Self { encoder, format: plan.format, stream, block, waiting: vec![], sent: 0 })
    }

    /// Appends sound, left and right in turn; whole blocks are encoded and written.
    pub(super) fn write(&mut self, samples: &[f32], output: &mut Output) -> Result<(), ffmpeg::Error> {
        self.waiting.extend_from_slice(samples);
        let whole = self.block * 2;
        let ready = self.waiting.len() / whole * whole;
        let blocks: Vec<f32> = self.waiting.drain(..ready).collect();
        for block in blocks.chunks(whole) {
            self.encode(block, output)?;
        }
        Ok(())
    }

    /// Encodes what is left, to the sample.
    pub(super) fn finish(&mut self, output: &mut Output) -> Result<(), ffmpeg::Error> {
        let rest = std::mem::take(&mut self.waiting);
        if !rest.is_empty() {
            self.encode(&rest, output)?;
        }
        self.encoder.send_eof()?;
        self.drain(output)
    }

    fn encode(&mut self, block: &[f32], output: &mut Output) -> Result<(), ffmpeg::Error> {
        let count = block.len() / 2;
        let mut frame = ffmpeg::frame::Audio::new(self.format, count, ChannelLayout::STEREO);
        if frame.planes() == 0 {
            return Err(ffmpeg::Error::Other { errno: ffmpeg::error::ENOMEM });
        }
        frame.set_rate(SOUND_RATE);
        frame.set_pts(Some(self.sent));
        fill(&mut frame, block);
        self.sent += count as i64;
        self.encoder.send_frame(&frame)?;
        self.drain(output)
    }

    fn drain(&mut self, output: &mut Output) -> Result<(), ffmpeg::Error> {
        let mut packet = ffmpeg::Packet::empty();
        loop {
            match self.encoder.receive_packet(&mut packet) {
                Ok(()) => {}
                Err(ffmpeg::Error::Eof) => return Ok(()),
                Err(ffmpeg::Error::Other { errno }) if errno == ffmpeg::error::EAGAIN => return Ok(()),
                Err(error) => return Err(error),
            }
            packet.set_stream(self.stream);
            let from = ffmpeg::Rational(1, SOUND_RATE as i32);
            let to = output.stream(self.stream).map_or(from, |stream| stream.time_base());
            packet.rescale_ts(from, to);
            packet.write_interleaved(output)?;
        }
    }
}

/// Puts left and right, in turn, into a frame of the encoder's layout.
fn fill(frame: &mut ffmpeg::frame::Audio, block: &[f32]) {
    let sane = |sample: f32| if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 };
    match frame.format() {
        Sample::F32(Packing::Planar) => {
            for channel in 0..2 {
                let of = block.iter().skip(channel).step_by(2);
                for (to, sample) in frame.data_mut(channel).as_chunks_mut::<4>().0.iter_mut().zip(of) {
                    *to = sane(*sample).to_ne_bytes();
                }
            }
        }
        Sample::I32(_) => {
            // 24 bits are kept; rounding to them here keeps the error even.
            let code = |sample: f32| ((f64::from(sane(sample)) * 8_388_607.0).round() as i32) << 8;
            for (to, sample) in frame.data_mut(0).as_chunks_mut::<4>().0.iter_mut().zip(block) {
                *to = code(*sample).to_ne_bytes();
            }
        }
        _ => {
            for (to, sample) in frame.data_mut(0).as_chunks_mut::<4>().0.iter_mut().zip(block) {
                *to = sane(*sample).to_ne_bytes();
            }
        }
    }
}
