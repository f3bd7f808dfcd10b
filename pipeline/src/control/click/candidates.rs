//! Which regions a click may mean, and how much each looks like a thing.

use rayon::prelude::*;

use super::geodesic::{distances, knees};
use super::grabcut::{Models, cut_regions, region_evidence};
use super::regions::{MergeTree, RegionGraph, chi_squared};

/// Candidates below or above these shares of the picture are not offered.
const SMALLEST: f32 = 0.0005;
const LARGEST: f32 = 0.9;
/// Hypotheses that get the full treatment.
const DEEP: usize = 5;
/// Candidates offered.
const OFFERED: usize = 3;
/// How much an answer like the last one is preferred when prompts are added.
const LOYALTY: f32 = 0.3;

/// What the prompts say about superpixels.
#[derive(Debug, Clone)]
pub(super) struct RegionSeeds {
    /// 1 inside, −1 outside, 0 open.
    pub(super) fixed: Vec<i8>,
    /// Superpixels with a positive prompt, also those that hold a negative one as well.
    pub(super) wanted: Vec<u32>,
    /// Superpixels with a negative prompt.
    pub(super) refused: Vec<u32>,
    /// Share of each superpixel inside the box; `None` without one.
    pub(super) boxed: Option<Vec<f32>>,
}

/// A region of superpixels with its colour models.
#[derive(Debug, Clone)]
pub(super) struct Hypothesis {
    pub(super) inside: Vec<bool>,
    pub(super) models: Models,
    /// 0..1, how much the region looks like one thing.
    pub(super) score: f32,
}

/// Everything hypotheses are made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) graph: &'a RegionGraph,
    pub(super) tree: &'a MergeTree,
    /// Pixels of way that count as one unit of geodesic distance.
    pub(super) reach: f32,
}

