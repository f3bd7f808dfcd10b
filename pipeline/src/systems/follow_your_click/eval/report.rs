//! From cases to figures and from figures to bars.

use std::collections::BTreeMap;

use serde::Serialize;

use super::measure::CaseResult;

/// Mean figures over a set of cases.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// Cases in the set.
    pub cases: usize,
    /// Share of cases whose best explanation is the requested kind.
    pub direction_right: f64,
    /// Mean of measured over requested displacement.
    pub factor_mean: Option<f64>,
    /// Standard deviation of the same.
    pub factor_sd: Option<f64>,
    /// Mean displacement of things that should not move, pixels of 256.
    pub still_px: Option<f64>,
    /// Mean PSNR inside the moved thing, decoded clip.
    pub inside_db: Option<f64>,
    /// Mean gain over the pure warp, inside.
    pub inside_gain_db: Option<f64>,
    /// Mean PSNR inside of the product's frames.
    pub inside_product_db: Option<f64>,
    /// The same without what the denoiser changed.
    pub inside_undenoised_db: Option<f64>,
    /// Mean PSNR in the uncovered background, decoded clip.
    pub uncovered_db: Option<f64>,
    /// Mean gain over the pure warp with smooth filling, in the uncovered background.
    pub uncovered_gain_db: Option<f64>,
    /// Mean PSNR there of the product's frames.
    pub uncovered_product_db: Option<f64>,
    /// The same without what the denoiser changed.
    pub uncovered_undenoised_db: Option<f64>,
}

/// A figure beside what it must reach.
#[derive(Debug, Clone, Serialize)]
pub struct Bar {
    /// What is measured.
    pub name: String,
    /// The figure.
    pub measured: f64,
    /// What it must reach, in words.
    pub required: String,
    /// Whether it does.
    pub held: bool,
}

/// The whole evaluation.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Model and digest of its weights.
    pub model: String,
    /// Denoise steps a case.
    pub steps: usize,
    /// Photographs the scenes were drawn from.
    pub photos: Vec<String>,
    /// The bars.
    pub bars: Vec<Bar>,
    /// Over all cases.
    pub all: Summary,
    /// Over prompts never used in training.
    pub held_out_prompts: Summary,
    /// By kind.
    pub by_kind: BTreeMap<String, Summary>,
    /// Each case.
    pub cases: Vec<CaseResult>,
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / count as f64)
}

fn gain(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? - b?)
}

impl Summary {
    fn of<'a>(cases: impl Iterator<Item = &'a CaseResult> + Clone) -> Self {
        let over = |f: fn(&CaseResult) -> Option<f64>| mean(cases.clone().filter_map(f));
        let factor_mean = over(|c| c.factor);
        let factor_sd = factor_mean.and_then(|m| {
            mean(cases.clone().filter_map(|c| c.factor).map(|f| (f - m) * (f - m))).map(f64::sqrt)
        });
        Self {
            cases: cases.clone().count(),
            direction_right: over(|c| Some(f64::from(c.measured_kind == c.kind))).unwrap_or(0.0),
            factor_mean,
            factor_sd,
            still_px: over(|c| c.still_px),
            inside_db: over(|c| c.inside_db),
            inside_gain_db: over(|c| gain(c.inside_db, c.inside_warp_db)),
            inside_product_db: over(|c| c.inside_product_db),
            inside_undenoised_db: over(|c| c.inside_undenoised_db),
            uncovered_db: over(|c| c.uncovered_db),
            uncovered_gain_db: over(|c| gain(c.uncovered_db, c.uncovered_warp_db)),
            uncovered_product_db: over(|c| c.uncovered_product_db),
            uncovered_undenoised_db: over(|c| c.uncovered_undenoised_db),
        }
    }
}

/// Rank correlation; ties share their mean rank.
fn spearman(pairs: &[(f64, f64)]) -> f64 {
    fn ranks(values: &[f64]) -> Vec<f64> {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
        let mut ranks = vec![0.0; values.len()];
        let mut start = 0;
        while start < order.len() {
            let mut end = start + 1;
            while end < order.len() && values[order[end]] == values[order[start]] {
                end += 1;
            }
            for &at in &order[start..end] {
                ranks[at] = (start + end - 1) as f64 / 2.0;
            }
            start = end;
        }
        ranks
    }
    let x = ranks(&pairs.iter().map(|p| p.0).collect::<Vec<_>>());
    let y = ranks(&pairs.iter().map(|p| p.1).collect::<Vec<_>>());
    let centre = (pairs.len() as f64 - 1.0) / 2.0;
    let product =
        |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(p, q)| (p - centre) * (q - centre)).sum() };
    let scale = (product(&x, &x) * product(&y, &y)).sqrt();
    if scale > 0.0 { product(&x, &y) / scale } else { 0.0 }
}

