//! The edits people make, as transactions on the document.

mod frame;
mod item;
mod shape;
mod shot;

use kinora_pipeline::control::mask::Stroke;
use serde_json::{Value, json};

use super::edit::Edit;
use super::patch::{Path, place};
use super::project::{EditError, Project};
use super::scene::{Item, Region, Scene, Shot};

pub(crate) use frame::set_frame;
pub(crate) use item::{NewItem, add_continuation, add_item, first_item, remove_item};
pub(crate) use shape::{
    add_click, add_stroke, clear_strokes, move_click, remove_click, set_candidate, set_edge,
};
pub(crate) use shot::{set_model, set_output, set_shot};

/// How far something moves unless said otherwise.
pub(crate) const USUAL_MAGNITUDE: f64 = 0.6;
/// Frames of a new shot.
const USUAL_FRAMES: u32 = 16;
/// Frames a second of a new shot.
const USUAL_FPS: u32 = 8;

/// A click in the picture, 0..1 of its width and height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Click {
    /// From the left.
    pub(crate) x: f64,
    /// From the top.
    pub(crate) y: f64,
    /// On the thing, or beside it.
    pub(crate) keep: bool,
}

impl Click {
    fn value(self) -> Value {
        let short = |v: f64| (v.clamp(0.0, 1.0) * 1e5).round() / 1e5;
        json!({ "x": short(self.x), "y": short(self.y), "keep": self.keep })
    }
}

fn refused(why: &str) -> EditError {
    EditError::Refused(why.to_owned())
}

fn node(name: &str) -> Path {
    place!["nodes", name]
}

fn field(node: &str, name: &str) -> Path {
    place!["nodes", node, name]
}

/// A node name that is free, made of `wish`.
pub(super) fn free_name(edit: &Edit, wish: &str) -> String {
    let mut base: String = wish
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .take(40)
        .collect();
    base = base.trim_matches('_').to_owned();
    if !base.starts_with(|c: char| c.is_ascii_alphabetic()) {
        base = format!("n{base}");
    }
    let taken = |name: &str| edit.get(&node(name)).is_some();
    if !taken(&base) {
        return base;
    }
    (2u32..).map(|n| format!("{base}_{n}")).find(|name| !taken(name)).unwrap_or(base)
}

pub(super) fn shot_of<'a>(scene: &'a Scene, item: &str) -> Result<(&'a Item, &'a Shot), EditError> {
    let item = scene.item(item).ok_or_else(|| refused("that picture is no longer in the project"))?;
    let shot =
        item.shot.as_ref().ok_or_else(|| refused("nothing moves in this picture yet; click on something"))?;
    Ok((item, shot))
}

pub(super) fn region_of(shot: &Shot, index: usize) -> Result<&Region, EditError> {
    shot.regions.get(index).ok_or_else(|| refused("that region is no longer there"))
}

/// The place of a region's field, whichever way the shot is written.
pub(super) fn region_field(shot: &Shot, index: usize, name: &str) -> Path {
    if shot.single {
        field(&shot.node, name)
    } else {
        place!["nodes", shot.node.as_str(), "regions", index, name]
    }
}

/// What a region begins with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<'a> {
    /// A click on the thing.
    Click(Click),
    /// A stroke over it.
    Stroke(&'a Stroke),
}

