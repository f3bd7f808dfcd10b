//! The cache key of a node: a hash over everything its result depends on and nothing else.
//!
//! Op and version, parameters with their defaults filled in, the keys of its inputs in place of
//! links, the content of files in place of their names, the weights of its model, the numeric
//! path. Names of nodes and files, order of fields and `ui` do not matter.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::error::Segment;
use super::ops::Op;
use crate::store::cache::CacheKey;

/// What a node's key needs from outside the node.
pub(super) struct KeyParts<'a> {
    /// Keys of the nodes it links to, by name.
    pub(super) inputs: &'a HashMap<String, CacheKey>,
    /// Digest of the file it reads.
    pub(super) file: Option<&'a str>,
    /// Digest of its model's weights.
    pub(super) model: Option<&'a str>,
    /// Device and arithmetic.
    pub(super) numeric: &'a str,
}

/// The key of `op`.
pub(super) fn key_of(op: &Op, parts: &KeyParts<'_>) -> CacheKey {
    let mut parameters = serde_json::to_value(op).unwrap_or_default();
    for input in op.get().inputs() {
        let from = parts.inputs.get(&input.link.node).map(CacheKey::hex).unwrap_or_default();
        // `@a` and `@a.image` may give two keys for one picture; that only costs a rerun.
        let port = input.link.port.as_deref().unwrap_or_default();
        if let Some(place) = at_mut(&mut parameters, &input.at) {
            *place = json!({ "from": from, "port": port });
        }
    }
    if let Some(object) = parameters.as_object_mut() {
        if let Some(digest) = parts.file {
            object.insert("path".into(), json!({ "blake3": digest }));
        }
        if let Some(digest) = parts.model {
            object.insert("model".into(), json!({ "blake3": digest }));
        }
    }
    let whole = json!({
        "version": op.get().version(),
        "numeric": parts.numeric,
        "parameters": parameters,
    });
    CacheKey::of(canonical(&whole).as_bytes())
}

fn at_mut<'a>(value: &'a mut Value, path: &[Segment]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, segment| match segment {
        Segment::Key(key) => value.get_mut(key),
        Segment::Index(index) => value.get_mut(index),
    })
}

/// JSON with sorted keys and no space.
pub(super) fn canonical(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let sorted: BTreeMap<&String, String> =
                object.iter().map(|(key, inner)| (key, canonical(inner))).collect();
            let fields: Vec<String> = sorted
                .into_iter()
                .map(|(key, inner)| format!("{}:{inner}", Value::from(key.as_str())))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}
