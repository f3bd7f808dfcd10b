//! Connected pieces, holes, and masks drawn as boxes and polygons.

use super::{MaskError, inside, rewritten};
use crate::media::Mask;

/// 4-connected pieces of the `true` pixels: a piece number per pixel (`u32::MAX` outside) and the
/// pixels in each piece.
fn pieces(set: &[bool], width: usize) -> (Vec<u32>, Vec<usize>) {
    let mut piece = vec![u32::MAX; set.len()];
    let mut sizes = Vec::new();
    let mut stack = Vec::new();
    for start in 0..set.len() {
        if !set[start] || piece[start] != u32::MAX {
            continue;
        }
        let id = sizes.len() as u32;
        piece[start] = id;
        stack.push(start);
        let mut size = 0;
        while let Some(i) = stack.pop() {
            size += 1;
            let x = i % width;
            let near = [
                (x > 0).then(|| i - 1),
                (x + 1 < width).then_some(i + 1),
                i.checked_sub(width),
                Some(i + width),
            ];
            for j in near.into_iter().flatten() {
                if j < set.len() && set[j] && piece[j] == u32::MAX {
                    piece[j] = id;
                    stack.push(j);
                }
            }
        }
        sizes.push(size);
    }
    (piece, sizes)
}

/// Removes pieces of `set` that hold none of `anchors`, unless none does.
pub fn keep_touching(set: &mut [bool], width: usize, anchors: &[usize]) {
    let (piece, sizes) = pieces(set, width);
    let mut kept = vec![false; sizes.len()];
    for &anchor in anchors {
        if let Some(&id) = piece.get(anchor)
            && id != u32::MAX
        {
            kept[id as usize] = true;
        }
    }
    if kept.iter().any(|&k| k) {
        for (value, id) in set.iter_mut().zip(piece) {
            *value = *value && kept[id as usize];
        }
    }
}

/// Keeps pieces of at least `share` (0..1) of the largest one's pixels.
pub fn keep_components(mask: &Mask, share: f32) -> Mask {
    let (piece, sizes) = pieces(&inside(mask), mask.width() as usize);
    let least = sizes.iter().copied().max().unwrap_or(0) as f32 * share;
    rewritten(mask, |i| match piece[i] {
        // The soft rim around a kept piece stays; it is under ½ and drives nothing.
        u32::MAX => mask.alpha()[i],
        id if sizes[id as usize] as f32 >= least => mask.alpha()[i],
        _ => 0.0,
    })
}

/// Fills holes of at most `share` (0..1) of the inside's pixels; a hole does not touch the frame.
pub fn fill_holes(mask: &Mask, share: f32) -> Mask {
    let set = inside(mask);
    let most = set.iter().filter(|&&v| v).count() as f32 * share;
    let filled = filled(&set, mask.width() as usize, most as usize, &[]);
    rewritten(mask, |i| if filled[i] && !set[i] { 1.0 } else { mask.alpha()[i] })
}

/// `set` with holes of at most `most` pixels filled, except those that hold one of `open`.
pub(in crate::control) fn filled(set: &[bool], width: usize, most: usize, open: &[usize]) -> Vec<bool> {
    let outside: Vec<bool> = set.iter().map(|&v| !v).collect();
    let (piece, sizes) = pieces(&outside, width);
    let height = set.len() / width;
    let mut fill: Vec<bool> = sizes.iter().map(|&s| s <= most).collect();
    for (i, &id) in piece.iter().enumerate() {
        let (x, y) = (i % width, i / width);
        if id != u32::MAX && (x == 0 || y == 0 || x + 1 == width || y + 1 == height || open.contains(&i)) {
            fill[id as usize] = false;
        }
    }
    piece.iter().map(|&id| id == u32::MAX || fill[id as usize]).collect()
}

/// A box `[x0, y0, x1, y1]` in fractions 0..1 of the picture as a mask with exact partial pixels.
pub fn from_box(width: u32, height: u32, area: [f64; 4]) -> Result<Mask, MaskError> {
    let [x0, y0, x1, y1] = area;
    if !area.iter().all(|v| (0.0..=1.0).contains(v)) || x0 >= x1 || y0 >= y1 {
        return Err(MaskError::Shape {
            what: "box",
            message: format!(
                "expected 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1, got x {x0}..{x1}, y {y0}..{y1}"
            ),
        });
    }
    let cover = |i: u32, n: u32, a: f64, b: f64| {
        ((b * f64::from(n)).min(f64::from(i + 1)) - (a * f64::from(n)).max(f64::from(i))).max(0.0) as f32
    };
    let columns: Vec<f32> = (0..width).map(|x| cover(x, width, x0, x1)).collect();
    let alpha = (0..height).flat_map(|y| {
        let tall = cover(y, height, y0, y1);
        columns.iter().map(move |&c| c * tall).collect::<Vec<_>>()
    });
    Ok(Mask::new(width, height, alpha.collect())?)
}

