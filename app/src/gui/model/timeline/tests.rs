//! Timelines by hand, and whatever a person or a hostile document does to one.

use proptest::prelude::*;
use serde_json::json;

use super::super::places::Places;
use super::*;

const TWO: &str = r#"{ "kinora": 1, "nodes": {
    "photo": { "op": "image.load", "path": "a.png" },
    "thing": { "op": "mask.click", "image": "@photo", "points": [{ "x": 0.5, "y": 0.5 }] },
    "one": { "op": "animate.click", "image": "@photo", "mask": "@thing", "prompt": "grow", "frames": 16, "fps": 8 },
    "two": { "op": "animate.click", "image": "@photo", "mask": "@thing", "prompt": "sink", "frames": 8, "fps": 8 }
} }"#;

fn document(timeline: Value) -> Document {
    let mut value: Value = serde_json::from_str(TWO).unwrap();
    if !timeline.is_null() {
        value["ui"] = json!({ "timeline": timeline });
    }
    Document::parse(&value.to_string(), "test").unwrap()
}

fn spans(timeline: &Timeline, track: usize) -> Vec<(String, f64, f64)> {
    timeline.tracks[track].clips.iter().map(|c| (c.node.clone(), c.at, c.end())).collect()
}

fn span(node: &str, at: f64, end: f64) -> (String, f64, f64) {
    (node.to_owned(), at, end)
}

#[test]
fn shots_lie_end_to_end_until_someone_moves_them() {
    let timeline = Timeline::of(&document(Value::Null));
    assert_eq!(spans(&timeline, 0), [span("one", 0.0, 2.0), span("two", 2.0, 3.0)]);
    assert_eq!(timeline.length(), 3.0);
    assert_eq!(timeline.seen(1.9).unwrap().1.node, "one");
    assert_eq!(timeline.seen(2.0).unwrap().1.node, "two");
    assert!(timeline.seen(3.0).is_none() && timeline.seen(-1.0).is_none());
}

#[test]
fn one_clip_appears_out_of_its_neighbour() {
    let mut timeline = Timeline::of(&document(Value::Null));
    timeline.trim((0, 0), Edge::End, 1.0, 2.0, 0.125);
    assert!(!timeline.cross((0, 1), 0.5), "there is a gap between them");
    timeline.move_clip((0, 1), 0, 1.0);
    timeline.fade((0, 0), Edge::End, 0.25);
    assert!(timeline.cross((0, 1), 0.5));
    // Under the second the first goes on into what was trimmed away, whole although it faded before.
    let layers = timeline.layers(1.25, 8.0);
    let seen: Vec<(&str, f64, f64)> =
        layers.iter().map(|(clip, opacity)| (clip.node.as_str(), clip.local(1.25), *opacity)).collect();
    assert_eq!(seen, [("one", 1.25, 1.0), ("two", 0.25, 0.625)]);
    assert_eq!(timeline.layers(0.9, 8.0).len(), 1);
    assert_eq!(timeline.layers(1.5, 8.0).len(), 1);
    let laid: Vec<(f64, f64)> = timeline.tracks[0].laid().map(|(clip, tail)| (clip.end(), tail)).collect();
    assert_eq!(laid, [(1.5, 0.5), (2.0, 0.0)]);
    // Moved apart they are two clips again, and without a fade there is nothing to cross.
    timeline.move_clip((0, 1), 0, 1.5);
    assert_eq!(timeline.layers(1.6, 8.0).len(), 1);
    timeline.fade((0, 1), Edge::Start, 0.0);
    assert!(!timeline.tracks[0].clips[1].cross);
}

