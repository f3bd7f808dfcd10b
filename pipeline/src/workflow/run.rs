//! Runs a plan as a job on disk.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use super::clock::Clock;
use super::context::{NodeContext, RunError};
use super::forecast::Costs;
use super::job::{Job, JobLock, JobState, NodeState};
use super::plan::{Plan, PlanStep};
use super::receipt::{Receipt, ReceiptNode, ReceiptOutput, receipt_path, relative};
use super::value::{Value, Written, kernels_of};
use crate::progress::{Event, Progress};
use crate::store::atomic::sweep_stale;

/// What a run is given beside its plan.
pub struct RunContext<'a> {
    /// Receives events and says whether to stop.
    pub progress: &'a dyn Progress,
    /// Tells the time.
    pub clock: &'a dyn Clock,
}

impl std::fmt::Debug for RunContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RunContext")
    }
}

/// What a run did.
#[derive(Debug, Clone, Default)]
pub struct RunReport {
    /// Files in their place, by node; those proved by their receipt included.
    pub outputs: BTreeMap<String, Written>,
    /// Every node that ran or was found, in order.
    pub nodes: Vec<ReceiptNode>,
    /// Seconds in all.
    pub seconds: f64,
}

/// Runs `plan` to its end.
///
/// The job's state is kept in the cache folder: a process that is killed leaves it interrupted,
/// and the same plan built with `resume` continues it.
///
/// # Errors
/// [`RunError::At`] names the node. Outputs finished before stay; the failing one is absent.
pub fn run(plan: &Plan, context: &mut RunContext<'_>) -> Result<RunReport, RunError> {
    let cache = &plan.options.cache;
    let Some(_lock) = JobLock::take(cache, &plan.job)? else {
        return Err(RunError::Busy(plan.job.clone()));
    };
    let now = context.clock.unix_seconds();
    let mut runner = Runner {
        plan,
        context,
        job: Job {
            id: plan.job.clone(),
            state: JobState::Queued,
            name: plan.document.source_name().to_owned(),
            process: std::process::id(),
            started: now,
            updated: now,
            nodes: BTreeMap::new(),
            error: None,
            document: plan.document.value().clone(),
        },
        values: HashMap::new(),
        report: RunReport::default(),
        costs: Costs::read(cache),
        recipe: plan.document.value().to_string(),
    };
    runner.job.write(cache)?;
    let result = runner.all();
    let (state, error) = match &result {
        Ok(()) => (JobState::Done, None),
        Err(error) if error.class() == super::error::ErrorClass::Interrupted => (JobState::Interrupted, None),
        Err(error) => (JobState::Failed, Some(error.to_string())),
    };
    runner.job.error = error;
    let kept = runner.keep(state);
    runner.costs.write(cache);
    result?;
    kept?;
    Ok(runner.report)
}

/// What a node leaves for the receipt beside its value.
#[derive(Default)]
struct Made {
    notices: Vec<String>,
    kernels: Vec<String>,
}

struct Runner<'a, 'b> {
    plan: &'a Plan,
    context: &'a mut RunContext<'b>,
    job: Job,
    values: HashMap<String, Value>,
    report: RunReport,
    costs: Costs,
    recipe: String,
}

impl Runner<'_, '_> {
    fn keep(&mut self, state: JobState) -> Result<(), RunError> {
        self.job.state = state;
        self.job.updated = self.context.clock.unix_seconds();
        Ok(self.job.write(&self.plan.options.cache)?)
    }

    fn all(&mut self) -> Result<(), RunError> {
        self.sweep();
        let begun = self.context.clock.elapsed();
        let plan = self.plan;
        let mut uses = uses_of(plan);
        for step in plan.steps.iter().filter(|step| step.needed) {
            if self.context.progress.cancelled() {
                return Err(RunError::Cancelled);
            }
            self.one(step).map_err(|error| match error {
                RunError::Cancelled | RunError::At { .. } => error,
                other => RunError::At { node: step.node.clone(), op: step.op_name, source: Box::new(other) },
            })?;
            // A value is let go with its last use, so that a long graph does not hold them all. What was
            // known used nothing.
            for input in step.inputs.iter().filter(|_| !step.cached) {
                if let Some(left) = uses.get_mut(&input.node) {
                    *left = left.saturating_sub(1);
                    if *left == 0 {
                        self.values.remove(&input.node);
                    }
                }
            }
        }
        self.report.seconds = (self.context.clock.elapsed() - begun).as_secs_f64();
        self.receipts()
    }

