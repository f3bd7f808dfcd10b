//! Distances over the superpixel graph that grow with the way and with every change of colour.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::regions::RegionGraph;

/// ΔE that counts as one unit of distance.
const COLOUR_UNIT: f32 = 4.0;
/// Distance of crossing a certain outline.
const OUTLINE: f32 = 4.0;

struct Front(f32, u32);

impl PartialEq for Front {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Front {}
impl Ord for Front {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.total_cmp(&self.0).then(other.1.cmp(&self.1))
    }
}
impl PartialOrd for Front {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Distance of every superpixel from the nearest of `sources`; `reach` pixels of way count as one
/// unit. Infinite when there is no source.
pub(super) fn distances(graph: &RegionGraph, sources: impl Iterator<Item = u32>, reach: f32) -> Vec<f32> {
    let mut best = vec![f32::INFINITY; graph.count];
    let mut heap = BinaryHeap::new();
    for source in sources {
        best[source as usize] = 0.0;
        heap.push(Front(0.0, source));
    }
    while let Some(Front(d, at)) = heap.pop() {
        if d > best[at as usize] {
            continue;
        }
        let a = at as usize;
        for &(other, border) in &graph.around[a] {
            let b = other as usize;
            let way = (graph.centre[a][0] - graph.centre[b][0])
                .hypot(graph.centre[a][1] - graph.centre[b][1])
                / reach;
            let colour: f32 = (0..3).map(|k| (graph.mean[a][k] - graph.mean[b][k]).powi(2)).sum::<f32>()
                / (COLOUR_UNIT * COLOUR_UNIT);
            let outline = OUTLINE * graph.borders[border as usize].strength;
            let next = d + (way * way + colour).sqrt() + outline;
            if next < best[b] {
                best[b] = next;
                heap.push(Front(next, other));
            }
        }
    }
    best
}

/// Up to `wanted` thresholds on `distances` at the largest relative jumps, smallest first.
pub(super) fn knees(distances: &[f32], wanted: usize) -> Vec<f32> {
    let mut sorted: Vec<f32> = distances.iter().copied().filter(|d| d.is_finite()).collect();
    sorted.sort_by(f32::total_cmp);
    let mut jumps: Vec<(f32, f32)> = sorted
        .windows(2)
        .filter(|p| p[1] > p[0])
        .map(|p| ((p[1] - p[0]) / (1.0 + p[0]), 0.5 * (p[0] + p[1])))
        .collect();
    jumps.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut chosen: Vec<f32> = jumps.into_iter().take(wanted).map(|j| j.1).collect();
    chosen.sort_by(f32::total_cmp);
    chosen
}
