//! Documents: read, planned, run, and proved afterwards.
//!
//! [`Document::parse`] says whether a text is a sound graph; [`Plan::build`] looks at the files,
//! models and outputs it names and says what will run and what it will need; [`run`] runs it as a
//! job on disk that survives being killed; a [`Receipt`] beside each output says what made it and
//! [`verify`] makes it again.

mod clock;
mod context;
mod document;
mod engines;
mod error;
mod fields;
mod forecast;
mod job;
mod key;
mod model_name;
pub mod ops;
mod overrides;
mod plan;
mod receipt;
mod run;
mod schema;
mod shape;
mod span;
mod value;
mod verify;

pub use clock::{Clock, FixedClock, SystemClock};
pub use context::{NodeContext, RunError, animate_class};
pub use document::{Document, MAX_BYTES, MAX_NODES, MAX_TEXT, Node, VERSION};
pub use engines::{Engines, MaskQuery};
pub use error::{DocumentError, ErrorClass, FieldPath, Finding, Problem, ProblemKind, Segment};
pub use fields::{KeyEase, Keyframes, Link, Number, Point, PortKind, Rectangle};
pub use forecast::{Forecast, Shape, Work};
pub use job::{Job, JobState, NodeState};
pub use model_name::ModelName;
pub use plan::{Plan, PlanStep, RunOptions, Source};
pub use receipt::{Receipt, ReceiptNode, receipt_path};
pub use run::{RunContext, RunReport, run};
pub use schema::{COMMITTED_AT, schema, schema_text};
pub use value::{Clip, ClipWriter, Value, Written, frame_at, rational_fps, sample_at};
pub use verify::{Comparison, VerifyReport, verify};
