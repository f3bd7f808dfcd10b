//! What will run, in which order, what is known already, and what it will need.

mod builder;
mod needs;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use builder::Builder;
use needs::{forecast, too_much};

use super::document::Document;
use super::engines::Engines;
use super::error::{DocumentError, FieldPath, Finding, ProblemKind};
use super::forecast::{Costs, Forecast, Shape, Work};
use super::job::{Job, job_id};
use super::ops::Op;
use crate::store::cache::{Cache, CacheKey};
use crate::store::paths::Roots;

/// How a document is planned and run.
#[derive(Clone)]
pub struct RunOptions {
    /// The document's folder; names resolve inside it.
    pub folder: PathBuf,
    /// Where outputs go; the document's folder when `None`.
    pub out: Option<PathBuf>,
    /// Folders in which names beginning with `assets/` are looked for.
    pub assets: Vec<PathBuf>,
    /// Replace outputs that exist.
    pub force: bool,
    /// Continue unfinished work and skip outputs that are proved by their receipt.
    pub resume: bool,
    /// Only these output nodes; all when `None`.
    pub targets: Option<Vec<String>>,
    /// The models.
    pub engines: Arc<dyn Engines>,
    /// Where results are kept.
    pub cache: Cache,
}

impl std::fmt::Debug for RunOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunOptions")
            .field("folder", &self.folder)
            .field("out", &self.out)
            .finish_non_exhaustive()
    }
}

/// A link resolved to the node and port it leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The field, such as `regions[0].mask`.
    pub field: String,
    /// The node.
    pub node: String,
    /// Its port; the main one when `None`.
    pub port: Option<String>,
}

/// One node of the plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlanStep {
    /// The node.
    pub node: String,
    /// Its op with its parameters.
    #[serde(skip)]
    pub op: Op,
    /// The op's name.
    #[serde(rename = "op")]
    pub op_name: &'static str,
    /// Hash over everything its result depends on.
    pub key: CacheKey,
    /// Where its inputs come from.
    pub inputs: Vec<Source>,
    /// Whether its result is known already.
    pub cached: bool,
    /// Whether anything that runs needs it.
    pub needed: bool,
    /// Digest of the file it reads.
    pub file_digest: Option<String>,
    /// Digest of its model's weights.
    pub model_digest: Option<String>,
    /// The file or folder it writes.
    pub output: Option<PathBuf>,
    /// Whether that output may replace what is there.
    pub overwrite: bool,
    /// Expected size of the result.
    pub shape: Shape,
    /// Expected work.
    pub work: Work,
    /// Expected seconds.
    pub seconds: f64,
}

/// A document with everything it names looked up, ready to run.
#[derive(Debug)]
pub struct Plan {
    pub(super) document: Document,
    pub(super) options: RunOptions,
    pub(super) roots: Roots,
    pub(super) steps: Vec<PlanStep>,
    pub(super) forecast: Forecast,
    pub(super) job: String,
    pub(super) numeric: String,
}

impl Plan {
    /// Looks up files, models and outputs, and decides what has to run. Creates nothing but the folder
    /// named in `out`.
    ///
    /// # Errors
    /// Each problem points at the field of the document it comes from.
    pub fn build(document: &Document, options: &RunOptions) -> Result<Self, DocumentError> {
        let fail = |findings: Vec<Finding>| document.error(findings).map_or(Ok(()), Err);
        let roots =
            Roots::open(&options.folder, options.out.as_deref(), &options.assets).map_err(|error| {
                let expected = "folders that can be opened";
                document.problem(Finding::new(
                    ProblemKind::Io,
                    FieldPath::default(),
                    expected,
                    error.to_string(),
                ))
            })?;
        let wanted = reachable(document, options)?;
        let numeric = options.engines.numeric_path();
        let job = job_id(document.value(), roots.document(), roots.output());
        let previous = Job::read(&options.cache, &job);
        let mut builder = Builder {
            document,
            options,
            roots: &roots,
            previous: previous.as_ref(),
            keys: HashMap::new(),
            shapes: HashMap::new(),
            outputs: HashMap::new(),
            findings: vec![],
            costs: Costs::read(&options.cache),
            numeric: &numeric,
        };
        let mut steps: Vec<PlanStep> = document
            .order()
            .iter()
            .filter(|name| wanted.contains(*name))
            .filter_map(|name| builder.step(name))
            .collect();
        let (findings, costs) = (builder.findings, builder.costs);
        fail(findings)?;
        mark_needed(&mut steps);
        let forecast = forecast(&steps, &costs, &options.cache);
        fail(too_much(&forecast))?;
        Ok(Self {
            document: document.clone(),
            options: options.clone(),
            roots,
            steps,
            forecast,
            job,
            numeric,
        })
    }

    /// The steps, each after those it needs.
    pub fn steps(&self) -> &[PlanStep] {
        &self.steps
    }

    /// What the steps that run will need.
    pub fn forecast(&self) -> &Forecast {
        &self.forecast
    }

    /// The document.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// The name of the job on disk.
    pub fn job(&self) -> &str {
        &self.job
    }
}

/// The outputs and everything they need.
fn reachable(document: &Document, options: &RunOptions) -> Result<HashSet<String>, DocumentError> {
    let mut findings = vec![];
    let mut wanted: Vec<String> = vec![];
    match &options.targets {
        None => wanted.extend(
            document
                .nodes()
                .iter()
                .filter(|(_, node)| node.op.get().writes().is_some())
                .map(|(name, _)| name.clone()),
        ),
        Some(targets) => {
            for target in targets {
                if document.node(target).is_some() {
                    wanted.push(target.clone());
                } else {
                    let found = format!("no node \"{target}\"");
                    findings.push(Finding::new(
                        ProblemKind::Link,
                        FieldPath::default(),
                        "a node to render",
                        found,
                    ));
                }
            }
        }
    }
    if wanted.is_empty() && findings.is_empty() {
        let nodes = FieldPath(vec![super::error::Segment::Key("nodes".into())]);
        findings.push(
            Finding::new(ProblemKind::NoOutput, nodes, "a node that writes something", "none")
                .help("add a video.save, sequence.save or image.save"),
        );
    }
    if let Some(error) = document.error(findings) {
        return Err(error);
    }
    let mut seen = HashSet::new();
    while let Some(name) = wanted.pop() {
        if let Some(node) = document.node(&name).filter(|_| seen.insert(name.clone())) {
            wanted.extend(node.op.get().inputs().into_iter().map(|input| input.link.node.clone()));
        }
    }
    Ok(seen)
}

fn mark_needed(steps: &mut [PlanStep]) {
    let last: HashSet<String> = {
        let fed: HashSet<&String> = steps.iter().flat_map(|s| s.inputs.iter().map(|i| &i.node)).collect();
        steps.iter().filter(|step| !fed.contains(&step.node)).map(|step| step.node.clone()).collect()
    };
    let mut wanted: HashSet<String> = last;
    for step in steps.iter_mut().rev() {
        step.needed = wanted.contains(&step.node);
        if step.needed && !step.cached {
            wanted.extend(step.inputs.iter().map(|input| input.node.clone()));
        }
    }
}
