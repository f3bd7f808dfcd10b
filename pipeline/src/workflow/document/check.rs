//! What a document must be before anything looks at its files: its frame, its nodes, their links and order.

use indexmap::IndexMap;
use serde_json::Value;

use super::{MAX_NODES, MAX_TEXT, Node, VERSION};
use crate::workflow::error::{FieldPath, Finding, ProblemKind};
use crate::workflow::fields::{Link, is_node_name};
use crate::workflow::ops::{Checks, Op};
use crate::workflow::{schema, shape};

/// Version, bounds and the document's own fields.
pub(super) fn check_frame(value: &Value) -> Vec<Finding> {
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

pub(super) fn type_nodes(value: &Value) -> (IndexMap<String, Node>, Vec<Finding>) {
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

pub(super) fn check_links(nodes: &IndexMap<String, Node>) -> Vec<Finding> {
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
pub(super) fn topological(nodes: &IndexMap<String, Node>) -> Result<Vec<String>, Finding> {
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
