//! Many pictures on one sheet, for looking at results.

use super::ops::resize;
use super::picture::{Picture, PictureError};

const GAP: u32 = 4;
const GROUND: u8 = 32;

/// Tiles `pictures` row by row in `columns`, each fitted into `cell` (width, height) pixels.
///
/// # Errors
/// There are no pictures.
pub fn contact_sheet(pictures: &[Picture], columns: u32, cell: (u32, u32)) -> Result<Picture, PictureError> {
    let columns = columns.clamp(1, (pictures.len() as u32).max(1));
    let rows = (pictures.len() as u32).div_ceil(columns);
    let (cell_w, cell_h) = (cell.0.max(1), cell.1.max(1));
    let width = columns * (cell_w + GAP) + GAP;
    let height = if rows == 0 { 0 } else { rows * (cell_h + GAP) + GAP };
    let mut rgb = vec![GROUND; width as usize * height as usize * 3];
    for (index, picture) in pictures.iter().enumerate() {
        let scale = (f64::from(cell_w) / f64::from(picture.width()))
            .min(f64::from(cell_h) / f64::from(picture.height()));
        let fit = |side: u32, most: u32| ((f64::from(side) * scale).round() as u32).clamp(1, most);
        let (w, h) = (fit(picture.width(), cell_w), fit(picture.height(), cell_h));
        let small = resize(picture, w, h);
        let left = GAP + index as u32 % columns * (cell_w + GAP) + (cell_w - w) / 2;
        let top = GAP + index as u32 / columns * (cell_h + GAP) + (cell_h - h) / 2;
        for (y, row) in small.rgb().chunks_exact(w as usize * 3).enumerate() {
            let at = ((top as usize + y) * width as usize + left as usize) * 3;
            rgb[at..at + row.len()].copy_from_slice(row);
        }
    }
    Picture::new(width, height, rgb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_where_they_should_be() {
        let red = Picture::new(10, 10, [200, 0, 0].repeat(100)).unwrap();
        let wide = Picture::new(20, 10, [0, 200, 0].repeat(200)).unwrap();
        let sheet = contact_sheet(&[red.clone(), wide, red], 2, (8, 8)).unwrap();
        assert_eq!((sheet.width(), sheet.height()), (28, 28));
        let at = |x: usize, y: usize| sheet.rgb()[(y * 28 + x) * 3..][..3].to_vec();
        assert_eq!(at(8, 8), [200, 0, 0]);
        assert_eq!(at(20, 8), [0, 200, 0]);
        assert_eq!(at(20, 5), [GROUND; 3]);
        assert_eq!(at(8, 20), [200, 0, 0]);
        assert_eq!(at(20, 20), [GROUND; 3]);
        assert!(contact_sheet(&[], 3, (8, 8)).is_err());
    }
}
