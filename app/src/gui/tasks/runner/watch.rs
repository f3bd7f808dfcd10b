//! What a running job says of itself, as the window shows it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kinora_pipeline::progress::{CancelToken, Event, Preview, Progress};
use kinora_pipeline::workflow::{Document, Plan};

use super::super::moving::Moving;
use super::Shared;

/// Shortest time between two redraws asked for by progress.
const REDRAW: Duration = Duration::from_millis(33);

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
    /// Nothing done of a plan yet.
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

    fn finished(&mut self, node: &str) -> f64 {
        self.done = (self.done + self.share(node)).min(1.0);
        if let Some(entry) = self.shares.iter_mut().find(|(name, _)| name == node) {
            entry.1 = 0.0;
        }
        self.done
    }

    fn step(&self, node: &str, stage: &str, done: usize, total: usize) -> f64 {
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

/// Tells the window how far a job is.
pub(super) struct Watch<'a> {
    pub(super) shared: &'a Shared,
    pub(super) document: &'a Document,
    pub(super) cancel: CancelToken,
    pub(super) meter: Mutex<Meter>,
    pub(super) drawn: Mutex<Instant>,
}

/// What an op does, for people.
fn doing(op: &str) -> &str {
    match op {
        "image.load" | "video.load" => "Reading the picture",
        "video.frame" => "Taking the frame",
        "mask.click" => "Cutting out what moves",
        "mask.import" | "mask.combine" => "Preparing the mask",
        "animate.click" => "Starting the animation",
        "video.save" | "sequence.save" | "image.save" => "Writing the file",
        _ => "Working",
    }
}

fn stage_words(stage: &str) -> &str {
    match stage {
        "encode" => "Encoding",
        "denoise" => "Imagining the motion",
        "decode" => "Decoding frames",
        "detail" => "Recovering detail",
        "compose" => "Composing frames",
        "frames" => "Reading frames",
        other => other,
    }
}

impl Progress for Watch<'_> {
    fn event(&self, event: Event) {
        {
            let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
            let mut inner = self.shared.lock();
            let Some(live) = &mut inner.live else { return };
            match event {
                Event::NodeStarted { op, .. } => live.doing = doing(&op).to_owned(),
                Event::NodeFinished { node, .. } => live.fraction = meter.finished(&node) as f32,
                Event::Step { node, stage, done, total } => {
                    live.fraction = live.fraction.max(meter.step(&node, stage, done, total) as f32);
                    live.doing = match total {
                        0 => format!("{} {done}", stage_words(stage)),
                        _ => format!("{} {done} of {total}", stage_words(stage)),
                    };
                }
                Event::Notice { message, .. } => {
                    if live.notices.len() < 20 {
                        live.notices.push(message);
                    }
                }
                Event::Wrote { .. } => {}
            }
        }
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if drawn.elapsed() >= REDRAW {
            *drawn = Instant::now();
            drop(drawn);
            (self.shared.wake)();
        }
    }

    fn wants_previews(&self) -> bool {
        true
    }

    fn preview(&self, preview: Preview) {
        let Some(moving) = Moving::of(&preview, self.document) else { return };
        if let Some(live) = &mut self.shared.lock().live {
            live.moving = Some(Arc::new(moving));
        }
        (self.shared.wake)();
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
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
