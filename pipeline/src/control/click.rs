//! From a click to the thing under it, without weights ("click-cut").
//!
//! Superpixels and their merge tree propose regions of every scale around the click; colour
//! models and a minimum cut settle each; the best three are cut again on pixels along their
//! contour and carried to the picture's own size by a guided filter. Deterministic.

mod candidates;
mod edges;
pub mod eval;
mod geodesic;
pub mod gmm;
pub mod grabcut;
mod lab;
pub mod maxflow;
mod prompts;
mod refine;
mod regions;
mod slic;

use std::sync::Mutex;

use rayon::prelude::*;

pub use prompts::{BoxPrompt, ClickPoint, Prompts, Stroke};

use self::candidates::{Hypothesis, RegionSeeds, Scene};
use self::edges::Edges;
use self::grabcut::{Models, beta};
use self::lab::Working;
use self::refine::{PixelSeed, cut_band, soft_mask};
use self::regions::{MergeTree, RegionGraph};
use super::mask::keep_touching;
use super::salient::{Saliency, SaliencyError};
use crate::media::{Mask, Picture};

/// Superpixels wanted at working size.
const SUPERPIXELS: usize = 1800;
/// Answers kept for the next click.
const REMEMBERED: usize = 24;
/// Saliency that counts as inside.
const SALIENT: f32 = 0.5;

/// Why a click selects nothing.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ClickError {
    /// A click that is not in the picture.
    #[error("click {index} at ({x}, {y}) lies outside the picture; expected x and y from 0 to 1")]
    OutsidePicture { index: usize, x: f32, y: f32 },
    /// A box that is not one.
    #[error("expected a box with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1, got x {x0}..{x1}, y {y0}..{y1}")]
    BadBox { x0: f32, y0: f32, x1: f32, y1: f32 },
    /// A stroke without points, outside the picture, or too wide.
    #[error("stroke {index}: expected at least one point in 0..1 and a radius from 0 to 0.5")]
    BadStroke { index: usize },
    /// Only negative prompts, or none.
    #[error(
        "nothing is selected; give at least one click with keep = true, a stroke with keep = true, or a box"
    )]
    NothingWanted,
    /// Yes and no on one pixel.
    #[error("clicks {first} and {second} say keep and leave out for the same pixel; remove one")]
    Contradiction { first: usize, second: usize },
    /// A bug.
    #[error("internal: {0}")]
    Raster(String),
}

/// What a candidate is beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CandidateKind {
    /// The smallest of three.
    Part,
    /// The middle, or the only one.
    Object,
    /// The largest.
    Whole,
    /// What a saliency network sees under the click.
    Salient,
}

/// One answer to a click.
#[derive(Debug, Clone)]
pub struct MaskCandidate {
    /// Coverage in the picture's size; the contour is soft, the rest exactly 0 or 1.
    pub mask: Mask,
    /// 0..1, how much it looks like one thing; under 0.3 nothing sensible was found.
    pub score: f32,
    /// Its place among the candidates.
    pub kind: CandidateKind,
}

/// An answer to a click before its mask is drawn, which takes most of the time in a large picture.
#[derive(Debug, Clone)]
pub struct Outline {
    set: Vec<bool>,
    score: f32,
    kind: CandidateKind,
}

impl Outline {
    /// 0..1, as [`MaskCandidate::score`].
    pub fn score(&self) -> f32 {
        self.score
    }

    /// Its place among the answers.
    pub fn kind(&self) -> CandidateKind {
        self.kind
    }
}

/// A picture prepared for clicks.
#[derive(Debug)]
pub struct ClickCut {
    picture: Picture,
    work: Working,
    graph: RegionGraph,
    tree: MergeTree,
    beta: f32,
    salient: Option<Vec<bool>>,
    /// First answers to recent prompts.
    answers: Mutex<Vec<(Prompts, Option<Hypothesis>)>>,
}

