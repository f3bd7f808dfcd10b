//! The graph of superpixels and the tree in which they merge into larger and larger regions.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use super::edges::Edges;
use super::lab::Working;

/// Colours kept per superpixel for fitting and judging colour models.
pub(super) const SAMPLES: usize = 8;
/// Histogram bins: 12 each for L, a, b and 6 for fine detail.
const BINS: usize = 42;
pub(super) type Histogram = [f32; BINS];

/// Boundary between two superpixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Border {
    pub(super) a: u32,
    pub(super) b: u32,
    /// Pixel pairs across it.
    pub(super) length: f32,
    /// Mean strength 0..1.
    pub(super) strength: f32,
}

/// Superpixels, their looks and their neighbours.
#[derive(Debug)]
pub(super) struct RegionGraph {
    pub(super) labels: Vec<u32>,
    pub(super) count: usize,
    /// Pixels per superpixel.
    pub(super) area: Vec<f32>,
    pub(super) centre: Vec<[f32; 2]>,
    pub(super) mean: Vec<[f32; 3]>,
    pub(super) samples: Vec<[[f32; 3]; SAMPLES]>,
    pub(super) histogram: Vec<Histogram>,
    /// Pixels on the frame of the picture.
    pub(super) frame: Vec<f32>,
    pub(super) borders: Vec<Border>,
    /// Per superpixel: (neighbour, index into `borders`).
    pub(super) around: Vec<Vec<(u32, u32)>>,
}

impl RegionGraph {
    pub(super) fn new(work: &Working, edges: &Edges, labels: Vec<u32>, count: usize) -> Self {
        let (width, height) = (work.width, work.height);
        let mut area = vec![0.0f32; count];
        let mut mean = vec![[0.0f32; 3]; count];
        let mut centre = vec![[0.0f32; 2]; count];
        let mut frame = vec![0.0f32; count];
        let mut histogram = vec![[0.0f32; BINS]; count];
        let mut members: Vec<Vec<u32>> = vec![Vec::new(); count];
        let mut borders: BTreeMap<(u32, u32), (f32, f32)> = BTreeMap::new();
        for (i, &label) in labels.iter().enumerate() {
            let (x, y, id) = (i % width, i / width, label as usize);
            area[id] += 1.0;
            members[id].push(i as u32);
            for k in 0..3 {
                mean[id][k] += work.lab[i][k];
            }
            centre[id][0] += x as f32;
            centre[id][1] += y as f32;
            if x == 0 || y == 0 || x + 1 == width || y + 1 == height {
                frame[id] += 1.0;
            }
            fill(&mut histogram[id], work, i, x, y);
            let mut meet = |other: u32, strength: f32| {
                let entry = borders.entry((label.min(other), label.max(other))).or_default();
                entry.0 += 1.0;
                entry.1 += strength;
            };
            if x + 1 < width && labels[i + 1] != label {
                meet(labels[i + 1], edges.right(x, y));
            }
            if y + 1 < height && labels[i + width] != label {
                meet(labels[i + width], edges.below(x, y));
            }
        }
        let mut samples = Vec::with_capacity(count);
        for id in 0..count {
            for v in mean[id].iter_mut().chain(&mut centre[id]) {
                *v /= area[id];
            }
            // Each of the four groups sums to ¼.
            for v in &mut histogram[id] {
                *v /= 4.0 * area[id];
            }
            let own = &members[id];
            samples.push(std::array::from_fn(|k| {
                work.lab[own[(2 * k + 1) * own.len() / (2 * SAMPLES)] as usize]
            }));
        }
        let borders: Vec<Border> = borders
            .into_iter()
            .map(|((a, b), (length, sum))| Border { a, b, length, strength: sum / length })
            .collect();
        let mut around = vec![Vec::new(); count];
        for (k, border) in borders.iter().enumerate() {
            around[border.a as usize].push((border.b, k as u32));
            around[border.b as usize].push((border.a, k as u32));
        }
        Self { labels, count, area, centre, mean, samples, histogram, frame, borders, around }
    }
}

/// Adds pixel `i` to its histogram with linear weights, so that a small shift changes little.
fn fill(histogram: &mut Histogram, work: &Working, i: usize, x: usize, y: usize) {
    let mut put = |first: usize, bins: usize, at: f32| {
        let at = at.clamp(0.0, (bins - 1) as f32 - 1e-3);
        let low = at as usize;
        let part = at - low as f32;
        histogram[first + low] += 1.0 - part;
        histogram[first + low + 1] += part;
    };
    let [l, a, b] = work.lab[i];
    put(0, 12, l / 100.0 * 11.0);
    // Most colours of photographs lie within ±40; outside the scale is compressed.
    let squash = |v: f32| 5.5 + 5.5 * (v / 30.0).tanh();
    put(12, 12, squash(a));
    put(24, 12, squash(b));
    let (width, height) = (work.width, work.height);
    let grey = |x: usize, y: usize| {
        let c = work.rgb[y * width + x];
        0.3 * c[0] + 0.59 * c[1] + 0.11 * c[2]
    };
    let detail = (grey((x + 1).min(width - 1), y) - grey(x.saturating_sub(1), y)).abs()
        + (grey(x, (y + 1).min(height - 1)) - grey(x, y.saturating_sub(1))).abs();
    put(36, 6, (1.0 + detail).ln());
}

