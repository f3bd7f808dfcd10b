//! What a clip looks like while it is denoised.
//!
//! The sharp part is known before the first step: it is the guide. What the denoiser adds so far is
//! decoded at half the size, as the difference to the decoded base, and laid over the guide. That is
//! how the finished frames are composed too, at a quarter of the work a frame.

use std::time::Instant;

use candle_core::Tensor;

use super::load::Embedded;
use crate::media::Raster;
use crate::sampling::denoise::StepReport;
use crate::systems::follow_your_click::Hooks;
use crate::systems::follow_your_click::guide::GuideFrame;
use crate::systems::follow_your_click::preview::{show, spread};

/// Share of the time since the first step that previews may take.
const SHARE: f64 = 0.06;

/// Makes previews of one clip, within their share of the time.
pub(super) struct Previews<'a> {
    model: &'a Embedded,
    hooks: &'a Hooks<'a>,
    /// Frames shown, and their pictures without what the denoiser adds.
    shown: Vec<u32>,
    pictures: Vec<Raster>,
    /// What the clip is a residual to, of the frames shown.
    base: Tensor,
    /// The same through the decoder, once it was needed.
    decoded: Option<Vec<Raster>>,
    spent: f64,
    /// Cost of the last one, to know beforehand what the next will take.
    last: f64,
}

impl<'a> Previews<'a> {
    /// Shows the guide, and gets ready for the steps; none where nobody looks.
    pub(super) fn begin(
        model: &'a Embedded,
        hooks: &'a Hooks<'a>,
        guide: &[GuideFrame],
        base: &Tensor,
        total: usize,
    ) -> Option<Self> {
        if !hooks.progress.wants_previews() {
            return None;
        }
        let shown = spread(guide.len());
        let pictures = shown.iter().filter_map(|&t| Some(guide.get(t as usize)?.picture.clone())).collect();
        let index = Tensor::from_slice(&shown, shown.len(), base.device()).ok()?;
        let base = base.index_select(&index, 0).ok()?;
        let previews = Self { model, hooks, shown, pictures, base, decoded: None, spent: 0.0, last: 0.0 };
        show(hooks, 0, total, previews.pictures.iter());
        Some(previews)
    }

    /// Shows the clean estimate after a step, if there is time for it. A preview that fails is left
    /// out: the clip does not depend on it.
    pub(super) fn step(&mut self, report: &StepReport<'_>) {
        // After the last step the frames themselves are decoded.
        if report.done >= report.total || self.spent + self.last > SHARE * report.elapsed {
            return;
        }
        let begun = Instant::now();
        match self.estimate(report.clean) {
            Ok(frames) => show(self.hooks, report.done, report.total, frames.iter()),
            Err(error) => tracing::debug!(%error, "no preview"),
        }
        self.last = begun.elapsed().as_secs_f64();
        self.spent += self.last;
    }

    fn estimate(&mut self, clean: &Tensor) -> candle_core::Result<Vec<Raster>> {
        if self.decoded.is_none() {
            self.decoded = Some(self.decode(&self.base)?);
        }
        let index = Tensor::from_slice(&self.shown, self.shown.len(), clean.device())?;
        let sum = (&self.base + clean.index_select(&index, 0)?.to_dtype(self.base.dtype())?)?;
        let now = self.decode(&sum)?;
        let before = self.decoded.iter().flatten();
        let frames = self.pictures.iter().zip(now.iter().zip(before)).map(|(picture, (now, before))| {
            let change = Raster {
                data: now.data.iter().zip(&before.data).map(|(a, b)| a - b).collect(),
                ..now.clone()
            };
            let change = change.resized(picture.width, picture.height);
            let data = picture.data.iter().zip(&change.data).map(|(p, c)| (p + c).clamp(-1.0, 1.0));
            Raster { data: data.collect(), ..picture.clone() }
        });
        Ok(frames.collect())
    }

    /// Pictures of latents at half their size.
    fn decode(&self, latents: &Tensor) -> candle_core::Result<Vec<Raster>> {
        let (_, h, w, _) = latents.dims4()?;
        let small = if h >= 2 && w >= 2 {
            let planes = latents.permute((0, 3, 1, 2))?.contiguous()?;
            planes.avg_pool2d(2)?.permute((0, 2, 3, 1))?.contiguous()?
        } else {
            latents.clone()
        };
        let pictures = self.model.autoencoder.decode(&small).map_err(candle_core::Error::wrap)?;
        let (frames, height, width, channels) = pictures.dims4()?;
        (0..frames)
            .map(|frame| {
                let data = pictures.get(frame)?.flatten_all()?.to_vec1::<f32>()?;
                Ok(Raster { width, height, channels, data })
            })
            .collect()
    }
}

/// Shows the frames that are decoded, before they are composed at full size.
pub(super) fn show_decoded(hooks: &Hooks<'_>, steps: usize, decoded: &[Raster]) {
    let shown = spread(decoded.len());
    show(hooks, steps, steps, shown.iter().filter_map(|&t| decoded.get(t as usize)));
}
