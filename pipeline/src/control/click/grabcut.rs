//! GrabCut (Rother et al., SIGGRAPH 2004): colour models and a minimum cut in turn, on superpixels
//! for click-cut and on pixels from a box as the plain form it is compared with.

use super::gmm::Gmm;
use super::maxflow::MaxFlow;
use super::regions::RegionGraph;

/// Weight of the smoothness term, as in the paper.
const GAMMA: f32 = 50.0;
/// Fixed-point factor from energies to capacities.
pub(super) const FIXED: f32 = 64.0;
/// Capacity that no cut can afford.
pub(super) const HARD: i64 = 1 << 40;
/// Smoothness weight a boundary pixel between superpixels.
const REGION_GAMMA: f32 = 16.0;
/// Colour evidence of one pixel is bounded, or a few odd colours would outvote an outline.
const EVIDENCE: f32 = 5.0;
/// Variance floor in Lab units.
const LAB_FLOOR: f32 = 4.0;

/// β = 1 / (2·mean ‖Δc‖²) over all 8-neighbour pairs; 0 when the picture is flat.
/// Colours in 8-bit units.
pub fn beta(rgb: &[[f32; 3]], width: usize, height: usize) -> f32 {
    let (mut sum, mut pairs) = (0.0f64, 0u64);
    for y in 0..height {
        for x in 0..width {
            for (j, _) in forward_neighbours(x, y, width, height) {
                sum += f64::from(squared(rgb[y * width + x], rgb[j]));
                pairs += 1;
            }
        }
    }
    if sum > 0.0 { (pairs as f64 / (2.0 * sum)) as f32 } else { 0.0 }
}

pub(super) fn squared(a: [f32; 3], b: [f32; 3]) -> f32 {
    (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2) + (a[2] - b[2]).powi(2)
}

/// The right, lower-left, lower and lower-right neighbours with 1 / distance.
pub(super) fn forward_neighbours(
    x: usize,
    y: usize,
    width: usize,
    height: usize,
) -> impl Iterator<Item = (usize, f32)> {
    let i = y * width + x;
    let (right, down) = (x + 1 < width, y + 1 < height);
    [
        right.then_some((i + 1, 1.0)),
        (down && x > 0).then(|| (i + width - 1, std::f32::consts::FRAC_1_SQRT_2)),
        down.then_some((i + width, 1.0)),
        (down && right).then_some((i + width + 1, std::f32::consts::FRAC_1_SQRT_2)),
    ]
    .into_iter()
    .flatten()
}

/// Colour models of both sides.
#[derive(Debug, Clone)]
pub(super) struct Models {
    pub(super) inside: Gmm,
    pub(super) outside: Gmm,
}

impl Models {
    /// Fits both sides of `inside`; the outside is what lies near, which is what must be told
    /// apart. `None` when a side is empty.
    pub(super) fn fit(graph: &RegionGraph, inside: &[bool]) -> Option<Self> {
        let (own, other) = sides(graph, inside);
        Some(Self { inside: Gmm::fit(&own, LAB_FLOOR)?, outside: Gmm::fit(&other, LAB_FLOOR)? })
    }

    /// Evidence for inside of one colour: ln p_in − ln p_out, bounded.
    pub(super) fn evidence(&self, lab: [f32; 3]) -> f32 {
        (self.outside.cost(lab) - self.inside.cost(lab)).clamp(-EVIDENCE, EVIDENCE)
    }

    /// How well the colours alone tell the sides apart, 0..1.
    pub(super) fn separation(&self, graph: &RegionGraph, inside: &[bool]) -> f32 {
        let (own, other) = sides(graph, inside);
        self.inside.separation(&self.outside, &own, &other)
    }
}

fn sides(graph: &RegionGraph, inside: &[bool]) -> (Vec<[f32; 3]>, Vec<[f32; 3]>) {
    let (mut low, mut high) = ([f32::MAX; 2], [f32::MIN; 2]);
    for id in (0..graph.count).filter(|&id| inside[id]) {
        for k in 0..2 {
            low[k] = low[k].min(graph.centre[id][k]);
            high[k] = high[k].max(graph.centre[id][k]);
        }
    }
    let margin = 30.0 + 0.5 * (high[0] - low[0]).max(high[1] - low[1]);
    let near = |id: usize| {
        (0..2).all(|k| graph.centre[id][k] > low[k] - margin && graph.centre[id][k] < high[k] + margin)
    };
    let pick = |keep: &dyn Fn(usize) -> bool| -> Vec<[f32; 3]> {
        (0..graph.count).filter(|&id| keep(id)).flat_map(|id| graph.samples[id]).collect()
    };
    let own = pick(&|id| inside[id]);
    let mut other = pick(&|id| !inside[id] && near(id));
    if other.len() < 200 {
        other = pick(&|id| !inside[id]);
    }
    (own, other)
}

