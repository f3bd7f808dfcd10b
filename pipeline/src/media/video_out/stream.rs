//! The part all FFmpeg families share: convert, encode, mux, put in place.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ffmpeg_next as ffmpeg;
use ffmpeg_next::format::Pixel;
use ffmpeg_next::format::context::{Output, StreamIo};

use super::colour::Tags;
use super::disk::{Target, disk_or};
use super::sound::SoundTrack;
use super::{Colour, EncodeSpec, MediaSink, WrittenFile, check_frame, no_frames, webp_recipe};
use crate::media::error::MediaError;
use crate::media::ff::{self, Converter, Matrix, Side};
use crate::media::picture::Picture;
use crate::media::recipe::RECIPE_KEY;
use crate::media::video_in::SOUND_RATE;
use crate::store::atomic::AtomicFile;

/// How one family encodes.
pub(super) struct FamilyPlan {
    /// FFmpeg's name of the encoder.
    pub(super) encoder: &'static str,
    /// The pixel format it is fed.
    pub(super) format: Pixel,
    /// The encoder's private options.
    pub(super) options: Vec<(&'static str, String)>,
    /// Four-character code to store instead of the muxer's own choice, in MP4 and QuickTime.
    pub(super) tag: Option<[u8; 4]>,
    /// Fixed, so that the same frames give the same bytes on every machine.
    pub(super) threads: usize,
}

/// Writes a clip through FFmpeg.
pub(super) struct StreamSink {
    path: PathBuf,
    spec: EncodeSpec,
    // Before the file: closing the context may still flush into it.
    output: Output,
    encoder: ffmpeg::encoder::video::Encoder,
    sound: Option<SoundTrack>,
    tags: Tags,
    converter: Option<Converter>,
    source: ffmpeg::frame::Video,
    converted: ffmpeg::frame::Video,
    error: Arc<Mutex<Option<std::io::Error>>>,
    file: AtomicFile,
    time_base: ffmpeg::Rational,
    frames: u64,
    packets: u64,
}

impl StreamSink {
    pub(super) fn create(path: &Path, spec: &EncodeSpec, plan: FamilyPlan) -> Result<Self, MediaError> {
        let mut file = AtomicFile::create(path)?;
        let writer = file.file_mut().try_clone().map_err(|e| MediaError::write(path, e))?;
        Self::with_writer(path, spec, plan, file, writer)
    }

