//! The JSON Schema of documents, generated from the types that read them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::ops::Op;

/// Where the schema is committed, from the root of the repository.
pub const COMMITTED_AT: &str = "pipeline/schema/kinora.schema.json";

static OPS: LazyLock<BTreeMap<&'static str, Value>> = LazyLock::new(|| {
    Op::NAMES
        .iter()
        .filter_map(|name| {
            let mut generator = SchemaSettings::draft2020_12().into_generator();
            let mut schema = Op::schema(name, &mut generator)?.to_value();
            add_common(&mut schema, name);
            let definitions = generator.take_definitions(true);
            if let Some(object) = schema.as_object_mut() {
                object.insert("$defs".into(), Value::Object(definitions));
            }
            Some((*name, schema))
        })
        .collect()
});

static FRAME: LazyLock<Value> = LazyLock::new(|| frame_with(json!({ "type": "object" })));

/// The schema of one node, self-contained; `None` for an op that does not exist.
pub(super) fn op(name: &str) -> Option<&'static Value> {
    OPS.get(name)
}

/// The schema of a document whose nodes are any objects.
pub(super) fn frame() -> &'static Value {
    &FRAME
}

/// The whole schema, as `kinora schema` prints it.
pub fn schema() -> Value {
    let mut definitions = Map::new();
    let mut nodes = vec![];
    for (name, schema) in OPS.iter() {
        let mut schema = schema.clone();
        if let Some(Value::Object(inner)) =
            schema.as_object_mut().and_then(|object| object.shift_remove("$defs"))
        {
            definitions.extend(inner);
        }
        definitions.insert((*name).to_owned(), schema);
        nodes.push(json!({ "$ref": format!("#/$defs/{name}") }));
    }
    definitions.sort_keys();
    let mut schema = frame_with(json!({ "oneOf": nodes }));
    if let Some(object) = schema.as_object_mut() {
        object.insert("$defs".into(), Value::Object(definitions));
    }
    schema
}

/// The text that is committed: indented, with a final newline.
pub fn schema_text() -> String {
    serde_json::to_string_pretty(&schema()).unwrap_or_default() + "\n"
}

fn frame_with(node: Value) -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Kinora document",
        "description": "A graph of nodes: what to load, what moves and how, what to save. Paths are relative to the document, coordinates 0..1 of the picture, times in seconds.",
        "type": "object",
        "properties": {
            "$schema": { "type": "string", "description": "For editors." },
            "kinora": { "const": super::document::VERSION, "description": "Version of the format." },
            "nodes": {
                "description": "The nodes by name; others link to one as @name.",
                "type": "object",
                "minProperties": 1,
                "maxProperties": super::document::MAX_NODES,
                "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_-]{0,63}$" },
                "additionalProperties": node
            },
            "ui": { "description": "The editor's own data, carried along untouched." }
        },
        "required": ["kinora", "nodes"],
        "additionalProperties": false
    })
}

fn add_common(schema: &mut Value, name: &str) {
    let Some(object) = schema.as_object_mut() else { return };
    object.shift_remove("$schema");
    object.insert("title".into(), json!(name));
    let mut properties = Map::new();
    properties.insert("op".into(), json!({ "const": name }));
    if let Some(Value::Object(own)) = object.shift_remove("properties") {
        properties.extend(own);
    }
    properties
        .insert("ui".into(), json!({ "description": "The editor's own data, carried along untouched." }));
    object.insert("properties".into(), Value::Object(properties));
    let mut required = vec![json!("op")];
    if let Some(Value::Array(own)) = object.shift_remove("required") {
        required.extend(own);
    }
    object.insert("required".into(), Value::Array(required));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checker_knows_every_keyword_in_use() {
        fn walk(schema: &Value, unknown: &mut Vec<String>) {
            let Value::Object(object) = schema else { return };
            for (keyword, inner) in object {
                if !super::super::shape::KEYWORDS.contains(&keyword.as_str()) {
                    unknown.push(keyword.clone());
                }
                match keyword.as_str() {
                    "properties" | "$defs" => {
                        inner.as_object().into_iter().flatten().for_each(|(_, s)| walk(s, unknown));
                    }
                    "anyOf" | "oneOf" | "prefixItems" => {
                        inner.as_array().into_iter().flatten().for_each(|s| walk(s, unknown));
                    }
                    "items" | "additionalProperties" | "propertyNames" => walk(inner, unknown),
                    _ => {}
                }
            }
        }
        let mut unknown = vec![];
        walk(&schema(), &mut unknown);
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn every_op_is_closed_and_described() {
        for (name, schema) in OPS.iter() {
            assert_eq!(schema["additionalProperties"], json!(false), "{name}");
            assert!(schema["description"].is_string(), "{name}");
            for (field, property) in schema["properties"].as_object().unwrap() {
                let described = field == "op" || property.get("description").is_some();
                assert!(described, "{name}.{field} has no description");
            }
        }
    }
}
