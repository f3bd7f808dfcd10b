//! The ops a node can do, one file each, and what they have in common.

mod animate_click;
mod image_load;
mod image_save;
mod mask_click;
mod mask_combine;
mod mask_import;
mod range;
mod sequence_save;
mod strip;
mod video_frame;
mod video_load;
mod video_save;
mod video_sequence;

pub use animate_click::{AnimateClick, RegionSpec};
pub use image_load::ImageLoad;
pub use image_save::ImageSave;
pub use mask_click::{Candidate, MaskClick};
pub use mask_combine::{CombineMode, MaskCombine};
pub use mask_import::MaskImport;
pub use range::saved_frames;
pub use sequence_save::{FrameFormat, SequenceSave};
pub use strip::Strip;
pub use video_frame::VideoFrame;
pub use video_load::VideoLoad;
pub use video_save::{SaveCodec, VideoSave};
pub use video_sequence::{
    Fit, MOMENT, SequenceClip, VideoSequence, loudness_at, mix, opacity, sequence_frames,
};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::Value as Json;

use super::context::{NodeContext, RunError};
use super::error::{FieldPath, Finding, ProblemKind, Segment};
use super::fields::{Link, PortKind};
use super::forecast::{Shape, Work};
use super::value::Value;

/// What a node of the graph can be asked, whatever its op.
pub trait NodeOp: std::fmt::Debug + Send + Sync {
    /// Grows when the op's result for the same parameters changes; part of the cache key.
    fn version(&self) -> u32 {
        1
    }

    /// The links it needs.
    fn inputs(&self) -> Vec<Input<'_>> {
        vec![]
    }

    /// Its ports, the main one first.
    fn outputs(&self) -> &'static [(&'static str, PortKind)];

    /// Checks what a schema cannot say: two fields against each other, texts without words.
    fn check(&self, _checks: &mut Checks<'_>) {}

    /// The file it reads, named by its field `path`.
    fn reads(&self) -> Option<&str> {
        None
    }

    /// The file or folder it writes, named by its field `path`. Only such nodes are run for their
    /// own sake.
    fn writes(&self) -> Option<&str> {
        None
    }

    /// The model it needs, with what to check before anything runs.
    fn model(&self) -> Option<&str> {
        None
    }

    /// The job as far as it can be checked by the model without any picture.
    fn model_check(&self, _model: &dyn crate::systems::follow_your_click::Animator) -> Option<Finding> {
        None
    }

    /// The rough size of the result and of the work, from the sizes of the inputs.
    fn forecast(&self, inputs: &[(String, Shape)]) -> (Shape, Work);

    /// [`Self::forecast`] for an op that has a model, which may know its own cost.
    fn forecast_with(
        &self,
        inputs: &[(String, Shape)],
        _model: &dyn crate::systems::follow_your_click::Animator,
    ) -> (Shape, Work) {
        self.forecast(inputs)
    }

    /// What is wrong with its fields beside the expected sizes of its inputs, so that it is said before
    /// anything runs.
    fn shape_check(&self, _inputs: &[(String, Shape)]) -> Option<Finding> {
        None
    }

    /// Does it.
    ///
    /// # Errors
    /// [`RunError`], which says whose fault it is and whether trying again may help.
    fn run(&self, context: &mut NodeContext<'_>) -> Result<Value, RunError>;
}

/// A link a node needs.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    /// The field, such as `image` or `masks[1]`, as a path from the node.
    pub at: Vec<Segment>,
    /// The link.
    pub link: &'a Link,
    /// What it may bring.
    pub kinds: &'static [PortKind],
}

impl<'a> Input<'a> {
    fn new(field: &str, link: &'a Link, kinds: &'static [PortKind]) -> Self {
        Self { at: vec![Segment::Key(field.into())], link, kinds }
    }

    fn item(field: &str, index: usize, link: &'a Link, kinds: &'static [PortKind]) -> Self {
        Self { at: vec![Segment::Key(field.into()), Segment::Index(index)], link, kinds }
    }

    fn then(mut self, field: &str) -> Self {
        self.at.push(Segment::Key(field.into()));
        self
    }

    /// The field as text, such as `masks[1]`.
    pub fn name(&self) -> String {
        FieldPath(self.at.clone()).to_string()
    }

    /// The field from the root of the document.
    pub fn field(&self, node: &FieldPath) -> FieldPath {
        let mut path = node.clone();
        path.0.extend(self.at.iter().cloned());
        path
    }
}

