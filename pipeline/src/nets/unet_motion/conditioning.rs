//! The nine-channel input: four noisy latents, one mask, four of the first frame.

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::error::{Result, UnetError};
use crate::media::Mask;

/// How mask and first-frame latents are laid out over the frames of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputLayout {
    /// As the paper says: the mask on frame 0 and zeros after; the first frame on every frame.
    Paper,
    /// As the released code does: the mask on every frame; the first frame on frame 0 and zeros
    /// after. Without a mask, ones on frame 0.
    #[default]
    Repo,
    /// As PIA's weights expect: one number a frame, the affinity to the first frame, in place of
    /// the mask; the first frame on every frame.
    Pia,
}

/// What fills the fifth channel.
#[derive(Debug, Clone, Copy)]
pub enum MaskInput<'a> {
    /// Coverage 0..1 at latent resolution, `[height, width]` ([`latent_mask`]).
    Region(&'a Tensor),
    /// The whole picture may move.
    Everything,
    /// Affinity to the first frame, 0..1, one a frame ([`pia_affinity`]).
    Affinity(&'a [f32]),
}

/// How much PIA's clip moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MotionSize {
    /// Affinity 1 falling to 0.8.
    Small,
    /// Affinity 1 falling to 0.75.
    Moderate,
    /// Affinity 1 falling to 0.5.
    Large,
}

/// Channels of the input this module builds for four latent channels.
pub const NINE_CHANNELS: usize = 9;

/// `[batch, frames, height, width, 2c + 1]`: `noisy` `[batch, frames, height, width, c]`, then the
/// mask, then the first frame's scaled latents `first` `[height, width, c]`.
///
/// # Errors
/// [`UnetError::Input`] if sizes differ or an affinity is not one a frame;
/// [`UnetError::Conditioning`] if the mask does not belong to the layout.
pub fn nine_channels(layout: InputLayout, noisy: &Tensor, first: &Tensor, mask: MaskInput) -> Result<Tensor> {
    let (batch, frames, h, w, c) = noisy.dims5()?;
    if first.dims() != [h, w, c] {
        let expected = format!("[{h}, {w}, {c}] like the noisy latents");
        return Err(UnetError::Input { name: "first frame", expected, got: first.dims().to_vec() });
    }
    let (dtype, device) = (noisy.dtype(), noisy.device());
    let first = first.to_dtype(dtype)?.unsqueeze(0)?;
    let first = match layout {
        InputLayout::Repo => on_first_frame(&first, frames)?,
        InputLayout::Paper | InputLayout::Pia => first.broadcast_as((frames, h, w, c))?,
    };
    let mask = mask_channel(layout, mask, (frames, h, w), dtype, device)?;
    let condition = Tensor::cat(&[&mask, &first.contiguous()?], 3)?.unsqueeze(0)?;
    let condition = condition.broadcast_as((batch, frames, h, w, c + 1))?;
    Ok(Tensor::cat(&[noisy, &condition.contiguous()?], 4)?)
}

/// `[frames, h, w, 1]`.
fn mask_channel(
    layout: InputLayout,
    mask: MaskInput,
    size: (usize, usize, usize),
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let (frames, h, w) = size;
    match (layout, mask) {
        (InputLayout::Pia, MaskInput::Affinity(values)) => {
            if values.len() != frames {
                let expected = format!("{frames} values, one a frame");
                return Err(UnetError::Input { name: "affinity", expected, got: vec![values.len()] });
            }
            let values = Tensor::from_slice(values, (frames, 1, 1, 1), device)?.to_dtype(dtype)?;
            Ok(values.broadcast_as((frames, h, w, 1))?.contiguous()?)
        }
        (InputLayout::Paper | InputLayout::Repo, MaskInput::Region(mask)) => {
            if mask.dims() != [h, w] {
                let expected = format!("[{h}, {w}] like the latents");
                return Err(UnetError::Input { name: "mask", expected, got: mask.dims().to_vec() });
            }
            let plane = mask.to_dtype(dtype)?.to_device(device)?.reshape((1, h, w, 1))?;
            if layout == InputLayout::Paper {
                on_first_frame(&plane, frames)
            } else {
                Ok(plane.broadcast_as((frames, h, w, 1))?.contiguous()?)
            }
        }
        (InputLayout::Paper | InputLayout::Repo, MaskInput::Everything) => {
            on_first_frame(&Tensor::ones((1, h, w, 1), dtype, device)?, frames)
        }
        (InputLayout::Pia, _) => Err(UnetError::Conditioning {
            name: "mask",
            problem: "the pia layout reads one affinity a frame; pass MaskInput::Affinity",
        }),
        (_, MaskInput::Affinity(_)) => Err(UnetError::Conditioning {
            name: "mask",
            problem: "only the pia layout reads an affinity; pass a region or everything",
        }),
    }
}

