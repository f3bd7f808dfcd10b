//! One step of a plan: its files, its model and its output looked up, and its key.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::needs::probe;
use super::{PlanStep, RunOptions, Source};
use crate::media::{ImageLimits, MediaError, foreign_entry, stated_size};
use crate::store::cache::{CacheKey, digest_file};
use crate::store::paths::{PathError, Roots};
use crate::systems::follow_your_click::Animator;
use crate::workflow::document::Document;
use crate::workflow::error::{FieldPath, Finding, ProblemKind};
use crate::workflow::forecast::{Costs, Shape};
use crate::workflow::job::Job;
use crate::workflow::key::{KeyParts, key_of};
use crate::workflow::model_name::{ModelName, model_problem};
use crate::workflow::ops::{NodeOp, Op};
use crate::workflow::receipt::{Receipt, receipt_path};
use crate::workflow::value::measure;

/// Makes the steps one after the other, each after those it needs.
pub(super) struct Builder<'a> {
    pub(super) document: &'a Document,
    pub(super) options: &'a RunOptions,
    pub(super) roots: &'a Roots,
    pub(super) previous: Option<&'a Job>,
    pub(super) keys: HashMap<String, CacheKey>,
    pub(super) shapes: HashMap<String, Shape>,
    pub(super) outputs: HashMap<PathBuf, String>,
    pub(super) findings: Vec<Finding>,
    pub(super) costs: Costs,
    pub(super) numeric: &'a str,
}

impl Builder<'_> {
    /// One step; `None` when something was found wrong that leaves it without a key.
    pub(super) fn step(&mut self, name: &str) -> Option<PlanStep> {
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
