//! `--set node.param=value`: parameters replaced from outside, before typing.

use serde_json::{Map, Value};

use super::error::{FieldPath, Finding, ProblemKind, Segment};
use super::shape;

/// Applies each `node.param=value` (or `node.list[0].param=value`) and says which fields changed.
///
/// The value is JSON where it reads as JSON and a plain text otherwise, so that both
/// `shot.frames=8` and `shot.prompt=drift to the left` mean what they say.
pub(super) fn apply(document: &mut Value, sets: &[String]) -> Result<Vec<FieldPath>, Finding> {
    sets.iter().map(|set| apply_one(document, set)).collect()
}

fn apply_one(document: &mut Value, set: &str) -> Result<FieldPath, Finding> {
    let wrong = |found: String| {
        Finding::new(
            ProblemKind::Value,
            FieldPath(vec![Segment::Key("--set".into())]),
            "node.param=value",
            format!("\"{}\"{found}", shape::short(set)),
        )
        .help("for example --set shot.magnitude=0.3")
    };
    let (target, value) = set.split_once('=').ok_or_else(|| wrong(String::new()))?;
    let mut path = FieldPath(vec![Segment::Key("nodes".into())]);
    for part in target.trim().split('.') {
        let (key, indices) = part.split_once('[').map_or((part, None), |(key, rest)| (key, Some(rest)));
        if key.is_empty() {
            return Err(wrong(String::new()));
        }
        path.0.push(Segment::Key(key.to_owned()));
        for index in indices.into_iter().flat_map(|rest| rest.split('[')) {
            let index = index.strip_suffix(']').and_then(|digits| digits.parse().ok());
            path.0.push(Segment::Index(index.ok_or_else(|| wrong(", whose index is not a number".into()))?));
        }
    }
    if path.0.len() < 3 {
        return Err(wrong(", which names no parameter".into()));
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    let known: Vec<String> = document
        .get("nodes")
        .and_then(Value::as_object)
        .map(|nodes| nodes.keys().cloned().collect())
        .unwrap_or_default();
    let mut at = document;
    let last = path.0.len() - 1;
    for (depth, segment) in path.0.iter().enumerate() {
        at = match (segment, at) {
            (Segment::Key(key), Value::Object(object)) => {
                // Only a parameter may be new; a node or a list that is not there is a slip.
                if !object.contains_key(key) {
                    if depth != last {
                        let finding = wrong(format!(", and there is no \"{}\"", shape::short(key)));
                        return Err(match shape::nearest(key, known.iter().map(String::as_str)) {
                            Some(near) if depth == 1 => finding.help(format!("did you mean \"{near}\"?")),
                            _ => finding,
                        });
                    }
                    object.insert(key.clone(), Value::Object(Map::new()));
                }
                object.get_mut(key)
            }
            (Segment::Index(index), Value::Array(items)) => items.get_mut(*index),
            _ => None,
        }
        .ok_or_else(|| wrong(", which leads nowhere in this document".into()))?;
    }
    *at = value;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        json!({ "kinora": 1, "nodes": {
            "boat": { "op": "mask.click", "points": [{ "x": 0.1, "y": 0.2 }] },
            "shot": { "op": "animate.click", "frames": 16 } } })
    }

    #[test]
    fn values_are_json_or_text() {
        let mut value = document();
        let sets =
            ["shot.frames=8", "shot.prompt=drift to the left", "boat.points[0].x=0.5", "shot.guide=false"];
        let paths = apply(&mut value, &sets.map(str::to_owned)).unwrap();
        assert_eq!(paths[2].to_string(), "nodes.boat.points[0].x");
        assert_eq!(value["nodes"]["shot"]["frames"], json!(8));
        assert_eq!(value["nodes"]["shot"]["prompt"], json!("drift to the left"));
        assert_eq!(value["nodes"]["shot"]["guide"], json!(false));
        assert_eq!(value["nodes"]["boat"]["points"][0]["x"], json!(0.5));
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        for (set, says) in [
            ("shot.frames", "node.param=value"),
            ("frames=8", "names no parameter"),
            ("shto.frames=8", "no \"shto\""),
            ("boat.points[7].x=1", "leads nowhere"),
            ("boat.points[a].x=1", "not a number"),
            ("boat.points.x=1", "leads nowhere"),
            ("..=1", "node.param=value"),
        ] {
            let finding = apply(&mut document(), &[set.to_owned()]).unwrap_err();
            let message = format!("expected {}, found {}", finding.expected, finding.found);
            assert!(message.contains(says), "{set}: {message}");
        }
        let finding = apply(&mut document(), &["shto.frames=8".into()]).unwrap_err();
        assert_eq!(finding.help.as_deref(), Some("did you mean \"shot\"?"));
    }
}
