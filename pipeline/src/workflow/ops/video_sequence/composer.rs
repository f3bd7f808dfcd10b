//! Puts the frames and the sound of a sequence together when they are asked for.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Fit, MOMENT, opacity, rate};
use crate::media::{Picture, SOUND_RATE, resize};
use crate::workflow::context::RunError;
use crate::workflow::value::{Clip, Frames, Sound, frame_at};

/// A clip at its place.
#[derive(Debug)]
pub(super) struct Laid {
    pub(super) clip: Clip,
    pub(super) at: f64,
    pub(super) end: f64,
    pub(super) from: f64,
    pub(super) fades: (f64, f64),
    /// The fades of its sound.
    pub(super) sound: (f64, f64),
    pub(super) volume: f64,
}

/// Puts frames together.
#[derive(Debug)]
pub(super) struct Composer {
    laid: Vec<Laid>,
    size: (u32, u32),
    fit: Fit,
    fps: f64,
    /// The latest frames as they were fitted: which clip, which frame.
    kept: Mutex<Vec<(usize, usize, Arc<Picture>)>>,
}

/// Fitted frames kept: a frame of a slow clip is shown several times, and two are under a fade.
const KEPT: usize = 3;

impl Composer {
    /// Of clips at their places, the lowest first.
    pub(super) fn new(laid: Vec<Laid>, size: (u32, u32), fit: Fit, fps: f64) -> Self {
        Self { laid, size, fit, fps, kept: Mutex::new(vec![]) }
    }

    fn fitted(&self, which: usize, laid: &Laid, t: f64) -> Result<Arc<Picture>, RunError> {
        let index = frame_at(laid.from + (t - laid.at), rate(laid.clip.fps()), laid.clip.frames());
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., picture)) = lock().iter().find(|(clip, frame, _)| (*clip, *frame) == (which, index))
        {
            return Ok(Arc::clone(picture));
        }
        let picture = Arc::new(fitted(laid.clip.frame(index)?, self.size, self.fit)?);
        let mut kept = lock();
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((which, index, Arc::clone(&picture)));
        Ok(picture)
    }
}

impl Frames for Composer {
    fn frame(&self, index: usize) -> Result<Picture, RunError> {
        let t = index as f64 / self.fps;
        // From the top down to the first that lets nothing through.
        let mut layers = vec![];
        for (which, laid) in self.laid.iter().enumerate().rev() {
            if t < laid.at - MOMENT || t >= laid.end - MOMENT {
                continue;
            }
            let opacity = opacity(t, (laid.at, laid.end), laid.fades, self.fps);
            layers.push((self.fitted(which, laid, t)?, opacity));
            if opacity >= 1.0 {
                break;
            }
        }
        let (width, height) = self.size;
        let (mut out, above) = match layers.pop() {
            Some((bottom, opacity)) if opacity >= 1.0 => ((*bottom).clone(), layers),
            bottom => {
                let black = vec![0; width as usize * height as usize * 3];
                let black = Picture::new(width, height, black).map_err(|e| RunError::bug(e.to_string()))?;
                layers.extend(bottom);
                (black, layers)
            }
        };
        for (picture, opacity) in above.iter().rev() {
            lay_over(&mut out, picture, *opacity);
        }
        Ok(out)
    }
}

impl Sound for Composer {
    fn read(&self, from: u64, out: &mut [f32]) -> Result<(), RunError> {
        out.fill(0.0);
        let second = f64::from(SOUND_RATE);
        let mut part = vec![0.0; out.len()];
        for laid in self.laid.iter().filter(|laid| laid.clip.has_sound() && laid.volume > 0.0) {
            // Its first and last sample here, and its sample where its stretch begins.
            let place = |seconds: f64| (seconds * second).round() as u64;
            let (begin, end) = (place(laid.at), place(laid.end));
            let (first, last) = (begin.max(from), end.min(from + out.len() as u64 / 2));
            if first >= last {
                continue;
            }
            let part = part.get_mut(..(last - first) as usize * 2).unwrap_or_default();
            laid.clip.sound(place(laid.from) + (first - begin), part)?;
            let to = out.get_mut((first - from) as usize * 2..).unwrap_or_default();
            mix(to, part, |index| {
                let t = (first + index as u64) as f64 / second;
                laid.volume * loudness_at(t, (laid.at, laid.end), laid.sound)
            });
        }
        Ok(())
    }
}

