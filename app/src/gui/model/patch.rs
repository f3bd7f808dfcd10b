//! One invertible change of a JSON value: a field or list item that is set, added or removed.
//!
//! A patch knows both what was there and what comes instead, and refuses to apply where it finds
//! anything else, so that a journal replayed onto the wrong text stops instead of spoiling it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One step from a value into one of its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Step {
    /// Item of a list.
    Index(usize),
    /// Field of an object.
    Key(String),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// Where a value is, from the root.
pub(crate) type Path = Vec<Step>;

/// Builds a [`Path`] from keys and indices.
macro_rules! place {
    ($($step:expr),+ $(,)?) => { vec![$($crate::gui::model::patch::Step::from($step)),+] };
}
pub(crate) use place;

/// Why a patch does not apply.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum PatchError {
    /// No such place.
    #[error("there is no {0} in the document")]
    Nowhere(String),
    /// The place holds something else than the patch was made for.
    #[error("{0} is not what it was when this edit was made")]
    Changed(String),
}

/// One change. With neither side present it is nothing; with one it adds or removes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Patch {
    /// The place.
    pub(crate) path: Path,
    /// What was there.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "present")]
    pub(crate) before: Option<Value>,
    /// What is there afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "present")]
    pub(crate) after: Option<Value>,
    /// Position of an object's field, so that removing and adding again keeps the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) position: Option<usize>,
}

/// Tells a missing side from a side that is `null`.
mod present {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    pub(super) fn serialize<S: Serializer>(side: &Option<Value>, serializer: S) -> Result<S::Ok, S::Error> {
        side.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
        Value::deserialize(deserializer).map(Some)
    }
}

/// The place as people write it, `nodes.shot.regions[0]`.
pub(crate) fn shown(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    if text.is_empty() { "the document".to_owned() } else { text }
}

/// The value at a place.
pub(crate) fn find<'a>(root: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(root, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Index(index) => value.get(index),
    })
}

fn find_mut<'a>(root: &'a mut Value, path: &[Step]) -> Option<&'a mut Value> {
    path.iter().try_fold(root, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Index(index) => value.get_mut(index),
    })
}

impl Patch {
    /// The change that takes this one back.
    pub(crate) fn inverse(&self) -> Self {
        Self { before: self.after.clone(), after: self.before.clone(), ..self.clone() }
    }

    /// Whether it changes anything.
    pub(crate) fn is_nothing(&self) -> bool {
        self.before == self.after
    }

    /// Makes the change; on an error the value is as it was.
    pub(crate) fn apply(&self, root: &mut Value) -> Result<(), PatchError> {
        let nowhere = || PatchError::Nowhere(shown(&self.path));
        let changed = || PatchError::Changed(shown(&self.path));
        let Some((last, parents)) = self.path.split_last() else {
            if self.before.as_ref() != Some(root) {
                return Err(changed());
            }
            *root = self.after.clone().ok_or_else(nowhere)?;
            return Ok(());
        };
        let parent = find_mut(root, parents).ok_or_else(nowhere)?;
        match (parent, last) {
            (Value::Object(object), Step::Key(key)) => {
                if object.get(key) != self.before.as_ref() {
                    return Err(changed());
                }
                match (&self.before, &self.after) {
                    (Some(_), Some(after)) => {
                        object.insert(key.clone(), after.clone());
                    }
                    (None, Some(after)) => {
                        let at = self.position.unwrap_or(usize::MAX).min(object.len());
                        object.shift_insert(at, key.clone(), after.clone());
                    }
                    (_, None) => {
                        object.shift_remove(key);
                    }
                }
                Ok(())
            }
            (Value::Array(items), Step::Index(index)) => {
                match (&self.before, &self.after) {
                    (None, Some(after)) => {
                        if *index > items.len() {
                            return Err(nowhere());
                        }
                        items.insert(*index, after.clone());
                    }
                    (before, after) => {
                        let here = items.get_mut(*index).ok_or_else(nowhere)?;
                        if Some(&*here) != before.as_ref() {
                            return Err(changed());
                        }
                        match after {
                            Some(after) => *here = after.clone(),
                            None => {
                                items.remove(*index);
                            }
                        }
                    }
                }
                Ok(())
            }
            _ => Err(nowhere()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        json!({ "a": 1, "b": { "x": null, "y": [1, 2, 3] }, "c": "text" })
    }

    fn patch(path: Path, before: Option<Value>, after: Option<Value>) -> Patch {
        Patch { path, before, after, position: None }
    }

    #[test]
    fn every_kind_of_change_and_its_inverse_give_back_the_text() {
        let changes = [
            patch(place!["a"], Some(json!(1)), Some(json!({ "deep": [] }))),
            patch(place!["new"], None, Some(json!(null))),
            Patch { position: Some(1), ..patch(place!["new"], None, Some(json!(5))) },
            Patch { position: Some(1), ..patch(place!["b"], document().get("b").cloned(), None) },
            patch(place!["b", "y", 1usize], Some(json!(2)), Some(json!("two"))),
            patch(place!["b", "y", 3usize], None, Some(json!(4))),
            patch(place!["b", "y", 0usize], Some(json!(1)), None),
            patch(place!["b", "x"], Some(json!(null)), None),
            patch(vec![], Some(document()), Some(json!([]))),
        ];
        for change in changes {
            let mut value = document();
            change.apply(&mut value).unwrap();
            assert_ne!(value, document(), "{change:?}");
            // What goes through the journal is what comes out of it.
            let text = serde_json::to_string(&change).unwrap();
            let change: Patch = serde_json::from_str(&text).unwrap();
            change.inverse().apply(&mut value).unwrap();
            if change.path != place!["b", "x"] {
                assert_eq!(value.to_string(), document().to_string(), "{change:?}");
            }
        }
    }

    #[test]
    fn a_patch_for_another_text_is_refused_and_changes_nothing() {
        for wrong in [
            patch(place!["a"], Some(json!(2)), Some(json!(3))),
            patch(place!["a"], None, Some(json!(3))),
            patch(place!["zz"], Some(json!(2)), None),
            patch(place!["b", "y", 9usize], None, Some(json!(1))),
            patch(place!["b", "y", 9usize], Some(json!(1)), None),
            patch(place!["a", "deep"], None, Some(json!(1))),
            patch(place!["b", "y", "key"], None, Some(json!(1))),
            patch(vec![], Some(json!(0)), Some(json!(1))),
        ] {
            let mut value = document();
            wrong.apply(&mut value).unwrap_err();
            assert_eq!(value, document(), "{wrong:?}");
        }
    }

    #[test]
    fn places_are_shown_as_people_write_them() {
        let deep = place!["nodes", "shot", "regions", 0usize, "prompt"];
        assert_eq!(shown(&deep), "nodes.shot.regions[0].prompt");
        assert_eq!(shown(&[]), "the document");
    }
}
