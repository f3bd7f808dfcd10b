//! Every clip that was made of a shot, kept in the document with what made it.

use kinora_pipeline::store::cache::CacheKey;
use kinora_pipeline::workflow::Document;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::patch::{Step, find, place};
use super::project::{EditError, Project};

/// Takes kept of one shot; beyond that the oldest without a star goes.
pub(crate) const MAX_TAKES: usize = 64;

/// One clip of a shot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Take {
    /// The name of its frames in the cache: 64 hexadecimal digits.
    pub(crate) key: String,
    /// When it was made, seconds since 1970.
    pub(crate) made: u64,
    /// How long that took, in seconds.
    #[serde(default)]
    pub(crate) seconds: f64,
    /// Whether it is a favourite.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) star: bool,
    /// The nodes that made it: the shot and all it needs.
    #[serde(default)]
    pub(crate) nodes: Map<String, Value>,
}

impl Take {
    /// The name of its frames; none where the document holds something else.
    pub(crate) fn cache_key(&self) -> Option<CacheKey> {
        // A key becomes part of a path, and a document is not to choose paths.
        let good = self.key.len() == 64
            && self.key.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        good.then(|| serde_json::from_value(json!(self.key)).ok())?
    }

    /// What people tell takes apart by: the words and the seed.
    pub(crate) fn summary(&self, shot: &str) -> (String, Option<u64>) {
        let Some(node) = self.nodes.get(shot) else { return (String::new(), None) };
        let own = node.get("prompt").and_then(Value::as_str).into_iter();
        let regions = node.get("regions").and_then(Value::as_array).into_iter().flatten();
        let listed = regions.filter_map(|region| region.get("prompt").and_then(Value::as_str));
        let words: Vec<&str> = own.chain(listed).collect();
        (words.join(" · "), node.get("seed").and_then(Value::as_u64))
    }
}

fn place(shot: &str) -> Vec<Step> {
    place!["ui", "takes", shot]
}

/// The takes of a shot, the latest first. What is not one is passed over.
pub(crate) fn takes(value: &Value, shot: &str) -> Vec<Take> {
    let list = find(value, &place(shot)).and_then(Value::as_array);
    let read = |take: &Value| serde_json::from_value::<Take>(take.clone()).ok();
    let mut found: Vec<Take> =
        list.into_iter().flatten().filter_map(read).filter(|take| take.cache_key().is_some()).collect();
    found.truncate(MAX_TAKES);
    found
}

/// The shot and all it needs, from a document's value.
pub(crate) fn nodes_of(value: &Value, shot: &str) -> Map<String, Value> {
    let mut kept = Map::new();
    let all = value.get("nodes").and_then(Value::as_object);
    let text = serde_json::to_string(value).unwrap_or_default();
    let Ok(document) = Document::parse(&text, "take") else { return kept };
    let mut wanted = vec![shot.to_owned()];
    let mut needed = std::collections::HashSet::new();
    while let Some(name) = wanted.pop() {
        if let Some(node) = document.node(&name).filter(|_| needed.insert(name.clone())) {
            wanted.extend(node.op.get().inputs().into_iter().map(|input| input.link.node.clone()));
        }
    }
    for (name, node) in all.into_iter().flatten().filter(|(name, _)| needed.contains(*name)) {
        kept.insert(name.clone(), node.clone());
    }
    kept
}

fn write(project: &mut Project, shot: &str, list: &[Take]) -> Result<(), EditError> {
    let list = serde_json::to_value(list).map_err(|error| EditError::Refused(error.to_string()))?;
    let at = place(shot);
    project.note(|edit| Ok(edit.set_deep(at, list)?))
}

/// Whether a shot would be made otherwise now than a take of it was. What the editor keeps for itself does not
/// count; neither do the bytes of the files it reads.
pub(crate) fn is_changed(value: &Value, shot: &str, take: &Take) -> bool {
    let plain = |nodes: Map<String, Value>| -> Map<String, Value> {
        let bare = nodes.into_iter().map(|(name, mut node)| {
            if let Some(fields) = node.as_object_mut() {
                fields.remove("ui");
            }
            (name, node)
        });
        bare.collect()
    };
    !take.nodes.is_empty() && plain(nodes_of(value, shot)) != plain(take.nodes.clone())
}

/// Puts a new take first. One with the same frames is not kept twice. Returns the one that had to go where
/// there were as many as are kept.
pub(crate) fn record(project: &mut Project, shot: &str, take: Take) -> Result<Option<Take>, EditError> {
    let mut list = takes(project.value(), shot);
    let star = list.iter().any(|known| known.key == take.key && known.star);
    list.retain(|known| known.key != take.key);
    list.insert(0, Take { star: star || take.star, ..take });
    let mut gone = None;
    while list.len() > MAX_TAKES {
        // The new one is no candidate: of favourites alone the oldest goes.
        let oldest = list.iter().rposition(|take| !take.star).filter(|at| *at > 0);
        gone = Some(list.remove(oldest.unwrap_or(list.len() - 1)));
    }
    write(project, shot, &list)?;
    Ok(gone)
}