impl ClickCut {
    /// Divides `picture` into superpixels and merges them; about 150 ms on two cores, whatever the
    /// picture's size.
    pub fn new(picture: &Picture) -> Self {
        let work = Working::new(picture);
        let wanted = SUPERPIXELS.min(work.len().div_ceil(24));
        let (labels, count) = slic::superpixels(&work, wanted);
        let edges = Edges::new(&work);
        let graph = RegionGraph::new(&work, &edges, labels, count);
        let tree = MergeTree::new(&graph);
        let beta = beta(&work.rgb, work.width, work.height);
        Self {
            picture: picture.clone(),
            work,
            graph,
            tree,
            beta,
            salient: None,
            answers: Mutex::new(Vec::new()),
        }
    }

    /// Lets `network` add what it sees under a click as a further candidate.
    pub fn with_salient(mut self, network: &dyn Saliency) -> Result<Self, SaliencyError> {
        let map = network.saliency(&self.picture)?;
        let (width, height) = (self.picture.width(), self.picture.height());
        if (map.width(), map.height()) != (width, height) {
            return Err(SaliencyError::Size {
                width,
                height,
                got_width: map.width(),
                got_height: map.height(),
            });
        }
        let grid =
            super::mask::to_latent(&map, self.work.width, self.work.height, super::mask::LatentMode::Area);
        self.salient = Some(grid.into_iter().map(|v| v >= SALIENT).collect());
        Ok(self)
    }

    /// The one to four things the clicks may mean, best first. Pixels of positive clicks are always
    /// inside every answer, those of negative clicks always outside.
    pub fn cut(
        &self,
        points: &[ClickPoint],
        area: Option<BoxPrompt>,
    ) -> Result<Vec<MaskCandidate>, ClickError> {
        self.cut_prompts(&Prompts { points: points.to_vec(), area, strokes: Vec::new() })
    }

    /// [`Self::cut`] with brush strokes as well.
    pub fn cut_prompts(&self, prompts: &Prompts) -> Result<Vec<MaskCandidate>, ClickError> {
        self.outlines(prompts)?
            .par_iter()
            .map(|outline| {
                let mask = self.mask(outline, prompts)?;
                Ok(MaskCandidate { mask, score: outline.score, kind: outline.kind })
            })
            .collect()
    }

    /// The answers of [`Self::cut_prompts`] without their masks, for who wants one of them: [`Self::mask`].
    pub fn outlines(&self, prompts: &Prompts) -> Result<Vec<Outline>, ClickError> {
        prompts.check(self.picture.width() as usize, self.picture.height() as usize)?;
        let seeds = prompts.regions(&self.work, &self.graph);
        let scene = Scene {
            graph: &self.graph,
            tree: &self.tree,
            reach: self.work.width.max(self.work.height) as f32 / 10.0,
        };
        let pixels = prompts.pixels(self.work.width, self.work.height);
        let hypotheses = self.chain(prompts, &scene, &seeds);
        self.remember(prompts, hypotheses.first().cloned());
        let mut found: Vec<(Vec<bool>, f32, Option<CandidateKind>)> =
            hypotheses.par_iter().map(|h| (self.contour(h, prompts, &pixels), h.score, None)).collect();
        if let Some((set, score)) = self.salient_under(&pixels, &scene, &seeds, prompts) {
            // The network's answer replaces one that is nearly the same.
            found.retain(|(other, _, _)| overlap(other, &set) < 0.9);
            // Once it leads, further clicks correct it instead of swapping it for another.
            let leads = prompts.points.len() > 1 || found.first().is_none_or(|best| score >= best.1);
            found.insert(if leads { 0 } else { found.len() }, (set, score, Some(CandidateKind::Salient)));
        }
        if found.is_empty() {
            found.push((self.fallback(&seeds, prompts), 0.05, None));
        }
        // Order is preference, which weighs earlier answers too; scores never contradict it.
        for k in 1..found.len() {
            found[k].1 = found[k].1.min(found[k - 1].1);
        }
        let kinds = kinds(&found);
        Ok(found.into_iter().zip(kinds).map(|((set, score, _), kind)| Outline { set, score, kind }).collect())
    }

