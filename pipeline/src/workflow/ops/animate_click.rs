//! `animate.click`: regions of a photograph move as short prompts say.

mod job;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CLIP_PORTS, Checks, Input, MASK, NUMBER, NodeOp, PICTURE};
use crate::media::{Mask, Picture};
use crate::systems::follow_your_click::{AnimateError, Animator, Ease, Hooks, JobSize, Region, Sampler};
use crate::workflow::context::{NodeContext, RunError};
use crate::workflow::error::{FieldPath, Finding, ProblemKind, Segment};
use crate::workflow::fields::{Link, Number, PortKind, yes};
use crate::workflow::forecast::{Shape, Work};
use crate::workflow::value::{Value, rational_fps};

const EXAMPLE: &str = "say how it moves, for example \"drift to the left\"";

/// Makes a clip of a photograph in which the masked things move.
///
/// Either `mask`, `prompt` and `magnitude` for one thing, or `regions` for several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnimateClick {
    /// The photograph; frame 0 of the clip.
    pub image: Link,
    /// What moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Link>,
    /// How it moves, in a few words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// How far it moves, of the largest motion the model knows. Keyframes scale the motion frame by frame; `ease` and
    /// they multiply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub magnitude: Option<Number>,
    /// Several things, each with its own words; later ones lie over earlier ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub regions: Vec<RegionSpec>,
    /// Length of the clip.
    #[serde(default = "frames")]
    #[schemars(extend("minimum" = 2, "maximum" = 1024))]
    pub frames: u32,
    /// Frames per second of the clip.
    #[serde(default = "fps")]
    #[schemars(extend("minimum" = 1, "maximum" = 240))]
    pub fps: f64,
    /// Seed of the noise.
    #[serde(default = "seed")]
    #[schemars(extend("minimum" = 0))]
    pub seed: u64,
    /// Denoise steps; the model's own default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = 1000))]
    pub steps: Option<u32>,
    /// Course of the motion over the clip.
    #[serde(default)]
    pub ease: Ease,
    /// Warps the first frame along the predicted motion and denoises the rest; false is the
    /// paper's plain path.
    #[serde(default = "yes")]
    pub guide: bool,
    /// Keeps the photograph's own pixels where nothing moves and its detail where motion carries
    /// it; false shows what the decoder gives.
    #[serde(default = "yes")]
    pub composite: bool,
    /// Longer side of the frames in pixels; the photograph's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 64, "maximum" = 7680))]
    pub size: Option<u32>,
    /// "embedded", a name from `kinora models list` such as "animatediff-v2" or "pia", a repository of the hub as
    /// "hub:OWNER/NAME@REVISION", or a folder of weights beside the document. Weights are fetched beforehand with
    /// `kinora models pull`; rendering never uses the network.
    #[serde(default = "embedded")]
    #[schemars(length(min = 1))]
    pub model: String,
    /// What the clip is steered away from. Public checkpoints only, as are the fields below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    /// Weight of the prompt against the negative prompt; 1 leaves the negative prompt out and takes half the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = 30))]
    pub guidance_scale: Option<f64>,
    /// The solver that goes from noise to picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler: Option<Sampler>,
    /// Longer side of the picture the network works on, in pixels; 512 when absent. Time and memory grow with its
    /// square; `size` is that of the finished frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 64, "maximum" = 2048))]
    pub working_size: Option<u32>,
    /// Holds everything outside the masks to the photograph while denoising; true when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_background: Option<bool>,
}

/// One thing that moves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegionSpec {
    /// Where it is.
    pub mask: Link,
    /// How it moves, in a few words.
    pub prompt: String,
    /// How far it moves, of the largest motion the model knows; may be keyframes.
    #[serde(default = "magnitude")]
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub magnitude: Number,
}

fn frames() -> u32 {
    16
}

fn fps() -> f64 {
    8.0
}

fn seed() -> u64 {
    7
}

