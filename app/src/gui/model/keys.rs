//! Numbers that change over a shot: their keyframes, and the edits people make to them.

use kinora_pipeline::workflow::{KeyEase, Number};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::changes::{region_field, region_of, shot_of};
use super::project::{EditError, Project};
use super::scene::Shot;

/// Keys a number may have here; a document may have more, which stay.
const MAX_KEYS: usize = 4096;
/// The least time between two keys, in seconds.
const APART: f64 = 1e-3;

/// A key: seconds from the start of the shot, and the value there.
pub(crate) type Key = (f64, f64);

/// A number of a shot that can have keyframes, as the timeline shows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lane {
    /// The region it belongs to.
    pub(crate) region: usize,
    /// What people call it.
    pub(crate) name: String,
    /// The number.
    pub(crate) number: Number,
}

/// The numbers of a shot that can have keyframes.
pub(crate) fn lanes(shot: &Shot) -> Vec<Lane> {
    let regions = shot.regions.iter().enumerate();
    let lane = |(region, found): (usize, &super::scene::Region)| Lane {
        region,
        name: format!("Magnitude of {}", found.name),
        number: found.magnitude.clone(),
    };
    regions.map(lane).collect()
}

/// The keys of a number; none for one that is the same at every time.
pub(crate) fn keys_of(number: &Number) -> &[Key] {
    match number {
        Number::Keyed(keys) => &keys.keys,
        _ => &[],
    }
}

fn ease_of(number: &Number) -> KeyEase {
    match number {
        Number::Keyed(keys) => keys.ease,
        _ => KeyEase::default(),
    }
}

fn short(v: f64) -> f64 {
    (v * 1e3).round() / 1e3
}

fn length(shot: &Shot) -> f64 {
    f64::from(shot.spec.frames) / shot.spec.fps.max(0.1)
}

