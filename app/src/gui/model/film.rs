//! The timeline as nodes, so that it is rendered and saved as one file.
//!
//! `ui.film` names the `video.sequence` that follows the timeline. Every edit of the document brings
//! it up to date, in the same step of the history; what a person chose for it (rate, size) stays.

use kinora_pipeline::workflow::ops::{MOMENT, Op};
use kinora_pipeline::workflow::{Document, frame_at};
use serde_json::{Map, Value, json};

use super::changes::{free_name, free_output};
use super::edit::Edit;
use super::marks::{self, Marked};
use super::patch::{Path, place};
use super::project::{EditError, Project};
use super::scene::Output;
use super::timeline::{Placed, Timeline, kept};

/// Frames per second taken for a file that did not say.
const FASTEST: f64 = 60.0;

fn at() -> Path {
    place!["ui", "film"]
}

/// The node that follows the timeline, where there is one.
pub(crate) fn film_of(value: &Value) -> Option<&str> {
    let name = value.get("ui")?.get("film")?.as_str()?;
    let op = value.get("nodes")?.get(name)?.get("op")?.as_str()?;
    (op == "video.sequence").then_some(name)
}

/// Whether a node was made from the timeline: the film, or a part of a file in it.
pub(crate) fn is_derived(value: &Value, node: &str) -> bool {
    film_of(value).is_some_and(|film| node == film || is_part(film, node))
}

