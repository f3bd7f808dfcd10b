//! Reading and writing `*.kinora.json`.

use std::sync::Arc;

use indexmap::IndexMap;
use miette::NamedSource;
use serde_json::Value;

use super::error::{DocumentError, FieldPath, Finding, Problem, ProblemKind};
use super::fields::{Link, is_node_name};
use super::ops::{Checks, Op};
use super::{overrides, schema, shape, span};

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

/// Version, bounds and the document's own fields.
fn check_frame(value: &Value) -> Vec<Finding> {
    let root = FieldPath::default();
    let Value::Object(object) = value else {
        let found = shape::describe_value(value);
        return vec![Finding::new(
            ProblemKind::Type,
            root,
            "an object { \"kinora\": 1, \"nodes\": … }",
            found,
        )];
    };
    let field = root.key("kinora");
    match object.get("kinora") {
        None => {
            let finding = Finding::new(ProblemKind::Version, root, "\"kinora\": 1", "no version");
            return vec![finding.help("add \"kinora\": 1 as the first field")];
        }
        Some(found) => match found.as_u64() {
            Some(VERSION) => {}
            Some(newer) if newer > VERSION => {
                let found = format!("version {newer}, written by a newer Kinora");
                let finding = Finding::new(ProblemKind::Version, field, format!("version {VERSION}"), found);
                return vec![finding.help(
                    "update Kinora to open this document; this version leaves it untouched rather than lose what it does not know",
                )];
            }
            _ => {
                let found = shape::describe_value(found);
                return vec![Finding::new(ProblemKind::Version, field, format!("version {VERSION}"), found)];
            }
        },
    }
    if let Some(finding) = long_text(value, &root) {
        return vec![finding];
    }
    let mut findings = vec![];
    if let Some(nodes) = object.get("nodes").and_then(Value::as_object) {
        if nodes.len() > MAX_NODES {
            let found = format!("{} nodes", nodes.len());
            let expected = format!("at most {MAX_NODES} nodes");
            let finding = Finding::new(ProblemKind::Limit, root.key("nodes"), expected, found);
            return vec![finding.help("divide it into several documents")];
        }
        for name in nodes.keys().filter(|name| !is_node_name(name)) {
            findings.push(Finding::new(
                ProblemKind::Value,
                FieldPath::node(name),
                "a node name of letters, digits, _ and -, beginning with a letter, at most 64",
                format!("\"{}\"", shape::short(name)),
            ));
        }
    }
    let frame = schema::frame();
    shape::check(frame, frame, value, &root, &mut findings);
    findings
}

fn long_text(value: &Value, path: &FieldPath) -> Option<Finding> {
    let refuse = |text: &str, path: &FieldPath| {
        (text.len() > MAX_TEXT).then(|| {
            let expected = format!("texts of at most {} KiB", MAX_TEXT >> 10);
            Finding::new(ProblemKind::Limit, path.clone(), expected, format!("{} bytes", text.len()))
        })
    };
    match value {
        Value::String(text) => refuse(text, path),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(index, item)| match item {
                // A path is built only where there is something to descend into.
                Value::Null | Value::Bool(_) | Value::Number(_) => None,
                item => long_text(item, &path.index(index)),
            })
        }
        Value::Object(object) => object.iter().find_map(|(key, inner)| {
            refuse(key, path).or_else(|| match inner {
                Value::Null | Value::Bool(_) | Value::Number(_) => None,
                inner => long_text(inner, &path.key(key)),
            })
        }),
        _ => None,
    }
}

fn type_nodes(value: &Value) -> (IndexMap<String, Node>, Vec<Finding>) {
    let mut nodes = IndexMap::new();
    let mut findings = vec![];
    let listed = value.get("nodes").and_then(Value::as_object);
    for (name, node) in listed.into_iter().flatten() {
        let path = FieldPath::node(name);
        let Value::Object(object) = node else {
            let found = shape::describe_value(node);
            findings.push(Finding::new(ProblemKind::Type, path, "an object with an \"op\"", found));
            continue;
        };
        let op = match object.get("op") {
            Some(Value::String(op)) => op,
            Some(other) => {
                let found = shape::describe_value(other);
                findings.push(Finding::new(ProblemKind::Type, path.key("op"), "the name of an op", found));
                continue;
            }
            None => {
                findings.push(
                    Finding::new(ProblemKind::MissingField, path, "the field \"op\"", "no such field")
                        .help(format!("ops are {}", Op::NAMES.join(", "))),
                );
                continue;
            }
        };
        let Some(shape) = schema::op(op) else {
            let finding = Finding::new(
                ProblemKind::UnknownOp,
                path.key("op"),
                "a known op",
                format!("\"{}\"", shape::short(op)),
            );
            findings.push(match shape::nearest(op, Op::NAMES.iter().copied()) {
                Some(near) => finding.help(format!("did you mean \"{near}\"?")),
                None => finding.help(format!("ops are {}", Op::NAMES.join(", "))),
            });
            continue;
        };
        let before = findings.len();
        shape::check(shape, shape, node, &path, &mut findings);
        if findings.len() > before {
            continue;
        }
        let mut parameters = object.clone();
        let ui = parameters.shift_remove("ui");
        parameters.shift_remove("op");
        match Op::read(op, Value::Object(parameters)) {
            Ok(op) => {
                op.get().check(&mut Checks::new(&path, &mut findings));
                nodes.insert(name.clone(), Node { op, ui });
            }
            Err(error) => {
                let finding =
                    Finding::new(ProblemKind::Type, path, format!("parameters of {op}"), error.to_string());
                findings.push(finding);
            }
        }
    }
    (nodes, findings)
}

