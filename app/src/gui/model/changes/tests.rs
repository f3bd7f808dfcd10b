//! Edits on documents, and every one of them undone.

use proptest::prelude::*;

use kinora_pipeline::workflow::ops::Candidate;

use super::super::places::Places;
use super::*;

struct Desk {
    _dir: tempfile::TempDir,
    project: Project,
}

fn desk(text: &str) -> Desk {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.kinora.json");
    std::fs::write(&path, text).unwrap();
    let project = Project::open(&path, &Places::below(&dir.path().join("home"))).unwrap();
    Desk { _dir: dir, project }
}

const PHOTO: &str = r#"{ "kinora": 1, "nodes": { "sea": { "op": "image.load", "path": "sea.png" } } }"#;
const SINGLE: &str = include_str!("../../../../../workflows/single-click.kinora.json");
const TWO: &str = include_str!("../../../../../workflows/two-regions.kinora.json");

fn at(x: f64, y: f64, keep: bool) -> Click {
    Click { x, y, keep }
}

#[test]
fn the_first_click_makes_a_shot_that_renders_and_saves() {
    let mut desk = desk(PHOTO);
    let (shot, index) =
        add_region(&mut desk.project, "sea", Start::Click(at(0.25, 0.5, true)), "ripple").unwrap();
    assert_eq!((shot.as_str(), index), ("sea_shot", 0));
    let item = desk.project.scene().item(&shot).unwrap();
    assert_eq!(item.regions()[0].name, "Region 1");
    assert_eq!(item.shot.as_ref().unwrap().outputs[0].path, "out/sea.mp4");
    add_click(&mut desk.project, &shot, 0, at(0.9, 0.9, false)).unwrap();
    add_region(&mut desk.project, &shot, Start::Click(at(0.7, 0.1, true)), "drift left").unwrap();
    set_magnitude(&mut desk.project, &shot, 1, 0.3).unwrap();
    assert_eq!(desk.project.scene().item(&shot).unwrap().regions().len(), 2);
    for _ in 0..4 {
        assert!(desk.project.undo().unwrap().is_some());
    }
    assert_eq!(desk.project.value(), &serde_json::from_str::<Value>(PHOTO).unwrap());
}

#[test]
fn a_shot_with_fields_of_its_own_becomes_a_list_when_it_must() {
    let mut desk = desk(SINGLE);
    set_prompt(&mut desk.project, "shot", 0, "sink").unwrap();
    assert_eq!(desk.project.value()["nodes"]["shot"]["prompt"], "sink");
    add_region(&mut desk.project, "shot", Start::Click(at(0.1, 0.1, true)), "drift left").unwrap();
    let shot = &desk.project.value()["nodes"]["shot"];
    assert_eq!((shot["regions"][0]["prompt"].as_str(), shot.get("mask")), (Some("sink"), None));
    desk.project.undo().unwrap();
    desk.project.undo().unwrap();
    assert_eq!(desk.project.value(), &serde_json::from_str::<Value>(SINGLE).unwrap());
}

#[test]
fn removing_the_last_region_leaves_the_picture() {
    let mut desk = desk(SINGLE);
    assert!(remove_click(&mut desk.project, "shot", 0, 0).unwrap(), "the region went with its only click");
    let nodes: Vec<_> = desk.project.document().nodes().keys().cloned().collect();
    assert_eq!(nodes, ["photo"]);
    desk.project.undo().unwrap();
    assert_eq!(desk.project.value().to_string(), serde_json::from_str::<Value>(SINGLE).unwrap().to_string());
}

