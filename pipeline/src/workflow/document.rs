//! Reading and writing `*.kinora.json`.

mod check;

use std::sync::Arc;

use indexmap::IndexMap;
use miette::NamedSource;
use serde_json::Value;

use check::{check_frame, check_links, topological, type_nodes};

use super::error::{DocumentError, FieldPath, Finding, Problem, ProblemKind};
use super::ops::Op;
use super::{overrides, span};

/// The version of the format this build reads and writes.
pub const VERSION: u64 = 1;
/// The longest document, in bytes.
pub const MAX_BYTES: usize = 16 << 20;
/// The most nodes in a document.
pub const MAX_NODES: usize = 4096;
/// The longest text in a document, in bytes.
pub const MAX_TEXT: usize = 64 << 10;
/// How many problems one error lists.
const MAX_PROBLEMS: usize = 20;

/// One node: what it does and what the editor keeps with it.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it does, with its parameters.
    pub op: Op,
    /// The editor's own data, carried along untouched.
    pub ui: Option<Value>,
}

/// A document that passed every check that needs no other file: the graph is sound, every field
/// has its type and range, every link leads to a port of the right kind.
#[derive(Debug, Clone)]
pub struct Document {
    source: Arc<NamedSource<Arc<str>>>,
    /// Fields whose values came from outside the text.
    replaced: Vec<FieldPath>,
    value: Value,
    nodes: IndexMap<String, Node>,
    order: Vec<String>,
}

impl Document {
    /// Reads a document; `source_name` is what messages call it.
    ///
    /// # Errors
    /// A [`DocumentError`] that lists what was found, each with field, expectation, line and span.
    pub fn parse(text: &str, source_name: &str) -> Result<Self, DocumentError> {
        Self::parse_with(text, source_name, &[])
    }

    /// Reads a document and replaces parameters, each given as `node.param=value`, before typing.
    pub fn parse_with(text: &str, source_name: &str, sets: &[String]) -> Result<Self, DocumentError> {
        if text.len() > MAX_BYTES {
            let source = Arc::new(NamedSource::new(source_name, Arc::from("")));
            let finding = Finding::new(
                ProblemKind::Limit,
                FieldPath::default(),
                format!("a document of at most {} MiB", MAX_BYTES >> 20),
                format!("{} bytes", text.len()),
            );
            return Err(DocumentError::new(Problem::new(finding, None, source), vec![]));
        }
        let source = Arc::new(NamedSource::new(source_name, Arc::from(text)));
        let placed = |finding: Finding, span| {
            DocumentError::new(Problem::new(finding, span, Arc::clone(&source)), vec![])
        };
        let mut value: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(error) => {
                let (finding, span) = syntax(text, &error);
                return Err(placed(finding, Some(span)));
            }
        };
        if let Some((path, range)) = span::duplicate_key(text) {
            let finding = Finding::new(
                ProblemKind::Duplicate,
                path,
                "each field once",
                "a second one of the same name",
            );
            return Err(placed(finding, Some(range)));
        }
        let replaced = overrides::apply(&mut value, sets).map_err(|finding| placed(finding, None))?;
        let locate = |path: &FieldPath, kind| {
            if is_replaced(&replaced, path) {
                return None;
            }
            if kind == ProblemKind::UnknownField {
                return span::locate_key(text, path);
            }
            span::locate(text, path)
        };
        let fail = |mut findings: Vec<Finding>| {
            findings.truncate(MAX_PROBLEMS);
            let mut problems = findings.into_iter().map(|finding| {
                let span = locate(&finding.field, finding.kind);
                Problem::new(finding, span, Arc::clone(&source))
            });
            problems.next().map(|first| DocumentError::new(first, problems.collect()))
        };
        let or_fail = |findings: Vec<Finding>| fail(findings).map_or(Ok(()), Err);

        or_fail(check_frame(&value))?;
        let (nodes, findings) = type_nodes(&value);
        or_fail(findings)?;
        or_fail(check_links(&nodes))?;
        let order = match topological(&nodes) {
            Ok(order) => order,
            Err(cycle) => {
                or_fail(vec![cycle])?;
                vec![]
            }
        };
        Ok(Self { source, replaced, value, nodes, order })
    }

    /// The nodes in the order of the text.
    pub fn nodes(&self) -> &IndexMap<String, Node> {
        &self.nodes
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// Every node after all nodes it needs; ties in the order of the text.
    pub fn order(&self) -> &[String] {
        &self.order
    }

    /// The document with its replaced parameters, fields in their written order and everything
    /// the editor keeps (`ui`) untouched.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The text to save: indented JSON with a final newline.
    pub fn to_text(&self) -> String {
        // A `Value` has only string keys and finite numbers, which always serialise.
        serde_json::to_string_pretty(&self.value).unwrap_or_default() + "\n"
    }

    /// What messages call the document.
    pub fn source_name(&self) -> &str {
        self.source.name()
    }

    /// The error of one finding placed in this document's text.
    pub(super) fn problem(&self, finding: Finding) -> DocumentError {
        DocumentError::new(self.placed(finding), vec![])
    }

    fn placed(&self, finding: Finding) -> Problem {
        let field = &finding.field;
        // What concerns the document as a whole is no better found at its first line.
        let somewhere = !field.0.is_empty() && !is_replaced(&self.replaced, field);
        let span = somewhere.then(|| span::locate(self.source.inner(), field)).flatten();
        Problem::new(finding, span, Arc::clone(&self.source))
    }

    /// The error of `findings` placed in this document's text; `None` when there are none.
    pub fn error(&self, findings: Vec<Finding>) -> Option<DocumentError> {
        let mut problems = findings.into_iter().take(MAX_PROBLEMS).map(|finding| self.placed(finding));
        problems.next().map(|first| DocumentError::new(first, problems.collect()))
    }
}

/// Whether the value at `path` came from outside the text and so has no place in it.
fn is_replaced(replaced: &[FieldPath], path: &FieldPath) -> bool {
    replaced.iter().any(|set| path.0.starts_with(&set.0))
}

fn syntax(text: &str, error: &serde_json::Error) -> (Finding, std::ops::Range<usize>) {
    let start: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let mut at = (start + error.column().saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let end = text[at..].chars().next().map_or(at, |c| at + c.len_utf8());
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or(&said).to_owned();
    let root = FieldPath::default();
    let finding = if said.contains("recursion limit") {
        Finding::new(ProblemKind::Limit, root, "lists and objects at most 127 deep", "deeper nesting")
    } else if said.contains("number out of range") {
        Finding::new(ProblemKind::Range, root, "a finite number", "a number too large to represent")
    } else {
        let ends = error.is_eof();
        let finding = Finding::new(ProblemKind::Syntax, root, "JSON", said);
        match text.get(at..).unwrap_or_default() {
            rest if rest.starts_with("NaN") || rest.starts_with("Inf") || rest.starts_with("-Inf") => {
                finding.help("JSON has no NaN or Infinity; numbers must be finite")
            }
            _ if ends => finding.help("the text ends too early; the file may be cut off"),
            rest if rest.starts_with("//") || rest.starts_with("/*") => {
                finding.help("JSON has no comments; keep notes in a \"ui\" object")
            }
            _ => finding,
        }
    };
    (finding, at..end)
}
