//! Checks a JSON value against a schema, to say what is wrong in a user's words.
//!
//! Covers the keywords our generated schema uses, no more; a test over the whole schema keeps the
//! two in step. serde says the last word on types; this says the first and the clear one.

use serde_json::{Map, Value};

use super::error::{FieldPath, Finding, ProblemKind};

/// Keywords understood here; the rest of JSON Schema is not generated from our types.
#[cfg(test)]
pub(super) const KEYWORDS: &[&str] = &[
    "$ref",
    "$defs",
    "$schema",
    "title",
    "description",
    "default",
    "type",
    "format",
    "properties",
    "required",
    "additionalProperties",
    "propertyNames",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minProperties",
    "maxProperties",
    "minimum",
    "maximum",
    "pattern",
    "enum",
    "const",
    "anyOf",
    "oneOf",
];

/// Adds to `findings` everything in `value` that `schema` does not allow.
pub(super) fn check(
    root: &Value,
    schema: &Value,
    value: &Value,
    path: &FieldPath,
    findings: &mut Vec<Finding>,
) {
    let schema = resolve(root, schema);
    if let Some(branches) = branches(schema) {
        let fits = |branch: &&Value| accepts_type(root, branch, value);
        match branches.iter().find(|branch| fits(branch) && choices_allow(root, branch, value)) {
            Some(branch) => check(root, branch, value, path, findings),
            None if value.is_object() => {
                let object = branches.iter().find(fits);
                object.into_iter().for_each(|branch| check(root, branch, value, path, findings));
                if object.is_none() {
                    findings.push(mismatch(root, schema, value, path));
                }
            }
            None => findings.push(mismatch(root, schema, value, path)),
        }
    } else if !accepts_type(root, schema, value) || !choices_allow(root, schema, value) {
        findings.push(mismatch(root, schema, value, path));
        return;
    }
    match value {
        Value::Object(object) => {
            check_object(root, schema, object, path, findings);
            // A range on a number that may be keyframed bounds every key.
            for (index, key) in keys_of(object).into_iter().flatten().enumerate() {
                if let Some(value) = key.get(1) {
                    let path = path.key("keys").index(index).index(1);
                    check_range(schema, value, &path, findings);
                }
            }
        }
        Value::Array(items) => check_array(root, schema, items, path, findings),
        Value::Number(_) => check_range(schema, value, path, findings),
        Value::String(text) => check_text(schema, text, path, findings),
        Value::Null | Value::Bool(_) => {}
    }
}

fn keys_of(object: &Map<String, Value>) -> Option<&Vec<Value>> {
    object.get("keys").and_then(Value::as_array)
}

fn check_object(
    root: &Value,
    schema: &Value,
    object: &Map<String, Value>,
    path: &FieldPath,
    findings: &mut Vec<Finding>,
) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    for (name, inner) in object {
        match properties.get(name) {
            Some(property) => check(root, property, inner, &path.key(name), findings),
            None if closed => {
                let known = properties.keys().map(String::as_str).collect::<Vec<_>>();
                let finding = Finding::new(
                    ProblemKind::UnknownField,
                    path.key(name),
                    format!("one of {}", known.join(", ")),
                    format!("the unknown field \"{}\"", short(name)),
                );
                findings.push(match nearest(name, known) {
                    Some(near) => finding.help(format!("did you mean \"{near}\"?")),
                    None => finding,
                });
            }
            None => {}
        }
    }
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        let Some(name) = name.as_str().filter(|name| !object.contains_key(*name)) else { continue };
        let wanted = properties.get(name).map(|property| describe(root, property)).unwrap_or_default();
        findings.push(
            Finding::new(
                ProblemKind::MissingField,
                path.clone(),
                format!("the field \"{name}\""),
                "no such field",
            )
            .help(format!("add \"{name}\": {wanted}")),
        );
    }
}

fn check_array(root: &Value, schema: &Value, items: &[Value], path: &FieldPath, findings: &mut Vec<Finding>) {
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    let (min, max) = (bound("minItems"), bound("maxItems"));
    let count = items.len() as u64;
    if min.is_some_and(|min| count < min) || max.is_some_and(|max| count > max) {
        let expected = match (min, max) {
            (Some(min), Some(max)) if min == max => format!("a list of {min}"),
            (Some(min), Some(max)) => format!("a list of {min} to {max}"),
            (Some(min), None) => format!("a list of at least {min}"),
            (_, Some(max)) => format!("a list of at most {max}"),
            _ => "a list".to_owned(),
        };
        findings.push(Finding::new(ProblemKind::Range, path.clone(), expected, format!("a list of {count}")));
        return;
    }
    let prefix = schema.get("prefixItems").and_then(Value::as_array);
    for (index, item) in items.iter().enumerate() {
        let inner = prefix.and_then(|prefix| prefix.get(index)).or_else(|| schema.get("items"));
        if let Some(inner) = inner {
            check(root, inner, item, &path.index(index), findings);
        }
    }
}