    /// `writer` is the open temporary of `file`, except in tests of failing disks.
    fn with_writer(
        path: &Path,
        spec: &EncodeSpec,
        plan: FamilyPlan,
        file: AtomicFile,
        writer: File,
    ) -> Result<Self, MediaError> {
        let codec = ff::encoder(path, plan.encoder)?;
        let fail = |step| {
            move |error: ffmpeg::Error| MediaError::Encode {
                path: path.to_path_buf(),
                step,
                reason: error.to_string(),
            }
        };
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        let muxer = match extension.as_str() {
            "m4v" | "mp4" => "mp4",
            "mov" => "mov",
            "mkv" => "matroska",
            "webm" => "webm",
            _ => "webp",
        };
        let error = Arc::new(Mutex::new(None));
        let target = Target { file: writer, error: Arc::clone(&error) };
        // The MP4 muxer opens the file a second time, by name, to move the index to the front.
        let absolute = std::path::absolute(file.path()).map_err(|e| MediaError::write(path, e))?;
        let Some(name) = absolute.to_str() else {
            return Err(MediaError::BadSpec {
                path: path.to_path_buf(),
                expected: "a path in Unicode".into(),
                found: "other bytes".into(),
            });
        };
        let io = StreamIo::from_write_seek(target).map_err(fail("opening the output"))?;
        let mut output = ffmpeg::format::output_to_stream(io, Some(&format!("file:{name}")), Some(muxer))
            .map_err(|_| MediaError::MissingPart {
                path: path.to_path_buf(),
                kind: "container writer",
                name: muxer.to_owned(),
            })?;

        let is_rgb = !plan.format.descriptor().is_some_and(|d| d.name().starts_with("yuv"));
        let (num, den) = (spec.fps.0 as i32, spec.fps.1 as i32);
        let time_base = ffmpeg::Rational(den, num);
        let mut context = ffmpeg::codec::Context::new_with_codec(codec);
        context.set_threading(ffmpeg::threading::Config {
            kind: ffmpeg::threading::Type::Frame,
            count: plan.threads,
            ..ffmpeg::threading::Config::default()
        });
        let mut flags = ffmpeg::codec::Flags::BITEXACT;
        if output.format().flags().contains(ffmpeg::format::Flags::GLOBAL_HEADER) {
            flags |= ffmpeg::codec::Flags::GLOBAL_HEADER;
        }
        context.set_flags(flags);
        let mut video = context.encoder().video().map_err(fail("setting up the encoder"))?;
        video.set_width(spec.width);
        video.set_height(spec.height);
        video.set_format(plan.format);
        video.set_time_base(time_base);
        video.set_frame_rate(Some(ffmpeg::Rational(num, den)));
        video.set_aspect_ratio(ffmpeg::Rational(1, 1));
        let usual = spec.codec.colours().first().copied().unwrap_or(Colour::Srgb);
        let tags = Tags::of(spec.colour.unwrap_or(usual), is_rgb);
        video.set_colorspace(tags.space);
        video.set_color_range(tags.range);
        video.set_color_transfer_characteristic(tags.transfer);
        video.set_color_primaries(tags.primaries);
        let mut options = ffmpeg::Dictionary::new();
        for (key, value) in &plan.options {
            options.set(key, value);
        }
        let encoder = video.open_with(options).map_err(fail("opening the encoder"))?;

        let mut stream = output.add_stream(codec).map_err(fail("adding the stream"))?;
        ff::copy_parameters(&mut stream, &encoder).map_err(fail("adding the stream"))?;
        stream.set_time_base(time_base);
        stream.set_avg_frame_rate(ffmpeg::Rational(num, den));
        stream.set_rate(ffmpeg::Rational(num, den));
        if let Some(tag) = plan.tag.filter(|_| matches!(muxer, "mp4" | "mov")) {
            ff::set_stream_tag(&mut stream, tag);
        }
        let sound = spec.sound && spec.codec.has_sound();
        let sound = sound.then(|| SoundTrack::add(path, &mut output, spec.codec, muxer, spec.quality));
        let sound = sound.transpose()?;
        if let Some(recipe) = spec.recipe.as_deref().filter(|_| muxer != "webp") {
            let mut metadata = ffmpeg::Dictionary::new();
            metadata.set(RECIPE_KEY, recipe);
            output.set_metadata(metadata);
        }
        let mut header = ffmpeg::Dictionary::new();
        // No dates, versions or random identifiers: the same clip gives the same bytes.
        header.set("fflags", "+bitexact");
        match muxer {
            "mp4" | "mov" => {
                header.set("movflags", "+faststart+use_metadata_tags+write_colr");
                // Lengths are kept in these units; milliseconds cannot say how long sound is to the sample.
                if sound.is_some() {
                    header.set("movie_timescale", &SOUND_RATE.to_string());
                }
            }
            "webp" => header.set("loop", "0"),
            _ => {}
        }
        output.write_header_with(header).map_err(|e| disk_or(path, &error, e, "writing the header"))?;

        let (converter, source) = if plan.format == Pixel::BGRZ || plan.format == Pixel::BGRA {
            (None, ffmpeg::frame::Video::new(plan.format, spec.width, spec.height))
        } else {
            let from = Side { format: Pixel::RGB24, matrix: Matrix::Bt709, full_range: true };
            let to = Side { format: plan.format, matrix: tags.matrix, full_range: tags.full_range() };
            (
                Some(Converter::new(path, spec.width, spec.height, from, to)?),
                ffmpeg::frame::Video::new(Pixel::RGB24, spec.width, spec.height),
            )
        };
        if source.planes() == 0 {
            return Err(fail("allocating a frame")(ffmpeg::Error::Other { errno: ffmpeg::error::ENOMEM }));
        }
        Ok(Self {
            path: path.to_path_buf(),
            spec: spec.clone(),
            output,
            encoder,
            sound,
            tags,
            converter,
            source,
            converted: ffmpeg::frame::Video::empty(),
            error,
            file,
            time_base,
            frames: 0,
            packets: 0,
        })
    }