    /// The mask of an answer to `prompts`, in the picture's size.
    pub fn mask(&self, outline: &Outline, prompts: &Prompts) -> Result<Mask, ClickError> {
        let mut alpha = soft_mask(&self.work, &outline.set, &self.picture);
        self.honour(&mut alpha, prompts);
        Mask::new(self.picture.width(), self.picture.height(), alpha)
            .map_err(|e| ClickError::Raster(e.to_string()))
    }

    /// The hypotheses after all prompts. Clicks are taken in the order given, each answer starting
    /// from the last, so that one more click corrects rather than starts over. Strokes and the box
    /// hold from the beginning.
    fn chain(&self, prompts: &Prompts, scene: &Scene<'_>, seeds: &RegionSeeds) -> Vec<Hypothesis> {
        let Some((_, earlier)) = prompts.points.split_last() else {
            return scene.hypotheses(seeds, None);
        };
        let earlier = Prompts { points: earlier.to_vec(), ..prompts.clone() };
        let starts = earlier.points.iter().any(|p| p.keep) || earlier.strokes.iter().any(|s| s.keep);
        if !starts {
            return scene.hypotheses(seeds, None);
        }
        scene.hypotheses(seeds, self.answer_so_far(&earlier, scene).as_ref())
    }

    /// First hypothesis after `prompts`; remembered, since the next click asks for it again.
    fn answer_so_far(&self, prompts: &Prompts, scene: &Scene<'_>) -> Option<Hypothesis> {
        if let Ok(known) = self.answers.lock()
            && let Some((_, answer)) = known.iter().find(|(p, _)| p == prompts)
        {
            return answer.clone();
        }
        let seeds = prompts.regions(&self.work, &self.graph);
        let answer = self.chain(prompts, scene, &seeds).into_iter().next();
        self.remember(prompts, answer.clone());
        answer
    }

    fn remember(&self, prompts: &Prompts, answer: Option<Hypothesis>) {
        // A poisoned lock only costs time: answers are a pure function of the prompts.
        if let Ok(mut known) = self.answers.lock() {
            known.retain(|(p, _)| p != prompts);
            if known.len() >= REMEMBERED {
                known.remove(0);
            }
            known.push((prompts.clone(), answer));
        }
    }

    /// A superpixel region's contour on pixels.
    fn contour(&self, hypothesis: &Hypothesis, prompts: &Prompts, pixels: &[PixelSeed]) -> Vec<bool> {
        let set: Vec<bool> = self.graph.labels.iter().map(|&l| hypothesis.inside[l as usize]).collect();
        self.pixel_contour(&set, &hypothesis.models, prompts, pixels)
    }

    fn pixel_contour(
        &self,
        set: &[bool],
        models: &Models,
        prompts: &Prompts,
        pixels: &[PixelSeed],
    ) -> Vec<bool> {
        let width = self.work.width;
        let area = prompts.pixel_box(width, self.work.height);
        let allowed = move |i: usize| {
            area.is_none_or(|[x0, y0, x1, y1]| {
                (x0..x1).contains(&(i % width)) && (y0..y1).contains(&(i / width))
            })
        };
        let mut cut = cut_band(&self.work, set, models, pixels, &allowed, self.beta);
        let anchors: Vec<usize> = pixels.iter().filter(|p| p.keep).map(|p| p.index).collect();
        if !anchors.is_empty() {
            keep_touching(&mut cut, width, &anchors);
        }
        let open: Vec<usize> = pixels.iter().filter(|p| !p.keep).map(|p| p.index).collect();
        let own = cut.iter().filter(|&&v| v).count();
        super::mask::filled(&cut, width, (own / 80).max(6), &open)
    }