fn check_range(schema: &Value, value: &Value, path: &FieldPath, findings: &mut Vec<Finding>) {
    let Some(number) = value.as_f64() else { return };
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let (min, max) = (bound("minimum"), bound("maximum"));
    if !number.is_finite() || min.is_some_and(|min| number < min) || max.is_some_and(|max| number > max) {
        let range = range_words(min, max);
        findings.push(Finding::new(
            ProblemKind::Range,
            path.clone(),
            format!("{}{range}", if is_whole(schema) { "a whole number" } else { "a number" }),
            value.to_string(),
        ));
    }
}

fn check_text(schema: &Value, text: &str, path: &FieldPath, findings: &mut Vec<Finding>) {
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    let count = text.chars().count() as u64;
    if bound("minLength").is_some_and(|min| count < min) {
        findings.push(Finding::new(
            ProblemKind::Value,
            path.clone(),
            "a text that is not empty",
            "an empty text",
        ));
    } else if let Some(max) = bound("maxLength").filter(|&max| count > max) {
        findings.push(Finding::new(
            ProblemKind::Limit,
            path.clone(),
            format!("a text of at most {max} characters"),
            format!("{count} characters"),
        ));
    }
}

fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let mut schema = schema;
    // Our schema nests references two deep; a bound keeps a broken one from looping.
    for _ in 0..8 {
        let Some(target) = schema.get("$ref").and_then(Value::as_str) else { break };
        let Some(found) = target.strip_prefix('#').and_then(|pointer| root.pointer(pointer)) else { break };
        schema = found;
    }
    schema
}

fn branches(schema: &Value) -> Option<&Vec<Value>> {
    schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array)
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => match schema.get("const").or_else(|| schema.get("enum").and_then(|all| all.get(0))) {
            Some(Value::String(_)) => vec!["string"],
            Some(Value::Number(_)) => vec!["number"],
            _ => vec![],
        },
    }
}

fn is_whole(schema: &Value) -> bool {
    types(schema).contains(&"integer")
}

fn accepts_type(root: &Value, schema: &Value, value: &Value) -> bool {
    let schema = resolve(root, schema);
    if let Some(branches) = branches(schema) {
        return branches.iter().any(|branch| accepts_type(root, branch, value));
    }
    let types = types(schema);
    types.is_empty()
        || types.iter().any(|name| match (*name, value) {
            ("null", Value::Null)
            | ("boolean", Value::Bool(_))
            | ("number", Value::Number(_))
            | ("string", Value::String(_))
            | ("array", Value::Array(_))
            | ("object", Value::Object(_)) => true,
            ("integer", Value::Number(number)) => number.is_i64() || number.is_u64(),
            _ => false,
        })
}

fn choices_allow(root: &Value, schema: &Value, value: &Value) -> bool {
    let schema = resolve(root, schema);
    if let Some(constant) = schema.get("const") {
        return constant == value;
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        return choices.contains(value);
    }
    match (schema.get("pattern"), value) {
        // The only pattern in the schema is that of links.
        (Some(_), Value::String(text)) => super::fields::Link::read(text).is_some(),
        _ => true,
    }
}

fn mismatch(root: &Value, schema: &Value, value: &Value, path: &FieldPath) -> Finding {
    let expected = describe(root, schema);
    let kind = match value {
        Value::String(_) if accepts_type(root, schema, value) => ProblemKind::Value,
        _ => ProblemKind::Type,
    };
    let finding = Finding::new(kind, path.clone(), expected, describe_value(value));
    let Value::String(text) = value else { return finding };
    if let Some(near) = nearest(text, choices(root, schema)) {
        return finding.help(format!("did you mean \"{near}\"?"));
    }
    if ["nan", "inf", "infinity"].contains(&text.trim_start_matches(['-', '+']).to_lowercase().as_str()) {
        return finding.help("numbers must be finite");
    }
    if choices_include_link(root, schema) && !text.starts_with('@') {
        return finding.help(format!("to use what another node makes, write \"@{text}\""));
    }
    finding
}

