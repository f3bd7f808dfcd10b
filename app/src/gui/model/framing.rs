//! Size and rate of one exported clip: a `video.sequence` of that clip alone between it and the node that saves it,
//! there only while something is other than the clip's own.

use kinora_pipeline::workflow::Document;
use kinora_pipeline::workflow::ops::{Op, VideoSequence};
use serde_json::{Value, json};

use super::changes::free_name;
use super::patch::{Path, find, place};
use super::project::{EditError, Project};

/// The fields that are chosen; without all of them there is nothing to keep the node for.
const FIELDS: [&str; 4] = ["fps", "width", "height", "fit"];

/// Whether a sequence does no more than to bring one whole clip into another size or rate.
fn is_framing(film: &VideoSequence) -> bool {
    let [clip] = film.clips.as_slice() else { return false };
    let whole = clip.at.is_none() && clip.from == 0.0 && clip.to.is_none();
    whole && clip.fade_in == 0.0 && clip.fade_out == 0.0 && clip.sound_out == 0.0 && clip.volume == 1.0
}

/// The clip behind what a node saves, and the framing on the way to it where there is one.
pub(crate) fn clip_of<'a>(document: &'a Document, video: &'a str) -> (&'a str, Option<&'a str>) {
    match document.node(video).map(|node| &node.op) {
        Some(Op::VideoSequence(film)) if is_framing(film) => {
            let clip = film.clips.first().map_or(video, |clip| clip.video.node.as_str());
            (clip, Some(video))
        }
        _ => (video, None),
    }
}

fn video_of(value: &Value, saver: &str) -> Option<String> {
    let at = place!["nodes", saver, "video"];
    let link = find(value, &at)?.as_str()?;
    Some(link.strip_prefix('@')?.to_owned())
}

/// Changes fields of the sequence between a clip and the node that saves it, which comes with the first of them
/// and goes with the last.
pub(crate) fn set(
    project: &mut Project,
    saver: &str,
    label: &str,
    fields: &[(&str, Option<Value>)],
) -> Result<(), EditError> {
    let refused = || EditError::Refused("this node saves no clip".into());
    let video = video_of(project.value(), saver).ok_or_else(refused)?;
    let (clip, framing) = clip_of(project.document(), &video);
    let (clip, framing) = (clip.to_owned(), framing.map(str::to_owned));
    project.edit(label, None, |edit| {
        let at = |name: &str| -> Path { place!["nodes", saver, name] };
        let node = match framing {
            Some(node) => node,
            None => {
                let node = free_name(edit, &format!("{saver}_frames"));
                let sequence = json!({ "op": "video.sequence", "clips": [{ "video": format!("@{clip}") }] });
                edit.set(place!["nodes", node.as_str()], sequence)?;
                edit.set(at("video"), json!(format!("@{node}")))?;
                node
            }
        };
        for (name, value) in fields {
            edit.set_or_remove(place!["nodes", node.as_str(), *name], value.clone())?;
        }
        let mut bare = true;
        for name in FIELDS {
            let at = place!["nodes", node.as_str(), name];
            bare &= edit.get(&at).is_none();
        }
        if bare {
            edit.set(at("video"), json!(format!("@{clip}")))?;
            edit.remove(place!["nodes", node.as_str()])?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::super::changes;
    use super::super::places::Places;
    use super::*;

    #[test]
    fn the_sequence_comes_with_the_first_choice_and_goes_with_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.kinora.json");
        std::fs::write(&path, include_str!("../../../../workflows/single-click.kinora.json")).unwrap();
        let mut project = Project::open(&path, &Places::below(&dir.path().join("home"))).unwrap();
        let before = project.value().clone();
        let size = [("width", Some(json!(640))), ("height", Some(json!(480)))];
        set(&mut project, "file", "Change size", &size).unwrap();
        let nodes = &project.value()["nodes"];
        assert_eq!(nodes["file"]["video"], "@file_frames");
        assert_eq!(nodes["file_frames"]["clips"], json!([{ "video": "@shot" }]));
        let outputs = project.scene().item("shot").unwrap().shot.clone().unwrap().outputs;
        assert_eq!((outputs[0].node.as_str(), outputs[0].framing.as_deref()), ("file", Some("file_frames")));
        set(&mut project, "file", "Change frame rate", &[("fps", Some(json!(24.0)))]).unwrap();
        assert_eq!(project.value()["nodes"]["file_frames"]["fps"], 24.0);

        // With the shot all of it goes.
        changes::remove_region(&mut project, "shot", 0).unwrap();
        let left: Vec<_> = project.document().nodes().keys().cloned().collect();
        assert_eq!(left, ["photo"]);
        project.undo().unwrap();
        set(&mut project, "file", "Change frame rate", &[("fps", None)]).unwrap();
        set(&mut project, "file", "Change size", &[("width", None), ("height", None)]).unwrap();
        assert_eq!(project.value(), &before, "as if nothing had been chosen");
    }
}
