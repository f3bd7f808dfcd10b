//! Pictures and frames of clips, which come and go with what only they need.

use serde_json::{Value, json};

use super::{Edit, EditError, Project, free_name, node, place, refused, uses};
use crate::gui::model::scene::{Source, title};

/// A picture or a frame of a clip, by its name in the project.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum NewItem<'a> {
    /// A picture.
    Picture(&'a str),
    /// The frame of a clip at so many seconds.
    Frame(&'a str, f64),
}

/// Puts the nodes of an item into the document. Returns its id.
fn put_item(edit: &mut Edit, item: NewItem<'_>) -> Result<String, EditError> {
    let (NewItem::Picture(path) | NewItem::Frame(path, _)) = item;
    let stem = path.rsplit('/').next().unwrap_or(path);
    let stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| stem);
    let ui = json!({ "name": shown_name(stem) });
    let seconds = match item {
        NewItem::Picture(_) => {
            let name = free_name(edit, stem);
            edit.set(node(&name), json!({ "op": "image.load", "path": path, "ui": ui }))?;
            return Ok(name);
        }
        NewItem::Frame(_, seconds) => (seconds.max(0.0) * 1e3).round() / 1e3,
    };
    // One frame from that moment on: the clip is not read further.
    let clip = free_name(edit, &format!("{stem}_clip"));
    edit.set(node(&clip), json!({ "op": "video.load", "path": path, "start": seconds, "frames": 1 }))?;
    let frame = free_name(edit, stem);
    let link = format!("@{clip}");
    edit.set(node(&frame), json!({ "op": "video.frame", "video": link, "index": 0, "ui": ui }))?;
    Ok(frame)
}

/// The nodes of a project that begins with an item, and the item's id.
pub(crate) fn first_item(item: NewItem<'_>) -> Result<(Value, String), EditError> {
    let mut edit = Edit::new(&json!({ "nodes": {} }));
    let id = put_item(&mut edit, item)?;
    Ok((edit.value().get("nodes").cloned().unwrap_or_default(), id))
}

/// Adds an item. Returns its id.
pub(crate) fn add_item(project: &mut Project, item: NewItem<'_>) -> Result<String, EditError> {
    let label = if matches!(item, NewItem::Picture(_)) { "Add picture" } else { "Add frame" };
    project.edit(label, None, |edit| put_item(edit, item))
}

/// Adds a picture with which a shot goes on. Returns its id.
pub(crate) fn add_continuation(project: &mut Project, path: &str, shot: &str) -> Result<String, EditError> {
    project.edit("Extend shot", None, |edit| {
        let id = put_item(edit, NewItem::Picture(path))?;
        edit.set(place!["nodes", id.as_str(), "ui", "continues"], shot)?;
        Ok(id)
    })
}

fn shown_name(stem: &str) -> String {
    title(stem).chars().filter(|c| !c.is_control()).take(60).collect()
}

/// Removes an item with everything that only it needed.
pub(crate) fn remove_item(project: &mut Project, item: &str) -> Result<(), EditError> {
    let item = project
        .scene()
        .item(item)
        .cloned()
        .ok_or_else(|| refused("that picture is no longer in the project"))?;
    let last = project.scene().items.len() == 1;
    if last {
        return Err(refused("a project has at least one picture; close the project instead"));
    }
    project.edit("Remove picture", None, |edit| {
        let mut gone: Vec<String> = vec![];
        if let Some(shot) = &item.shot {
            gone.extend(shot.outputs.iter().map(|output| output.node.clone()));
            gone.extend(shot.outputs.iter().filter_map(|output| output.framing.clone()));
            gone.push(shot.node.clone());
            gone.extend(shot.regions.iter().map(|region| region.mask.clone()));
        }
        gone.push(item.picture.clone());
        if let Source::Frame { video, .. } = &item.source {
            gone.push(video.clone());
        }
        for name in gone {
            if uses(edit, &name) == 0 {
                edit.remove(node(&name))?;
            } else if item.shot.as_ref().is_some_and(|shot| shot.node == name) {
                return Err(refused("another node uses this shot's clip"));
            }
        }
        Ok(())
    })
}