fn choices_include_link(root: &Value, schema: &Value) -> bool {
    let schema = resolve(root, schema);
    schema.get("pattern").is_some()
        || branches(schema).into_iter().flatten().any(|branch| choices_include_link(root, branch))
}

fn choices<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a str> {
    let schema = resolve(root, schema);
    let mut all: Vec<&str> = schema.get("const").and_then(Value::as_str).into_iter().collect();
    all.extend(schema.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str));
    for branch in branches(schema).into_iter().flatten() {
        all.extend(choices(root, branch));
    }
    all
}

/// What a schema allows, in words.
fn describe(root: &Value, schema: &Value) -> String {
    let own = schema;
    let schema = resolve(root, schema);
    let named = choices(root, schema);
    if !named.is_empty() {
        return match named.as_slice() {
            [one] => format!("\"{one}\""),
            many => {
                format!("one of {}", many.iter().map(|c| format!("\"{c}\"")).collect::<Vec<_>>().join(", "))
            }
        };
    }
    if let Some(branches) = branches(schema) {
        let mut words: Vec<String> = vec![];
        for branch in branches {
            let inner = describe(root, branch);
            if inner != "null" && !words.contains(&inner) {
                words.push(inner);
            }
        }
        return words.join(" or ");
    }
    let bound = |name: &str| own.get(name).or_else(|| schema.get(name)).and_then(Value::as_f64);
    let range = range_words(bound("minimum"), bound("maximum"));
    let words = types(schema).into_iter().filter(|name| *name != "null").map(|name| match name {
        "integer" => format!("a whole number{range}"),
        "number" => format!("a number{range}"),
        "string" if schema.get("pattern").is_some() => "a link such as \"@node\"".to_owned(),
        "string" => "a text".to_owned(),
        "boolean" => "true or false".to_owned(),
        "array" => "a list".to_owned(),
        _ => match schema.get("properties").and_then(Value::as_object) {
            Some(properties) if properties.contains_key("keys") => {
                "keyframes { \"keys\": [[seconds, value], …] }".to_owned()
            }
            Some(properties) => {
                format!("an object with {}", properties.keys().cloned().collect::<Vec<_>>().join(", "))
            }
            None => "an object".to_owned(),
        },
    });
    words.collect::<Vec<_>>().join(" or ")
}

fn range_words(min: Option<f64>, max: Option<f64>) -> String {
    match (min, max) {
        (Some(min), Some(max)) => format!(" from {min} to {max}"),
        (Some(min), None) => format!(" of at least {min}"),
        (None, Some(max)) => format!(" of at most {max}"),
        (None, None) => String::new(),
    }
}

/// A value as it is shown in a message.
pub(super) fn describe_value(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("the text \"{}\"", short(text)),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// At most 60 characters of `text`, without control characters.
pub(super) fn short(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { '·' } else { c }).take(60).collect();
    if text.chars().nth(60).is_some() { format!("{clean}…") } else { clean }
}

/// The known word closest to `word`, when it is close enough to be a slip of the keys.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Distance to a very long word says nothing and costs much.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase();
    let allowed = (word.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|candidate| (distance(&word, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= allowed && distance < candidate.chars().count())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Edit distance with transposition of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let width = b.len() + 1;
    let mut table = vec![0usize; (a.len() + 1) * width];
    for i in 0..=a.len() {
        for j in 0..width {
            table[i * width + j] = if i == 0 || j == 0 {
                i + j
            } else {
                let swap = usize::from(a[i - 1] != b[j - 1]);
                let mut best = (table[(i - 1) * width + j] + 1)
                    .min(table[i * width + j - 1] + 1)
                    .min(table[(i - 1) * width + j - 1] + swap);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(table[(i - 2) * width + j - 2] + 1);
                }
                best
            };
        }
    }
    table.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_keys_find_their_word() {
        let ops = ["image.load", "image.save", "video.load", "mask.click"];
        assert_eq!(nearest("image.laod", ops), Some("image.load"));
        assert_eq!(nearest("imageload", ops), Some("image.load"));
        assert_eq!(nearest("Mask.Click", ops), Some("mask.click"));
        assert_eq!(nearest("teleport", ops), None);
        assert_eq!(nearest("", ops), None);
        assert_eq!(nearest(&"a".repeat(100_000), ops), None);
        assert_eq!((distance("ab", "ba"), distance("kitten", "sitting"), distance("", "ab")), (1, 3, 2));
    }

    #[test]
    fn long_or_wild_texts_are_shown_short() {
        assert_eq!(short("a\nb"), "a·b");
        assert_eq!(short(&"é".repeat(100)).chars().count(), 61);
    }
}