/// Adds a thing that moves, found by its first click or painted. Returns the item's id afterwards and the
/// region's place.
///
/// The first one makes the shot and the node that saves its clip.
pub(crate) fn add_region(
    project: &mut Project,
    item: &str,
    start: Start<'_>,
    prompt: &str,
) -> Result<(String, usize), EditError> {
    let item = project
        .scene()
        .item(item)
        .cloned()
        .ok_or_else(|| refused("that picture is no longer in the project"))?;
    project.edit("Add region", None, |edit| {
        let count = item.regions().len();
        let mask = free_name(edit, &format!("{}_region_{}", item.picture, count + 1));
        let mut shape = json!({
            "op": "mask.click", "image": format!("@{}", item.picture),
            "ui": { "name": format!("Region {}", count + 1) },
        });
        let (part, value) = match start {
            Start::Click(click) => ("points", Click { keep: true, ..click }.value()),
            Start::Stroke(stroke) => ("strokes", shape::stroke_value(stroke)?),
        };
        if let Some(shape) = shape.as_object_mut() {
            shape.shift_insert(2, part.to_owned(), json!([value]));
        }
        edit.set(node(&mask), shape)?;
        let region = json!({ "mask": format!("@{mask}"), "prompt": prompt, "magnitude": USUAL_MAGNITUDE });
        let Some(shot) = &item.shot else {
            let shot = free_name(edit, &format!("{}_shot", item.picture));
            edit.set(
                node(&shot),
                json!({
                    "op": "animate.click", "image": format!("@{}", item.picture), "regions": [region],
                    "frames": USUAL_FRAMES, "fps": USUAL_FPS, "seed": 7, "ease": "smooth", "model": "embedded",
                    "ui": { "name": item.name },
                }),
            )?;
            let file = free_name(edit, &format!("{}_file", item.picture));
            let name = free_output(edit, &item.picture);
            edit.set(node(&file), json!({ "op": "video.save", "video": format!("@{shot}"), "path": name }))?;
            super::timeline::joined(edit, &shot, f64::from(USUAL_FRAMES) / f64::from(USUAL_FPS))?;
            return Ok((shot, 0));
        };
        to_list(edit, shot)?;
        edit.push(field(&shot.node, "regions"), region)?;
        Ok((shot.node.clone(), count))
    })
}

/// A file name in `out/` that no node writes yet.
pub(super) fn free_output(edit: &Edit, wish: &str) -> String {
    let nodes = edit.value().get("nodes").and_then(Value::as_object);
    let taken = |path: &str| {
        nodes.into_iter().flatten().any(|(_, node)| node.get("path").and_then(Value::as_str) == Some(path))
    };
    let first = format!("out/{wish}.mp4");
    if !taken(&first) {
        return first;
    }
    (2u32..).map(|n| format!("out/{wish}-{n}.mp4")).find(|path| !taken(path)).unwrap_or(first)
}

/// Rewrites a shot with one thing in fields of its own as one with a list.
fn to_list(edit: &mut Edit, shot: &Shot) -> Result<(), EditError> {
    if !shot.single {
        return Ok(());
    }
    let take = |name: &str| edit.get(&field(&shot.node, name)).cloned();
    let mut region = serde_json::Map::new();
    for name in ["mask", "prompt", "magnitude"] {
        if let Some(value) = take(name) {
            region.insert(name.to_owned(), value);
        }
    }
    for name in ["mask", "prompt", "magnitude", "regions"] {
        edit.remove(field(&shot.node, name))?;
    }
    edit.set(field(&shot.node, "regions"), Value::Array(vec![Value::Object(region)]))?;
    Ok(())
}

/// Removes a region, and with the last one the shot and what saves it.
pub(crate) fn remove_region(project: &mut Project, item: &str, index: usize) -> Result<(), EditError> {
    let (_, shot) = shot_of(project.scene(), item)?;
    let (shot, region) = (shot.clone(), region_of(shot, index)?.clone());
    project.edit("Remove region", None, |edit| {
        if shot.regions.len() == 1 {
            for output in &shot.outputs {
                edit.remove(node(&output.node))?;
            }
            for framing in shot.outputs.iter().filter_map(|output| output.framing.as_ref()) {
                edit.remove(node(framing))?;
            }
            if uses(edit, &shot.node) > 0 {
                return Err(refused("another node uses this shot's clip; it needs at least one region"));
            }
            edit.remove(node(&shot.node))?;
        } else {
            edit.remove(place!["nodes", shot.node.as_str(), "regions", index])?;
        }
        if uses(edit, &region.mask) == 0 {
            edit.remove(node(&region.mask))?;
        }
        Ok(())
    })
}

