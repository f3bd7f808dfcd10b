//! Pictures and masks as the screen wants them.

use eframe::egui::{Color32, ColorImage};
use kinora_pipeline::media::{Mask, Picture, resize, resize_mask};
use rayon::prelude::*;

/// The longest side of what is shown; more is only seen when zoomed in far.
pub(crate) const MAX_PREVIEW: u32 = 3072;
/// The longest side of a mask as shown: one of a full-HD picture is drawn as it is.
const MAX_MASK: u32 = 1920;

fn fit(width: u32, height: u32, longest: u32) -> (u32, u32) {
    let long = width.max(height).max(1);
    if long <= longest {
        return (width, height);
    }
    let side = |v: u32| ((u64::from(v) * u64::from(longest) / u64::from(long)) as u32).max(1);
    (side(width), side(height))
}

/// A picture at most `longest` pixels wide and high.
pub(crate) fn preview(picture: &Picture, longest: u32) -> ColorImage {
    let (width, height) = fit(picture.width(), picture.height(), longest);
    let size = [width as usize, height as usize];
    if (width, height) == (picture.width(), picture.height()) {
        return ColorImage::from_rgb(size, picture.rgb());
    }
    ColorImage::from_rgb(size, resize(picture, width, height).rgb())
}

/// A mask as a tint with a drawn outline, and as white on black.
pub(crate) fn mask_views(mask: &Mask, colour: Color32) -> (ColorImage, ColorImage) {
    let (width, height) = fit(mask.width(), mask.height(), MAX_MASK);
    let small = ((width, height) != (mask.width(), mask.height())).then(|| resize_mask(mask, width, height));
    let alpha = small.as_ref().unwrap_or(mask).alpha();
    let (w, h) = (width as usize, height as usize);
    let at = |x: usize, y: usize| alpha.get(y * w + x).copied().unwrap_or(0.0);
    let reach = (w.max(h) / 640).max(1);
    // Most pixels lie wholly inside or outside.
    let [line, whole] = [0.95, 0.34].map(|strength| colour.gamma_multiply(strength));
    let (mut tint, mut matte) = (vec![Color32::TRANSPARENT; w * h], vec![Color32::BLACK; w * h]);
    let rows = tint.par_chunks_mut(w.max(1)).zip(matte.par_chunks_mut(w.max(1)));
    rows.enumerate().for_each(|(y, (tint, matte))| {
        for (x, (tint, matte)) in tint.iter_mut().zip(matte).enumerate() {
            let here = at(x, y);
            *matte = Color32::from_gray((here * 255.0 + 0.5) as u8);
            // The outline is where a neighbour lies on the other side of one half.
            let inside = here >= 0.5;
            let other = |nx: usize, ny: usize| (at(nx.min(w - 1), ny.min(h - 1)) >= 0.5) != inside;
            let edge = inside
                && (other(x + reach, y)
                    || other(x.saturating_sub(reach), y)
                    || other(x, y + reach)
                    || other(x, y.saturating_sub(reach)));
            *tint = match here {
                _ if edge => line,
                0.0 => Color32::TRANSPARENT,
                1.0 => whole,
                _ => colour.gamma_multiply(here * 0.34),
            };
        }
    });
    (ColorImage::new([w, h], tint), ColorImage::new([w, h], matte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn previews_keep_the_aspect_and_small_pictures_their_pixels() {
        let picture = Picture::new(4, 2, (0..24).collect()).unwrap();
        assert_eq!(preview(&picture, 4).pixels[1], Color32::from_rgb(3, 4, 5));
        let wide = Picture::new(4000, 10, vec![7; 4000 * 30]).unwrap();
        assert_eq!(preview(&wide, 1000).size, [1000, 2]);
        assert_eq!(fit(1, 30_000, 100), (1, 100));
    }

    #[test]
    fn a_mask_is_tinted_inside_and_lined_at_its_edge() {
        let mut alpha = vec![0.0; 25];
        for y in 1..4 {
            for x in 1..4 {
                alpha[y * 5 + x] = 1.0;
            }
        }
        let (tint, matte) = mask_views(&Mask::new(5, 5, alpha).unwrap(), Color32::RED);
        assert_eq!(tint.pixels[0], Color32::TRANSPARENT);
        assert!(tint.pixels[6].a() > 200 && (60..120).contains(&tint.pixels[12].a()));
        assert_eq!((matte.pixels[0], matte.pixels[12]), (Color32::BLACK, Color32::WHITE));
    }
}
