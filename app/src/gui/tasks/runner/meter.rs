//! How far a job is.

use kinora_pipeline::workflow::Plan;

/// Turns steps of nodes into one fraction.
pub(super) struct Meter {
    /// Nodes that run, with their share of the whole.
    shares: Vec<(String, f64)>,
    done: f64,
}

/// The stages of an animation with their share of its time, measured on the embedded model.
const STAGES: [(&str, f64); 5] =
    [("encode", 0.06), ("denoise", 0.62), ("decode", 0.12), ("detail", 0.12), ("compose", 0.08)];

impl Meter {
    pub(super) fn new(plan: &Plan) -> Self {
        let steps: Vec<_> = plan.steps().iter().filter(|step| step.needed && !step.cached).collect();
        let total: f64 = steps.iter().map(|step| step.seconds.max(0.01)).sum();
        let shares =
            steps.iter().map(|step| (step.node.clone(), step.seconds.max(0.01) / total.max(0.01))).collect();
        Self { shares, done: 0.0 }
    }

    fn share(&self, node: &str) -> f64 {
        self.shares.iter().find(|(name, _)| name == node).map_or(0.0, |(_, share)| *share)
    }

    pub(super) fn finished(&mut self, node: &str) -> f64 {
        self.done = (self.done + self.share(node)).min(1.0);
        if let Some(entry) = self.shares.iter_mut().find(|(name, _)| name == node) {
            entry.1 = 0.0;
        }
        self.done
    }

    pub(super) fn step(&self, node: &str, stage: &str, done: usize, total: usize) -> f64 {
        let within = if total > 0 { (done as f64 / total as f64).min(1.0) } else { 0.0 };
        let within = match STAGES.iter().position(|(name, _)| *name == stage) {
            // Encoding is also what saving a file is called, and then it is all there is.
            Some(at) if !(stage == "encode" && self.shares.len() == 1) => {
                STAGES.iter().take(at).map(|(_, share)| share).sum::<f64>()
                    + within * STAGES.get(at).map_or(0.0, |(_, share)| *share)
            }
            _ => within,
        };
        (self.done + within * self.share(node)).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fraction_only_grows_and_ends_at_one() {
        let mut meter = Meter {
            shares: vec![("photo".into(), 0.1), ("shot".into(), 0.8), ("file".into(), 0.1)],
            done: 0.0,
        };
        let mut seen = vec![meter.finished("photo")];
        for (stage, _) in STAGES {
            for done in 1..=4 {
                seen.push(meter.step("shot", stage, done, 4));
            }
        }
        seen.push(meter.finished("shot"));
        seen.push(meter.step("file", "frames", 1, 2));
        seen.push(meter.finished("file"));
        assert!(seen.is_sorted(), "{seen:?}");
        assert!((seen.last().unwrap() - 1.0).abs() < 1e-9);
        assert_eq!(meter.step("unknown", "decode", 1, 0), 1.0);
    }
}
