//! What holds for every graph, every order of fields and every damaged text.

use kinora_pipeline::workflow::{Document, ProblemKind};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::{Bench, SHOT, with};

/// A graph of masks: `edges[i]` are the nodes node i takes.
fn graph(edges: &[Vec<usize>]) -> String {
    let nodes = edges.iter().enumerate().map(|(node, from)| {
        if from.is_empty() {
            return format!("\"n{node}\": {{ \"op\": \"mask.import\", \"path\": \"photo.png\" }}");
        }
        let links: Vec<_> = from.iter().map(|from| format!("\"@n{from}\"")).collect();
        format!("\"n{node}\": {{ \"op\": \"mask.combine\", \"masks\": [{}] }}", links.join(","))
    });
    with(&nodes.collect::<Vec<_>>().join(","))
}

fn has_cycle(edges: &[Vec<usize>]) -> bool {
    // Floyd-Warshall reachability: slow, and plainly right.
    let n = edges.len();
    let mut reach = vec![vec![false; n]; n];
    for (node, from) in edges.iter().enumerate() {
        from.iter().for_each(|&from| reach[node][from] = true);
    }
    for k in 0..n {
        for i in 0..n {
            for j in 0..n {
                reach[i][j] |= reach[i][k] && reach[k][j];
            }
        }
    }
    (0..n).any(|node| reach[node][node])
}

fn shuffled(value: &Value, turn: usize) -> Value {
    match value {
        Value::Object(object) => {
            let mut fields: Vec<_> = object.iter().map(|(k, v)| (k.clone(), shuffled(v, turn))).collect();
            let by = turn % fields.len().max(1);
            fields.rotate_left(by);
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| shuffled(item, turn)).collect()),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn a_cycle_is_never_accepted_and_orders_are_topological(
        edges in prop::collection::vec(prop::collection::vec(0usize..9, 0..3), 9)
    ) {
        match Document::parse(&graph(&edges), "x") {
            Ok(document) => {
                prop_assert!(!has_cycle(&edges));
                let place = |name: &str| document.order().iter().position(|n| n == name).unwrap();
                for (node, from) in edges.iter().enumerate() {
                    for from in from {
                    let (earlier, later) = (place(&format!("n{from}")), place(&format!("n{node}")));
                    prop_assert!(earlier < later);
                    }
                }
            }
            Err(error) => {
                prop_assert!(has_cycle(&edges), "{error}");
                prop_assert_eq!(error.kind(), ProblemKind::Cycle);
            }
        }
    }

    #[test]
    fn keys_do_not_depend_on_order_names_or_ui(turn in 0usize..7, note in "[a-z ]{0,12}") {
        let bench = Bench::new();
        let plain: Value = serde_json::from_str(SHOT).unwrap();
        let mut other = shuffled(&plain, turn);
        other["ui"] = json!({ "note": note });
        other["nodes"]["shot"]["ui"] = json!({ "x": turn });
        // A default written out is the same as one left out.
        other["nodes"]["shot"]["seed"] = json!(7);
        other["nodes"]["shot"]["fps"] = json!(8);
        let keys = |value: &Value| {
            let plan = bench.plan(&value.to_string()).unwrap();
            let mut keys: Vec<_> = plan.steps().iter().map(|s| (s.node.clone(), s.key.clone())).collect();
            keys.sort();
            keys
        };
        prop_assert_eq!(keys(&plain), keys(&other));
        other["nodes"]["shot"]["seed"] = json!(8);
        prop_assert_ne!(keys(&plain), keys(&other));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[\\[\\]{}\":,@a-z0-9. \\\\]{0,80}") {
        let _ = Document::parse(&text, "x");
    }

    #[test]
    fn no_damage_to_a_document_makes_the_reader_panic(at in 0usize..SHOT.len(), byte in 32u8..127) {
        let mut bytes = SHOT.as_bytes().to_vec();
        bytes[at] = byte;
        let text = String::from_utf8(bytes).unwrap();
        if let Err(error) = Document::parse(&text, "x") {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