fn embedded() -> String {
    "embedded".to_owned()
}

fn magnitude() -> Number {
    Number::Constant(0.6)
}

fn key(name: &str) -> Segment {
    Segment::Key(name.into())
}

impl NodeOp for AnimateClick {
    /// 2: uncovered background in the photograph's texture; scenery moves inside its outline.
    /// 3: attention sums in another order, which rounds differently.
    fn version(&self) -> u32 {
        3
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        let mut inputs = vec![Input::new("image", &self.image, PICTURE)];
        inputs.extend(self.mask.iter().map(|link| Input::new("mask", link, MASK)));
        let single = self.magnitude.as_ref().and_then(Number::link);
        inputs.extend(single.map(|link| Input::new("magnitude", link, NUMBER)));
        for (index, region) in self.regions.iter().enumerate() {
            inputs.push(Input::item("regions", index, &region.mask, MASK).then("mask"));
            if let Some(link) = region.magnitude.link() {
                inputs.push(Input::item("regions", index, link, NUMBER).then("magnitude"));
            }
        }
        inputs
    }

    fn outputs(&self) -> &'static [(&'static str, PortKind)] {
        CLIP_PORTS
    }

    fn check(&self, checks: &mut Checks<'_>) {
        let single = self.mask.is_some() || self.prompt.is_some() || self.magnitude.is_some();
        match (single, self.regions.is_empty()) {
            (true, false) => checks.field(
                "regions",
                "either \"regions\" or \"mask\" with \"prompt\"",
                "both",
                Some("put the single mask into \"regions\" as well"),
            ),
            (false, true) => checks.refuse(
                &[],
                "\"mask\" with \"prompt\", or \"regions\"",
                "nothing that moves",
                Some("link \"mask\" to a mask.click and say in \"prompt\" how it moves"),
            ),
            (true, true) if self.mask.is_none() => {
                checks.refuse(&[], "the field \"mask\"", "no such field", Some("link it to a mask.click"));
            }
            (true, true) if self.prompt.is_none() => {
                checks.refuse(&[], "the field \"prompt\"", "no such field", Some(EXAMPLE));
            }
            _ => {}
        }
        for (at, prompt) in self.prompts() {
            checks.words(&at, prompt, EXAMPLE);
        }
        for (at, number) in self.magnitudes() {
            let Number::Keyed(keys) = &number else { continue };
            if let Some(index) = keys.out_of_order() {
                let mut at = at;
                at.extend([key("keys"), Segment::Index(index), Segment::Index(0)]);
                checks.refuse(&at, "a time after that of the key before", "one that is not", None);
            }
        }
        if self.model.trim().is_empty() {
            checks.words(&[key("model")], &self.model, "use \"embedded\" for the model inside Kinora");
        }
    }

    fn model(&self) -> Option<&str> {
        Some(&self.model)
    }

    fn model_check(&self, model: &dyn Animator) -> Option<Finding> {
        // One pixel stands for the picture: words, frames and steps are checked without one.
        let photo = Picture::new(1, 1, vec![128; 3]).ok()?;
        let mask = Mask::new(1, 1, vec![1.0]).ok()?;
        let prompts = self.prompts();
        let magnitudes = self.magnitudes();
        let regions = prompts
            .iter()
            .zip(&magnitudes)
            .map(|((_, prompt), (_, number))| Region {
                mask: mask.clone(),
                prompt: (*prompt).to_owned(),
                magnitude: self.over_frames(number, Some(0.0)),
            })
            .collect();
        let job = self.outline(photo, regions);
        let error = model.validate(&job).and_then(|()| model.check_prompts(&job)).err()?;
        let at = |at: &[Segment]| FieldPath(at.to_vec());
        let prompt_at =
            |index: usize| prompts.get(index).map(|(at, _)| FieldPath(at.clone())).unwrap_or_default();
        let finding = match &error {
            AnimateError::PromptTooLong { index, tokens, limit, .. } => Finding::new(
                ProblemKind::Value,
                prompt_at(*index),
                format!("a prompt of at most {limit} tokens"),
                format!("{tokens} tokens"),
            )
            .help("shorten it; a few words about the motion work best"),
            AnimateError::EmptyPrompt { index } => {
                Finding::new(ProblemKind::Value, prompt_at(*index), "a text with words", "an empty text")
                    .help(EXAMPLE)
            }
            AnimateError::Frames { model, max, got } => Finding::new(
                ProblemKind::Range,
                at(&[key("frames")]),
                format!("2 to {max} frames, what {model} was trained for"),
                got.to_string(),
            )
            .help("render fewer frames, or let the clip repeat with ease \"loop\""),
            AnimateError::Steps { got } => {
                Finding::new(ProblemKind::Range, at(&[key("steps")]), "1 to 1000 steps", got.to_string())
            }
            AnimateError::KeyedMagnitude { index, model, reason } => Finding::new(
                ProblemKind::Value,
                magnitudes.get(*index).map(|(at, _)| FieldPath(at.clone())).unwrap_or_default(),
                "one magnitude for the whole clip",
                format!("keyframes, and {model} {reason}"),
            )
            .help("the embedded model and PIA follow keyframes"),
            AnimateError::Setting { field, expected, got } => {
                Finding::new(ProblemKind::Value, at(&[key(field)]), expected, got)
            }
            AnimateError::Unused { model, field } => {
                let found = "one that it has no use for";
                Finding::new(ProblemKind::Value, at(&[key(field)]), format!("no {field} with {model}"), found)
                    .help("leave it out, or choose a public checkpoint as the model")
            }
            other => Finding::new(ProblemKind::Value, at(&[]), "a job the model can do", other.to_string()),
        };
        Some(finding)
    }

    fn forecast(&self, inputs: &[(String, Shape)]) -> (Shape, Work) {
        let shape = self.shape(inputs);
        (shape, Work::animate(shape, self.steps.map(u64::from)).keeping_frames(shape))
    }

    fn forecast_with(&self, inputs: &[(String, Shape)], model: &dyn Animator) -> (Shape, Work) {
        let photo = Shape::first(inputs);
        let side = |pixels: u64| u32::try_from(pixels).unwrap_or(u32::MAX).max(1);
        let sampling = self.sampling();
        let size = JobSize {
            width: side(photo.width),
            height: side(photo.height),
            frames: self.frames as usize,
            steps: self.steps.map(|steps| steps as usize),
            sampling: &sampling,
        };
        match model.effort(&size) {
            Some(effort) => {
                let shape = self.shape(inputs);
                (shape, Work::compute(shape, &effort).keeping_frames(shape))
            }
            None => self.forecast(inputs),
        }
    }

    fn run(&self, context: &mut NodeContext<'_>) -> Result<Value, RunError> {
        let photo = context.picture_input("image")?;
        let regions = self.gather(context)?;
        let job = self.outline((*photo).clone(), regions);
        let model = context.animator(&self.model)?;
        model.validate(&job)?;
        let mut writer = context.clip(rational_fps(self.fps))?;
        let checkpoint = context.checkpoint_folder()?;
        let hooks = Hooks {
            progress: context.progress(),
            node: context.node(),
            checkpoint: checkpoint.as_deref(),
            resume: context.resume(),
        };
        let report = model.animate(&job, &hooks, &mut |frame| {
            writer.push(&frame).map_err(|error| Box::new(error) as Box<dyn std::error::Error + Send + Sync>)
        });
        let report = report.map_err(RunError::from)?;
        if !report.understood.iter().any(|words| !words.is_empty()) {
            context.notice(
                "no known motion was recognised in the prompt; the model follows its words alone".into(),
            );
        } else {
            context.notice(format!("understood as: {}", report.understood.join("; ")));
        }
        writer.finish()
    }
}