    fn salient_under(
        &self,
        pixels: &[PixelSeed],
        scene: &Scene<'_>,
        seeds: &RegionSeeds,
        prompts: &Prompts,
    ) -> Option<(Vec<bool>, f32)> {
        let mut set = self.salient.clone()?;
        let anchors: Vec<usize> = pixels.iter().filter(|p| p.keep && set[p.index]).map(|p| p.index).collect();
        if anchors.is_empty() {
            return None;
        }
        keep_touching(&mut set, self.work.width, &anchors);
        let mut share = vec![0.0f32; self.graph.count];
        for (i, &label) in self.graph.labels.iter().enumerate() {
            share[label as usize] += f32::from(u8::from(set[i])) / self.graph.area[label as usize];
        }
        let region: Vec<bool> = share.iter().map(|&s| s > 0.5).collect();
        if pixels.iter().all(|p| p.keep == set[p.index]) {
            let models = Models::fit(&self.graph, &region)?;
            let score = scene.judge(&region, &models, seeds)?;
            // What catches the eye is what people mean more often than not.
            return Some((self.pixel_contour(&set, &models, prompts, pixels), (score + 0.25).min(1.0)));
        }
        // A correction: the network's region is where the cut starts.
        let before = Hypothesis { models: Models::fit(&self.graph, &region)?, inside: region, score: 0.5 };
        let corrected = scene.hypotheses(seeds, Some(&before)).into_iter().next()?;
        Some((self.contour(&corrected, prompts, pixels), (corrected.score + 0.1).min(1.0)))
    }

    /// The superpixels under the positive prompts, or the box.
    fn fallback(&self, seeds: &RegionSeeds, prompts: &Prompts) -> Vec<bool> {
        let mut set: Vec<bool> = self.graph.labels.iter().map(|l| seeds.wanted.contains(l)).collect();
        if seeds.wanted.is_empty()
            && let Some([x0, y0, x1, y1]) = prompts.pixel_box(self.work.width, self.work.height)
        {
            for y in y0..y1 {
                set[y * self.work.width + x0..y * self.work.width + x1].fill(true);
            }
        }
        set
    }

    /// Makes the full-size mask agree with every prompt, to the pixel.
    fn honour(&self, alpha: &mut [f32], prompts: &Prompts) {
        let (width, height) = (self.picture.width() as usize, self.picture.height() as usize);
        if let Some([x0, y0, x1, y1]) = prompts.pixel_box(width, height) {
            for (i, a) in alpha.iter_mut().enumerate() {
                if !(x0..x1).contains(&(i % width)) || !(y0..y1).contains(&(i / width)) {
                    *a = 0.0;
                }
            }
        }
        for seed in prompts.pixels(width, height) {
            alpha[seed.index] = f32::from(u8::from(seed.keep));
        }
    }
}

fn overlap(a: &[bool], b: &[bool]) -> f32 {
    let both = a.iter().zip(b).filter(|(a, b)| **a && **b).count();
    let any = a.iter().zip(b).filter(|(a, b)| **a || **b).count();
    if any > 0 { both as f32 / any as f32 } else { 1.0 }
}

/// Names the candidates by size.
fn kinds(found: &[(Vec<bool>, f32, Option<CandidateKind>)]) -> Vec<CandidateKind> {
    let size = |k: usize| found[k].0.iter().filter(|&&v| v).count();
    let mut plain: Vec<usize> = (0..found.len()).filter(|&k| found[k].2.is_none()).collect();
    plain.sort_by_key(|&k| (size(k), k));
    let names: &[CandidateKind] = match plain.len() {
        0 | 1 => &[CandidateKind::Object],
        2 => &[CandidateKind::Object, CandidateKind::Whole],
        _ => &[CandidateKind::Part, CandidateKind::Object, CandidateKind::Whole],
    };
    let mut kinds: Vec<CandidateKind> = found.iter().map(|f| f.2.unwrap_or(CandidateKind::Object)).collect();
    for (&k, &name) in plain.iter().zip(names) {
        kinds[k] = name;
    }
    kinds
}

#[cfg(test)]
mod tests;