/// Adds sound, left and right in turn, with the factor of each moment.
pub fn mix(to: &mut [f32], of: &[f32], factor: impl Fn(usize) -> f64) {
    for (index, (to, of)) in to.chunks_exact_mut(2).zip(of.chunks_exact(2)).enumerate() {
        let factor = factor(index) as f32;
        for (to, of) in to.iter_mut().zip(of) {
            *to += of * factor;
        }
    }
}

/// The factor of a clip's sound at `t` where it begins at `at`, ends at `end` and fades: a quarter of a sine,
/// so that two clips of which one fades in as the other fades out stay equally loud together.
pub fn loudness_at(t: f64, (at, end): (f64, f64), (fade_in, fade_out): (f64, f64)) -> f64 {
    let part = |seconds: f64, fade: f64| {
        if fade > MOMENT {
            ((seconds / fade).clamp(0.0, 1.0) * std::f64::consts::FRAC_PI_2).sin()
        } else {
            1.0
        }
    };
    part(t - at, fade_in).min(part(end - t, fade_out))
}

/// Mixes encoded values, as editors do for a dissolve.
fn lay_over(below: &mut Picture, above: &Picture, opacity: f64) {
    let weight = (opacity.clamp(0.0, 1.0) * 65536.0).round() as u32;
    for (b, a) in below.rgb_mut().iter_mut().zip(above.rgb()) {
        let mixed = (u32::from(*b) * (65536 - weight) + u32::from(*a) * weight + 32768) >> 16;
        *b = mixed.min(255) as u8;
    }
}

/// A picture as a frame of that size.
fn fitted(picture: Picture, (width, height): (u32, u32), fit: Fit) -> Result<Picture, RunError> {
    if (picture.width(), picture.height()) == (width, height) {
        return Ok(picture);
    }
    let across = f64::from(width) / f64::from(picture.width());
    let down = f64::from(height) / f64::from(picture.height());
    let scale = if fit == Fit::Contain { across.min(down) } else { across.max(down) };
    let side = |v: u32| ((f64::from(v) * scale).round() as u32).max(1);
    let scaled = resize(&picture, side(picture.width()), side(picture.height()));
    let (w, h) = (scaled.width().min(width), scaled.height().min(height));
    // Where the scaled picture is wider its middle is taken, else it is put in the middle.
    let take = ((scaled.width() - w) / 2, (scaled.height() - h) / 2);
    let put = ((width - w) / 2, (height - h) / 2);
    let mut rgb = vec![0; width as usize * height as usize * 3];
    for y in 0..h {
        let from = ((take.1 + y) as usize * scaled.width() as usize + take.0 as usize) * 3;
        let to = ((put.1 + y) as usize * width as usize + put.0 as usize) * 3;
        let count = w as usize * 3;
        if let (Some(source), Some(target)) =
            (scaled.rgb().get(from..from + count), rgb.get_mut(to..to + count))
        {
            target.copy_from_slice(source);
        }
    }
    Picture::new(width, height, rgb).map_err(|error| RunError::bug(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: u32, height: u32, value: u8) -> Picture {
        Picture::new(width, height, vec![value; (width * height * 3) as usize]).unwrap()
    }

    #[test]
    fn mixing_reaches_both_ends_exactly() {
        for (opacity, want) in [(0.0, 10), (1.0, 250), (0.5, 130)] {
            let mut below = grey(2, 1, 10);
            lay_over(&mut below, &grey(2, 1, 250), opacity);
            assert_eq!(below, grey(2, 1, want), "{opacity}");
        }
    }

    #[test]
    fn pictures_are_fitted_with_black_or_cut() {
        let wide = grey(40, 20, 200);
        let contained = fitted(wide.clone(), (20, 20), Fit::Contain).unwrap();
        let row = |picture: &Picture, y: usize| picture.rgb()[y * 20 * 3];
        assert_eq!([0, 4, 5, 14, 15].map(|y| row(&contained, y)), [0, 0, 200, 200, 0]);
        assert_eq!(fitted(wide.clone(), (20, 20), Fit::Cover).unwrap(), grey(20, 20, 200));
        assert_eq!(fitted(wide.clone(), (40, 20), Fit::Cover).unwrap(), wide);
        assert_eq!(fitted(grey(1, 1, 9), (3, 2), Fit::Cover).unwrap(), grey(3, 2, 9));
    }
}
