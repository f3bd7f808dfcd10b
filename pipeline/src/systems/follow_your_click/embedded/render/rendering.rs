//! A clip at the network's size, and what brings it to any other.

use crate::media::Raster;
use crate::nets::mini::FrameField;
use crate::systems::follow_your_click::detail::{Decoded, compose};
use crate::systems::follow_your_click::guide::{
    Displacement, GuideFrame, Layer, Scene, View, hole_of, push_pull,
};
use crate::systems::follow_your_click::{AnimationReport, ClickAnimation};

/// Nodes of the lattice on which a displacement is kept for warping; fields are smooth, and the
/// finest wave has 80 nodes.
const LATTICE: usize = 256;

/// A displacement read from a lattice over the picture.
#[derive(Debug)]
pub(super) struct Lattice {
    view: View,
    nodes: Raster,
    /// Longest displacement at the nodes, field units.
    reach: f32,
}

impl Lattice {
    pub(super) fn of(field: &FrameField, extent: [f32; 2]) -> Self {
        let view = View { width: LATTICE, height: LATTICE, extent };
        let mut nodes = Raster::zeros(LATTICE, LATTICE, 2);
        nodes.par_rows(|row, numbers| {
            for (column, out) in numbers.chunks_exact_mut(2).enumerate() {
                let [x, y] = view.point(column, row);
                out.copy_from_slice(&field.at(x, y));
            }
        });
        let reach = nodes.data.chunks_exact(2).fold(0.0f32, |m, d| m.max(d[0].hypot(d[1])));
        Self { view, nodes, reach }
    }
}

impl Displacement for Lattice {
    fn at(&self, x: f32, y: f32) -> [f32; 2] {
        let [column, row] = self.view.pixel([x, y]);
        let mut out = [0.0; 2];
        self.nodes.bilinear(column, row, &mut out);
        out
    }
}

/// A clip at the network's size, with what is needed to bring it to any other.
#[derive(Debug)]
pub struct Rendering {
    /// Warped photograph, moved masks and validity of each frame.
    pub guide: Vec<GuideFrame>,
    /// Decoded frames, three channels, -1..=1.
    pub decoded: Vec<Raster>,
    /// The guide through encoder and decoder.
    pub guide_decoded: Vec<Raster>,
    /// The painted background at the network's size.
    pub plate: Raster,
    /// The background in the photograph's own texture, finer than the plate.
    pub(super) background: Raster,
    /// What the prompts were understood as, and how many steps ran.
    pub report: AnimationReport,
    pub(super) view: View,
    pub(super) gated: Vec<bool>,
    /// `[frame][region]`.
    pub(super) motions: Vec<Vec<Lattice>>,
}

impl Rendering {
    /// One frame at the size of `scene`, which [`Rendering::scene`] made.
    pub fn composed(&self, scene: &Scene, frame: usize) -> Option<Raster> {
        self.compose_with(scene, frame, self.decoded.get(frame)?)
    }

    /// The same without what the denoiser changed: what warp, texture and detail do alone.
    pub fn undenoised(&self, scene: &Scene, frame: usize) -> Option<Raster> {
        self.compose_with(scene, frame, self.guide_decoded.get(frame)?)
    }

    fn compose_with(&self, scene: &Scene, frame: usize, decoded: &Raster) -> Option<Raster> {
        let motions = self.motions.get(frame)?;
        let pixels = 256.0 / 2.0;
        let motion = motions.iter().fold(0.0f32, |m, d| m.max((d.reach * pixels / 2.0).min(1.0)));
        let decoded = Decoded {
            frame: decoded,
            guide_decoded: self.guide_decoded.get(frame)?,
            guide: self.guide.get(frame)?,
            motion,
        };
        Some(compose(&decoded, &scene.frame(motions)))
    }

    /// Displacement of a region at a point of a frame, both in field units; `None` for a frame or region there is not.
    pub fn displacement(&self, frame: usize, region: usize, x: f32, y: f32) -> Option<[f32; 2]> {
        Some(self.motions.get(frame)?.get(region)?.at(x, y))
    }

    /// What warping alone gives at the network's size, holes filled smoothly: the baseline that
    /// the painted plate and the denoiser must beat.
    pub fn pure_warp(&self, job: &ClickAnimation, frames: &[usize]) -> Vec<Raster> {
        let mut scene = self.scene(job, self.plate.width, self.plate.height);
        scene.sharp = false;
        let mut known = Raster {
            data: vec![1.0; self.plate.width * self.plate.height],
            channels: 1,
            ..self.plate.clone()
        };
        for layer in scene.layers.iter().filter(|layer| !layer.gated) {
            known.data.iter_mut().zip(&layer.hole.data).for_each(|(k, &h)| *k = k.min(1.0 - h));
        }
        scene.plate = push_pull(&scene.photo, &known);
        frames.iter().filter_map(|&t| self.motions.get(t)).map(|m| scene.frame(m).picture).collect()
    }

    /// The job's scene at a final size.
    pub fn scene(&self, job: &ClickAnimation, width: usize, height: usize) -> Scene {
        let layers = job
            .regions
            .iter()
            .zip(&self.gated)
            .map(|(region, &gated)| {
                let mask = Raster::from_mask(&region.mask).resized(width, height);
                Layer { hole: hole_of(&mask), mask, gated }
            })
            .collect();
        Scene {
            view: self.view.resized(width, height),
            photo: Raster::from_picture(&job.photo).resized(width, height),
            plate: self.background.resized(width, height),
            layers,
            sharp: true,
        }
    }
}
