//! SLIC superpixels (Achanta et al., PAMI 2012): k-means in (L, a, b, x, y).

use rayon::prelude::*;

use super::lab::Working;

/// Weight of position against colour (Lab units).
const COMPACTNESS: f32 = 8.0;
const ROUNDS: usize = 8;

/// Labels every pixel with a superpixel number; numbers run from 0 without gaps, every superpixel
/// is 4-connected. Returns the labels and their count; about `wanted` of them.
pub(super) fn superpixels(work: &Working, wanted: usize) -> (Vec<u32>, usize) {
    let (width, height) = (work.width, work.height);
    let step = (work.len() as f32 / wanted as f32).sqrt().max(1.0);
    let columns = ((width as f32 / step).round() as usize).clamp(1, width);
    let rows = ((height as f32 / step).round() as usize).clamp(1, height);
    let cell_x = |x: usize| x * columns / width;
    let cell_y = |y: usize| y * rows / height;

    let mut centres: Vec<[f32; 5]> = Vec::with_capacity(columns * rows);
    for r in 0..rows {
        for c in 0..columns {
            let (x, y) = ((2 * c + 1) * width / (2 * columns), (2 * r + 1) * height / (2 * rows));
            let [l, a, b] = work.lab[y * width + x];
            centres.push([l, a, b, x as f32, y as f32]);
        }
    }
    let space = (COMPACTNESS / step).powi(2);
    let mut labels = vec![0u32; work.len()];
    for _ in 0..ROUNDS {
        labels.par_chunks_mut(width).enumerate().for_each(|(y, row)| {
            let cy = cell_y(y);
            for (x, label) in row.iter_mut().enumerate() {
                let cx = cell_x(x);
                let [l, a, b] = work.lab[y * width + x];
                let mut best = f32::MAX;
                // A centre can only drift about one cell, so the nine around are enough.
                for r in cy.saturating_sub(1)..(cy + 2).min(rows) {
                    for c in cx.saturating_sub(1)..(cx + 2).min(columns) {
                        let m = &centres[r * columns + c];
                        let colour = (l - m[0]).powi(2) + (a - m[1]).powi(2) + (b - m[2]).powi(2);
                        let place = (x as f32 - m[3]).powi(2) + (y as f32 - m[4]).powi(2);
                        let d = colour + space * place;
                        if d < best {
                            best = d;
                            *label = (r * columns + c) as u32;
                        }
                    }
                }
            }
        });
        let mut sums = vec![([0.0f32; 5], 0.0f32); centres.len()];
        for (i, &label) in labels.iter().enumerate() {
            let (sum, n) = &mut sums[label as usize];
            let [l, a, b] = work.lab[i];
            for (s, v) in sum.iter_mut().zip([l, a, b, (i % width) as f32, (i / width) as f32]) {
                *s += v;
            }
            *n += 1.0;
        }
        for (centre, (sum, n)) in centres.iter_mut().zip(sums) {
            if n > 0.0 {
                *centre = sum.map(|v| v / n);
            }
        }
    }
    connect(work, &labels, step)
}