/// `plane` `[1, …]` on frame 0, zeros on the rest.
fn on_first_frame(plane: &Tensor, frames: usize) -> Result<Tensor> {
    if frames == 1 {
        return Ok(plane.clone());
    }
    let mut rest = plane.dims().to_vec();
    if let Some(count) = rest.first_mut() {
        *count = frames - 1;
    }
    Ok(Tensor::cat(&[plane, &Tensor::zeros(rest, plane.dtype(), plane.device())?], 0)?)
}

/// A picture's mask at latent resolution, `[height, width]` f32: the nearest pixel, and any
/// coverage counts as 1, as in the released inference.
pub fn latent_mask(mask: &Mask, height: usize, width: usize, device: &Device) -> Result<Tensor> {
    let (from_w, from_h) = (mask.width() as usize, mask.height() as usize);
    let alpha = mask.alpha();
    let mut values = Vec::with_capacity(height * width);
    for y in 0..height {
        for x in 0..width {
            let covered = alpha[(y * from_h / height) * from_w + x * from_w / width] > 0.0;
            values.push(f32::from(u8::from(covered)));
        }
    }
    Ok(Tensor::from_vec(values, (height, width), device)?)
}

/// PIA's published affinity of each frame to the first, its last value held; with `looping` the second half
/// mirrors the first, so that the clip ends where it began.
pub fn pia_affinity(size: MotionSize, frames: usize, looping: bool) -> Vec<f32> {
    let curve: &[f32] = match (size, looping) {
        (MotionSize::Small, _) => &[1.0, 0.9, 0.85, 0.85, 0.85, 0.8],
        (MotionSize::Moderate, _) => &[1.0, 0.8, 0.8, 0.8, 0.79, 0.78, 0.75],
        (MotionSize::Large, false) => &[1.0, 0.8, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.5],
        (MotionSize::Large, true) => &[1.0, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5],
    };
    let at = |frame: usize| curve.get(frame).or(curve.last()).copied().unwrap_or(1.0);
    (0..frames).map(|frame| at(if looping { frame.min(frames - 1 - frame) } else { frame })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (usize, usize) = (2, 3);

    fn noisy() -> Tensor {
        Tensor::arange(0f32, 2.0 * 3.0 * 24.0, &Device::Cpu).unwrap().reshape((2, 3, 2, 3, 4)).unwrap()
    }

    fn first() -> Tensor {
        Tensor::full(7f32, (SIZE.0, SIZE.1, 4), &Device::Cpu).unwrap()
    }

    fn region() -> Tensor {
        Tensor::new(&[[0f32, 1.0, 0.0], [1.0, 1.0, 0.0]], &Device::Cpu).unwrap()
    }

    /// One channel of one frame of the second batch item.
    fn plane(x: &Tensor, frame: usize, channel: usize) -> Vec<f32> {
        let frame = x.get(1).unwrap().get(frame).unwrap();
        frame.narrow(2, channel, 1).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn latents_come_first_whatever_the_layout() {
        let (region, affinity) = (region(), [1.0, 0.9, 0.8]);
        let cases = [
            (InputLayout::Paper, MaskInput::Region(&region)),
            (InputLayout::Repo, MaskInput::Everything),
            (InputLayout::Pia, MaskInput::Affinity(&affinity)),
        ];
        for (layout, mask) in cases {
            let x = nine_channels(layout, &noisy(), &first(), mask).unwrap();
            assert_eq!(x.dims(), [2, 3, 2, 3, NINE_CHANNELS]);
            for (frame, channel) in [(0, 0), (2, 3)] {
                assert_eq!(plane(&x, frame, channel), plane(&noisy(), frame, channel));
            }
        }
    }

    #[test]
    fn paper_has_the_mask_once_and_the_frame_everywhere() {
        let x = nine_channels(InputLayout::Paper, &noisy(), &first(), MaskInput::Region(&region())).unwrap();
        assert_eq!(plane(&x, 0, 4), [0.0, 1.0, 0.0, 1.0, 1.0, 0.0]);
        assert_eq!(plane(&x, 1, 4), [0.0; 6]);
        for frame in 0..3 {
            assert_eq!(plane(&x, frame, 5), [7.0; 6]);
        }
    }

    #[test]
    fn repo_has_the_mask_everywhere_and_the_frame_once() {
        let x = nine_channels(InputLayout::Repo, &noisy(), &first(), MaskInput::Region(&region())).unwrap();
        for frame in 0..3 {
            assert_eq!(plane(&x, frame, 4), [0.0, 1.0, 0.0, 1.0, 1.0, 0.0]);
        }
        assert_eq!(plane(&x, 0, 8), [7.0; 6]);
        assert_eq!(plane(&x, 2, 8), [0.0; 6]);
        let free = nine_channels(InputLayout::Repo, &noisy(), &first(), MaskInput::Everything).unwrap();
        assert_eq!((plane(&free, 0, 4), plane(&free, 1, 4)), (vec![1.0; 6], vec![0.0; 6]));
    }

    #[test]
    fn pia_has_one_number_a_frame() {
        let affinity = pia_affinity(MotionSize::Small, 3, false);
        let x = nine_channels(InputLayout::Pia, &noisy(), &first(), MaskInput::Affinity(&affinity)).unwrap();
        assert_eq!((plane(&x, 0, 4), plane(&x, 1, 4)), (vec![1.0; 6], vec![0.9; 6]));
        assert_eq!(plane(&x, 2, 5), [7.0; 6]);
    }

    #[test]
    fn affinities_hold_their_last_value_and_loops_come_back() {
        let moderate = pia_affinity(MotionSize::Moderate, 16, false);
        assert_eq!((moderate[0], moderate[6], moderate[15]), (1.0, 0.75, 0.75));
        let round = pia_affinity(MotionSize::Large, 16, true);
        assert_eq!((round[0], round[15], round[7]), (1.0, 1.0, 0.5));
        assert!(round.iter().eq(round.iter().rev()));
    }

    #[test]
    fn what_does_not_belong_is_refused() {
        let affinity = [1.0, 0.5];
        let small = region().narrow(1, 0, 2).unwrap();
        let cases = [
            (InputLayout::Pia, MaskInput::Everything, "UNet input mask: the pia layout"),
            (InputLayout::Repo, MaskInput::Affinity(&affinity), "UNet input mask: only the pia layout"),
            (InputLayout::Pia, MaskInput::Affinity(&affinity), "UNet input affinity: expected 3 values"),
            (InputLayout::Paper, MaskInput::Region(&small), "UNet input mask: expected [2, 3]"),
        ];
        for (layout, mask, expected) in cases {
            let error = nine_channels(layout, &noisy(), &first(), mask).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn any_coverage_of_the_nearest_pixel_counts() {
        let mut alpha = vec![0.0; 16];
        alpha[10] = 0.01;
        let mask = Mask::new(4, 4, alpha).unwrap();
        let values: Vec<Vec<f32>> = latent_mask(&mask, 2, 2, &Device::Cpu).unwrap().to_vec2().unwrap();
        assert_eq!(values, [[0.0, 0.0], [0.0, 1.0]]);
    }
}