fn check_links(nodes: &IndexMap<String, Node>) -> Vec<Finding> {
    let mut findings = vec![];
    for (name, node) in nodes {
        for input in node.op.get().inputs() {
            let field = input.field(&FieldPath::node(name));
            let Link { node: target, port } = input.link;
            let Some(source) = nodes.get(target) else {
                let finding = Finding::new(
                    ProblemKind::Link,
                    field,
                    "a link to a node of this document",
                    format!("\"{}\", and there is no node \"{target}\"", input.link),
                );
                let near = shape::nearest(target, nodes.keys().map(String::as_str));
                findings.push(match near {
                    Some(near) => finding.help(format!("did you mean \"@{near}\"?")),
                    None => finding.help("add the node or link to another one"),
                });
                continue;
            };
            let outputs = source.op.get().outputs();
            let found = match port {
                None => outputs.first(),
                Some(port) => outputs.iter().find(|(name, _)| name == port),
            };
            let Some((_, kind)) = found else {
                let ports: Vec<_> = outputs.iter().map(|(name, _)| *name).collect();
                let finding = Finding::new(
                    ProblemKind::Link,
                    field,
                    format!("a port of {} ({})", source.op.name(), ports.join(", ")),
                    format!("\"{}\"", input.link),
                );
                let near = shape::nearest(port.as_deref().unwrap_or_default(), ports);
                findings.push(match near {
                    Some(near) => finding.help(format!("did you mean \"@{target}.{near}\"?")),
                    None => finding,
                });
                continue;
            };
            if !input.kinds.contains(kind) {
                let wanted: Vec<_> = input.kinds.iter().map(|kind| kind.name()).collect();
                findings.push(Finding::new(
                    ProblemKind::Port,
                    field,
                    wanted.join(" or "),
                    format!("\"{}\", which is {} made by {}", input.link, kind.name(), source.op.name()),
                ));
            }
        }
    }
    findings
}

/// Orders the nodes, or names the nodes of a cycle.
fn topological(nodes: &IndexMap<String, Node>) -> Result<Vec<String>, Finding> {
    let needs: Vec<Vec<usize>> = nodes
        .values()
        .map(|node| node.op.get().inputs().iter().filter_map(|i| nodes.get_index_of(&i.link.node)).collect())
        .collect();
    let mut waiting: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut feeds: Vec<Vec<usize>> = vec![vec![]; nodes.len()];
    for (node, needs) in needs.iter().enumerate() {
        for &need in needs {
            feeds[need].push(node);
        }
    }
    let mut ready: std::collections::BTreeSet<usize> =
        (0..nodes.len()).filter(|&node| waiting[node] == 0).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(node) = ready.pop_first() {
        order.push(node);
        for &next in &feeds[node] {
            waiting[next] -= 1;
            if waiting[next] == 0 {
                ready.insert(next);
            }
        }
    }
    let name = |node: usize| nodes.get_index(node).map(|(name, _)| name.clone()).unwrap_or_default();
    if order.len() == nodes.len() {
        return Ok(order.into_iter().map(name).collect());
    }
    // Every node left over needs another one left over: following needs must come round.
    let mut at = (0..nodes.len()).find(|&node| waiting[node] > 0).unwrap_or_default();
    let mut seen: Vec<usize> = vec![];
    while !seen.contains(&at) {
        seen.push(at);
        let Some(&next) = needs[at].iter().find(|&&need| waiting[need] > 0) else { break };
        at = next;
    }
    let start = seen.iter().position(|&node| node == at).unwrap_or_default();
    let mut round: Vec<String> = seen[start..].iter().map(|&node| name(node)).collect();
    let first = round.first().cloned().unwrap_or_default();
    round.push(first.clone());
    let shown = if round.len() > 12 {
        format!("{} → … ({} nodes)", round[..10].join(" → "), round.len() - 1)
    } else {
        round.join(" → ")
    };
    Err(Finding::new(
        ProblemKind::Cycle,
        FieldPath::node(&first),
        "nodes that do not need themselves",
        format!("a cycle: {shown}"),
    )
    .help("break one of these links"))
}