/// Rising times a hair apart, values 0..1; of two keys at one time the later in the list stays.
fn orderly(keys: &[Key], longest: f64) -> Vec<Key> {
    let mut found: Vec<Key> = vec![];
    for &(t, v) in keys.iter().filter(|(t, v)| t.is_finite() && v.is_finite()) {
        let key = (short(t.clamp(0.0, longest)), short(v.clamp(0.0, 1.0)));
        match found.iter_mut().find(|(other, _)| (*other - key.0).abs() < APART / 2.0) {
            Some(other) => *other = key,
            None => found.push(key),
        }
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    found.truncate(MAX_KEYS);
    found
}

/// A change of keys: what there is, with the length of the shot, to what there shall be. `None`
/// leaves one value for the whole shot.
struct Change {
    keys: Option<(Vec<Key>, KeyEase)>,
    constant: f64,
}

fn change(
    project: &mut Project,
    item: &str,
    region: usize,
    (label, merge): (&str, Option<&str>),
    make: impl FnOnce(&Number, f64) -> Change,
) -> Result<(), EditError> {
    let (_, shot) = shot_of(project.scene(), item)?;
    let found = region_of(shot, region)?;
    if let Number::Linked(link) = &found.magnitude {
        return Err(EditError::Refused(format!("this number comes from {link}; change it there")));
    }
    let longest = length(shot);
    let Change { keys, constant } = make(&found.magnitude, longest);
    let keys = keys.map(|(keys, ease)| (orderly(&keys, longest), ease)).filter(|(keys, _)| !keys.is_empty());
    let value: Value = match keys {
        Some((keys, ease)) => json!({ "keys": keys, "ease": ease }),
        None => json!(short(constant.clamp(0.0, 1.0))),
    };
    let at = region_field(shot, region, "magnitude");
    let merge = merge.map(|merge| format!("{merge} {} {region}", shot.node));
    project.edit(label, merge.as_deref(), |edit| Ok(edit.set(at, value)?))
}

/// Sets a key at `t`; with no `value` the number keeps the value it has there. The first key makes
/// the number one that can change.
pub(crate) fn set_key(
    project: &mut Project,
    item: &str,
    region: usize,
    t: f64,
    value: Option<f64>,
) -> Result<(), EditError> {
    // The ticks of a drag set the same key again and again.
    let merge = value.map(|_| format!("key {}", short(t)));
    change(project, item, region, ("Set key", merge.as_deref()), |number, _| {
        let mut keys = keys_of(number).to_vec();
        keys.push((t, value.unwrap_or_else(|| number.at(t, None))));
        Change { keys: Some((keys, ease_of(number))), constant: 0.0 }
    })
}

/// Moves the keys at these places by so many seconds and so much value, none past a key that stays.
/// `from` are the keys as they were when the drag began; its ticks are one edit.
pub(crate) fn move_keys(
    project: &mut Project,
    item: &str,
    region: usize,
    from: &[Key],
    chosen: &[usize],
    by: (f64, f64),
) -> Result<(), EditError> {
    let label = if chosen.len() == 1 { "Move key" } else { "Move keys" };
    change(project, item, region, (label, Some("keys")), |number, longest| {
        let is_chosen = |index: usize| chosen.contains(&index);
        let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
        for (index, (t, _)) in from.iter().enumerate().filter(|(index, _)| is_chosen(*index)) {
            let before = index.checked_sub(1).filter(|i| !is_chosen(*i)).and_then(|i| from.get(i));
            let after = Some(index + 1).filter(|i| !is_chosen(*i)).and_then(|i| from.get(i));
            low = low.max(before.map_or(-t, |(other, _)| other + APART - t));
            high = high.min(after.map_or(longest - t, |(other, _)| other - APART - t));
        }
        let time = if low <= high { by.0.clamp(low, high) } else { 0.0 };
        let keys = from.iter().enumerate().map(
            |(index, &(t, v))| {
                if is_chosen(index) { (t + time, v + by.1) } else { (t, v) }
            },
        );
        Change { keys: Some((keys.collect(), ease_of(number))), constant: 0.0 }
    })
}

/// Removes the keys at these places. With the last one the number is the same at every time again.
pub(crate) fn remove_keys(
    project: &mut Project,
    item: &str,
    region: usize,
    chosen: &[usize],
) -> Result<(), EditError> {
    let label = if chosen.len() == 1 { "Remove key" } else { "Remove keys" };
    change(project, item, region, (label, None), |number, _| {
        let keys = keys_of(number).iter().enumerate().filter(|(index, _)| !chosen.contains(index));
        let keys: Vec<Key> = keys.map(|(_, key)| *key).collect();
        Change { keys: Some((keys, ease_of(number))), constant: number.at(0.0, None) }
    })
}

/// Leaves the value at `t` for the whole shot.
pub(crate) fn clear_keys(project: &mut Project, item: &str, region: usize, t: f64) -> Result<(), EditError> {
    change(project, item, region, ("Remove all keys", None), |number, _| Change {
        keys: None,
        constant: number.at(t, None),
    })
}

/// Says how the value goes from key to key.
pub(crate) fn set_ease(
    project: &mut Project,
    item: &str,
    region: usize,
    ease: KeyEase,
) -> Result<(), EditError> {
    change(project, item, region, ("Change easing", None), |number, _| Change {
        keys: Some((keys_of(number).to_vec(), ease)),
        constant: number.at(0.0, None),
    })
}

/// Keys on the clipboard, as a text other programs leave alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Copied {
    /// Keys, the first at time 0.
    kinora_keys: Vec<Key>,
    ease: KeyEase,
}

impl Copied {
    /// The keys at these places of a number; none where there are none.
    pub(crate) fn of(number: &Number, chosen: &[usize]) -> Option<Self> {
        let keys = keys_of(number).iter().enumerate().filter(|(index, _)| chosen.contains(index));
        let keys: Vec<Key> = keys.map(|(_, key)| *key).collect();
        let first = keys.first()?.0;
        let kinora_keys = keys.iter().map(|(t, v)| (short(t - first), *v)).collect();
        Some(Self { kinora_keys, ease: ease_of(number) })
    }

    /// As a text.
    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From a text, if it is one of these.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let copied: Self = serde_json::from_str(text.trim()).ok()?;
        (1..=MAX_KEYS).contains(&copied.kinora_keys.len()).then_some(copied)
    }
}

/// Puts copied keys at `t`.
pub(crate) fn paste_keys(
    project: &mut Project,
    item: &str,
    region: usize,
    t: f64,
    copied: &Copied,
) -> Result<(), EditError> {
    change(project, item, region, ("Paste keys", None), |number, longest| {
        let ease = if keys_of(number).is_empty() { copied.ease } else { ease_of(number) };
        let fresh = copied.kinora_keys.iter().map(|(after, v)| (t + after, *v));
        let fresh = fresh.filter(|(at, _)| *at <= longest + APART);
        let keys = keys_of(number).iter().copied().chain(fresh).collect();
        Change { keys: Some((keys, ease)), constant: number.at(0.0, None) }
    })
}

