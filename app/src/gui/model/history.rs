//! One history for everything that can be edited.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::patch::{Patch, PatchError};

/// Edits kept for undo. Each holds only what changed.
const MAX_EDITS: usize = 500;

/// Changes that are made and taken back together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Transaction {
    /// What the Edit menu says after "Undo", in sentence case.
    pub(crate) label: String,
    /// The changes in order.
    pub(crate) patches: Vec<Patch>,
    /// Transactions in a row with the same mark become one: the ticks of one slider drag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) merge: Option<String>,
}

impl Transaction {
    /// Makes every change or none.
    pub(crate) fn apply(&self, value: &mut Value) -> Result<(), PatchError> {
        for (index, patch) in self.patches.iter().enumerate() {
            if let Err(error) = patch.apply(value) {
                for done in self.patches.iter().take(index).rev() {
                    // Just applied, so it can be taken back.
                    let _ = done.inverse().apply(value);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// The transaction that takes this one back.
    pub(crate) fn inverse(&self) -> Self {
        let patches = self.patches.iter().rev().map(Patch::inverse).collect();
        Self { patches, ..self.clone() }
    }

    /// Whether it changes nothing.
    pub(crate) fn is_nothing(&self) -> bool {
        self.patches.iter().all(Patch::is_nothing)
    }
}

/// What was done and what was taken back.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    done: Vec<Transaction>,
    undone: Vec<Transaction>,
    /// Whether the next transaction may still join the last one.
    open: bool,
}

impl History {
    /// Remembers a transaction that was applied.
    pub(crate) fn push(&mut self, transaction: Transaction) {
        self.undone.clear();
        let joins = self.open && transaction.merge.is_some();
        self.open = transaction.merge.is_some();
        if joins
            && let Some(last) = self.done.last_mut()
            && last.merge == transaction.merge
        {
            for patch in transaction.patches {
                match last.patches.iter_mut().rfind(|known| known.path == patch.path) {
                    Some(known) if known.after == patch.before && known.after.is_some() => {
                        known.after = patch.after;
                    }
                    _ => last.patches.push(patch),
                }
            }
            return;
        }
        self.done.push(transaction);
        if self.done.len() > MAX_EDITS {
            self.done.remove(0);
        }
    }

    /// Ends a gesture: what comes next is an edit of its own. Says whether there was one to end.
    pub(crate) fn close(&mut self) -> bool {
        std::mem::take(&mut self.open)
    }

    /// Takes the last transaction back.
    pub(crate) fn undo(&mut self, value: &mut Value) -> Result<Option<String>, PatchError> {
        self.open = false;
        let Some(last) = self.done.pop() else { return Ok(None) };
        if let Err(error) = last.inverse().apply(value) {
            self.done.push(last);
            return Err(error);
        }
        let label = last.label.clone();
        self.undone.push(last);
        Ok(Some(label))
    }

    /// Makes the transaction last taken back again.
    pub(crate) fn redo(&mut self, value: &mut Value) -> Result<Option<String>, PatchError> {
        self.open = false;
        let Some(next) = self.undone.pop() else { return Ok(None) };
        if let Err(error) = next.apply(value) {
            self.undone.push(next);
            return Err(error);
        }
        let label = next.label.clone();
        self.done.push(next);
        Ok(Some(label))
    }

    /// What undo would take back.
    pub(crate) fn undo_label(&self) -> Option<&str> {
        self.done.last().map(|transaction| transaction.label.as_str())
    }

    /// What redo would make again.
    pub(crate) fn redo_label(&self) -> Option<&str> {
        self.undone.last().map(|transaction| transaction.label.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::super::patch::place;
    use super::*;
    use serde_json::json;

    fn set(value: &mut Value, history: &mut History, to: i64, merge: Option<&str>) {
        let patch = Patch {
            path: place!["n"],
            before: value.get("n").cloned(),
            after: Some(json!(to)),
            position: None,
        };
        let transaction =
            Transaction { label: format!("Set {to}"), patches: vec![patch], merge: merge.map(str::to_owned) };
        transaction.apply(value).unwrap();
        history.push(transaction);
    }

    #[test]
    fn undo_and_redo_walk_the_same_path() {
        let (mut value, mut history) = (json!({ "n": 0 }), History::default());
        set(&mut value, &mut history, 1, None);
        set(&mut value, &mut history, 2, None);
        assert_eq!(history.undo_label(), Some("Set 2"));
        history.undo(&mut value).unwrap();
        history.undo(&mut value).unwrap();
        assert_eq!((value["n"].as_i64(), history.undo(&mut value)), (Some(0), Ok(None)));
        history.redo(&mut value).unwrap();
        history.redo(&mut value).unwrap();
        assert_eq!((value["n"].as_i64(), history.redo(&mut value)), (Some(2), Ok(None)));
        history.undo(&mut value).unwrap();
        set(&mut value, &mut history, 9, None);
        assert_eq!(history.redo_label(), None, "a new edit ends the branch");
    }

    #[test]
    fn the_ticks_of_a_drag_are_one_edit() {
        let (mut value, mut history) = (json!({ "n": 0 }), History::default());
        for to in 1..=20 {
            set(&mut value, &mut history, to, Some("n"));
        }
        history.close();
        set(&mut value, &mut history, 50, Some("n"));
        history.undo(&mut value).unwrap();
        assert_eq!(value["n"], json!(20), "the second drag is its own edit");
        history.undo(&mut value).unwrap();
        assert_eq!(value["n"], json!(0));
        assert_eq!(history.undo_label(), None);
    }

    #[test]
    fn a_transaction_is_made_whole_or_not_at_all() {
        let mut value = json!({ "n": 0 });
        let good = Patch { path: place!["n"], before: Some(json!(0)), after: Some(json!(1)), position: None };
        let bad = Patch { path: place!["m"], before: Some(json!(0)), after: None, position: None };
        let transaction = Transaction { label: String::new(), patches: vec![good, bad], merge: None };
        transaction.apply(&mut value).unwrap_err();
        assert_eq!(value, json!({ "n": 0 }));
    }

    #[test]
    fn the_history_is_bounded() {
        let (mut value, mut history) = (json!({ "n": 0 }), History::default());
        for to in 1..=600 {
            set(&mut value, &mut history, to, None);
        }
        let mut steps = 0;
        while history.undo(&mut value).unwrap().is_some() {
            steps += 1;
        }
        assert_eq!((steps, value["n"].as_i64()), (MAX_EDITS, Some(100)));
    }
}
