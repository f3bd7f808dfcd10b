//! What gives a region its shape: clicks, strokes, the candidate, the edge.

use kinora_pipeline::control::mask::Stroke;
use kinora_pipeline::workflow::ops::Candidate;
use serde_json::{Value, json};

use super::{Click, EditError, Project, Region, field, place, refused, region_of, remove_region, shot_of};
use crate::gui::model::scene::Shape;

fn clicks_of(region: &Region) -> Result<usize, EditError> {
    match &region.shape {
        Shape::Clicks(clicks) => Ok(clicks.points.len()),
        _ => Err(refused("the shape of this region was not made by clicks; add another region instead")),
    }
}

/// A stroke as the document keeps it.
pub(super) fn stroke_value(stroke: &Stroke) -> Result<Value, EditError> {
    let short = |v: f64| (v * 1e4).round() / 1e4;
    let points = stroke.points.iter().map(|&(x, y)| (short(x), short(y))).collect();
    let kept = Stroke { points, radius: short(stroke.radius).max(1e-4), erase: stroke.erase };
    serde_json::to_value(kept).map_err(|error| refused(&error.to_string()))
}

/// Adds a click to a region.
pub(crate) fn add_click(
    project: &mut Project,
    item: &str,
    index: usize,
    click: Click,
) -> Result<(), EditError> {
    let (_, shot) = shot_of(project.scene(), item)?;
    let region = region_of(shot, index)?;
    clicks_of(region)?;
    let mask = region.mask.clone();
    project.edit(if click.keep { "Add click" } else { "Leave out" }, None, |edit| {
        Ok(edit.push(field(&mask, "points"), click.value())?)
    })
}

/// Adds a stroke to a region.
pub(crate) fn add_stroke(
    project: &mut Project,
    item: &str,
    index: usize,
    stroke: &Stroke,
) -> Result<(), EditError> {
    let (_, shot) = shot_of(project.scene(), item)?;
    let region = region_of(shot, index)?;
    clicks_of(region)?;
    let mask = region.mask.clone();
    let value = stroke_value(stroke)?;
    project.edit(if stroke.erase { "Erase" } else { "Paint" }, None, |edit| {
        Ok(edit.push(field(&mask, "strokes"), value)?)
    })
}

/// Takes every stroke of a region away.
pub(crate) fn clear_strokes(project: &mut Project, item: &str, index: usize) -> Result<(), EditError> {
    let (_, shot) = shot_of(project.scene(), item)?;
    let region = region_of(shot, index)?;
    let Shape::Clicks(clicks) = &region.shape else { return Err(refused("this region has no strokes")) };
    if clicks.query().is_none() {
        return Err(refused("only strokes give this region its shape; remove the region instead"));
    }
    let mask = region.mask.clone();
    project.edit("Remove strokes", None, |edit| Ok(edit.remove(field(&mask, "strokes"))?))
}

/// Moves a click; the ticks of one drag are one edit.
pub(crate) fn move_click(
    project: &mut Project,
    item: &str,
    index: usize,
    point: usize,
    click: Click,
) -> Result<(), EditError> {
    let (_, shot) = shot_of(project.scene(), item)?;
    let region = region_of(shot, index)?;
    if point >= clicks_of(region)? {
        return Err(refused("that click is no longer there"));
    }
    let mask = region.mask.clone();
    project.edit("Move click", Some(&format!("click {mask} {point}")), |edit| {
        Ok(edit.set(place!["nodes", mask.as_str(), "points", point], click.value())?)
    })
}

/// Removes a click. With the last one that says what moves the region goes too; says whether.
pub(crate) fn remove_click(
    project: &mut Project,
    item: &str,
    index: usize,
    point: usize,
) -> Result<bool, EditError> {
    let (_, shot) = shot_of(project.scene(), item)?;
    let region = region_of(shot, index)?;
    let Shape::Clicks(clicks) = &region.shape else { return Err(refused("this region has no clicks")) };
    let others = clicks.points.iter().enumerate().any(|(at, other)| at != point && other.keep);
    let painted = clicks.strokes.iter().any(|stroke| !stroke.erase);
    if !others && clicks.rectangle.is_none() && !painted {
        remove_region(project, item, index)?;
        return Ok(true);
    }
    let mask = region.mask.clone();
    project.edit("Remove click", None, |edit| {
        Ok(edit.remove(place!["nodes", mask.as_str(), "points", point])?)
    })?;
    Ok(false)
}

/// Softens (`feather`) or grows (`dilate`) a region's edge, in pixels.
pub(crate) fn set_edge(
    project: &mut Project,
    item: &str,
    index: usize,
    which: &'static str,
    pixels: f64,
) -> Result<(), EditError> {
    let (_, shot) = shot_of(project.scene(), item)?;
    let region = region_of(shot, index)?;
    if matches!(region.shape, Shape::Made { .. }) {
        return Err(refused("the shape of this region comes from other nodes"));
    }
    let mask = region.mask.clone();
    let low = if which == "feather" { 0.0 } else { -512.0 };
    let pixels = (pixels.clamp(low, 512.0) * 10.0).round() / 10.0;
    let label = if which == "feather" { "Change feather" } else { "Change grow" };
    project.edit(label, Some(&format!("{which} {mask}")), |edit| {
        Ok(edit.set_or_remove(field(&mask, which), (pixels != 0.0).then(|| json!(pixels)))?)
    })
}

/// Chooses which answer of a click to take.
pub(crate) fn set_candidate(
    project: &mut Project,
    item: &str,
    index: usize,
    candidate: Candidate,
) -> Result<(), EditError> {
    let (_, shot) = shot_of(project.scene(), item)?;
    let region = region_of(shot, index)?;
    clicks_of(region)?;
    let mask = region.mask.clone();
    project.edit("Choose shape", None, |edit| {
        let value = (candidate != Candidate::Best).then(|| json!(candidate));
        Ok(edit.set_or_remove(field(&mask, "candidate"), value)?)
    })
}
