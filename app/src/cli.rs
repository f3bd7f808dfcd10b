//! The command line: what can be asked, not how it is done.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kinora_pipeline::systems::follow_your_click::Sampler;

/// Click a thing in a picture, say how it moves, get a clip. Offline.
#[derive(Debug, Parser)]
#[command(name = "kinora", version, propagate_version = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// Without one, the window opens
    #[cfg(feature = "gui")]
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[cfg(not(feature = "gui"))]
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Say more on standard error; twice for debugging
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

const EXAMPLES: &str = "\
Examples:
  kinora animate boat.jpg --click 0.41,0.63 --prompt \"drift to the left\" -o boat.mp4
  kinora render workflows/single-click.kinora.json
  kinora validate project.kinora.json

Exit codes:
  0 done   1 a comparison or a required figure failed   2 wrong usage   65 bad input
  69 device or model missing   70 a bug in Kinora   74 file could not be read or written
  75 try again later   130/143 interrupted, --resume continues";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Open the window; also what happens without a command
    #[cfg(feature = "gui")]
    Open(OpenArgs),
    /// Render a document (*.kinora.json)
    Render(RenderArgs),
    /// Animate one photograph without writing a document
    Animate(AnimateArgs),
    /// Check a document and print its plan, without rendering
    Validate(ValidateArgs),
    /// Print the JSON Schema of documents
    Schema,
    /// Show, fetch, check and remove model weights
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Measure a system's quality on inputs whose truth is known
    #[command(subcommand)]
    Eval(EvalCommand),
    /// Time the parts of a render on this machine
    Bench(BenchArgs),
    /// Render again what a receipt describes and compare
    Verify(VerifyArgs),
}

#[cfg(feature = "gui")]
#[derive(Debug, Args)]
pub(crate) struct OpenArgs {
    /// A document, picture or clip to open
    pub(crate) file: Option<PathBuf>,
    /// Time the frames of the window for so many seconds while the clip is rendered, print JSON, close
    #[arg(long, value_name = "SECONDS", hide = true)]
    pub(crate) measure: Option<f64>,
}

#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// The document
    pub(crate) document: PathBuf,
    /// Write outputs below this folder instead of the document's
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replace a parameter, e.g. `--set shot.seed=3`; may be repeated
    #[arg(long, value_name = "NODE.PARAM=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Print the plan with its forecast of time, memory and disk, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Options of every command that renders.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// Where to compute: auto, cpu, or cuda:N
    #[arg(long, default_value = "auto", value_parser = parse_device)]
    pub(crate) device: DeviceChoice,
    /// Continue an interrupted render from its last checkpoint
    #[arg(long)]
    pub(crate) resume: bool,
    /// Replace files that already exist
    #[arg(long)]
    pub(crate) force: bool,
    /// How to report progress; the default is a bar on a terminal and JSON lines elsewhere
    #[arg(long, value_enum)]
    pub(crate) progress: Option<ProgressStyle>,
}