impl Report {
    /// Gathers cases.
    pub fn new(model: String, steps: usize, photos: Vec<String>, cases: Vec<CaseResult>) -> Self {
        let kinds: std::collections::BTreeSet<&str> = cases.iter().map(|c| c.kind.as_str()).collect();
        let by_kind: BTreeMap<String, Summary> = kinds
            .into_iter()
            .map(|kind| (kind.to_owned(), Summary::of(cases.iter().filter(|c| c.kind == kind))))
            .collect();
        let all = Summary::of(cases.iter());
        let held_out_prompts = Summary::of(cases.iter().filter(|c| c.held_out));
        let bars = bars(&cases, &by_kind);
        Self { model, steps, photos, bars, all, held_out_prompts, by_kind, cases }
    }
}

fn bars(cases: &[CaseResult], by_kind: &BTreeMap<String, Summary>) -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut bar = |name: &str, measured: Option<f64>, required: &str, holds: &dyn Fn(f64) -> bool| {
        if let Some(measured) = measured {
            bars.push(Bar {
                name: name.to_owned(),
                measured,
                required: required.to_owned(),
                held: holds(measured),
            });
        }
    };
    let moving = || cases.iter().filter(|c| c.kind != "still");
    let right = |c: &CaseResult| f64::from(c.measured_kind == c.kind);
    let pairs: Vec<(f64, f64)> =
        moving().filter_map(|c| Some((c.magnitude, c.factor? * c.magnitude))).collect();
    let at_least = |least: f64| move |v: f64| v >= least;

    bar("direction right", mean(moving().map(right)), ">= 0.95", &at_least(0.95));
    bar(
        "direction right, unseen prompts",
        mean(moving().filter(|c| c.held_out).map(right)),
        ">= 0.90",
        &at_least(0.9),
    );
    bar("measured over requested", mean(moving().filter_map(|c| c.factor)), "0.85 to 1.15", &|v| {
        (v - 1.0).abs() <= 0.15
    });
    bar("Spearman of magnitude", (!pairs.is_empty()).then(|| spearman(&pairs)), ">= 0.9", &at_least(0.9));
    bar(
        "outside, dB below the autoencoder",
        mean(cases.iter().filter_map(|c| gain(c.outside_autoencoder_db, c.outside_db))),
        "<= 0.5",
        &|v| v <= 0.5,
    );
    bar(
        "autoencoder on the input, dB",
        mean(cases.iter().map(|c| c.autoencoder_input_db)),
        ">= 31",
        &at_least(31.0),
    );
    // What a user gets against the latents' warp decoded; `inside_gain_db` is the decoder alone.
    bar(
        "inside, finished frames, dB above pure warp",
        mean(moving().filter_map(|c| gain(c.inside_product_db, c.inside_warp_db))),
        ">= 1",
        &at_least(1.0),
    );
    bar(
        "uncovered background, finished frames, dB above pure warp",
        mean(moving().filter_map(|c| gain(c.uncovered_product_db, c.uncovered_warp_db))),
        ">= 1",
        &at_least(1.0),
    );
    bar("stay still, px", mean(cases.iter().filter_map(|c| c.still_px)), "< 0.5", &|v| v < 0.5);
    bar(
        "frame 0, dB",
        cases.iter().map(|c| c.frame0_db).reduce(f64::min),
        ">= 30 in every case",
        &at_least(30.0),
    );
    for kind in ["grow", "shrink", "sway", "ripple"] {
        let share = by_kind.get(kind).map(|s| s.direction_right);
        bar(&format!("{kind} right"), share, ">= 0.95", &at_least(0.95));
        let factor = by_kind.get(kind).and_then(|s| s.factor_mean);
        bar(&format!("{kind} measured over requested"), factor, "0.85 to 1.15", &|v| (v - 1.0).abs() <= 0.15);
    }
    let flows = || cases.iter().filter(|c| c.kind.starts_with("flow_"));
    bar("flow right", mean(flows().map(right)), ">= 0.95", &at_least(0.95));
    bar("flow measured over requested", mean(flows().filter_map(|c| c.factor)), "0.85 to 1.15", &|v| {
        (v - 1.0).abs() <= 0.15
    });
    bars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spearman_sees_order_only() {
        assert!((spearman(&[(1.0, 10.0), (2.0, 11.0), (3.0, 100.0)]) - 1.0).abs() < 1e-12);
        assert!((spearman(&[(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]) + 1.0).abs() < 1e-12);
        // Ranks 1 2 3 4 against 1.5 1.5 3.5 3.5.
        let tied = spearman(&[(1.0, 5.0), (2.0, 5.0), (3.0, 6.0), (4.0, 6.0)]);
        assert!((tied - 0.894_427).abs() < 1e-5, "{tied}");
        assert_eq!(spearman(&[(1.0, 1.0), (1.0, 1.0)]), 0.0);
    }
}