#[test]
fn regions_change_places_and_shapes() {
    let mut desk = desk(TWO);
    assert_eq!(move_region(&mut desk.project, "shot", 0, true).unwrap(), 1);
    assert_eq!(desk.project.scene().items[0].regions()[1].mask, "coffee");
    assert_eq!(move_region(&mut desk.project, "shot", 1, true).unwrap(), 1, "already the uppermost");
    set_edge(&mut desk.project, "shot", 0, "feather", 3.04).unwrap();
    assert_eq!(desk.project.value()["nodes"]["spoon"]["feather"], 3.0);
    set_edge(&mut desk.project, "shot", 0, "feather", 0.0).unwrap();
    assert!(desk.project.value()["nodes"]["spoon"].get("feather").is_none());
    set_candidate(&mut desk.project, "shot", 0, Candidate::Whole).unwrap();
    assert_eq!(desk.project.value()["nodes"]["spoon"]["candidate"], "whole");
    set_candidate(&mut desk.project, "shot", 0, Candidate::Best).unwrap();
    let error = add_click(&mut desk.project, "shot", 1, at(0.5, 0.5, true)).unwrap_err();
    assert!(error.to_string().contains("not made by clicks"), "{error}");
    rename(&mut desk.project, "coffee", " Crema\n").unwrap();
    assert_eq!(desk.project.scene().items[0].regions()[1].name, "Crema");
    assert!(rename(&mut desk.project, "coffee", " ").is_err());
}

#[test]
fn what_cannot_be_is_refused_and_nothing_changes() {
    let mut desk = desk(SINGLE);
    let before = desk.project.value().clone();
    let project = &mut desk.project;
    assert!(set_prompt(project, "shot", 0, "  ").is_err());
    assert!(set_prompt(project, "shot", 7, "left").is_err());
    assert!(set_prompt(project, "gone", 0, "left").is_err());
    assert!(set_shot(project, "shot", "frames", Some(json!(1))).is_err());
    assert!(set_shot(project, "shot", "seed", Some(json!(-1))).is_err());
    assert!(set_output(project, "file", "path", Some(json!("clip.txt"))).is_err());
    assert!(remove_item(project, "shot").unwrap_err().to_string().contains("at least one picture"));
    assert!(move_click(project, "shot", 0, 5, at(0.0, 0.0, true)).is_err());
    assert_eq!((project.value(), project.undo_label()), (&before, None));
}

#[test]
fn items_come_and_go_with_what_only_they_need() {
    let mut desk = desk(SINGLE);
    let frame = add_item(&mut desk.project, NewItem::Frame("media/My film.mp4", 1.5)).unwrap();
    assert_eq!(frame, "my_film");
    assert_eq!(desk.project.scene().item(&frame).unwrap().name, "My film");
    let other = add_item(&mut desk.project, NewItem::Picture("media/Photo.PNG")).unwrap();
    assert_eq!(other, "photo_2");
    remove_item(&mut desk.project, &frame).unwrap();
    remove_item(&mut desk.project, &other).unwrap();
    for _ in 0..4 {
        desk.project.undo().unwrap();
    }
    assert_eq!(desk.project.value(), &serde_json::from_str::<Value>(SINGLE).unwrap());
}

/// One thing a person might do; numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Act {
    Picture,
    Region(usize, f64, f64),
    Click(usize, usize, f64, f64, bool),
    Unclick(usize, usize, usize),
    MoveClick(usize, usize, usize, f64, f64),
    Prompt(usize, usize, String),
    Magnitude(usize, usize, f64),
    Edge(usize, usize, bool, f64),
    Remove(usize, usize),
    Reorder(usize, usize, bool),
    RemoveItem(usize),
    Rename(usize, String),
    Frames(usize, u32),
    Undo,
    Redo,
    Close,
}