#[derive(Debug, Args)]
pub(crate) struct AnimateArgs {
    /// The photograph: PNG, JPEG or WebP
    pub(crate) photo: PathBuf,
    /// A point on the thing that moves, as fractions of width and height; may be repeated
    #[arg(long, value_name = "X,Y", required = true, value_parser = parse_point, allow_hyphen_values = true)]
    pub(crate) click: Vec<(f32, f32)>,
    /// A point that must not move; may be repeated
    #[arg(long, value_name = "X,Y", value_parser = parse_point, allow_hyphen_values = true)]
    pub(crate) not: Vec<(f32, f32)>,
    /// How it moves, e.g. "drift to the left"
    #[arg(long)]
    pub(crate) prompt: String,
    /// How far it moves, 0 to 1
    #[arg(long, default_value_t = 0.6, value_parser = parse_number, allow_hyphen_values = true)]
    pub(crate) magnitude: f64,
    /// Length of the clip in frames
    #[arg(long, default_value_t = 16)]
    pub(crate) frames: u32,
    /// Frames a second
    #[arg(long, default_value_t = 8.0, value_parser = parse_number)]
    pub(crate) fps: f64,
    /// Denoise steps; the model's own number by default
    #[arg(long)]
    pub(crate) steps: Option<u32>,
    /// Seed of the noise: another one paints uncovered background differently
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,
    /// Course of the motion over the clip
    #[arg(long, value_enum, default_value_t = EaseChoice::Linear)]
    pub(crate) ease: EaseChoice,
    /// Longer side of the clip in pixels; the photograph's own size by default
    #[arg(long, value_name = "PIXELS")]
    pub(crate) size: Option<u32>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The clip to write; its extension chooses the format
    #[arg(short, long, default_value = "out.mp4")]
    pub(crate) output: PathBuf,
    /// Also save the document that makes this clip, in the photograph's folder or above it
    #[arg(long, value_name = "FILE")]
    pub(crate) save_document: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Which model animates, and what a public checkpoint can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelArgs {
    /// embedded, a name from `models list`, hub:OWNER/NAME@REVISION, or a folder of weights
    #[arg(long, value_name = "NAME", default_value = "embedded")]
    pub(crate) model: String,
    /// What the clip is steered away from (public checkpoints)
    #[arg(long, value_name = "TEXT")]
    pub(crate) negative_prompt: Option<String>,
    /// Weight of the prompt against the negative prompt, 1 to 30 (public checkpoints)
    #[arg(long, value_name = "SCALE", allow_hyphen_values = true)]
    pub(crate) guidance_scale: Option<f64>,
    /// The solver (public checkpoints)
    #[arg(long, value_enum)]
    pub(crate) sampler: Option<SamplerChoice>,
    /// Longer side of the picture the network works on, in pixels (public checkpoints)
    #[arg(long, value_name = "PIXELS")]
    pub(crate) working_size: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SamplerChoice {
    Ddim,
    Euler,
    EulerKarras,
    EulerAncestral,
    #[value(name = "dpmpp-2m")]
    Dpmpp2m,
    #[value(name = "dpmpp-2m-karras")]
    Dpmpp2mKarras,
    Lcm,
}

impl SamplerChoice {
    /// As documents say it.
    pub(crate) fn sampler(self) -> Sampler {
        match self {
            Self::Ddim => Sampler::Ddim,
            Self::Euler => Sampler::Euler,
            Self::EulerKarras => Sampler::EulerKarras,
            Self::EulerAncestral => Sampler::EulerAncestral,
            Self::Dpmpp2m => Sampler::Dpmpp2m,
            Self::Dpmpp2mKarras => Sampler::Dpmpp2mKarras,
            Self::Lcm => Sampler::Lcm,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EaseChoice {
    /// Constant speed
    Linear,
    /// Slow start and end
    Smooth,
    /// There and back, for endless play
    Loop,
}

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// The document
    pub(crate) document: PathBuf,
    /// Print the plan as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// What is known, what is installed, sizes and licences
    List,
    /// Download a model's files and check them
    Pull {
        /// A name from `models list`, or hub:OWNER/NAME@REVISION
        model: String,
        /// Never touch the network
        #[arg(long)]
        offline: bool,
    },
    /// Check installed files against their recorded sizes and digests
    Verify { model: String },
    /// Remove an installed model
    Rm { model: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Follow-Your-Click with the embedded model, against procedural clips with exact truth
    FollowYourClick(EvalArgs),
}

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// Folder of photographs the model never saw; the bundled held-out set by default
    #[arg(long, value_name = "DIR")]
    pub(crate) photos: Option<PathBuf>,
    /// How many cases to render
    #[arg(long, default_value_t = 207)]
    pub(crate) cases: usize,
    /// Denoise steps
    #[arg(long)]
    pub(crate) steps: Option<u32>,
    /// Write every figure as JSON; while it runs, measured cases are kept in FILE.cases
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Go on with the cases an interrupted evaluation kept
    #[arg(long, requires = "json")]
    pub(crate) resume: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) what: Option<BenchCommand>,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Repetitions; the median is reported
    #[arg(long, default_value_t = 3)]
    pub(crate) runs: usize,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Time attention alone: rates, floors, predicted traffic, kernel, ratio to peers
    Attention(BenchAttentionArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BenchAttentionArgs {
    /// Only rows whose name contains this
    #[arg(default_value = "")]
    pub(crate) filter: String,
    /// Where to run: cpu or cuda:N
    #[arg(long, default_value = "cpu", value_parser = parse_device)]
    pub(crate) device: DeviceChoice,
    /// Times of peers, as kernels/benches/peers/*.py write them with --json
    #[arg(long, value_name = "FILE")]
    pub(crate) peers: Option<PathBuf>,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Repetitions; the median is reported
    #[arg(long, default_value_t = 5)]
    pub(crate) runs: usize,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A *.receipt.json beside a render
    pub(crate) receipt: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressStyle {
    Bar,
    Jsonl,
    None,
}

/// A compute device as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceChoice {
    Auto,
    Cpu,
    Cuda(usize),
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// Reads `auto`, `cpu` or `cuda:N`.
pub(crate) fn parse_device(text: &str) -> Result<DeviceChoice, String> {
    match text {
        "auto" => Ok(DeviceChoice::Auto),
        "cpu" => Ok(DeviceChoice::Cpu),
        _ => text
            .strip_prefix("cuda:")
            .and_then(|ordinal| ordinal.parse().ok())
            .map(DeviceChoice::Cuda)
            .ok_or_else(|| "expected auto, cpu, or cuda:N such as cuda:0".to_owned()),
    }
}

/// Syntax only: whether the point lies in the picture is for the click's own check, which can say
/// what picture it is.
fn parse_point(text: &str) -> Result<(f32, f32), String> {
    let expected =
        || "expected X,Y such as 0.41,0.63 (fractions of the picture's width and height)".to_owned();
    let (x, y) = text.split_once(',').ok_or_else(expected)?;
    let number = |part: &str| part.trim().parse::<f32>().ok().filter(|v| v.is_finite()).ok_or_else(expected);
    Ok((number(x)?, number(y)?))
}

/// A number JSON can hold.
fn parse_number(text: &str) -> Result<f64, String> {
    let number = text.trim().parse::<f64>().ok().filter(|value| value.is_finite());
    number.ok_or_else(|| "expected a number such as 0.6".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn points_are_two_numbers() {
        assert_eq!(parse_point("0.5, 0.25"), Ok((0.5, 0.25)));
        assert_eq!(parse_point("-1,2"), Ok((-1.0, 2.0)), "range is checked against the picture later");
        for bad in ["", "0.5", "a,b", "0.5;0.5", "1,2,3", "nan,0.5", "0.5,inf"] {
            assert!(parse_point(bad).is_err(), "{bad:?}");
        }
        assert!(parse_number("NaN").is_err() && parse_number("0.25") == Ok(0.25));
    }

    #[test]
    fn devices_are_named() {
        assert_eq!(parse_device("cuda:2"), Ok(DeviceChoice::Cuda(2)));
        for text in ["auto", "cpu", "cuda:0"] {
            assert_eq!(parse_device(text).unwrap().to_string(), text);
        }
        assert!(parse_device("cuda").is_err());
        assert!(parse_device("gpu").is_err());
    }
}