fn is_part(film: &str, node: &str) -> bool {
    let number = node.strip_prefix(film).and_then(|rest| rest.strip_prefix("_part_"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// The node that saves the film.
pub(crate) fn output_of(document: &Document) -> Option<Output> {
    let film = film_of(document.value())?;
    document.nodes().iter().find_map(|(name, found)| {
        let video = match &found.op {
            Op::VideoSave(save) => &save.video,
            Op::SequenceSave(save) => &save.video,
            _ => return None,
        };
        let path = found.op.get().writes()?.to_owned();
        (video.node == film).then(|| Output { node: name.clone(), op: found.op.name(), path, framing: None })
    })
}

/// Lets the document have nodes that make and save the timeline as one file: what is marked of it, or all.
/// Returns the saving one.
pub(crate) fn make(project: &mut Project, timeline: &Timeline, fps: f64) -> Result<String, EditError> {
    let known = output_of(project.document());
    if timeline.clips().next().is_none() {
        return Err(EditError::Refused("the timeline is empty".into()));
    }
    let stored = serde_json::to_value(timeline).map_err(|error| EditError::Refused(error.to_string()))?;
    let film = film_of(project.value()).map(str::to_owned);
    project.edit("Make timeline a file", None, |edit| {
        edit.set_deep(place!["ui", "timeline"], stored)?;
        let film = match film {
            Some(film) => film,
            None => {
                let film = free_name(edit, "timeline");
                // Its clips come with the end of this edit.
                edit.set(place!["nodes", film.as_str()], json!({ "op": "video.sequence", "fps": fps }))?;
                edit.set_deep(at(), json!(film))?;
                film
            }
        };
        let marks = marks::marks(edit.value(), &Marked::Timeline).usable(timeline.length());
        if let Some(known) = known {
            marks::put(edit, &known.node, marks)?;
            return Ok(known.node);
        }
        let file = free_name(edit, &format!("{film}_file"));
        let path = free_output(edit, "timeline");
        edit.set(
            place!["nodes", file.as_str()],
            json!({ "op": "video.save", "video": format!("@{film}"), "path": path }),
        )?;
        marks::put(edit, &file, marks)?;
        Ok(file)
    })
}

/// The film's clips with the nodes for parts of files, in order.
struct Plan {
    clips: Vec<Value>,
    parts: Vec<Value>,
}

impl Plan {
    fn of(document: &Document, timeline: &Timeline, film: &str) -> Self {
        let mut plan = Self { clips: vec![], parts: vec![] };
        for track in timeline.tracks.iter().filter(|track| !track.hidden) {
            for (mut clip, tail) in track.laid() {
                if clip.length() <= MOMENT {
                    continue;
                }
                if track.muted {
                    clip.volume = 0.0;
                }
                match document.node(&clip.node).map(|node| &node.op) {
                    Some(Op::VideoLoad(load)) => plan.file(&clip, tail, &load.path, film),
                    Some(_) => plan.clips.push(entry(&clip, tail, &clip.node, clip.from)),
                    None => {}
                }
            }
        }
        plan
    }

    /// A clip of a file: only what is seen of it is read.
    fn file(&mut self, clip: &Placed, tail: f64, path: &str, film: &str) {
        let (start, frames) = match clip.fps.filter(|fps| fps.is_finite() && *fps > 0.0) {
            Some(fps) => {
                let first = frame_at(clip.from, fps, usize::MAX);
                let last = frame_at(clip.to, fps, usize::MAX);
                // Rounded up: never before its frame, and far from the next.
                let start = (first as f64 / fps * 1e5).ceil() / 1e5;
                (start, last.saturating_sub(first) + 1)
            }
            None => (clip.from, (clip.length() * FASTEST).ceil() as usize + 1),
        };
        let frames = frames.min(100_000);
        let part = json!({ "op": "video.load", "path": path, "start": start, "frames": frames });
        let index = self.parts.iter().position(|known| *known == part).unwrap_or_else(|| {
            self.parts.push(part);
            self.parts.len() - 1
        });
        let node = format!("{film}_part_{}", index + 1);
        self.clips.push(entry(clip, tail, &node, (clip.from - start).max(0.0)));
    }
}

fn entry(clip: &Placed, tail: f64, node: &str, from: f64) -> Value {
    let from = kept(from);
    let mut entry = Map::new();
    entry.insert("video".into(), json!(format!("@{node}")));
    entry.insert("at".into(), json!(clip.at));
    entry.insert("from".into(), json!(from));
    entry.insert("to".into(), json!(kept(from + clip.length())));
    for (name, seconds) in [("fade_in", clip.fade_in), ("fade_out", clip.fade_out), ("sound_out", tail)] {
        if seconds > 0.0 {
            entry.insert(name.into(), json!(seconds));
        }
    }
    if clip.volume != 1.0 {
        entry.insert("volume".into(), json!(clip.volume));
    }
    Value::Object(entry)
}

/// Brings the film up to date with the timeline at the end of an edit.
pub(super) fn refresh(edit: &mut Edit) -> Result<(), EditError> {
    let Some(film) = film_of(edit.value()).map(str::to_owned) else { return Ok(()) };
    // What the film is made from is read without it: it may link to what the edit took away.
    let mut bare = edit.value().clone();
    let savers = savers(&bare, &film);
    if let Some(nodes) = bare.get_mut("nodes").and_then(Value::as_object_mut) {
        nodes.retain(|name, _| *name != film && !is_part(&film, name) && !savers.contains(name));
    }
    let text = serde_json::to_string(&bare).unwrap_or_default();
    // Whatever is wrong with it is said when the edit is checked as a whole.
    let Ok(document) = Document::parse(&text, "timeline") else { return Ok(()) };
    let plan = Plan::of(&document, &Timeline::of(&document), &film);
    let old: Vec<String> = edit
        .value()
        .get("nodes")
        .and_then(Value::as_object)
        .map(|nodes| nodes.keys().filter(|name| is_part(&film, name)).cloned().collect())
        .unwrap_or_default();
    if plan.clips.is_empty() {
        for name in savers.iter().chain(&old).chain([&film]) {
            edit.remove(place!["nodes", name.as_str()])?;
        }
        edit.remove(at())?;
        return Ok(());
    }
    let names: Vec<String> = (1..=plan.parts.len()).map(|n| format!("{film}_part_{n}")).collect();
    for name in old.iter().filter(|name| !names.contains(name)) {
        edit.remove(place!["nodes", name.as_str()])?;
    }
    for (name, part) in names.iter().zip(plan.parts) {
        edit.set(place!["nodes", name.as_str()], part)?;
    }
    edit.set(place!["nodes", film.as_str(), "clips"], Value::Array(plan.clips))?;
    Ok(())
}

/// The nodes that link to the film: those that save it.
pub(crate) fn savers(value: &Value, film: &str) -> Vec<String> {
    let link = format!("@{film}");
    let nodes = value.get("nodes").and_then(Value::as_object);
    let links = |node: &Value| node.get("video").and_then(Value::as_str) == Some(link.as_str());
    nodes.into_iter().flatten().filter(|(_, node)| links(node)).map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::changes;
    use super::super::places::Places;
    use super::super::timeline::Edge;
    use super::*;

    const TWO: &str = r#"{ "kinora": 1, "nodes": {
        "photo": { "op": "image.load", "path": "a.png" },
        "thing": { "op": "mask.click", "image": "@photo", "points": [{ "x": 0.5, "y": 0.5 }] },
        "one": { "op": "animate.click", "image": "@photo", "regions": [{ "mask": "@thing", "prompt": "go" }] },
        "sea": { "op": "image.load", "path": "b.png" },
        "wave": { "op": "mask.click", "image": "@sea", "points": [{ "x": 0.5, "y": 0.5 }] },
        "two": { "op": "animate.click", "image": "@sea", "regions": [{ "mask": "@wave", "prompt": "go" }] },
        "clip": { "op": "video.load", "path": "c.mp4", "frames": 1 },
        "still": { "op": "video.frame", "video": "@clip" } } }"#;

    fn project() -> (tempfile::TempDir, Project) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.kinora.json");
        std::fs::write(&path, TWO).unwrap();
        let project = Project::open(&path, &Places::below(&dir.path().join("home"))).unwrap();
        (dir, project)
    }

    fn clips(project: &Project) -> Vec<(String, f64, f64, f64)> {
        let film = film_of(project.value()).unwrap();
        let list = project.value()["nodes"][film]["clips"].as_array().unwrap();
        let number = |clip: &Value, name: &str| clip[name].as_f64().unwrap();
        let text = |clip: &Value| clip["video"].as_str().unwrap().to_owned();
        list.iter().map(|c| (text(c), number(c, "at"), number(c, "from"), number(c, "to"))).collect()
    }

    #[test]
    fn the_film_follows_the_timeline_through_edits_and_undo() {
        let (_dir, mut project) = project();
        let before = project.value().clone();
        let timeline = project.timeline().clone();
        let file = make(&mut project, &timeline, 8.0).unwrap();
        let (a, b) = (("@one".to_owned(), 0.0, 0.0, 2.0), ("@two".to_owned(), 2.0, 0.0, 2.0));
        assert_eq!(clips(&project), [a.clone(), b.clone()]);
        assert_eq!(make(&mut project, &timeline, 8.0).unwrap(), file, "asked again it is the same");
        assert_eq!(output_of(project.document()).unwrap().path, "out/timeline.mp4");

        let mut timeline = project.timeline().clone();
        timeline.trim((0, 0), Edge::End, 1.5, 2.0, 0.125);
        timeline.tracks[0].clips[1].fade_in = 0.5;
        timeline.write(&mut project, "Trim", None).unwrap();
        assert_eq!(clips(&project)[0].3, 1.5);
        assert_eq!(project.value()["nodes"]["timeline"]["clips"][1]["fade_in"], 0.5);
        project.undo().unwrap();
        assert_eq!(clips(&project), [a, b], "with the same step of the history");

        // A shot that goes away leaves the film; with the last one the film goes too.
        changes::remove_region(&mut project, "one", 0).unwrap();
        assert_eq!(clips(&project).len(), 1);
        changes::remove_region(&mut project, "two", 0).unwrap();
        assert!(film_of(project.value()).is_none() && project.document().node(&file).is_none());
        for _ in 0..3 {
            project.undo().unwrap();
        }
        assert_eq!(project.value(), &before);
    }

    #[test]
    fn of_a_file_only_what_is_seen_is_read() {
        let (_dir, mut project) = project();
        let mut timeline = project.timeline().clone();
        timeline.append("clip", Some(60.0), Some(29.97));
        timeline.tracks[0].clips.retain(|clip| clip.node == "clip");
        let placed = &mut timeline.tracks[0].clips[0];
        // In the middle of frame 300.
        (placed.at, placed.from, placed.to) = (0.0, 10.02, 12.02);
        make(&mut project, &timeline, 24.0).unwrap();
        let part = &project.value()["nodes"]["timeline_part_1"];
        assert_eq!((part["path"].as_str(), part["frames"].as_u64()), (Some("c.mp4"), Some(61)));
        let start = part["start"].as_f64().unwrap();
        assert!((300.0..300.001).contains(&(start * 29.97)), "{start}");
        let (video, _, from, to) = clips(&project)[0].clone();
        assert!(
            video == "@timeline_part_1"
                && (start + from - 10.02).abs() < 1e-9
                && (to - from - 2.0).abs() < 1e-9
        );
        assert!(is_derived(project.value(), "timeline_part_1") && !is_derived(project.value(), "clip"));
    }

    #[test]
    fn names_that_only_look_like_parts_are_left_alone() {
        assert!(is_part("timeline", "timeline_part_12"));
        for other in ["timeline_part_", "timeline_part_x", "timeline_file", "other_part_1", "timeline"] {
            assert!(!is_part("timeline", other), "{other}");
        }
        assert_eq!(
            film_of(&json!({ "ui": { "film": "a" }, "nodes": { "a": { "op": "video.save" } } })),
            None
        );
        assert_eq!(film_of(&json!({ "ui": 3 })), None);
    }
}