fn acts() -> impl Strategy<Value = Act> {
    let n = 0usize..4;
    let f = -0.2f64..1.2;
    prop_oneof![
        Just(Act::Picture),
        (n.clone(), f.clone(), f.clone()).prop_map(|(i, x, y)| Act::Region(i, x, y)),
        (n.clone(), n.clone(), f.clone(), f.clone(), any::<bool>())
            .prop_map(|(i, r, x, y, k)| Act::Click(i, r, x, y, k)),
        (n.clone(), n.clone(), n.clone()).prop_map(|(i, r, p)| Act::Unclick(i, r, p)),
        (n.clone(), n.clone(), n.clone(), f.clone(), f.clone())
            .prop_map(|(i, r, p, x, y)| Act::MoveClick(i, r, p, x, y)),
        (n.clone(), n.clone(), "[ a-z]{0,6}").prop_map(|(i, r, t)| Act::Prompt(i, r, t)),
        (n.clone(), n.clone(), f.clone()).prop_map(|(i, r, m)| Act::Magnitude(i, r, m)),
        (n.clone(), n.clone(), any::<bool>(), -600.0f64..600.0)
            .prop_map(|(i, r, w, v)| Act::Edge(i, r, w, v)),
        (n.clone(), n.clone()).prop_map(|(i, r)| Act::Remove(i, r)),
        (n.clone(), n.clone(), any::<bool>()).prop_map(|(i, r, u)| Act::Reorder(i, r, u)),
        n.clone().prop_map(Act::RemoveItem),
        (n.clone(), "[ a-z]{0,4}").prop_map(|(i, t)| Act::Rename(i, t)),
        (n, 0u32..40).prop_map(|(i, v)| Act::Frames(i, v)),
        Just(Act::Undo),
        Just(Act::Redo),
        Just(Act::Close),
    ]
}

fn act(project: &mut Project, act: Act) {
    let ids: Vec<String> = project.scene().items.iter().map(|item| item.id.clone()).collect();
    let id = |i: usize| ids[i % ids.len()].as_str();
    // Whether each is possible depends on the rest; refused is as good as done, breaking is not.
    let _ = match act {
        Act::Picture => add_item(project, NewItem::Picture("media/p.png")).map(drop),
        Act::Region(i, x, y) => {
            add_region(project, id(i), Start::Click(at(x, y, true)), "drift left").map(drop)
        }
        Act::Click(i, r, x, y, keep) => add_click(project, id(i), r, at(x, y, keep)),
        Act::Unclick(i, r, p) => remove_click(project, id(i), r, p).map(drop),
        Act::MoveClick(i, r, p, x, y) => move_click(project, id(i), r, p, at(x, y, true)),
        Act::Prompt(i, r, text) => set_prompt(project, id(i), r, &text),
        Act::Magnitude(i, r, m) => set_magnitude(project, id(i), r, m),
        Act::Edge(i, r, which, v) => set_edge(project, id(i), r, if which { "feather" } else { "dilate" }, v),
        Act::Remove(i, r) => remove_region(project, id(i), r),
        Act::Reorder(i, r, up) => move_region(project, id(i), r, up).map(drop),
        Act::RemoveItem(i) => remove_item(project, id(i)),
        Act::Rename(i, text) => rename(project, id(i), &text),
        Act::Frames(i, frames) => set_shot(project, id(i), "frames", Some(json!(frames))),
        Act::Undo => project.undo().map(drop),
        Act::Redo => project.redo().map(drop),
        Act::Close => {
            project.close_gesture();
            Ok(())
        }
    };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is done in whatever order: the document stays sound, and undoing everything gives
    /// back the text it began with, to the byte.
    #[test]
    fn any_series_of_edits_keeps_the_document_sound_and_is_undone(list in prop::collection::vec(acts(), 1..40)) {
        let mut desk = desk(PHOTO);
        let begun = desk.project.value().to_string();
        for one in list {
            act(&mut desk.project, one);
            let text = desk.project.document().to_text();
            kinora_pipeline::workflow::Document::parse(&text, "monkey").unwrap();
            prop_assert!(!desk.project.scene().items.is_empty());
        }
        while desk.project.undo().unwrap().is_some() {}
        prop_assert_eq!(desk.project.value().to_string(), begun);
    }
}