/// Splits labels into 4-connected pieces and joins pieces under half a cell to their most similar
/// neighbour.
fn connect(work: &Working, labels: &[u32], step: f32) -> (Vec<u32>, usize) {
    let (width, height) = (work.width, work.height);
    let mut piece = vec![u32::MAX; labels.len()];
    let mut sizes: Vec<u32> = Vec::new();
    let mut means: Vec<[f32; 3]> = Vec::new();
    let mut stack = Vec::new();
    for start in 0..labels.len() {
        if piece[start] != u32::MAX {
            continue;
        }
        let id = sizes.len() as u32;
        let (mut n, mut sum) = (0u32, [0.0f32; 3]);
        piece[start] = id;
        stack.push(start);
        while let Some(i) = stack.pop() {
            n += 1;
            for k in 0..3 {
                sum[k] += work.lab[i][k];
            }
            for j in neighbours4(i, width, height) {
                if piece[j] == u32::MAX && labels[j] == labels[i] {
                    piece[j] = id;
                    stack.push(j);
                }
            }
        }
        sizes.push(n);
        means.push(sum.map(|s| s / n as f32));
    }
    let mut around: Vec<Vec<u32>> = vec![Vec::new(); sizes.len()];
    for i in 0..labels.len() {
        let (x, y) = (i % width, i / width);
        for j in
            [(x + 1 < width).then_some(i + 1), (y + 1 < height).then_some(i + width)].into_iter().flatten()
        {
            let (a, b) = (piece[i], piece[j]);
            if a != b {
                if !around[a as usize].contains(&b) {
                    around[a as usize].push(b);
                }
                if !around[b as usize].contains(&a) {
                    around[b as usize].push(a);
                }
            }
        }
    }
    let mut root: Vec<u32> = (0..sizes.len() as u32).collect();
    let find = |root: &mut Vec<u32>, mut i: u32| {
        while root[i as usize] != i {
            root[i as usize] = root[root[i as usize] as usize];
            i = root[i as usize];
        }
        i
    };
    let smallest = (0.5 * step * step).max(1.0) as u32;
    let mut order: Vec<u32> = (0..sizes.len() as u32).filter(|&i| sizes[i as usize] < smallest).collect();
    order.sort_by_key(|&i| (sizes[i as usize], i));
    for id in order {
        let own = find(&mut root, id);
        if sizes[own as usize] >= smallest {
            continue;
        }
        let distance = |a: u32, b: u32| -> f32 {
            (0..3).map(|k| (means[a as usize][k] - means[b as usize][k]).powi(2)).sum()
        };
        let mut best: Option<(f32, u32)> = None;
        for &other in &around[id as usize] {
            let target = find(&mut root, other);
            if target != own {
                let d = distance(id, other);
                if best.is_none_or(|(least, _)| d < least) {
                    best = Some((d, target));
                }
            }
        }
        if let Some((_, target)) = best {
            root[own as usize] = target;
            sizes[target as usize] += sizes[own as usize];
        }
    }
    let mut number = vec![u32::MAX; root.len()];
    let mut count = 0;
    let labels = piece
        .iter()
        .map(|&p| {
            let r = find(&mut root, p) as usize;
            if number[r] == u32::MAX {
                number[r] = count;
                count += 1;
            }
            number[r]
        })
        .collect();
    (labels, count as usize)
}

/// The up to four direct neighbours of pixel `i`.
pub(super) fn neighbours4(i: usize, width: usize, height: usize) -> impl Iterator<Item = usize> {
    let (x, y) = (i % width, i / width);
    [
        (x > 0).then(|| i - 1),
        (x + 1 < width).then(|| i + 1),
        (y > 0).then(|| i - width),
        (y + 1 < height).then(|| i + width),
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Picture;

    #[test]
    fn superpixels_cover_are_connected_and_follow_an_edge() {
        let (w, h) = (60u32, 40u32);
        let rgb = (0..w * h).flat_map(|i| if i % w < 23 { [200, 30, 30] } else { [20, 60, 200] }).collect();
        let work = Working::new(&Picture::new(w, h, rgb).unwrap());
        let (labels, count) = superpixels(&work, 60);
        assert!((30..=120).contains(&count), "{count}");
        let mut sides = vec![[false; 2]; count];
        for (i, &l) in labels.iter().enumerate() {
            sides[l as usize][usize::from(i % 60 >= 23)] = true;
        }
        assert!(sides.iter().all(|s| s[0] != s[1]), "no superpixel straddles the edge");
        for id in 0..count as u32 {
            let own: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == id).collect();
            let mut seen = vec![false; labels.len()];
            let (mut stack, mut n) = (vec![own[0]], 0);
            seen[own[0]] = true;
            while let Some(i) = stack.pop() {
                n += 1;
                for j in neighbours4(i, 60, 40) {
                    if labels[j] == id && !seen[j] {
                        seen[j] = true;
                        stack.push(j);
                    }
                }
            }
            assert_eq!(n, own.len());
        }
    }
}