#[test]
fn clips_move_to_where_there_is_room() {
    let mut timeline = Timeline::of(&document(Value::Null));
    assert_eq!(timeline.move_clip((0, 1), 0, 1.0), (0, 1), "pushed back behind the first");
    assert_eq!(spans(&timeline, 0)[1], span("two", 2.0, 3.0));
    timeline.move_clip((0, 1), 0, 5.0);
    assert_eq!(timeline.move_clip((0, 1), 0, 4.9), (0, 1));
    assert_eq!(timeline.move_clip((0, 0), 0, 3.1), (0, 0), "two seconds fit before 4.9");
    assert_eq!(spans(&timeline, 0), [span("one", 2.9, 4.9), span("two", 4.9, 5.9)]);
    assert_eq!(timeline.move_clip((0, 1), 0, 0.2), (0, 0), "and the order follows");
    assert_eq!(timeline.add_track(), Some(1));
    assert_eq!(timeline.move_clip((0, 0), 1, 3.5), (1, 0));
    assert_eq!(timeline.seen(3.6).unwrap().1.node, "two", "the upper track lies over the lower");
    timeline.tracks[1].hidden = true;
    assert_eq!(timeline.seen(3.6).unwrap().1.node, "one");
    assert!(!timeline.remove_track(1) && timeline.tracks.len() == 2, "it is not empty");
}

#[test]
fn trims_stop_at_the_shot_and_at_neighbours() {
    let mut timeline = Timeline::of(&document(Value::Null));
    let frame = 0.125;
    timeline.trim((0, 0), Edge::End, 1.5, 2.0, frame);
    timeline.trim((0, 1), Edge::Start, 0.0, 1.0, frame);
    assert_eq!(
        spans(&timeline, 0),
        [span("one", 0.0, 1.5), span("two", 2.0, 3.0)],
        "no frames before the first"
    );
    timeline.trim((0, 1), Edge::Start, 2.5, 1.0, frame);
    timeline.trim((0, 1), Edge::Start, 1.0, 1.0, frame);
    assert_eq!(spans(&timeline, 0)[1], span("two", 2.0, 3.0));
    timeline.trim((0, 0), Edge::End, 9.0, 2.0, frame);
    assert_eq!(spans(&timeline, 0)[0].2, 2.0);
    timeline.trim((0, 0), Edge::End, -3.0, 2.0, frame);
    assert_eq!(spans(&timeline, 0)[0].2, frame, "a frame is left");
}

#[test]
fn a_split_loses_nothing_and_a_ripple_closes_the_gap() {
    let mut timeline = Timeline::of(&document(Value::Null));
    assert_eq!(timeline.split((0, 0), 0.75), Some((0, 1)));
    assert_eq!(timeline.split((0, 0), 0.75), None, "it ends there");
    let parts: Vec<_> = timeline.tracks[0].clips.iter().map(|c| (c.at, c.from, c.to)).collect();
    assert_eq!(parts, [(0.0, 0.0, 0.75), (0.75, 0.75, 2.0), (2.0, 0.0, 1.0)]);
    timeline.remove((0, 0), true);
    assert_eq!(spans(&timeline, 0), [span("one", 0.0, 1.25), span("two", 1.25, 2.25)]);
    timeline.remove((0, 0), false);
    assert_eq!(spans(&timeline, 0), [span("two", 1.25, 2.25)]);
    timeline.append("one", Some(2.0), None);
    assert_eq!(spans(&timeline, 0)[1], span("one", 2.25, 4.25));
}

#[test]
fn what_makes_no_sense_in_a_document_is_passed_over() {
    let clip =
        |node: &str, at: f64, from: f64, to: f64| json!({ "node": node, "at": at, "from": from, "to": to });
    let wild = json!({ "tracks": [{ "name": "A\nB", "clips": [
        clip("gone", 0.0, 0.0, 1.0), clip("photo", 0.0, 0.0, 1.0), clip("two", 1.0, 0.0, 99.0),
        clip("one", 1.5, 7.0, 3.0), clip("one", -4.0, -1.0, 0.5) ] }] });
    let timeline = Timeline::of(&document(wild));
    assert_eq!(timeline.tracks[0].name, "AB");
    assert_eq!(spans(&timeline, 0), [span("one", 0.0, 0.5), span("two", 1.0, 2.0), span("one", 2.0, 4.0)]);
    for broken in [json!(7), json!({ "tracks": "none" }), json!({ "tracks": [{ "clips": 3 }] })] {
        assert_eq!(Timeline::of(&document(broken)), Timeline::of(&document(Value::Null)));
    }
    assert_eq!(Timeline::of(&document(json!({ "tracks": [] }))).tracks.len(), 1);
}