/// Marks a take as a favourite, or no longer.
pub(crate) fn star(project: &mut Project, shot: &str, key: &str) -> Result<(), EditError> {
    let mut list = takes(project.value(), shot);
    for take in list.iter_mut().filter(|take| take.key == key) {
        take.star = !take.star;
    }
    write(project, shot, &list)
}

/// Forgets a take. Its frames stay in the cache until that is cleaned.
pub(crate) fn forget(project: &mut Project, shot: &str, key: &str) -> Result<(), EditError> {
    let mut list = takes(project.value(), shot);
    list.retain(|take| take.key != key);
    write(project, shot, &list)
}

/// Puts the nodes of a take back into the document, as an edit that can be undone.
pub(crate) fn use_settings(project: &mut Project, shot: &str, key: &str) -> Result<(), EditError> {
    let take = takes(project.value(), shot).into_iter().find(|take| take.key == key);
    let take = take.ok_or_else(|| EditError::Refused("that take is no longer there".into()))?;
    if !take.nodes.contains_key(shot) {
        return Err(EditError::Refused("this take does not know what made it".into()));
    }
    project.edit("Use take's settings", None, |edit| {
        for (name, node) in take.nodes {
            edit.set(place!["nodes", name.as_str()], node)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::super::places::Places;
    use super::super::{changes, project::Project};
    use super::*;

    fn project() -> (tempfile::TempDir, Project) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.kinora.json");
        std::fs::write(&path, include_str!("../../../../workflows/single-click.kinora.json")).unwrap();
        let project = Project::open(&path, &Places::below(&dir.path().join("home"))).unwrap();
        (dir, project)
    }

    fn take(project: &Project, digit: char) -> Take {
        let nodes = nodes_of(project.value(), "shot");
        Take { key: digit.to_string().repeat(64), made: 1, seconds: 2.0, star: false, nodes }
    }

    #[test]
    fn takes_are_kept_once_starred_and_forgotten() {
        let (_dir, mut project) = project();
        let (a, b) = (take(&project, 'a'), take(&project, 'b'));
        assert_eq!(
            a.nodes.keys().collect::<Vec<_>>(),
            ["photo", "rocket", "shot"],
            "not the file it was saved to"
        );
        assert_eq!(a.summary("shot"), ("rise slowly".to_owned(), Some(7)));
        record(&mut project, "shot", a.clone()).unwrap();
        star(&mut project, "shot", &a.key).unwrap();
        record(&mut project, "shot", b).unwrap();
        record(&mut project, "shot", a.clone()).unwrap();
        let list = takes(project.value(), "shot");
        assert_eq!(
            list.iter().map(|t| (t.key.as_bytes()[0], t.star)).collect::<Vec<_>>(),
            [(b'a', true), (b'b', false)]
        );
        forget(&mut project, "shot", &a.key).unwrap();
        assert_eq!(takes(project.value(), "shot").len(), 1);
        for digit in 0..80 {
            let key = format!("{digit:064x}");
            let gone = record(&mut project, "shot", Take { key, ..a.clone() }).unwrap();
            // With the one that was there already the 64th is the first too many.
            assert_eq!(gone.is_some(), digit >= 63, "{digit}");
        }
        assert_eq!(takes(project.value(), "shot").len(), MAX_TAKES);
    }

    #[test]
    fn an_old_take_brings_its_settings_back() {
        let (_dir, mut project) = project();
        let first = take(&project, 'a');
        record(&mut project, "shot", first.clone()).unwrap();
        let before = project.value()["nodes"].clone();
        changes::rename(&mut project, "shot", "Launch").unwrap();
        assert!(!is_changed(project.value(), "shot", &first), "a name changes no frame");
        project.undo().unwrap();
        changes::set_prompt(&mut project, "shot", 0, "sink").unwrap();
        assert!(is_changed(project.value(), "shot", &first));
        use_settings(&mut project, "shot", &first.key).unwrap();
        assert_eq!(project.value()["nodes"], before);
        project.undo().unwrap();
        assert_eq!(project.value()["nodes"]["shot"]["prompt"], "sink");
        assert!(use_settings(&mut project, "shot", "gone").is_err());
    }

    #[test]
    fn a_document_cannot_name_paths_by_its_takes() {
        for key in ["../../../etc/passwd", "", "ABCDEF", &"g".repeat(64), &"A".repeat(64)] {
            let value = json!({ "ui": { "takes": { "shot": [{ "key": key, "made": 0 }, 7, null] } } });
            assert!(takes(&value, "shot").is_empty(), "{key}");
        }
        let (_dir, mut project) = project();
        project.note(|edit| Ok(edit.set(place!["ui"], json!({ "takes": 3 }))?)).unwrap();
        let a = take(&project, 'a');
        record(&mut project, "shot", a).unwrap();
        assert_eq!(takes(project.value(), "shot").len(), 1);
    }
}
