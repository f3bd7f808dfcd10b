//! What is refused of a document before anything runs, and how it is said.

use kinora_pipeline::workflow::{Document, ErrorClass, MAX_NODES, ProblemKind};
use miette::Diagnostic;

use super::support::{Bench, with};
use super::{LOAD, SAVE, refused, refused_node, shown};

#[test]
fn an_unknown_op_names_the_nearest() {
    let error = refused_node(r#""m": { "op": "mask.clik", "image": "@photo" }"#);
    assert_eq!(error.kind(), ProblemKind::UnknownOp);
    assert_eq!(error.first().field(), "nodes.m.op");
    assert_eq!(error.first().line(), 5);
    assert!(shown(&error).contains("did you mean \"mask.click\"?"), "{}", shown(&error));
    let labels: Vec<_> = error.labels().unwrap().collect();
    assert_eq!(labels[0].len(), "\"mask.clik\"".len());
}

#[test]
fn an_unknown_field_names_the_nearest_and_points_at_it() {
    let text = with(&format!(
        "{LOAD},\n{SAVE},\n\"m\": {{ \"op\": \"mask.click\", \"image\": \"@photo\", \"pionts\": [] }}"
    ));
    let error = refused(&text);
    assert_eq!(error.kind(), ProblemKind::UnknownField);
    assert_eq!(error.first().field(), "nodes.m.pionts");
    assert!(shown(&error).contains("did you mean \"points\"?"), "{}", shown(&error));
    let label = error.labels().unwrap().next().unwrap();
    assert_eq!(&text[label.offset()..label.offset() + label.len()], "\"pionts\"");
}

#[test]
fn wrong_values_are_named_with_what_was_expected() {
    let cases = [
        (r#""n": { "op": "image.load" }"#, ProblemKind::MissingField, "nodes.n", "add \"path\": a text"),
        (
            r#""n": { "op": "image.load", "path": 3 }"#,
            ProblemKind::Type,
            "nodes.n.path",
            "expected a text, found 3",
        ),
        (r#""n": { "path": "a.png" }"#, ProblemKind::MissingField, "nodes.n", "the field \"op\""),
        (r#""n": "image.load""#, ProblemKind::Type, "nodes.n", "an object with an \"op\""),
        (
            r#""n": { "op": "mask.click", "image": "@photo", "points": [{ "x": 1.25, "y": 0.5 }] }"#,
            ProblemKind::Range,
            "nodes.n.points[0].x",
            "expected a number from 0 to 1, found 1.25",
        ),
        (
            r#""n": { "op": "mask.click", "image": "@photo", "points": [{ "x": -0.1, "y": 0.5 }] }"#,
            ProblemKind::Range,
            "nodes.n.points[0].x",
            "from 0 to 1, found -0.1",
        ),
        (
            r#""n": { "op": "mask.click", "image": "@photo" }"#,
            ProblemKind::Value,
            "nodes.n.points",
            "at least one click on the thing",
        ),
        (
            r#""n": { "op": "mask.click", "image": "@photo", "strokes": [{ "points": [[0.1, 0.2]], "radius": 0.1, "erase": true }] }"#,
            ProblemKind::Value,
            "nodes.n.points",
            "or a stroke that adds",
        ),
        (
            r#""n": { "op": "mask.click", "image": "@photo", "strokes": [{ "points": [[0.1, 0.2]], "radius": 7 }] }"#,
            ProblemKind::Range,
            "nodes.n.strokes[0].radius",
            "found 7",
        ),
        (
            r#""n": { "op": "mask.click", "image": "photo", "points": [{ "x": 0, "y": 0 }] }"#,
            ProblemKind::Value,
            "nodes.n.image",
            "write \"@photo\"",
        ),
        (
            r#""n": { "op": "mask.click", "image": "@photo", "points": [{ "x": 0, "y": 0 }], "candidate": "objct" }"#,
            ProblemKind::Value,
            "nodes.n.candidate",
            "did you mean \"object\"?",
        ),
        (
            r#""n": { "op": "mask.click", "image": "@photo", "box": { "x0": 0.5, "y0": 0, "x1": 0.5, "y1": 1 } }"#,
            ProblemKind::Value,
            "nodes.n.box",
            "a box without area",
        ),
        (
            r#""n": { "op": "image.save", "image": "@photo", "path": "a.bmp" }"#,
            ProblemKind::Value,
            "nodes.n.path",
            "ends in .png",
        ),
        (
            r#""n": { "op": "image.save", "image": "@photo", "path": "a.jpg", "quality": 300 }"#,
            ProblemKind::Range,
            "nodes.n.quality",
            "a whole number from 1 to 100, found 300",
        ),
    ];
    for (node, kind, field, says) in cases {
        let error = refused_node(node);
        assert_eq!(
            (error.kind(), error.first().field().as_str()),
            (kind, field),
            "{node}: {}",
            shown(&error)
        );
        assert!(shown(&error).contains(says), "{node}: {}", shown(&error));
        assert!(error.first().line() == 5 && error.source_code().is_some(), "{node}");
        assert_eq!(error.class(), ErrorClass::BadInput);
    }
}

#[test]
fn animations_are_checked_before_anything_runs() {
    let shot = |fields: &str| {
        with(&format!(
            "{LOAD}, \"m\": {{ \"op\": \"mask.click\", \"image\": \"@photo\", \"points\": [{{ \"x\": 0.5, \"y\": 0.5 }}] }},\n\
             \"n\": {{ \"op\": \"animate.click\", \"image\": \"@photo\", {fields} }},\n\
             \"f\": {{ \"op\": \"video.save\", \"video\": \"@n\", \"path\": \"a.mp4\" }}"
        ))
    };
    for (fields, says) in [
        (
            r#""mask": "@m", "prompt": """#,
            "nodes.n.prompt (line 4): expected a text with words, found an empty text",
        ),
        (r#""mask": "@m", "prompt": " \n ""#, "expected a text with words"),
        (r#""mask": "@m""#, "the field \"prompt\""),
        (r#""prompt": "up""#, "the field \"mask\""),
        (r#""seed": 1"#, "nothing that moves"),
        (r#""mask": "@m", "prompt": "up", "regions": [{ "mask": "@m", "prompt": "up" }]"#, "found both"),
        (r#""regions": [{ "mask": "@m", "prompt": "" }]"#, "nodes.n.regions[0].prompt"),
        (r#""mask": "@m", "prompt": "up", "magnitude": 1.5"#, "a number from 0 to 1, found 1.5"),
        (r#""mask": "@m", "prompt": "up", "magnitude": "NaN""#, "numbers must be finite"),
        (r#""mask": "@m", "prompt": "up", "magnitude": { "keys": [[0, 2]] }"#, "magnitude.keys[0][1]"),
        (
            r#""mask": "@m", "prompt": "up", "magnitude": { "keys": [[0, 0.5], [2, 1], [2, 0]] }"#,
            "nodes.n.magnitude.keys[2][0] (line 4): expected a time after that of the key before",
        ),
        (
            r#""regions": [{ "mask": "@m", "prompt": "up", "magnitude": { "keys": [[0, 0.5], [-1, 1]] } }]"#,
            "nodes.n.regions[0].magnitude.keys[1][0]",
        ),
        (r#""mask": "@m", "prompt": "up", "magnitude": { "keys": [] }"#, "a list of 1 to 4096"),
        (
            r#""mask": "@m", "prompt": "up", "magnitude": { "keys": [[0, 1]], "ease": "bounce" }"#,
            "\"smooth\"",
        ),
        (r#""mask": "@m", "prompt": "up", "frames": 100000"#, "a whole number from 2 to 1024"),
        (
            r#""mask": "@m", "prompt": "up", "frames": 4.5"#,
            "expected a whole number from 2 to 1024, found 4.5",
        ),
        (r#""mask": "@m", "prompt": "up", "seed": -1"#, "of at least 0, found -1"),
        (r#""mask": "@m", "prompt": "up", "ease": "looop""#, "did you mean \"loop\"?"),
    ] {
        let error = refused(&shot(fields));
        assert!(shown(&error).contains(says), "{fields}: {}", shown(&error));
    }
    let bench = Bench::new();
    let planned = |fields: &str| bench.plan(&shot(fields)).unwrap_err();
    let error = planned(&format!(r#""mask": "@m", "prompt": "{}""#, "word ".repeat(80)));
    assert_eq!(error.first().field(), "nodes.n.prompt");
    assert!(shown(&error).contains("at most 77 tokens, found 82 tokens"), "{}", shown(&error));
    let error = planned(r#""mask": "@m", "prompt": "up", "frames": 33"#);
    assert_eq!(error.first().field(), "nodes.n.frames");
    assert!(shown(&error).contains("2 to 16 frames"), "{}", shown(&error));
    let error = planned(r#""mask": "@m", "prompt": "up", "model": "hub:somebody/something@main""#);
    assert_eq!((error.kind(), error.class()), (ProblemKind::Model, ErrorClass::Unavailable));
}

#[test]
fn links_are_checked_for_target_port_and_kind() {
    let clip = r#""c": { "op": "video.load", "path": "a.mp4" }"#;
    for (node, kind, says) in [
        (
            r#""n": { "op": "image.save", "image": "@phto", "path": "a.png" }"#,
            ProblemKind::Link,
            "did you mean \"@photo\"?",
        ),
        (
            r#""n": { "op": "image.save", "image": "@photo.widht", "path": "a.png" }"#,
            ProblemKind::Link,
            "did you mean \"@photo.width\"?",
        ),
        (
            r#""n": { "op": "image.save", "image": "@photo.width", "path": "a.png" }"#,
            ProblemKind::Port,
            "expected a picture or a mask, found \"@photo.width\", which is a number made by image.load",
        ),
        (
            r#""n": { "op": "video.save", "video": "@photo", "path": "a.mp4" }"#,
            ProblemKind::Port,
            "expected a clip",
        ),
        (r#""n": { "op": "mask.combine", "masks": ["@photo"] }"#, ProblemKind::Port, "nodes.n.masks[0]"),
        (r#""n": { "op": "mask.combine", "masks": [] }"#, ProblemKind::Range, "a list of 1 to 64"),
    ] {
        let error = refused(&with(&format!("{LOAD}, {clip}, {SAVE}, {node}")));
        assert_eq!(error.kind(), kind, "{}", shown(&error));
        assert!(shown(&error).contains(says), "{node}: {}", shown(&error));
    }
    // A number port feeds a number field.
    let linked = r#""n": { "op": "video.save", "video": "@c", "path": "a.mp4", "fps": "@c.fps" }"#;
    Document::parse(&with(&format!("{clip}, {linked}")), "x").unwrap();
}

#[test]
fn cycles_are_refused_with_their_nodes() {
    let error = refused(&with(
        r#""a": { "op": "mask.combine", "masks": ["@b"] }, "b": { "op": "mask.combine", "masks": ["@c"] },
           "c": { "op": "mask.combine", "masks": ["@a"] }, "d": { "op": "mask.combine", "masks": ["@a"] },
           "f": { "op": "image.save", "image": "@d", "path": "a.png" }"#,
    ));
    assert_eq!(error.kind(), ProblemKind::Cycle);
    assert!(shown(&error).contains("a → b → c → a"), "{}", shown(&error));
    let error = refused(&with(r#""a": { "op": "mask.combine", "masks": ["@a"] }"#));
    assert!(shown(&error).contains("a → a"), "{}", shown(&error));
}

#[test]
fn texts_that_are_no_document_are_told_apart() {
    let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    for (text, kind, says) in [
        ("", ProblemKind::Syntax, "cut off"),
        ("{ \"kinora\": 1, \"nodes\": {", ProblemKind::Syntax, "cut off"),
        ("// hello\n{}", ProblemKind::Syntax, "no comments"),
        ("{ \"kinora\": 1, \"nodes\": { \"a\": NaN } }", ProblemKind::Syntax, "finite"),
        ("{ \"kinora\": 1, \"nodes\": { \"a\": 1e999 } }", ProblemKind::Range, "a finite number"),
        (deep.as_str(), ProblemKind::Limit, "deep"),
        ("[]", ProblemKind::Type, "an object"),
        ("{ \"nodes\": {} }", ProblemKind::Version, "\"kinora\": 1"),
        (
            "{ \"kinora\": 2, \"nodes\": { \"a\": { \"op\": \"new\" } } }",
            ProblemKind::Version,
            "newer Kinora",
        ),
        ("{ \"kinora\": \"1\", \"nodes\": {} }", ProblemKind::Version, "version 1"),
        ("{ \"kinora\": 1 }", ProblemKind::MissingField, "\"nodes\""),
        ("{ \"kinora\": 1, \"nodes\": [] }", ProblemKind::Type, "an object"),
        (
            "{ \"kinora\": 1, \"nodes\": {}, \"node\": {} }",
            ProblemKind::UnknownField,
            "did you mean \"nodes\"?",
        ),
        ("{ \"kinora\": 1, \"kinora\": 1, \"nodes\": {} }", ProblemKind::Duplicate, "once"),
        ("{ \"kinora\": 1, \"nodes\": { \"a b\": {} } }", ProblemKind::Value, "a node name"),
    ] {
        let error = refused(text);
        assert_eq!(error.kind(), kind, "{text:.60}: {}", shown(&error));
        assert!(shown(&error).contains(says), "{text:.60}: {}", shown(&error));
    }
}

#[test]
fn limits_hold() {
    let node = |i: usize| format!("\"n{i}\": {{ \"op\": \"image.load\", \"path\": \"photo.png\" }}");
    let many = |count: usize| with(&(0..count).map(node).collect::<Vec<_>>().join(","));
    Document::parse(&many(MAX_NODES), "x").unwrap();
    let error = refused(&many(5000));
    assert_eq!(error.kind(), ProblemKind::Limit);
    assert!(shown(&error).contains("at most 4096 nodes, found 5000 nodes"), "{}", shown(&error));

    let long = refused_node(&format!(r#""n": {{ "op": "image.load", "path": "{}" }}"#, "x".repeat(70_000)));
    assert_eq!((long.kind(), long.first().field().as_str()), (ProblemKind::Limit, "nodes.n.path"));
    let big = refused(&format!("{{ \"kinora\": 1, \"ui\": {} }}", " ".repeat(17 << 20)));
    assert_eq!(big.kind(), ProblemKind::Limit);
}

#[test]
fn all_problems_of_a_document_are_listed() {
    let error = refused(&with(
        r#""a": { "op": "image.laod", "path": "x.png" }, "b": { "op": "image.load" }, "c": { "op": "video.load", "path": 1 }"#,
    ));
    let kinds: Vec<_> = error.problems().map(|problem| problem.kind()).collect();
    assert_eq!(kinds, [ProblemKind::UnknownOp, ProblemKind::MissingField, ProblemKind::Type]);
    assert_eq!(error.related().unwrap().count(), 2);
    assert!(error.to_string().ends_with("(and 2 more problems)"));
}