/// How many links lead to a node, apart from those of the film, which follows the timeline.
fn uses(edit: &Edit, node: &str) -> usize {
    let all = links_to(edit.value(), node);
    let film = super::film::film_of(edit.value()).and_then(|film| edit.value().get("nodes")?.get(film));
    all - film.map_or(0, |film| links_to(film, node))
}

/// How many links lead to a node.
fn links_to(value: &Value, node: &str) -> usize {
    match value {
        Value::String(text) => {
            let link = text.strip_prefix('@').map(|link| link.split('.').next().unwrap_or(link));
            usize::from(link == Some(node))
        }
        Value::Array(items) => items.iter().map(|item| links_to(item, node)).sum(),
        Value::Object(fields) => {
            fields.iter().filter(|(key, _)| *key != "ui").map(|(_, inner)| links_to(inner, node)).sum()
        }
        _ => 0,
    }
}

/// Lays a region over or under its neighbour.
pub(crate) fn move_region(
    project: &mut Project,
    item: &str,
    index: usize,
    up: bool,
) -> Result<usize, EditError> {
    let (_, shot) = shot_of(project.scene(), item)?;
    region_of(shot, index)?;
    let other = if up { index + 1 } else { index.wrapping_sub(1) };
    if shot.single || other >= shot.regions.len() {
        return Ok(index);
    }
    let shot = shot.node.clone();
    project.edit("Reorder regions", None, |edit| {
        let list = field(&shot, "regions");
        let Some(Value::Array(mut regions)) = edit.get(&list).cloned() else {
            return Err(refused("this shot has no list of regions"));
        };
        regions.swap(index, other);
        edit.set(list, Value::Array(regions))?;
        Ok(other)
    })
}

/// Says how a region moves. The letters of one stretch of typing are one edit.
pub(crate) fn set_prompt(
    project: &mut Project,
    item: &str,
    index: usize,
    prompt: &str,
) -> Result<(), EditError> {
    let (_, shot) = shot_of(project.scene(), item)?;
    region_of(shot, index)?;
    let at = region_field(shot, index, "prompt");
    let merge = format!("prompt {} {index}", shot.node);
    project.edit("Change prompt", Some(&merge), |edit| Ok(edit.set(at, prompt)?))
}

/// Says how far a region moves, 0..1.
pub(crate) fn set_magnitude(
    project: &mut Project,
    item: &str,
    index: usize,
    magnitude: f64,
) -> Result<(), EditError> {
    let (_, shot) = shot_of(project.scene(), item)?;
    region_of(shot, index)?;
    let at = region_field(shot, index, "magnitude");
    let merge = format!("magnitude {} {index}", shot.node);
    let magnitude = (magnitude.clamp(0.0, 1.0) * 1e3).round() / 1e3;
    project.edit("Change magnitude", Some(&merge), |edit| Ok(edit.set(at, magnitude)?))
}

/// Gives a node a name for people.
pub(crate) fn rename(project: &mut Project, target: &str, name: &str) -> Result<(), EditError> {
    let name: String = name.trim().chars().filter(|c| !c.is_control()).take(60).collect();
    if name.is_empty() {
        return Err(refused("a name has at least one letter"));
    }
    let target = target.to_owned();
    project.edit("Rename", Some(&format!("name {target}")), |edit| {
        if edit.get(&node(&target)).is_none() {
            return Err(refused("that is no longer in the project"));
        }
        let ui = field(&target, "ui");
        if edit.get(&ui).is_some_and(|ui| !ui.is_object()) {
            edit.set(ui, json!({}))?;
        }
        Ok(edit.set_deep(place!["nodes", target.as_str(), "ui", "name"], name)?)
    })
}

/// Names other files where the document reads some, as one edit.
pub(crate) fn relink(project: &mut Project, found: Vec<(Path, String)>) -> Result<(), EditError> {
    let label = if found.len() == 1 { "Find missing file" } else { "Find missing files" };
    project.edit(label, None, |edit| {
        for (at, name) in found {
            edit.set(at, name)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests;
