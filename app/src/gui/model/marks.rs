//! In and out points: the part of a clip, or of the timeline, that is worth exporting.
//!
//! They are kept in the document's `ui.marks`, where edits and undo reach them and a renderer passes them by.
//! What a renderer heeds is `from` and `to` of the node that saves: an export brings them there, and from then
//! on they follow the marks, so that a saved document gives the same frames from a terminal.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::edit::Edit;
use super::patch::{Path, Step, find, place};
use super::project::{EditError, Project};
use super::timeline::{HAIR, kept};

/// What is marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Marked {
    /// The clip of a shot, by its node.
    Shot(String),
    /// The timeline.
    Timeline,
}

impl Marked {
    fn place(&self) -> Path {
        match self {
            Self::Shot(node) => place!["ui", "marks", "shots", node.as_str()],
            Self::Timeline => place!["ui", "marks", "timeline"],
        }
    }
}

/// The marked part, in seconds; what is not marked reaches to the end on that side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Marks {
    /// Where the first frame of it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<f64>,
    /// Where the last frame of it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<f64>,
}

impl Marks {
    /// Whether nothing is marked.
    pub(crate) fn is_none(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }

    /// The marked part of what is so many seconds long; none where nothing of it is left.
    pub(crate) fn within(&self, length: f64) -> Option<(f64, f64)> {
        let (from, to) = (self.from.unwrap_or(0.0), self.to.unwrap_or(length).min(length));
        (!self.is_none() && from + HAIR < to).then_some((from, to))
    }

    /// Themselves, or none where nothing of what they mark is left of so many seconds.
    pub(crate) fn usable(self, length: f64) -> Self {
        if self.within(length).is_some() { self } else { Self::default() }
    }

    /// With the in point at a moment. An out point that does not come after it goes.
    pub(crate) fn begun(self, seconds: f64) -> Self {
        let from = kept(seconds);
        Self { from: Some(from), to: self.to.filter(|to| *to > from + HAIR) }
    }

    /// With the out point at a moment. An in point that does not come before it goes.
    pub(crate) fn ended(self, seconds: f64) -> Self {
        let to = kept(seconds);
        Self { from: self.from.filter(|from| *from + HAIR < to), to: Some(to) }
    }

    fn sane(self) -> Self {
        let good = |seconds: &f64| seconds.is_finite() && *seconds >= 0.0;
        let (from, to) = (self.from.filter(good).map(kept), self.to.filter(good).map(kept));
        match (from, to) {
            (Some(start), Some(end)) if end <= start + HAIR => Self::default(),
            (_, Some(end)) if end <= HAIR => Self { from, to: None },
            _ => Self { from, to },
        }
    }
}

/// The marks a document keeps. What makes no sense is passed over.
pub(crate) fn marks(value: &Value, of: &Marked) -> Marks {
    let found = find(value, &of.place()).cloned();
    found.and_then(|found| serde_json::from_value::<Marks>(found).ok()).unwrap_or_default().sane()
}

/// Marks a part, or nothing any more. Nodes of `savers` that save a part save that one then.
pub(crate) fn set(
    project: &mut Project,
    label: &str,
    of: &Marked,
    marks: Marks,
    savers: &[String],
) -> Result<(), EditError> {
    let place = of.place();
    project.edit(label, None, |edit| {
        if marks.is_none() {
            edit.remove(place)?;
        } else {
            let stored = serde_json::to_value(marks).map_err(|e| EditError::Refused(e.to_string()))?;
            edit.set_deep(place, stored)?;
        }
        for saver in savers {
            if saves_part(edit.value(), saver) {
                put(edit, saver, marks)?;
            }
        }
        Ok(())
    })
}

fn field(saver: &str, name: &str) -> Vec<Step> {
    place!["nodes", saver, name]
}

/// Whether a node saves a part of its clip alone.
pub(crate) fn saves_part(value: &Value, saver: &str) -> bool {
    ["from", "to"].iter().any(|name| find(value, &field(saver, name)).is_some())
}

/// Lets a node save the marked part, or all where nothing is marked.
pub(super) fn put(edit: &mut Edit, saver: &str, marks: Marks) -> Result<(), EditError> {
    edit.set_or_remove(field(saver, "from"), marks.from.filter(|from| *from > 0.0).map(|from| json!(from)))?;
    edit.set_or_remove(field(saver, "to"), marks.to.map(|to| json!(to)))?;
    Ok(())
}

/// Lets a node save the marked part, or all where nothing is marked, as an edit of its own.
pub(crate) fn choose(project: &mut Project, saver: &str, marks: Marks) -> Result<(), EditError> {
    project.edit("Change range", None, |edit| put(edit, saver, marks))
}

#[cfg(test)]
mod tests {
    use super::super::places::Places;
    use super::*;

    #[test]
    fn points_never_cross() {
        let none = Marks::default();
        let both = none.begun(1.0).ended(2.0);
        assert_eq!(both, Marks { from: Some(1.0), to: Some(2.0) });
        assert_eq!(both.begun(2.0), Marks { from: Some(2.0), to: None });
        assert_eq!(both.ended(0.5), Marks { from: None, to: Some(0.5) });
        assert_eq!(both.within(10.0), Some((1.0, 2.0)));
        assert_eq!(both.within(1.5), Some((1.0, 1.5)), "no further than there is");
        assert_eq!((both.within(1.0), none.within(9.0)), (None, None));
        assert_eq!((both.usable(1.5), both.usable(1.0)), (both, none));
        assert_eq!(none.begun(0.5).within(2.0), Some((0.5, 2.0)));
    }

    #[test]
    fn marks_are_edits_and_what_saves_a_part_follows_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.kinora.json");
        std::fs::write(&path, include_str!("../../../../workflows/single-click.kinora.json")).unwrap();
        let mut project = Project::open(&path, &Places::below(&dir.path().join("home"))).unwrap();
        let before = project.value().clone();
        let of = Marked::Shot("shot".into());
        let part = Marks { from: Some(0.5), to: Some(1.0) };
        let savers = ["file".to_owned()];
        set(&mut project, "Mark in", &of, part, &savers).unwrap();
        assert_eq!(marks(project.value(), &of), part);
        assert!(!saves_part(project.value(), "file"), "all is saved until an export asks for the part");
        choose(&mut project, "file", part).unwrap();
        assert_eq!(project.value()["nodes"]["file"]["from"], 0.5);
        set(&mut project, "Mark in", &of, Marks { from: Some(0.0), ..part }, &savers).unwrap();
        let file = &project.value()["nodes"]["file"];
        assert_eq!((file.get("from"), file["to"].as_f64()), (None, Some(1.0)));
        set(&mut project, "Clear in and out", &of, Marks::default(), &savers).unwrap();
        assert!(!saves_part(project.value(), "file"));
        for _ in 0..4 {
            project.undo().unwrap();
        }
        assert_eq!(project.value(), &before);
    }

    #[test]
    fn nonsense_marks_nothing() {
        let of = Marked::Timeline;
        for stored in [
            json!(3),
            json!({ "from": "a" }),
            json!({ "from": 2, "to": 1 }),
            json!({ "from": -1, "to": -2 }),
            json!({ "to": 0 }),
        ] {
            let value = json!({ "ui": { "marks": { "timeline": stored } } });
            assert!(marks(&value, &of).is_none(), "{stored}");
        }
    }
}
