//! Animated GIF with palettes that follow the clip and pixels that stay when nothing moved.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use gif::{AnyExtension, DisposalMethod, Encoder, EncodingError, Frame, Repeat};

use super::palette::Palette;
use super::{EncodeSpec, MediaSink, WrittenFile, check_frame, no_frames};
use crate::media::error::MediaError;
use crate::media::picture::Picture;
use crate::store::atomic::AtomicFile;

/// Palettes are refitted when the mean squared error grows by this factor and this much.
const REFIT_FACTOR: f64 = 1.3;
const REFIT_FLOOR: f64 = 4.0;

pub(super) struct GifSink {
    path: PathBuf,
    spec: EncodeSpec,
    file: AtomicFile,
    encoder: Encoder<BufWriter<File>>,
    palette: Option<Palette>,
    fitted_error: f64,
    last: Option<Picture>,
    frames: u64,
}

impl GifSink {
    pub(super) fn create(path: &Path, spec: &EncodeSpec) -> Result<Self, MediaError> {
        // Players slow anything under 2 hundredths down to 10.
        if spec.fps.0 > spec.fps.1.saturating_mul(50) {
            return Err(MediaError::BadSpec {
                path: path.to_path_buf(),
                expected: "at most 50 frames a second for GIF, which counts in hundredths".into(),
                found: format!("{}/{}", spec.fps.0, spec.fps.1),
            });
        }
        let mut file = AtomicFile::create(path)?;
        let writer = file.file_mut().try_clone().map_err(|e| MediaError::write(path, e))?;
        let fail = |error| from_gif(path, error);
        let mut encoder =
            Encoder::new(BufWriter::new(writer), spec.width as u16, spec.height as u16, &[]).map_err(fail)?;
        encoder.set_repeat(Repeat::Infinite).map_err(fail)?;
        if let Some(recipe) = &spec.recipe {
            let blocks: Vec<&[u8]> = recipe.as_bytes().chunks(255).collect();
            encoder.write_raw_extension(AnyExtension(0xFE), &blocks).map_err(fail)?;
        }
        Ok(Self {
            path: path.to_path_buf(),
            spec: spec.clone(),
            file,
            encoder,
            palette: None,
            fitted_error: 0.0,
            last: None,
            frames: 0,
        })
    }

    /// Hundredths of a second this frame shows, so that the sum never drifts.
    fn delay(&self) -> u16 {
        let (num, den) = (u64::from(self.spec.fps.0), u64::from(self.spec.fps.1));
        let at = |frame: u64| (frame * den * 100 + num / 2) / num;
        u16::try_from(at(self.frames + 1) - at(self.frames)).unwrap_or(u16::MAX)
    }
}

impl MediaSink for GifSink {
    fn write(&mut self, picture: &Picture) -> Result<(), MediaError> {
        check_frame(&self.path, &self.spec, self.frames, picture)?;
        let rgb = picture.rgb();
        let stale = match &mut self.palette {
            None => true,
            Some(palette) => {
                palette.error(rgb) > (self.fitted_error * REFIT_FACTOR).max(self.fitted_error + REFIT_FLOOR)
            }
        };
        if stale {
            let mut fitted = Palette::fit(rgb);
            self.fitted_error = fitted.error(rgb);
            self.palette = Some(fitted);
        }
        let Some(palette) = &mut self.palette else {
            return Err(no_frames(&self.path));
        };
        let keep: Option<Vec<bool>> = self
            .last
            .as_ref()
            .map(|last| last.rgb().chunks_exact(3).zip(rgb.chunks_exact(3)).map(|(a, b)| a == b).collect());
        let buffer = palette.dither(rgb, picture.width() as usize, keep.as_deref());
        let bytes = palette.bytes();
        let frame = Frame {
            width: self.spec.width as u16,
            height: self.spec.height as u16,
            delay: self.delay(),
            dispose: DisposalMethod::Keep,
            transparent: keep.is_some().then_some(255),
            palette: Some(bytes),
            buffer: buffer.into(),
            ..Frame::default()
        };
        self.encoder.write_frame(&frame).map_err(|e| from_gif(&self.path, e))?;
        self.last = Some(picture.clone());
        self.frames += 1;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<WrittenFile, MediaError> {
        let this = *self;
        if this.frames == 0 {
            return Err(no_frames(&this.path));
        }
        let writer = this.encoder.into_inner().map_err(|e| from_gif(&this.path, e))?;
        let file = writer.into_inner().map_err(|e| MediaError::write(&this.path, e.into_error()))?;
        let bytes = file.metadata().map_err(|e| MediaError::write(&this.path, e))?.len();
        this.file.commit(this.spec.overwrite)?;
        Ok(WrittenFile { path: this.path, bytes, frames: this.frames })
    }
}

fn from_gif(path: &Path, error: EncodingError) -> MediaError {
    match error {
        EncodingError::Io(source) => MediaError::write(path, source),
        other => {
            MediaError::Encode { path: path.to_path_buf(), step: "GIF encoding", reason: other.to_string() }
        }
    }
}
