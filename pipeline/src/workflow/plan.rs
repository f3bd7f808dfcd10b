//! What will run, in which order, what is known already, and what it will need.

mod needs;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use needs::{forecast, probe, too_much};

use super::document::Document;
use super::engines::Engines;
use super::error::{DocumentError, FieldPath, Finding, ProblemKind};
use super::forecast::{Costs, Forecast, Shape, Work};
use super::job::{Job, job_id};
use super::key::{KeyParts, key_of};
use super::model_name::{ModelName, model_problem};
use super::ops::{NodeOp, Op};
use super::receipt::{Receipt, receipt_path};
use super::value::measure;
use crate::media::{ImageLimits, MediaError, foreign_entry, stated_size};
use crate::store::cache::{Cache, CacheKey, digest_file};
use crate::store::paths::{PathError, Roots};
use crate::systems::follow_your_click::Animator;

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

struct Builder<'a> {
    document: &'a Document,
    options: &'a RunOptions,
    roots: &'a Roots,
    previous: Option<&'a Job>,
    keys: HashMap<String, CacheKey>,
    shapes: HashMap<String, Shape>,
    outputs: HashMap<PathBuf, String>,
    findings: Vec<Finding>,
    costs: Costs,
    numeric: &'a str,
}

impl Builder<'_> {
    /// One step; `None` when something was found wrong that leaves it without a key.
    fn step(&mut self, name: &str) -> Option<PlanStep> {
        let node = self.document.node(name)?;
        let field = FieldPath::node(name);
        let op = node.op.get();
        let mut shapes: Vec<(String, Shape)> = op
            .inputs()
            .iter()
            .map(|input| (input.name(), self.shapes.get(&input.link.node).copied().unwrap_or(Shape::USUAL)))
            .collect();
        let mut file_digest = None;
        if let Some(path) = op.reads() {
            let expected = "a file in the document's folder";
            let full =
                self.roots.file(path).map_err(|error| self.path_problem(&field, expected, &error)).ok()?;
            if matches!(node.op, Op::ImageLoad(_) | Op::MaskImport(_))
                && let Err(MediaError::OverLimit { limit, found, .. }) =
                    stated_size(&full, &ImageLimits::default())
            {
                let expected = format!("a picture of at most {limit}");
                let found = format!("{found} in {path:?}");
                let finding = Finding::new(ProblemKind::Value, field.key("path"), expected, found);
                self.findings.push(finding.help("make it smaller before animating it"));
                return None;
            }
            shapes.push(("path".into(), probe(&full)));
            match digest_file(&full) {
                Ok(digest) => file_digest = Some(digest),
                Err(error) => {
                    let found = format!("{path:?}: {error}");
                    self.findings.push(Finding::new(
                        ProblemKind::Io,
                        field.key("path"),
                        "a readable file",
                        found,
                    ));
                }
            }
        }
        let model = op.model().and_then(|name| self.model(op, name, &field));
        let model_digest = model.as_ref().map(|model| model.digest().to_owned());
        let digest = match &node.op {
            Op::MaskClick(_) => Some(self.options.engines.click_digest()),
            _ => model_digest.clone(),
        };
        let parts = KeyParts {
            inputs: &self.keys,
            file: file_digest.as_deref(),
            model: digest.as_deref(),
            numeric: self.numeric,
        };
        let key = key_of(&node.op, &parts);
        let (output, done, overwrite) = match op.writes() {
            Some(path) => self.output(name, path, &node.op, &key, &field)?,
            None => (None, self.options.cache.has(&key), false),
        };
        let (shape, work) = match &model {
            Some(model) => op.forecast_with(&shapes, &**model),
            None => op.forecast(&shapes),
        };
        if let Some(finding) = op.shape_check(&shapes) {
            self.refuse(&field, finding);
        }
        self.keys.insert(name.to_owned(), key.clone());
        self.shapes.insert(name.to_owned(), shape);
        let inputs = op
            .inputs()
            .iter()
            .map(|input| Source {
                field: input.name(),
                node: input.link.node.clone(),
                port: input.link.port.clone(),
            })
            .collect();
        let (seconds, _) = self.costs.seconds(node.op.name(), &work);
        Some(PlanStep {
            node: name.to_owned(),
            op_name: node.op.name(),
            op: node.op.clone(),
            key,
            inputs,
            cached: done,
            needed: false,
            file_digest,
            model_digest,
            output,
            overwrite,
            shape,
            work,
            seconds,
        })
    }

    /// The model of a node, asked whether it can do the job; `None` when it cannot be had.
    fn model(&mut self, op: &dyn NodeOp, name: &str, field: &FieldPath) -> Option<Arc<dyn Animator>> {
        let at = field.key("model");
        let name = match ModelName::look_up(name, self.roots) {
            Ok(name) => name,
            Err(error) => {
                let kind =
                    if matches!(error, PathError::Io { .. }) { ProblemKind::Io } else { ProblemKind::Path };
                let expected = "a model, or a folder of weights inside the document's folder";
                self.findings.push(Finding::new(kind, at, expected, error.to_string()));
                return None;
            }
        };
        match self.options.engines.animator(&name) {
            Ok(animator) => {
                if let Some(finding) = op.model_check(&*animator) {
                    self.refuse(field, finding);
                }
                Some(animator)
            }
            Err(error) => {
                self.findings.push(model_problem(at, &error));
                None
            }
        }
    }

    /// Where an output goes, whether it is there and proved, and whether it may be replaced.
    fn output(
        &mut self,
        name: &str,
        path: &str,
        op: &Op,
        key: &CacheKey,
        field: &FieldPath,
    ) -> Option<(Option<PathBuf>, bool, bool)> {
        let expected = "a place inside the output folder";
        let full =
            self.roots.plan_output(path).map_err(|error| self.path_problem(field, expected, &error)).ok()?;
        if let Some(other) = self.outputs.insert(full.clone(), name.to_owned()) {
            let found = format!("the path \"{other}\" writes to as well");
            self.findings.push(Finding::new(
                ProblemKind::Value,
                field.key("path"),
                "a path of its own",
                found,
            ));
        }
        if !full.exists() {
            return Some((Some(full), false, self.options.force));
        }
        if self.options.resume && proved(&full, key) {
            return Some((Some(full), true, false));
        }
        // Put in place by this very job just before it was killed: whole, and ours to replace.
        let ours = self.options.resume && self.previous.is_some_and(|job| job.was_writing(name, key));
        if !self.options.force && !ours {
            let finding = Finding::new(
                ProblemKind::Exists,
                field.key("path"),
                "a path where nothing is yet",
                format!("{}, which exists already", full.display()),
            );
            self.findings.push(
                finding.help("pass --force to replace it, --out to write elsewhere, or name another file"),
            );
        } else if let Some(finding) = irreplaceable(op, &full, field) {
            self.findings.push(finding);
        }
        Some((Some(full), false, true))
    }

    /// Adds what an op found wrong with one of its own fields.
    fn refuse(&mut self, node: &FieldPath, mut finding: Finding) {
        let inner = std::mem::take(&mut finding.field.0);
        finding.field = node.clone();
        finding.field.0.extend(inner);
        self.findings.push(finding);
    }

    fn path_problem(&mut self, field: &FieldPath, expected: &str, error: &PathError) {
        let kind = if matches!(error, PathError::Io { .. }) { ProblemKind::Io } else { ProblemKind::Path };
        let (found, help) = error.found_and_help();
        self.findings.push(Finding { help, ..Finding::new(kind, field.key("path"), expected, found) });
    }
}

/// What stands in the way of replacing `output` even when that is allowed: a folder where a file goes,
/// or one with other files in it, which would be lost.
fn irreplaceable(op: &Op, output: &Path, field: &FieldPath) -> Option<Finding> {
    if !output.is_dir() {
        return None;
    }
    let (expected, found) = match op {
        Op::SequenceSave(_) => {
            let other = foreign_entry(output)?;
            let expected = "a folder that holds nothing but numbered frames, so that it can be replaced";
            (expected, format!("{other:?} in {}", output.display()))
        }
        _ => ("a place for a file", format!("{}, which is a folder", output.display())),
    };
    let finding = Finding::new(ProblemKind::Exists, field.key("path"), expected, found);
    Some(finding.help("name another folder or file; what is there is kept"))
}

/// Whether `output` is what its receipt says and was made by a node of this key.
fn proved(output: &Path, key: &CacheKey) -> bool {
    let Ok(receipt) = Receipt::read(&receipt_path(output)) else { return false };
    receipt.key() == Some(key)
        && measure(output)
            .is_ok_and(|(bytes, digest)| (bytes, digest) == (receipt.output.bytes, receipt.output.blake3))
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