/// One minimum cut over superpixels. `seeds`: 1 inside, −1 outside, 0 free. `prior`: evidence per
/// pixel for inside.
pub(super) fn cut_regions(
    graph: &RegionGraph,
    evidence: &[f32],
    seeds: &[i8],
    prior: &[f32],
    bias: f32,
) -> Vec<bool> {
    let mut flow = MaxFlow::new(graph.count, graph.borders.len());
    for id in 0..graph.count {
        match seeds[id] {
            1 => flow.add_terminal(id, HARD, 0),
            -1 => flow.add_terminal(id, 0, HARD),
            _ => {
                let odds = (graph.area[id] * (evidence[id] + prior[id] + bias) * FIXED) as i64;
                flow.add_terminal(id, odds.max(0), (-odds).max(0));
            }
        }
    }
    for border in &graph.borders {
        let weight = (REGION_GAMMA * border.length * (1.0 - border.strength).powi(2) * FIXED) as i64;
        flow.add_edge(border.a as usize, border.b as usize, weight, weight);
    }
    flow.solve();
    (0..graph.count).map(|id| flow.is_source(id)).collect()
}

/// Mean evidence of every superpixel.
pub(super) fn region_evidence(graph: &RegionGraph, models: &Models) -> Vec<f32> {
    graph
        .samples
        .iter()
        .map(|colours| colours.iter().map(|&c| models.evidence(c)).sum::<f32>() / colours.len() as f32)
        .collect()
}

/// Plain pixel GrabCut from a box `[x0, x1) × [y0, y1)` in pixels: 5+5 components, γ = 50,
/// `rounds` of fit and cut. Colours in 8-bit units.
pub fn grabcut_box(
    rgb: &[[f32; 3]],
    width: usize,
    height: usize,
    area: [usize; 4],
    rounds: usize,
) -> Vec<bool> {
    let [x0, y0, x1, y1] = area;
    let in_box = |i: usize| (x0..x1).contains(&(i % width)) && (y0..y1).contains(&(i / width));
    let mut inside: Vec<bool> = (0..rgb.len()).map(in_box).collect();
    let beta = beta(rgb, width, height);
    for _ in 0..rounds {
        let pick = |side: bool| -> Vec<[f32; 3]> {
            (0..rgb.len()).filter(|&i| inside[i] == side).map(|i| rgb[i]).collect()
        };
        let (Some(own), Some(other)) = (Gmm::fit(&pick(true), 0.01), Gmm::fit(&pick(false), 0.01)) else {
            return inside;
        };
        let mut flow = MaxFlow::new(rgb.len(), 4 * rgb.len());
        for (i, &colour) in rgb.iter().enumerate() {
            if in_box(i) {
                let odds = ((other.cost(colour) - own.cost(colour)) * FIXED) as i64;
                flow.add_terminal(i, odds.max(0), (-odds).max(0));
            } else {
                flow.add_terminal(i, 0, HARD);
            }
            for (j, closeness) in forward_neighbours(i % width, i / width, width, height) {
                let weight = (GAMMA * closeness * (-beta * squared(colour, rgb[j])).exp() * FIXED) as i64;
                flow.add_edge(i, j, weight, weight);
            }
        }
        flow.solve();
        inside = (0..rgb.len()).map(|i| flow.is_source(i)).collect();
    }
    inside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beta_of_the_golden_picture() {
        let rgb = [[0.0, 0.0, 0.0], [10.0, 0.0, 0.0], [0.0, 20.0, 0.0], [0.0, 0.0, 30.0]];
        assert!((beta(&rgb, 2, 2) - 7.142_857e-4).abs() < 1e-9);
        assert_eq!(beta(&[[7.0; 3]; 6], 3, 2), 0.0);
        assert_eq!(beta(&[[7.0; 3]], 1, 1), 0.0);
    }

    #[test]
    fn a_box_around_a_square_finds_the_square() {
        let inside = |i: usize| (8..20).contains(&(i % 32)) && (6..22).contains(&(i / 32));
        let rgb: Vec<[f32; 3]> = (0..32 * 32)
            .map(|i| if inside(i) { [200.0, 40.0, 30.0] } else { [30.0, 90.0, 160.0 + (i % 5) as f32] })
            .collect();
        let cut = grabcut_box(&rgb, 32, 32, [5, 3, 24, 25], 2);
        assert!((0..cut.len()).all(|i| cut[i] == inside(i)));
    }
}