    fn fail(&self, step: &'static str) -> impl Fn(ffmpeg::Error) -> MediaError + use<'_> {
        move |error| disk_or(&self.path, &self.error, error, step)
    }

    fn fill_source(&mut self, picture: &Picture) {
        let width = picture.width() as usize;
        let swizzled = self.converter.is_none();
        let stride = self.source.stride(0);
        let rows = picture.rgb().chunks_exact(width * 3);
        for (to, from) in self.source.data_mut(0).chunks_mut(stride).zip(rows) {
            if swizzled {
                for (out, pixel) in to.chunks_exact_mut(4).zip(from.chunks_exact(3)) {
                    if let [r, g, b] = *pixel {
                        out.copy_from_slice(&[b, g, r, 255]);
                    }
                }
            } else if let Some(to) = to.get_mut(..from.len()) {
                to.copy_from_slice(from);
            }
        }
    }

    fn drain(&mut self) -> Result<(), MediaError> {
        let mut packet = ffmpeg::Packet::empty();
        loop {
            match self.encoder.receive_packet(&mut packet) {
                Ok(()) => {}
                Err(ffmpeg::Error::Eof) => return Ok(()),
                Err(ffmpeg::Error::Other { errno }) if errno == ffmpeg::error::EAGAIN => {
                    return Ok(());
                }
                Err(error) => return Err(self.fail("encoding")(error)),
            }
            self.packets += 1;
            packet.set_stream(0);
            if packet.duration() == 0 {
                packet.set_duration(1);
            }
            let to = self.output.stream(0).map_or(self.time_base, |stream| stream.time_base());
            packet.rescale_ts(self.time_base, to);
            packet
                .write_interleaved(&mut self.output)
                .map_err(|e| disk_or(&self.path, &self.error, e, "writing"))?;
        }
    }
}

impl MediaSink for StreamSink {
    fn write(&mut self, picture: &Picture) -> Result<(), MediaError> {
        check_frame(&self.path, &self.spec, self.frames, picture)?;
        // The encoder may still hold the last frame's buffers.
        ff::make_writable(&mut self.source).map_err(self.fail("allocating a frame"))?;
        self.fill_source(picture);
        let stamp = Some(self.frames as i64);
        let sent = if let Some(converter) = &mut self.converter {
            self.converted = ffmpeg::frame::Video::empty();
            let done = converter.run(&self.source, &mut self.converted);
            done.map_err(|e| disk_or(&self.path, &self.error, e, "colour conversion"))?;
            self.converted.set_pts(stamp);
            self.tags.put(&mut self.converted);
            self.encoder.send_frame(&self.converted)
        } else {
            self.source.set_pts(stamp);
            self.encoder.send_frame(&self.source)
        };
        sent.map_err(self.fail("encoding"))?;
        self.frames += 1;
        self.drain()
    }

    fn sound(&mut self, samples: &[f32]) -> Result<(), MediaError> {
        let Some(sound) = &mut self.sound else { return Ok(()) };
        let done = sound.write(samples, &mut self.output);
        done.map_err(|e| disk_or(&self.path, &self.error, e, "writing the sound"))
    }

    fn finish(mut self: Box<Self>) -> Result<WrittenFile, MediaError> {
        if self.frames == 0 {
            return Err(no_frames(&self.path));
        }
        if let Some(sound) = &mut self.sound {
            let done = sound.finish(&mut self.output);
            done.map_err(|e| disk_or(&self.path, &self.error, e, "writing the sound"))?;
        }
        self.encoder.send_eof().map_err(self.fail("encoding"))?;
        self.drain()?;
        // An animated WebP is one packet; every other family has one for each frame shown.
        let whole = self.spec.codec == super::Codec::WebpAnimation && self.packets > 0;
        if !whole && self.packets != self.frames {
            return Err(MediaError::Encode {
                path: self.path.clone(),
                step: "encoding",
                reason: format!(
                    "expected {} frames in the file, the encoder gave {}",
                    self.frames, self.packets
                ),
            });
        }
        self.output
            .write_trailer()
            .map_err(|e| disk_or(&self.path, &self.error, e, "closing the container"))?;
        let Self { path, spec, output, error, mut file, frames, .. } = *self;
        drop(output);
        if let Some(source) = error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(MediaError::write(&path, source));
        }
        if let Some(recipe) = spec.recipe.as_ref().filter(|_| spec.codec == super::Codec::WebpAnimation) {
            webp_recipe::append(file.file_mut(), recipe).map_err(|e| MediaError::write(&path, e))?;
        }
        let bytes = std::fs::metadata(file.path()).map_err(|e| MediaError::write(&path, e))?.len();
        file.commit(spec.overwrite)?;
        Ok(WrittenFile { path, bytes, frames })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::super::families::{ffv1, h264, prores};
    use super::super::{Codec, Quality};
    use super::*;
    use crate::store::atomic::AtomicError;

    #[test]
    fn a_full_disk_is_named_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for (name, codec) in [("a.mp4", Codec::H264), ("a.mov", Codec::ProRes), ("a.mkv", Codec::Ffv1)] {
            let path = folder.path().join(name);
            let spec = EncodeSpec {
                codec,
                width: 64,
                height: 64,
                fps: (10, 1),
                quality: Quality::Standard,
                colour: None,
                sound: false,
                recipe: None,
                overwrite: false,
            };
            let plan = match codec {
                Codec::H264 => h264::plan(&spec),
                Codec::ProRes => prores::plan(&spec),
                _ => ffv1::plan(),
            };
            let file = AtomicFile::create(&path).unwrap();
            let full = File::options().write(true).open("/dev/full").unwrap();
            let result = StreamSink::with_writer(&path, &spec, plan, file, full).and_then(|sink| {
                let mut sink = Box::new(sink);
                for frame in 0..40u8 {
                    let picture =
                        Picture::new(64, 64, (0..64 * 64 * 3).map(|i| (i as u8) ^ frame).collect())?;
                    sink.write(&picture)?;
                }
                sink.finish()
            });
            let error = result.unwrap_err();
            assert!(matches!(error, MediaError::Write(AtomicError::Full { .. })), "{name}: {error}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{name}");
        }
    }
}