    /// Removes what killed processes left beside the outputs.
    fn sweep(&self) {
        let mut folders: Vec<PathBuf> = self
            .plan
            .steps
            .iter()
            .filter_map(|step| step.output.as_ref()?.parent().map(PathBuf::from))
            .collect();
        folders.sort();
        folders.dedup();
        folders.iter().for_each(|folder| {
            sweep_stale(folder);
        });
    }

    fn one(&mut self, step: &PlanStep) -> Result<(), RunError> {
        let (node, op) = (step.node.clone(), step.op_name.to_owned());
        self.context.progress.event(Event::NodeStarted { node: node.clone(), op: op.clone() });
        let begun = self.context.clock.elapsed();
        self.job.nodes.insert(node.clone(), NodeState::Running { key: step.key.clone() });
        self.keep(JobState::Running)?;
        let (value, cached, made) = match self.known(step)? {
            Some((value, kernels)) => (value, true, Made { kernels, notices: vec![] }),
            None => {
                let (value, made) = self.make(step)?;
                (value, false, made)
            }
        };
        let seconds = (self.context.clock.elapsed() - begun).as_secs_f64();
        if !cached {
            self.costs.learn(step.op_name, &step.work, seconds);
        }
        self.report.nodes.push(ReceiptNode {
            node: node.clone(),
            op: op.clone(),
            version: step.op.get().version(),
            key: step.key.clone(),
            seconds: if cached { 0.0 } else { seconds },
            cached,
            file: step.file_digest.clone(),
            model: step.model_digest.clone(),
            kernels: made.kernels,
            notices: made.notices,
        });
        if let Value::File(written) = &value {
            self.report.outputs.insert(node.clone(), written.clone());
            if !cached {
                let path = written.path.display().to_string();
                self.context.progress.event(Event::Wrote { node: node.clone(), path, bytes: written.bytes });
                // At once and again with the job's whole time at the end: a job killed between
                // two outputs leaves the first one proved.
                self.receipt(&node, written)?;
            }
        }
        self.job.nodes.insert(node.clone(), NodeState::Done { key: step.key.clone() });
        self.keep(JobState::Running)?;
        self.context.progress.event(Event::NodeFinished { node: node.clone(), op, seconds, cached });
        self.values.insert(node, value);
        Ok(())
    }

    /// The step's result when it is there already.
    fn known(&self, step: &PlanStep) -> Result<Option<(Value, Vec<String>)>, RunError> {
        if let Some(output) = &step.output {
            if !step.cached {
                return Ok(None);
            }
            let receipt = Receipt::read(&receipt_path(output))?;
            let ReceiptOutput { bytes, blake3, frames, pixels, .. } = receipt.output;
            let written = Written { path: output.clone(), bytes, blake3, frames, pixels };
            return Ok(Some((Value::File(written), vec![])));
        }
        let entry = self.plan.options.cache.get(&step.key);
        Ok(entry.and_then(|entry| Some((Value::load(&entry)?, kernels_of(&entry)))))
    }