/// Collects what [`NodeOp::check`] finds.
#[derive(Debug)]
pub struct Checks<'a> {
    node: &'a FieldPath,
    findings: &'a mut Vec<Finding>,
}

impl<'a> Checks<'a> {
    pub(super) fn new(node: &'a FieldPath, findings: &'a mut Vec<Finding>) -> Self {
        Self { node, findings }
    }

    /// Adds a finding at a field of the node; `at` may be empty for the node itself.
    pub fn refuse(&mut self, at: &[Segment], expected: &str, found: &str, help: Option<&str>) {
        let mut path = self.node.clone();
        path.0.extend(at.iter().cloned());
        let mut finding = Finding::new(ProblemKind::Value, path, expected, found);
        finding.help = help.map(str::to_owned);
        self.findings.push(finding);
    }

    fn field(&mut self, field: &str, expected: &str, found: &str, help: Option<&str>) {
        self.refuse(&[Segment::Key(field.into())], expected, found, help);
    }

    /// Refuses a text without words.
    fn words(&mut self, at: &[Segment], text: &str, help: &str) {
        if text.trim().is_empty() {
            self.refuse(at, "a text with words", "an empty text", Some(help));
        }
    }

    /// Refuses a path that does not end in one of `extensions`.
    fn extension(&mut self, path: &str, extensions: &[&str]) {
        let end = extension_of(path);
        if !extensions.contains(&end.as_str()) {
            let expected = format!("a name that ends in .{}", extensions.join(", ."));
            self.field("path", &expected, &format!("\"{}\"", super::shape::short(path)), None);
        }
    }
}

/// The lower-case extension of a path in a document; empty when there is none.
fn extension_of(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).unwrap_or_default()
}

macro_rules! ops {
    ($($variant:ident = $name:literal,)*) => {
        /// What a node does, with its parameters.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(tag = "op")]
        pub enum Op {
            $(
                #[doc = concat!("`", $name, "`")]
                #[serde(rename = $name)]
                $variant($variant),
            )*
        }

        impl Op {
            /// Every op's name.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// The name in documents.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }

            /// The op behind its common face.
            pub fn get(&self) -> &dyn NodeOp {
                match self { $(Self::$variant(op) => op,)* }
            }

            /// Reads the parameters of the op called `name`.
            pub(super) fn read(
                name: &str,
                parameters: Json,
            ) -> Result<Self, serde_path_to_error::Error<serde_json::Error>> {
                match name {
                    $($name => serde_path_to_error::deserialize(parameters).map(Self::$variant),)*
                    // The caller has looked the name up.
                    other => serde_path_to_error::deserialize(Json::String(other.into())).map(Self::ImageLoad),
                }
            }

            /// The schema of the parameters of the op called `name`.
            pub(super) fn schema(name: &str, generator: &mut SchemaGenerator) -> Option<Schema> {
                match name {
                    $($name => Some(<$variant as JsonSchema>::json_schema(generator)),)*
                    _ => None,
                }
            }
        }
    };
}

ops! {
    ImageLoad = "image.load",
    ImageSave = "image.save",
    VideoLoad = "video.load",
    VideoFrame = "video.frame",
    MaskClick = "mask.click",
    MaskImport = "mask.import",
    MaskCombine = "mask.combine",
    AnimateClick = "animate.click",
    VideoSequence = "video.sequence",
    VideoSave = "video.save",
    SequenceSave = "sequence.save",
    Strip = "strip",
}

const PICTURE: &[PortKind] = &[PortKind::Picture];
const MASK: &[PortKind] = &[PortKind::Mask];
const CLIP: &[PortKind] = &[PortKind::Clip];
const NUMBER: &[PortKind] = &[PortKind::Number];
const RASTER: &[PortKind] = &[PortKind::Picture, PortKind::Mask];
const PICTURE_PORTS: &[(&str, PortKind)] =
    &[("image", PortKind::Picture), ("width", PortKind::Number), ("height", PortKind::Number)];
const MASK_PORTS: &[(&str, PortKind)] = &[("mask", PortKind::Mask), ("area", PortKind::Number)];
const CLIP_PORTS: &[(&str, PortKind)] = &[
    ("video", PortKind::Clip),
    ("fps", PortKind::Number),
    ("frames", PortKind::Number),
    ("width", PortKind::Number),
    ("height", PortKind::Number),
];
const FILE_PORTS: &[(&str, PortKind)] = &[("file", PortKind::File)];
