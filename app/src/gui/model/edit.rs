//! Puts a transaction together on a copy of the document.

use serde_json::{Map, Value};

use super::history::Transaction;
use super::patch::{Patch, PatchError, Path, Step, find, shown};

/// A transaction being made. Later changes see the earlier ones.
#[derive(Debug)]
pub(crate) struct Edit {
    value: Value,
    patches: Vec<Patch>,
}

impl Edit {
    /// Starts from the document as it is.
    pub(crate) fn new(value: &Value) -> Self {
        Self { value: value.clone(), patches: vec![] }
    }

    /// The document with the changes so far.
    pub(crate) fn value(&self) -> &Value {
        &self.value
    }

    /// The value at a place.
    pub(crate) fn get(&self, path: &[Step]) -> Option<&Value> {
        find(&self.value, path)
    }

    fn make(&mut self, patch: Patch) -> Result<(), PatchError> {
        patch.apply(&mut self.value)?;
        if !patch.is_nothing() {
            self.patches.push(patch);
        }
        Ok(())
    }

    /// Sets a field or replaces a list item.
    pub(crate) fn set(&mut self, path: Path, value: impl Into<Value>) -> Result<(), PatchError> {
        let before = self.get(&path).cloned();
        if before.is_none() && matches!(path.last(), Some(Step::Index(_))) {
            return Err(PatchError::Nowhere(shown(&path)));
        }
        self.make(Patch { path, before, after: Some(value.into()), position: None })
    }

    /// Sets a field, or removes it for `None`.
    pub(crate) fn set_or_remove(&mut self, path: Path, value: Option<Value>) -> Result<(), PatchError> {
        match value {
            Some(value) => self.set(path, value),
            None => self.remove(path),
        }
    }

    /// Puts a new item into a list before the item that is there now.
    pub(crate) fn insert(&mut self, path: Path, value: impl Into<Value>) -> Result<(), PatchError> {
        self.make(Patch { path, before: None, after: Some(value.into()), position: None })
    }

    /// Appends an item to the list at `path`, which is made when absent.
    pub(crate) fn push(&mut self, mut path: Path, value: impl Into<Value>) -> Result<(), PatchError> {
        let count = match self.get(&path) {
            None => {
                self.set(path.clone(), Value::Array(vec![]))?;
                0
            }
            Some(list) => list.as_array().map(Vec::len).ok_or_else(|| PatchError::Nowhere(shown(&path)))?,
        };
        path.push(Step::Index(count));
        self.insert(path, value)
    }

    /// Removes a field or list item; nothing happens where nothing is.
    pub(crate) fn remove(&mut self, path: Path) -> Result<(), PatchError> {
        let Some(before) = self.get(&path).cloned() else { return Ok(()) };
        let position = match path.split_last() {
            Some((Step::Key(key), parents)) => find(&self.value, parents)
                .and_then(Value::as_object)
                .and_then(|object| object.keys().position(|name| name == key)),
            _ => None,
        };
        self.make(Patch { path, before: Some(before), after: None, position })
    }

    /// Sets a field below objects, which are made where there is none; what stands in the place of
    /// one makes room.
    pub(crate) fn set_deep(&mut self, path: Path, value: impl Into<Value>) -> Result<(), PatchError> {
        for depth in 1..path.len() {
            let parent = path.iter().take(depth).cloned().collect::<Path>();
            let below = path.get(depth);
            let fits = match self.get(&parent) {
                Some(Value::Object(_)) => true,
                Some(Value::Array(_)) => matches!(below, Some(Step::Index(_))),
                _ => false,
            };
            if !fits {
                self.set(parent, Value::Object(Map::new()))?;
            }
        }
        self.set(path, value)
    }

    /// The finished transaction with the document after it.
    pub(crate) fn finish(self, label: impl Into<String>, merge: Option<String>) -> (Value, Transaction) {
        (self.value, Transaction { label: label.into(), patches: self.patches, merge })
    }
}

#[cfg(test)]
mod tests {
    use super::super::patch::place;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn an_edit_sees_itself_and_is_taken_back_exactly() {
        let before = json!({ "nodes": { "a": { "list": [1] }, "b": 2, "c": 3 } });
        let mut edit = Edit::new(&before);
        edit.remove(place!["nodes", "b"]).unwrap();
        edit.push(place!["nodes", "a", "list"], 5).unwrap();
        edit.push(place!["nodes", "a", "other"], json!({ "x": 1 })).unwrap();
        edit.set(place!["nodes", "a", "other", 0usize, "x"], 2).unwrap();
        edit.set_deep(place!["ui", "takes", "shot"], json!([])).unwrap();
        edit.remove(place!["nodes", "nothing"]).unwrap();
        edit.set(place!["nodes", "c"], 3).unwrap();
        let (after, transaction) = edit.finish("Try", None);
        assert_eq!(transaction.patches.len(), 8, "what changes nothing is not kept");
        let mut value = before.clone();
        transaction.apply(&mut value).unwrap();
        assert_eq!(value, after);
        transaction.inverse().apply(&mut value).unwrap();
        assert_eq!(value.to_string(), before.to_string(), "also the order of the fields");
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<i32>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec(("[a-d]", inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn paths() -> impl Strategy<Value = Path> {
        let step = prop_oneof!["[a-d]".prop_map(Step::Key), (0usize..4).prop_map(Step::Index)];
        prop::collection::vec(step, 1..4)
    }

    proptest! {
        #[test]
        fn any_series_of_changes_is_taken_back_to_the_byte(
            before in values(),
            steps in prop::collection::vec((0u8..5, paths(), values()), 0..12),
        ) {
            let mut edit = Edit::new(&before);
            for (kind, path, value) in steps {
                // Changes that do not fit the random value are refused; those must leave no trace.
                let _ = match kind {
                    0 => edit.set(path, value),
                    1 => edit.remove(path),
                    2 => edit.insert(path, value),
                    3 => edit.push(path, value),
                    _ => edit.set_deep(path, value),
                };
            }
            let (after, transaction) = edit.finish("Any", None);
            let mut value = before.clone();
            transaction.apply(&mut value).unwrap();
            prop_assert_eq!(value.to_string(), after.to_string());
            transaction.inverse().apply(&mut value).unwrap();
            prop_assert_eq!(value.to_string(), before.to_string());
        }
    }
}