/// Polygons with corners in fractions 0..1 of the picture, even-odd filled (a polygon inside
/// another cuts a hole), 4 × 4 samples a pixel.
pub fn from_polygons(width: u32, height: u32, polygons: &[Vec<[f64; 2]>]) -> Result<Mask, MaskError> {
    for (index, polygon) in polygons.iter().enumerate() {
        let bad = polygon.iter().flatten().find(|v| !(0.0..=1.0).contains(*v));
        if polygon.len() < 3 || bad.is_some() {
            let message = match bad {
                Some(value) => {
                    format!("polygon {index}: expected corners in 0..1 of the picture, got {value}")
                }
                None => format!("polygon {index}: expected at least 3 corners, got {}", polygon.len()),
            };
            return Err(MaskError::Shape { what: "polygons", message });
        }
    }
    let (w, h) = (width as usize, height as usize);
    let mut alpha = vec![0.0f32; w * h];
    let mut crossings = Vec::new();
    for line in 0..4 * h {
        let y = (line as f64 + 0.5) / (4 * h) as f64;
        crossings.clear();
        for polygon in polygons {
            for (k, a) in polygon.iter().enumerate() {
                let b = polygon[(k + 1) % polygon.len()];
                if (a[1] <= y) != (b[1] <= y) {
                    crossings.push(a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]));
                }
            }
        }
        crossings.sort_by(f64::total_cmp);
        for pair in crossings.chunks_exact(2) {
            let sample = |x: f64| ((x * (4 * w) as f64 - 0.5).ceil().max(0.0) as usize).min(4 * w);
            for s in sample(pair[0])..sample(pair[1]) {
                alpha[line / 4 * w + s / 4] += 1.0 / 16.0;
            }
        }
    }
    Ok(Mask::new(width, height, alpha)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_and_components() {
        let picture = ["#####....", "#...#..#.", "#...#....", "#####...."];
        let alpha = picture.concat().bytes().map(|b| if b == b'#' { 1.0 } else { 0.0 }).collect();
        let mask = Mask::new(9, 4, alpha).unwrap();
        assert_eq!(fill_holes(&mask, 1.0).alpha().iter().sum::<f32>(), 21.0);
        assert_eq!(fill_holes(&mask, 0.1).alpha(), mask.alpha());
        assert_eq!(keep_components(&mask, 0.2).alpha().iter().sum::<f32>(), 14.0);
        let mut set = inside(&mask);
        keep_touching(&mut set, 9, &[16]);
        assert_eq!(set.iter().filter(|&&v| v).count(), 1);
    }

    #[test]
    fn boxes_and_polygons_agree() {
        let drawn = from_box(8, 4, [0.25, 0.25, 0.75, 1.0]).unwrap();
        let square = vec![[0.25, 0.25], [0.75, 0.25], [0.75, 1.0], [0.25, 1.0]];
        assert_eq!(drawn.alpha(), from_polygons(8, 4, &[square]).unwrap().alpha());
        let half = from_box(2, 1, [0.0, 0.0, 0.75, 1.0]).unwrap();
        assert_eq!(half.alpha(), [1.0, 0.5]);
    }

    #[test]
    fn shapes_outside_the_picture_are_refused() {
        assert!(from_box(4, 4, [0.5, 0.0, 0.5, 1.0]).is_err());
        assert!(from_box(4, 4, [0.0, f64::NAN, 0.5, 1.0]).is_err());
        assert!(
            from_polygons(4, 4, &[vec![[0.0, 0.0], [1.0, 1.0]]])
                .unwrap_err()
                .to_string()
                .contains("3 corners")
        );
        assert!(
            from_polygons(4, 4, &[vec![[0.0, 0.0], [1.0, 1.0], [0.0, 1.5]]])
                .unwrap_err()
                .to_string()
                .contains("1.5")
        );
    }
}