impl Scene<'_> {
    /// The up to three best different regions, best first. `before` is the answer to the prompts
    /// given so far; it leads as long as it agrees with all of them. Empty only when the picture
    /// cannot be divided.
    pub(super) fn hypotheses(&self, seeds: &RegionSeeds, before: Option<&Hypothesis>) -> Vec<Hypothesis> {
        let relaxed = before.map(|b| self.relaxed(seeds, &b.inside));
        let seeds = relaxed.as_ref().unwrap_or(seeds);
        let mut rough: Vec<(f32, Vec<bool>)> =
            self.rough(seeds).into_iter().map(|r| (self.looks(&r), r)).collect();
        rough.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut chosen: Vec<Vec<bool>> = Vec::new();
        for (_, region) in rough {
            if chosen.len() < DEEP && chosen.iter().all(|c| self.overlap(c, &region) < 0.85) {
                chosen.push(region);
            }
        }
        let settled: Vec<Hypothesis> =
            chosen.par_iter().filter_map(|region| self.settle(region, seeds)).collect();
        // (preference, hypothesis): the score itself stays what the region deserves.
        let mut done: Vec<(f32, Hypothesis)> = settled.into_iter().map(|h| (h.score, h)).collect();
        if let Some(before) = before {
            for (preference, hypothesis) in &mut done {
                let like = self.overlap(&hypothesis.inside, &before.inside);
                *preference = (1.0 - LOYALTY) * hypothesis.score + LOYALTY * like;
            }
            let agrees = |id: usize| match seeds.fixed[id] {
                0 => true,
                side => (side == 1) == before.inside[id],
            };
            if (0..self.graph.count).all(agrees) {
                done.push((before.score + LOYALTY, before.clone()));
            } else {
                let mut patched = Vec::new();
                self.keep(self.patched(&before.inside, seeds), seeds, &mut patched);
                let settled = patched.iter().filter_map(|region| self.settle(region, seeds));
                done.extend(settled.map(|h| (h.score + 0.5 * LOYALTY, h)));
            }
        }
        done.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut offered: Vec<Hypothesis> = Vec::new();
        for (_, hypothesis) in done {
            if offered.len() < OFFERED
                && offered.iter().all(|o| self.overlap(&o.inside, &hypothesis.inside) < 0.9)
            {
                offered.push(hypothesis);
            }
        }
        offered
    }

    /// Opens superpixels whose prompt contradicts `inside` right at its contour: the pixels settle
    /// that, and a superpixel that straddles the contour must not be dragged over whole.
    fn relaxed(&self, seeds: &RegionSeeds, inside: &[bool]) -> RegionSeeds {
        let mut out = seeds.clone();
        let marginal = |id: u32| {
            let own = inside[id as usize];
            let neighbours = &self.graph.around[id as usize];
            let same = neighbours.iter().filter(|n| inside[n.0 as usize] == own).count();
            same < neighbours.len()
        };
        for (list, keep) in [(&seeds.wanted, true), (&seeds.refused, false)] {
            for &id in list {
                if inside[id as usize] != keep && marginal(id) {
                    out.fixed[id as usize] = 0;
                }
            }
        }
        out.wanted.retain(|&id| inside[id as usize] || out.fixed[id as usize] != 0);
        out.refused.retain(|&id| !inside[id as usize] || out.fixed[id as usize] != 0);
        if out.wanted.is_empty() { seeds.clone() } else { out }
    }

    /// `inside` with the part under each contradicting prompt switched: the largest region of the
    /// merge tree around the prompt that lies wholly on the wrong side.
    fn patched(&self, inside: &[bool], seeds: &RegionSeeds) -> Vec<bool> {
        let mut out = inside.to_vec();
        for (list, keep) in [(&seeds.wanted, true), (&seeds.refused, false)] {
            for &leaf in list {
                if inside[leaf as usize] == keep || seeds.fixed[leaf as usize] == 0 {
                    continue;
                }
                let mut best = vec![false; self.graph.count];
                best[leaf as usize] = true;
                for node in self.tree.path(leaf) {
                    let mut region = vec![false; self.graph.count];
                    self.tree.mark(node, &mut region);
                    let stays = |id: usize| {
                        region[id] && (inside[id] == keep || seeds.fixed[id] == if keep { -1 } else { 1 })
                    };
                    if (0..self.graph.count).any(stays) {
                        break;
                    }
                    best = region;
                }
                for id in (0..self.graph.count).filter(|&id| best[id]) {
                    out[id] = keep;
                }
            }
        }
        out
    }

    /// Regions of every scale that agree with the seeds.
    fn rough(&self, seeds: &RegionSeeds) -> Vec<Vec<bool>> {
        let mut regions = Vec::new();
        let refused: Vec<bool> = {
            let mut below = vec![false; self.tree.parent.len()];
            for &leaf in &seeds.refused {
                for node in self.tree.path(leaf) {
                    below[node as usize] = true;
                }
            }
            below
        };
        // One path per positive prompt, cut off where it would swallow a negative one.
        let paths: Vec<Vec<u32>> = seeds
            .wanted
            .iter()
            .map(|&leaf| {
                let path = self.tree.path(leaf);
                let end = path.iter().position(|&n| refused[n as usize]).unwrap_or(path.len());
                path[..end.max(1)].to_vec()
            })
            .collect();
        let mut levels: Vec<f32> = paths.iter().flatten().map(|&n| self.tree.height[n as usize]).collect();
        levels.sort_by(f32::total_cmp);
        levels.dedup();
        for level in levels {
            let mut region = vec![false; self.graph.count];
            for path in &paths {
                let top =
                    path.iter().rev().find(|&&n| self.tree.height[n as usize] <= level).unwrap_or(&path[0]);
                self.tree.mark(*top, &mut region);
            }
            self.keep(region, seeds, &mut regions);
        }
        if !seeds.wanted.is_empty() {
            let way = distances(self.graph, seeds.wanted.iter().copied(), self.reach);
            for threshold in knees(&way, 4) {
                self.keep(way.iter().map(|&d| d <= threshold).collect(), seeds, &mut regions);
            }
        }
        if let Some(boxed) = &seeds.boxed {
            self.keep(boxed.iter().map(|&share| share > 0.5).collect(), seeds, &mut regions);
        }
        regions
    }

    pub(super) fn keep(&self, mut region: Vec<bool>, seeds: &RegionSeeds, regions: &mut Vec<Vec<bool>>) {
        for (id, inside) in region.iter_mut().enumerate() {
            *inside = match seeds.fixed[id] {
                1 => true,
                -1 => false,
                _ => *inside,
            };
        }
        let share = self.share(&region);
        let fits_box = seeds.boxed.is_none() || share > 0.0;
        if (SMALLEST..=LARGEST).contains(&share) && fits_box && !regions.contains(&region) {
            regions.push(region);
        }
    }

    fn share(&self, region: &[bool]) -> f32 {
        let own: f32 = (0..self.graph.count).filter(|&id| region[id]).map(|id| self.graph.area[id]).sum();
        own / self.graph.area.iter().sum::<f32>()
    }

    /// Intersection over union by area.
    pub(super) fn overlap(&self, a: &[bool], b: &[bool]) -> f32 {
        let (mut both, mut any) = (0.0f32, 0.0f32);
        for id in 0..self.graph.count {
            if a[id] || b[id] {
                any += self.graph.area[id];
                if a[id] && b[id] {
                    both += self.graph.area[id];
                }
            }
        }
        if any > 0.0 { both / any } else { 1.0 }
    }

    /// Fits colour models to `region` and cuts, three times; then judges the result.
    pub(super) fn settle(&self, region: &[bool], seeds: &RegionSeeds) -> Option<Hypothesis> {
        let graph = self.graph;
        let away = distances(graph, (0..graph.count as u32).filter(|&id| region[id as usize]), self.reach);
        let prior: Vec<f32> = (0..graph.count)
            .map(|id| if region[id] { 1.0 } else { -(0.5 + 0.35 * away[id]).min(5.0) })
            .collect();
        let mut inside = region.to_vec();
        let mut models = Models::fit(graph, &inside)?;
        let mut evidence = region_evidence(graph, &models);
        for _ in 0..3 {
            let next = self.connected(&cut_regions(graph, &evidence, &seeds.fixed, &prior, 0.0), seeds);
            let settled = next == inside;
            inside = next;
            if settled {
                break;
            }
            models = Models::fit(graph, &inside)?;
            evidence = region_evidence(graph, &models);
        }
        let share = self.share(&inside);
        if !(SMALLEST..=LARGEST).contains(&share) {
            return None;
        }
        let score = self.judged(&inside, &models, &evidence, &prior, seeds);
        Some(Hypothesis { inside, models, score })
    }

    /// Score of a given region; `None` when its size rules it out.
    pub(super) fn judge(&self, inside: &[bool], models: &Models, seeds: &RegionSeeds) -> Option<f32> {
        let prior: Vec<f32> = inside.iter().map(|&v| if v { 1.0 } else { -1.0 }).collect();
        (SMALLEST..=LARGEST)
            .contains(&self.share(inside))
            .then(|| self.judged(inside, models, &region_evidence(self.graph, models), &prior, seeds))
    }

    fn judged(
        &self,
        inside: &[bool],
        models: &Models,
        evidence: &[f32],
        prior: &[f32],
        seeds: &RegionSeeds,
    ) -> f32 {
        let moved = |bias: f32| {
            let other = self.connected(&cut_regions(self.graph, evidence, &seeds.fixed, prior, bias), seeds);
            self.overlap(inside, &other)
        };
        let stability = 0.5 * (moved(0.5) + moved(-0.5));
        let score = 0.6 * self.looks(inside) + 0.2 * stability + 0.2 * models.separation(self.graph, inside);
        score.clamp(0.0, 1.0)
    }

    /// Keeps the pieces that hold a positive prompt (all pieces when there is only a box).
    fn connected(&self, region: &[bool], seeds: &RegionSeeds) -> Vec<bool> {
        if seeds.wanted.is_empty() {
            return region.to_vec();
        }
        let mut out = vec![false; region.len()];
        let mut stack = Vec::new();
        for &id in &seeds.wanted {
            out[id as usize] = true;
            stack.push(id);
        }
        while let Some(id) = stack.pop() {
            for &(other, _) in &self.graph.around[id as usize] {
                if region[other as usize] && !out[other as usize] {
                    out[other as usize] = true;
                    stack.push(other);
                }
            }
        }
        out
    }

    /// 0..1: certain and closed outline, different from what surrounds it, of a usual size, not
    /// cut off by the frame.
    fn looks(&self, region: &[bool]) -> f32 {
        let graph = self.graph;
        let (mut length, mut strong, mut closed) = (0.0f32, 0.0f32, 0.0f32);
        for border in &graph.borders {
            if region[border.a as usize] != region[border.b as usize] {
                length += border.length;
                strong += border.length * border.strength;
                closed += border.length * (border.strength / 0.45).min(1.0);
            }
        }
        if length == 0.0 {
            return 0.0;
        }
        let frame: f32 = (0..graph.count).filter(|&id| region[id]).map(|id| graph.frame[id]).sum();
        let cut_off = frame / (frame + length);
        let share = self.share(region);
        let contrast = self.surround(region, share);
        // Log-normal preference around a tenth of the picture, wide.
        let size = (-((share / 0.10).ln() / 2.6).powi(2)).exp();
        let whole = 0.36 * strong / length + 0.20 * closed / length + 0.26 * contrast + 0.18 * size;
        (whole * (1.0 - 0.5 * cut_off)).clamp(0.0, 1.0)
    }

    /// How different the region is from the ring around it, 0..1.
    fn surround(&self, region: &[bool], share: f32) -> f32 {
        let graph = self.graph;
        let hops = (0.35 * (share * graph.count as f32).sqrt()).round().clamp(2.0, 8.0) as usize;
        let mut ring: Vec<bool> = vec![false; graph.count];
        let mut front: Vec<u32> = (0..graph.count as u32).filter(|&id| region[id as usize]).collect();
        for _ in 0..hops {
            let mut next = Vec::new();
            for &id in &front {
                for &(other, _) in &graph.around[id as usize] {
                    if !region[other as usize] && !ring[other as usize] {
                        ring[other as usize] = true;
                        next.push(other);
                    }
                }
            }
            front = next;
        }
        let total = |side: &[bool]| {
            let mut sum = graph.histogram[0].map(|_| 0.0f32);
            let mut area = 0.0f32;
            for id in (0..graph.count).filter(|&id| side[id]) {
                area += graph.area[id];
                for (s, v) in sum.iter_mut().zip(&graph.histogram[id]) {
                    *s += graph.area[id] * v;
                }
            }
            sum.map(|v| v / area.max(1.0))
        };
        (1.5 * chi_squared(&total(region), &total(&ring))).min(1.0)
    }
}
