//! Which frame of a clip is animated.

use serde_json::json;

use super::{EditError, Project, field, place, refused, uses};
use crate::gui::model::scene::Source;

/// Animates another frame of the clip a picture comes from, the one at so many seconds of the file.
///
/// # Errors
/// A picture that comes from no clip, or a moment the document's own part of the clip does not reach.
pub(crate) fn set_frame(project: &mut Project, item: &str, seconds: f64) -> Result<(), EditError> {
    let item = project
        .scene()
        .item(item)
        .cloned()
        .ok_or_else(|| refused("that picture is no longer in the project"))?;
    let Source::Frame { video, .. } = &item.source else {
        return Err(refused("this picture is not a frame of a clip"));
    };
    // Never before the frame's own moment, from when on it is seen.
    let seconds = (seconds.max(0.0) * 1e3 - 1e-6).ceil() / 1e3;
    project.edit("Choose frame", None, |edit| {
        let only = edit.get(&field(video, "frames")).and_then(serde_json::Value::as_u64) == Some(1);
        if only && uses(edit, video) == 1 {
            // As a clip is brought in: read from that moment on, and no further.
            edit.set(field(video, "start"), seconds)?;
            edit.set_or_remove(field(&item.picture, "at"), None)?;
            return Ok(edit.set(field(&item.picture, "index"), 0)?);
        }
        let at = place!["nodes", video.as_str(), "start"];
        let start = edit.get(&at).and_then(serde_json::Value::as_f64);
        let after = seconds - start.unwrap_or(0.0);
        if after < 0.0 {
            return Err(refused("the document reads this clip from a later moment on"));
        }
        edit.set_or_remove(field(&item.picture, "index"), None)?;
        Ok(edit.set(field(&item.picture, "at"), json!((after * 1e3).round() / 1e3))?)
    })
}
