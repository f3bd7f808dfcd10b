//! Makes an output again from its receipt and compares.

use std::path::Path;

use serde::Serialize;

use super::context::RunError;
use super::document::Document;
use super::plan::{Plan, RunOptions};
use super::receipt::Receipt;
use super::run::{RunContext, run};
use super::value::measure;
use crate::store::cache::Cache;

/// One thing compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// What was compared.
    pub what: String,
    /// What the receipt says.
    pub receipt: String,
    /// What is so now.
    pub now: String,
}

impl Comparison {
    /// Whether both are the same.
    pub fn same(&self) -> bool {
        self.receipt == self.now
    }
}

/// What a verification found.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyReport {
    /// The output as it lies there against its receipt.
    pub file: Comparison,
    /// The pixels made again against those of the receipt.
    pub pixels: Comparison,
    /// The file made again against the receipt; encoders may differ between versions and
    /// machines, so a difference here alone is no failure.
    pub encoded: Comparison,
    /// What changed around it and may explain a difference: version, device, inputs, weights.
    pub surroundings: Vec<Comparison>,
}

impl VerifyReport {
    /// Whether the output is what its receipt says and was made again to the same pixels.
    pub fn holds(&self) -> bool {
        self.file.same() && self.pixels.same()
    }
}

/// Renders what `receipt_file` describes once more, without any cached result, and compares.
///
/// `options` gives the models; its folder, output folder, cache and targets are replaced.
///
/// # Errors
/// The receipt cannot be read, or the document in it cannot be rendered here any more.
pub fn verify(
    receipt_file: &Path,
    options: &RunOptions,
    context: &mut RunContext<'_>,
) -> Result<VerifyReport, RunError> {
    let receipt = Receipt::read(receipt_file)?;
    let home = receipt_file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    crate::store::paths::check_name(&receipt.output.name)?;
    let there = home.join(&receipt.output.name);
    let compare = |what: &str, receipt: &str, now: String| Comparison {
        what: what.to_owned(),
        receipt: receipt.to_owned(),
        now,
    };
    let file = compare(
        &receipt.output.name,
        &receipt.output.blake3,
        measure(&there).map_or_else(|error| format!("cannot be read: {error}"), |(_, digest)| digest),
    );

    let text =
        serde_json::to_string_pretty(&receipt.document).map_err(|error| RunError::bug(error.to_string()))?;
    let document = Document::parse(&text, &receipt_file.display().to_string())?;
    let scratch = tempfile::tempdir().map_err(|source| {
        crate::store::atomic::AtomicError::from_io("create", Path::new("a scratch folder"), source)
    })?;
    let fresh = RunOptions {
        folder: home.join(&receipt.folder),
        out: Some(scratch.path().join("out")),
        force: false,
        resume: false,
        targets: Some(vec![receipt.node.clone()]),
        cache: Cache::open(&scratch.path().join("cache"))?,
        ..options.clone()
    };
    let plan = Plan::build(&document, &fresh)?;
    let report = run(&plan, context)?;
    let again = report
        .outputs
        .get(&receipt.node)
        .ok_or_else(|| RunError::input(format!("{} is no node that writes", receipt.node)))?;

    let mut surroundings = vec![
        compare("version", &receipt.kinora, env!("CARGO_PKG_VERSION").to_owned()),
        compare("device", &receipt.numeric, plan.numeric.clone()),
        compare(
            "platform",
            &receipt.platform,
            format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        ),
    ];
    for before in &receipt.nodes {
        let ran = report.nodes.iter().find(|node| node.node == before.node && !node.cached);
        if let Some(now) = ran.filter(|_| !before.kernels.is_empty()) {
            let what = format!("kernels of {}", before.node);
            surroundings.push(compare(&what, &before.kernels.join(", "), now.kernels.join(", ")));
        }
        let Some(step) = plan.steps().iter().find(|step| step.node == before.node) else { continue };
        for (what, before_digest, now) in
            [("input of", &before.file, &step.file_digest), ("weights of", &before.model, &step.model_digest)]
        {
            if let Some(digest) = before_digest {
                surroundings.push(compare(
                    &format!("{what} {}", before.node),
                    digest,
                    now.clone().unwrap_or_default(),
                ));
            }
        }
    }
    Ok(VerifyReport {
        file,
        pixels: compare("pixels", &receipt.output.pixels, again.pixels.clone()),
        encoded: compare("encoded file", &receipt.output.blake3, again.blake3.clone()),
        surroundings,
    })
}