#[test]
fn an_arrangement_is_an_edit_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.kinora.json");
    std::fs::write(&path, TWO).unwrap();
    let mut project = Project::open(&path, &Places::below(&dir.path().join("home"))).unwrap();
    for step in 1..=5 {
        let mut timeline = Timeline::of(project.document());
        timeline.move_clip((0, 1), 0, 2.0 + f64::from(step));
        timeline.write(&mut project, "Move clip", Some("drag")).unwrap();
    }
    project.close_gesture();
    assert_eq!(Timeline::of(project.document()).clip((0, 1)).unwrap().at, 7.0);
    project.undo().unwrap();
    assert_eq!(project.value(), &serde_json::from_str::<Value>(TWO).unwrap(), "one drag, one edit");
}

#[test]
fn moments_snap_only_from_near() {
    assert_eq!(snapped(1.04, &[0.0, 1.0, 2.0], 0.05), Some(1.0));
    assert_eq!(snapped(1.06, &[0.0, 1.0, 2.0], 0.05), None);
    assert_eq!(snapped(1.0, &[], 0.05), None);
}

#[derive(Debug, Clone)]
enum Act {
    Move(usize, usize, usize, f64),
    Trim(usize, usize, bool, f64),
    Split(usize, usize, f64),
    Remove(usize, usize, bool),
    Append(bool),
    Track,
    Untrack(usize),
}

fn acts() -> impl Strategy<Value = Act> {
    let (n, t) = (0usize..4, -2.0f64..12.0);
    prop_oneof![
        (n.clone(), n.clone(), n.clone(), t.clone()).prop_map(|(a, b, c, t)| Act::Move(a, b, c, t)),
        (n.clone(), n.clone(), any::<bool>(), t.clone()).prop_map(|(a, b, e, t)| Act::Trim(a, b, e, t)),
        (n.clone(), n.clone(), t).prop_map(|(a, b, t)| Act::Split(a, b, t)),
        (n.clone(), n.clone(), any::<bool>()).prop_map(|(a, b, r)| Act::Remove(a, b, r)),
        any::<bool>().prop_map(Act::Append),
        Just(Act::Track),
        n.prop_map(Act::Untrack),
    ]
}

proptest! {
    /// Whatever is done: clips never overlap, never show what their shot has not, and what is
    /// written is read back as it was.
    #[test]
    fn any_series_of_moves_keeps_clips_apart(list in prop::collection::vec(acts(), 1..60)) {
        let document = document(Value::Null);
        let mut timeline = Timeline::of(&document);
        for act in list {
            match act {
                Act::Move(a, b, c, t) => { timeline.move_clip((a, b), c, t); }
                Act::Trim(a, b, start, t) => {
                    let node = timeline.clip((a, b)).map(|clip| clip.node.clone());
                    let longest = node.and_then(|node| source_length(&document, &node)).unwrap_or(1.0);
                    timeline.trim((a, b), if start { Edge::Start } else { Edge::End }, t, longest, 0.125);
                }
                Act::Split(a, b, t) => { timeline.split((a, b), t); }
                Act::Remove(a, b, ripple) => timeline.remove((a, b), ripple),
                Act::Append(one) => {
                    let node = if one { "one" } else { "two" };
                    timeline.append(node, source_length(&document, node), None);
                }
                Act::Track => { timeline.add_track(); }
                Act::Untrack(track) => { timeline.remove_track(track); }
            }
            prop_assert!(!timeline.tracks.is_empty() && timeline.tracks.len() <= MAX_TRACKS);
            for track in &timeline.tracks {
                for pair in track.clips.windows(2) {
                    prop_assert!(pair[0].end() <= pair[1].at + 1e-4, "{track:?}");
                }
                for clip in &track.clips {
                    let longest = source_length(&document, &clip.node).unwrap();
                    prop_assert!(clip.at >= 0.0 && clip.from >= 0.0 && clip.to <= longest + 1e-4, "{clip:?}");
                    prop_assert!(clip.length() > 0.0, "{clip:?}");
                }
            }
            let stored = serde_json::to_value(&timeline).unwrap();
            let back: Timeline = serde_json::from_value(stored).unwrap();
            prop_assert_eq!(&back, &timeline);
        }
    }
}
