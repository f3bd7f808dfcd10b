//! Exact Euclidean distances (Felzenszwalb & Huttenlocher, Theory of Computing 2012) and the
//! morphology made from them.

use super::{inside, rewritten};
use crate::media::Mask;

/// Distance in pixels from each pixel's centre to the nearest `true` pixel's centre; infinite when
/// there is none. Row-major `width * height`.
pub fn distance_to(set: &[bool], width: usize, height: usize) -> Vec<f32> {
    let far = (width * width + height * height + 1) as f32;
    let mut squared: Vec<f32> = vec![far; set.len()];
    // Down and up each column, whole rows at a time.
    let mut since = vec![far; width];
    for y in 0..height {
        sweep(&mut since, &set[y * width..(y + 1) * width], &mut squared[y * width..(y + 1) * width], far);
    }
    since.fill(far);
    for y in (0..height).rev() {
        sweep(&mut since, &set[y * width..(y + 1) * width], &mut squared[y * width..(y + 1) * width], far);
    }
    let mut envelope = Envelope::new(width);
    for row in squared.chunks_exact_mut(width) {
        for v in row.iter_mut() {
            *v = if *v >= far { f32::INFINITY } else { *v * *v };
        }
        envelope.transform(row);
    }
    for v in &mut squared {
        *v = v.sqrt();
    }
    squared
}

fn sweep(since: &mut [f32], set: &[bool], least: &mut [f32], far: f32) {
    for ((since, &hit), least) in since.iter_mut().zip(set).zip(least) {
        *since = if hit { 0.0 } else { (*since + 1.0).min(far) };
        *least = least.min(*since);
    }
}

/// The lower envelope of parabolas over one row.
struct Envelope {
    vertex: Vec<usize>,
    start: Vec<f64>,
    copy: Vec<f32>,
}

impl Envelope {
    fn new(width: usize) -> Self {
        Self { vertex: Vec::with_capacity(width), start: Vec::with_capacity(width), copy: vec![0.0; width] }
    }

    fn transform(&mut self, row: &mut [f32]) {
        self.vertex.clear();
        self.start.clear();
        self.copy.copy_from_slice(row);
        for (x, &value) in self.copy.iter().enumerate() {
            if value.is_infinite() {
                continue;
            }
            let own = f64::from(value) + (x * x) as f64;
            let mut from = f64::NEG_INFINITY;
            while let (Some(&top), Some(&begin)) = (self.vertex.last(), self.start.last()) {
                let meet = (own - f64::from(self.copy[top]) - (top * top) as f64) / (2.0 * (x - top) as f64);
                if meet > begin {
                    from = meet;
                    break;
                }
                self.vertex.pop();
                self.start.pop();
            }
            self.vertex.push(x);
            self.start.push(from);
        }
        if self.vertex.is_empty() {
            return;
        }
        let mut k = 0;
        for (x, out) in row.iter_mut().enumerate() {
            while k + 1 < self.vertex.len() && self.start[k + 1] < x as f64 {
                k += 1;
            }
            let gap = x as f32 - self.vertex[k] as f32;
            *out = gap * gap + self.copy[self.vertex[k]];
        }
    }
}

fn to_set(mask: &Mask, set: &[bool]) -> Vec<f32> {
    distance_to(set, mask.width() as usize, mask.height() as usize)
}

/// Grows the inside by `px` pixels in every direction (a disc); the result is 0 or 1.
pub fn dilate(mask: &Mask, px: f32) -> Mask {
    let distance = to_set(mask, &inside(mask));
    rewritten(mask, |i| f32::from(u8::from(distance[i] <= px)))
}

/// Shrinks the inside by `px` pixels; the frame of the picture does not eat into it.
pub fn erode(mask: &Mask, px: f32) -> Mask {
    let outside: Vec<bool> = inside(mask).into_iter().map(|v| !v).collect();
    let distance = to_set(mask, &outside);
    rewritten(mask, |i| f32::from(u8::from(distance[i] > px)))
}

/// Replaces the contour by a smooth ramp that is ½ on it and reaches 0 and 1 `px` pixels away.
/// `px` ≤ 0 returns the mask unchanged.
pub fn feather(mask: &Mask, px: f32) -> Mask {
    if px <= 0.0 || px.is_nan() {
        return mask.clone();
    }
    let set = inside(mask);
    let to_inside = to_set(mask, &set);
    let outside: Vec<bool> = set.iter().map(|&v| !v).collect();
    let to_outside = to_set(mask, &outside);
    rewritten(mask, |i| {
        // The contour runs half a pixel from the centres on both sides of it.
        let depth = if set[i] { to_outside[i] - 0.5 } else { 0.5 - to_inside[i] };
        let t = (0.5 + 0.5 * depth / px).clamp(0.0, 1.0);
        t * t * (3.0 - 2.0 * t)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn distances_equal_brute_force(w in 1usize..20, h in 1usize..20, bits in prop::collection::vec(prop::bool::weighted(0.1), 400)) {
            let set = &bits[..w * h];
            let got = distance_to(set, w, h);
            for i in 0..w * h {
                let want = (0..w * h).filter(|&j| set[j]).map(|j| {
                    let (dx, dy) = ((i % w) as f32 - (j % w) as f32, (i / w) as f32 - (j / w) as f32);
                    (dx * dx + dy * dy).sqrt()
                }).fold(f32::INFINITY, f32::min);
                prop_assert!(got[i] == want || (got[i] - want).abs() < 1e-4, "{} for {}", got[i], want);
            }
        }
    }

    fn square() -> Mask {
        Mask::new(
            15,
            15,
            (0..225)
                .map(|i| f32::from(u8::from((5..10).contains(&(i % 15)) && (5..10).contains(&(i / 15)))))
                .collect(),
        )
        .unwrap()
    }

    #[test]
    fn dilate_and_erode_are_discs() {
        let grown = dilate(&square(), 2.0);
        assert_eq!(grown.alpha()[7 * 15 + 3], 1.0);
        assert_eq!(grown.alpha()[7 * 15 + 2], 0.0);
        assert_eq!(grown.alpha()[3 * 15 + 3], 0.0, "corners are round");
        assert_eq!(erode(&grown, 2.0).alpha(), square().alpha());
        assert_eq!(erode(&square(), 2.0).alpha().iter().sum::<f32>(), 1.0);
        let full = Mask::new(3, 3, vec![1.0; 9]).unwrap();
        assert_eq!(erode(&full, 1.0).alpha(), full.alpha());
    }

    #[test]
    fn feather_is_monotone_and_exact_at_its_ends() {
        let soft = feather(&square(), 2.0);
        let row: Vec<f32> = (0..8).map(|x| soft.alpha()[7 * 15 + x]).collect();
        assert!(row.windows(2).all(|p| p[0] <= p[1]), "{row:?}");
        assert_eq!((row[2], row[7]), (0.0, 1.0));
        assert!(row[4] < 0.5 && row[5] > 0.5);
        assert_eq!(feather(&square(), 0.0).alpha(), square().alpha());
    }
}