    fn make(&mut self, step: &PlanStep) -> Result<(Value, Made), RunError> {
        let plan = self.plan;
        let cache = &plan.options.cache;
        let mut inputs = BTreeMap::new();
        for input in &step.inputs {
            let value = self.input(&input.node)?;
            let value = match &input.port {
                None => Some(value),
                Some(port) => value.port(port),
            };
            let value = value.ok_or_else(|| RunError::bug(format!("{} has no such port", input.node)))?;
            inputs.insert(input.field.clone(), value);
        }
        let mut context = NodeContext {
            node: &step.node,
            key: &step.key,
            inputs,
            roots: &plan.roots,
            cache,
            engines: &*plan.options.engines,
            progress: self.context.progress,
            recipe: &self.recipe,
            overwrite: step.overwrite,
            resume: plan.options.resume,
            notices: vec![],
        };
        let (value, kernels) = kinora_kernels::observed(|| {
            let value = step.op.get().run(&mut context)?;
            if matches!(value, Value::Picture(_) | Value::Mask(_)) {
                value.store(cache.create(&step.key)?)?;
            }
            Ok::<_, RunError>(value)
        });
        let value = value?;
        let kernels = kernels.iter().map(ToString::to_string).collect();
        let made = Made { notices: context.notices, kernels };
        cache.drop_checkpoint(&step.key);
        Ok((value, made))
    }

    /// The value of a node that ran before this one; made again when its cache entry was there at
    /// planning and is damaged or gone now.
    fn input(&mut self, node: &str) -> Result<Value, RunError> {
        if let Some(value) = self.values.get(node) {
            return Ok(value.clone());
        }
        let plan = self.plan;
        let step = plan.steps.iter().find(|step| step.node == node);
        let step = step.ok_or_else(|| RunError::bug(format!("{node} is not in the plan")))?;
        self.one(step)?;
        self.values.get(node).cloned().ok_or_else(|| RunError::bug(format!("{node} made nothing")))
    }

    fn receipts(&self) -> Result<(), RunError> {
        for (node, written) in &self.report.outputs {
            let ran = self.report.nodes.iter().any(|done| done.node == *node && !done.cached);
            if ran {
                self.receipt(node, written)?;
            }
        }
        Ok(())
    }

    fn receipt(&self, node: &str, written: &Written) -> Result<(), RunError> {
        let behind = behind(self.plan, node);
        let nodes: Vec<ReceiptNode> =
            self.report.nodes.iter().filter(|done| behind.contains(&done.node)).cloned().collect();
        // Nodes whose results were never asked for because a later one was known.
        let mut all: Vec<ReceiptNode> = self
            .plan
            .steps
            .iter()
            .filter(|step| behind.contains(&step.node) && !nodes.iter().any(|done| done.node == step.node))
            .map(|step| ReceiptNode {
                node: step.node.clone(),
                op: step.op_name.to_owned(),
                version: step.op.get().version(),
                key: step.key.clone(),
                seconds: 0.0,
                cached: true,
                file: step.file_digest.clone(),
                model: step.model_digest.clone(),
                kernels: self.plan.options.cache.get(&step.key).map(|e| kernels_of(&e)).unwrap_or_default(),
                notices: vec![],
            })
            .collect();
        all.extend(nodes);
        let folder = written.path.parent().unwrap_or(&written.path);
        let receipt = Receipt {
            receipt: Receipt::VERSION,
            kinora: env!("CARGO_PKG_VERSION").to_owned(),
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            numeric: self.plan.numeric.clone(),
            threads: kinora_kernels::threads(),
            output: ReceiptOutput {
                name: written.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                bytes: written.bytes,
                blake3: written.blake3.clone(),
                frames: written.frames,
                pixels: written.pixels.clone(),
            },
            node: node.to_owned(),
            folder: relative(folder, self.plan.roots.document()),
            document: self.plan.document.value().clone(),
            seconds: all.iter().map(|done| done.seconds).sum(),
            nodes: all,
            started: self.job.started,
        };
        receipt.write(&written.path)
    }
}

fn uses_of(plan: &Plan) -> HashMap<String, usize> {
    let mut uses = HashMap::new();
    for step in plan.steps.iter().filter(|step| step.needed && !step.cached) {
        for input in &step.inputs {
            *uses.entry(input.node.clone()).or_default() += 1;
        }
    }
    uses
}

/// `node` and every node it needs.
fn behind(plan: &Plan, node: &str) -> std::collections::HashSet<String> {
    let mut found = std::collections::HashSet::from([node.to_owned()]);
    for step in plan.steps.iter().rev() {
        if found.contains(&step.node) {
            found.extend(step.inputs.iter().map(|input| input.node.clone()));
        }
    }
    found
}