#[cfg(test)]
mod tests {
    use super::super::places::Places;
    use super::*;

    fn project() -> (tempfile::TempDir, Project) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.kinora.json");
        std::fs::write(&path, include_str!("../../../../workflows/two-regions.kinora.json")).unwrap();
        let project = Project::open(&path, &Places::below(&dir.path().join("home"))).unwrap();
        (dir, project)
    }

    fn magnitude(project: &Project) -> Number {
        project.scene().items[0].regions()[0].magnitude.clone()
    }

    fn keys(project: &Project) -> Vec<Key> {
        keys_of(&magnitude(project)).to_vec()
    }

    #[test]
    fn a_number_gets_keys_and_loses_them_again() {
        let (_dir, mut project) = project();
        let begun = project.value().clone();
        let Number::Constant(before) = magnitude(&project) else { panic!("a constant to begin with") };
        set_key(&mut project, "shot", 0, 0.5, None).unwrap();
        assert_eq!(keys(&project), [(0.5, before)], "it keeps the value it has");
        set_key(&mut project, "shot", 0, 1.0, Some(2.0)).unwrap();
        set_key(&mut project, "shot", 0, 0.0, Some(0.1)).unwrap();
        assert_eq!(keys(&project), [(0.0, 0.1), (0.5, before), (1.0, 1.0)], "values stay within 0..1");
        set_key(&mut project, "shot", 0, 1.0, Some(0.2)).unwrap();
        assert_eq!(keys(&project)[2], (1.0, 0.2), "one key at one time");
        set_ease(&mut project, "shot", 0, KeyEase::Linear).unwrap();
        assert!((magnitude(&project).at(0.75, None) - f64::midpoint(before, 0.2)).abs() < 1e-9);
        remove_keys(&mut project, "shot", 0, &[1, 2]).unwrap();
        assert_eq!(keys(&project), [(0.0, 0.1)]);
        remove_keys(&mut project, "shot", 0, &[0]).unwrap();
        assert_eq!(magnitude(&project), Number::Constant(0.1));
        while project.undo().unwrap().is_some() {}
        assert_eq!(project.value(), &begun);
    }

    #[test]
    fn keys_are_moved_together_but_not_past_others() {
        let (_dir, mut project) = project();
        for (t, v) in [(0.0, 0.2), (0.5, 0.4), (1.0, 0.6), (1.5, 0.8)] {
            set_key(&mut project, "shot", 0, t, Some(v)).unwrap();
        }
        let from = keys(&project);
        for step in 1..=10 {
            let by = f64::from(step) / 10.0;
            move_keys(&mut project, "shot", 0, &from, &[1, 2], (by, -by / 10.0)).unwrap();
        }
        project.close_gesture();
        assert_eq!(keys(&project), [(0.0, 0.2), (0.999, 0.3), (1.499, 0.5), (1.5, 0.8)]);
        project.undo().unwrap();
        assert_eq!(keys(&project), from, "one drag, one edit");
        move_keys(&mut project, "shot", 0, &from, &[0], (-1.0, 0.0)).unwrap();
        assert_eq!(keys(&project)[0].0, 0.0);
        clear_keys(&mut project, "shot", 0, 1.0).unwrap();
        assert_eq!(magnitude(&project), Number::Constant(0.6));
    }

    #[test]
    fn keys_go_over_the_clipboard_as_text() {
        let (_dir, mut project) = project();
        for (t, v) in [(0.25, 0.2), (0.5, 0.9)] {
            set_key(&mut project, "shot", 0, t, Some(v)).unwrap();
        }
        let text = Copied::of(&magnitude(&project), &[0, 1]).unwrap().to_text();
        let copied = Copied::from_text(&text).unwrap();
        paste_keys(&mut project, "shot", 1, 1.0, &copied).unwrap();
        let there = keys_of(&project.scene().items[0].regions()[1].magnitude).to_vec();
        assert_eq!(there, [(1.0, 0.2), (1.25, 0.9)]);
        for other in ["", "words", "{}", "[1]", r#"{ "kinora_keys": [], "ease": "step" }"#] {
            assert_eq!(Copied::from_text(other), None, "{other}");
        }
        assert!(set_key(&mut project, "shot", 9, 0.0, None).is_err());
        assert!(set_key(&mut project, "gone", 0, 0.0, None).is_err());
    }
}