/// χ² distance 0..1 of two histograms that each sum to 1.
pub(super) fn chi_squared(a: &Histogram, b: &Histogram) -> f32 {
    0.5 * a
        .iter()
        .zip(b)
        .map(|(&p, &q)| if p + q > 0.0 { (p - q) * (p - q) / (p + q) } else { 0.0 })
        .sum::<f32>()
}

/// The binary tree of merges; nodes below `leaves` are superpixels, the last node is everything.
#[derive(Debug)]
pub(super) struct MergeTree {
    pub(super) leaves: usize,
    /// `u32::MAX` at the root.
    pub(super) parent: Vec<u32>,
    pub(super) children: Vec<[u32; 2]>,
    /// Cost at which the node was formed; never below its children's.
    pub(super) height: Vec<f32>,
}

#[derive(PartialEq)]
struct Merge {
    cost: f32,
    a: u32,
    b: u32,
}

impl Eq for Merge {}

impl Ord for Merge {
    fn cmp(&self, other: &Self) -> Ordering {
        other.cost.total_cmp(&self.cost).then_with(|| (other.a, other.b).cmp(&(self.a, self.b)))
    }
}

impl PartialOrd for Merge {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl MergeTree {
    /// Merges the cheapest pair until one region is left.
    pub(super) fn new(graph: &RegionGraph) -> Self {
        let n = graph.count;
        let total: f32 = graph.area.iter().sum();
        let mut area = graph.area.clone();
        let mut histogram = graph.histogram.clone();
        let mut mean = graph.mean.clone();
        let mut parent = vec![u32::MAX; n];
        let mut children = vec![[u32::MAX; 2]; n];
        let mut height = vec![0.0f32; n];
        // (length, length·strength) to every present neighbour.
        let mut links: Vec<BTreeMap<u32, (f32, f32)>> = vec![BTreeMap::new(); n];
        for b in &graph.borders {
            links[b.a as usize].insert(b.b, (b.length, b.length * b.strength));
            links[b.b as usize].insert(b.a, (b.length, b.length * b.strength));
        }
        let cost = |a: usize,
                    b: usize,
                    link: (f32, f32),
                    area: &[f32],
                    histogram: &[Histogram],
                    mean: &[[f32; 3]]| {
            let boundary = link.1 / link.0;
            let looks = chi_squared(&histogram[a], &histogram[b]);
            let colour: f32 = (0..3).map(|k| (mean[a][k] - mean[b][k]).powi(2)).sum::<f32>().sqrt();
            let colour = 1.0 - (-colour / 25.0).exp();
            // Small pieces go first, or specks would outlive objects.
            let size = (area[a].min(area[b]) / (0.02 * total)).min(1.0).powf(0.35);
            (0.55 * boundary + 0.3 * looks + 0.15 * colour) * (0.15 + 0.85 * size)
        };
        let mut heap: BinaryHeap<Merge> = graph
            .borders
            .iter()
            .map(|b| Merge {
                cost: cost(
                    b.a as usize,
                    b.b as usize,
                    (b.length, b.length * b.strength),
                    &area,
                    &histogram,
                    &mean,
                ),
                a: b.a,
                b: b.b,
            })
            .collect();
        while let Some(Merge { cost: price, a, b }) = heap.pop() {
            let (ia, ib) = (a as usize, b as usize);
            if parent[ia] != u32::MAX || parent[ib] != u32::MAX {
                continue;
            }
            let node = area.len();
            parent[ia] = node as u32;
            parent[ib] = node as u32;
            parent.push(u32::MAX);
            children.push([a, b]);
            height.push(price.max(height[ia]).max(height[ib]));
            let (wa, wb) = (area[ia] / (area[ia] + area[ib]), area[ib] / (area[ia] + area[ib]));
            area.push(area[ia] + area[ib]);
            histogram.push(std::array::from_fn(|k| wa * histogram[ia][k] + wb * histogram[ib][k]));
            mean.push(std::array::from_fn(|k| wa * mean[ia][k] + wb * mean[ib][k]));
            let mut joined = std::mem::take(&mut links[ia]);
            for (other, link) in std::mem::take(&mut links[ib]) {
                let entry = joined.entry(other).or_default();
                entry.0 += link.0;
                entry.1 += link.1;
            }
            joined.remove(&a);
            joined.remove(&b);
            for (&other, &link) in &joined {
                let theirs = &mut links[other as usize];
                theirs.remove(&a);
                theirs.remove(&b);
                theirs.insert(node as u32, link);
                heap.push(Merge {
                    cost: cost(node, other as usize, link, &area, &histogram, &mean),
                    a: other,
                    b: node as u32,
                });
            }
            links.push(joined);
        }
        Self { leaves: n, parent, children, height }
    }

    /// `leaf` and everything above it, smallest first.
    pub(super) fn path(&self, leaf: u32) -> Vec<u32> {
        let mut nodes = vec![leaf];
        let mut at = leaf;
        while self.parent[at as usize] != u32::MAX {
            at = self.parent[at as usize];
            nodes.push(at);
        }
        nodes
    }

    /// Sets `inside` for every superpixel under `node`.
    pub(super) fn mark(&self, node: u32, inside: &mut [bool]) {
        let mut stack = vec![node];
        while let Some(at) = stack.pop() {
            if (at as usize) < self.leaves {
                inside[at as usize] = true;
            } else {
                stack.extend(self.children[at as usize]);
            }
        }
    }
}
