//! Everything by keyboard alone, and what a screen reader is told.

use std::collections::BTreeSet;

use eframe::egui::accesskit::{Action, ActionData, ActionRequest, TreeId};
use eframe::egui::{Event, Key, Modifiers};
use egui_kittest::kittest::{NodeT as _, Queryable as _};
use kinora_pipeline::workflow::ops::MaskClick;

use super::support::{Desk, SMALL};
use crate::gui::command::Command;
use crate::gui::files::After;
use crate::gui::layout::Pane;
use crate::gui::model::keys::{keys_of, set_key};
use crate::gui::model::scene::Shape;
use crate::gui::overlays::modal::Modal;
use crate::gui::tasks::dialogs::Wanted;

fn desk() -> Desk {
    let mut desk = Desk::new();
    desk.open(&SMALL.replace("\"frames\": 3", "\"frames\": 16"));
    desk.wait("the picture is there", |state| {
        let key = state.item().and_then(|item| state.picture_key(item));
        key.is_some_and(|key| state.pictures.size(&key).is_some())
    });
    desk
}

fn clicks(desk: &Desk) -> MaskClick {
    match &desk.state().item().unwrap().regions()[0].shape {
        Shape::Clicks(clicks) => clicks.clone(),
        other => panic!("{other:?}"),
    }
}

fn press(desk: &mut Desk, modifiers: Modifiers, key: Key, times: usize) {
    for _ in 0..times {
        desk.harness.key_press_modifiers(modifiers, key);
        desk.steps(2);
    }
}

fn focus(desk: &mut Desk, label: &str) {
    desk.harness.get_by_label_contains(label).focus();
    desk.steps(3);
}

#[test]
fn clicks_are_placed_moved_and_removed_by_keyboard() {
    let mut desk = desk();
    let begun = desk.state().project.as_ref().unwrap().value().clone();
    focus(&mut desk, "Picture ");
    // From the middle ten steps right, one big step up: a tenth of the longer side each.
    press(&mut desk, Modifiers::NONE, Key::ArrowRight, 10);
    press(&mut desk, Modifiers::SHIFT, Key::ArrowUp, 1);
    press(&mut desk, Modifiers::NONE, Key::Enter, 1);
    let found = clicks(&desk).points;
    assert_eq!(found.len(), 2);
    // The rocket's picture is 640 × 427 pixels or as high as wide; steps are as long both ways.
    let size = desk.state().pictures.size(&desk.state().picture_key(desk.state().item().unwrap()).unwrap());
    let [width, height] = size.unwrap().map(|side| side as f64);
    let longer = width.max(height);
    let expected = (0.5 + 0.1 * longer / width, 0.5 - 0.1 * longer / height);
    assert!((found[1].x - expected.0).abs() < 1e-4 && (found[1].y - expected.1).abs() < 1e-4, "{found:?}");
    assert!(found[1].keep);
    press(&mut desk, Modifiers::NONE, Key::ArrowDown, 3);
    press(&mut desk, Modifiers::SHIFT, Key::Enter, 1);
    assert!(!clicks(&desk).points[2].keep, "with Shift it is left out");

    // Each click is a node of its own that arrows move and Delete removes.
    focus(&mut desk, "Click 2 on Rocket");
    assert_eq!(desk.state().choice.click, Some(1));
    let before = clicks(&desk).points[1];
    press(&mut desk, Modifiers::NONE, Key::ArrowLeft, 5);
    let after = clicks(&desk).points[1];
    assert!((before.x - after.x - 0.05 * longer / width).abs() < 1e-4 && before.y == after.y, "{after:?}");
    press(&mut desk, Modifiers::NONE, Key::Delete, 1);
    assert_eq!(clicks(&desk).points.len(), 2);
    assert!(!clicks(&desk).points[1].keep, "the one beside it stayed");
    assert!(desk.has(&label(&desk, 2)), "what is left is told anew");

    press(&mut desk, Modifiers::COMMAND, Key::Z, 4);
    assert_eq!(
        desk.state().project.as_ref().unwrap().value(),
        &begun,
        "four edits: two clicks, one move, one less"
    );
}

fn label(desk: &Desk, number: usize) -> String {
    let point = clicks(desk).points[number - 1];
    let kind = if point.keep { "on" } else { "beside" };
    let percent = |v: f64| (v * 100.0).round();
    format!("Click {number} {kind} Rocket, {} % across, {} % down", percent(point.x), percent(point.y))
}

#[test]
fn keys_of_a_lane_move_by_arrows_and_by_command() {
    let mut desk = desk();
    for (t, value) in [(0.25, 0.5), (1.0, 0.5)] {
        desk.state_mut().edit(|project| set_key(project, "shot", 0, t, Some(value)));
        desk.state_mut().close_gesture();
    }
    desk.steps(3);
    let keys = |desk: &Desk| keys_of(&desk.state().item().unwrap().regions()[0].magnitude).to_vec();
    focus(&mut desk, "Key 2 of Magnitude of Rocket");
    press(&mut desk, Modifiers::NONE, Key::ArrowRight, 2);
    press(&mut desk, Modifiers::NONE, Key::ArrowUp, 3);
    // Two frames at 8 a second, three steps of a twentieth.
    assert_eq!(keys(&desk), [(0.25, 0.5), (1.25, 0.65)]);
    press(&mut desk, Modifiers::COMMAND, Key::ArrowLeft, 1);
    press(&mut desk, Modifiers::COMMAND, Key::ArrowDown, 1);
    assert_eq!(keys(&desk), [(0.25, 0.5), (1.125, 0.6)]);
    desk.state_mut().todo.push(Command::EaseKeys);
    desk.steps(2);
    let value = desk.state().project.as_ref().unwrap().value().clone();
    let first = value.pointer("/nodes/shot/regions/0/magnitude/ease").cloned();
    desk.state_mut().todo.push(Command::EaseKeys);
    desk.steps(2);
    let value = desk.state().project.as_ref().unwrap().value().clone();
    assert_ne!(value.pointer("/nodes/shot/regions/0/magnitude/ease").cloned(), first, "each time another");
    press(&mut desk, Modifiers::NONE, Key::Delete, 1);
    assert_eq!(keys(&desk).len(), 1, "the one with the focus goes");
    desk.state_mut().todo.push(Command::ClearKeys);
    desk.steps(2);
    assert!(keys(&desk).is_empty());
}

#[test]
fn playheads_take_keys_and_what_a_screen_reader_says() {
    let mut desk = desk();
    for name in ["Timeline playhead", "Playhead"] {
        desk.state_mut().show_timeline_at(0.0);
        desk.steps(3);
        let position = |desk: &Desk| (desk.state().monitor.position * 8.0 * 1000.0).round() / 1000.0;
        let node = desk.harness.get_by_label(name);
        node.focus();
        let (id, low, high) = {
            let node = node.accesskit_node();
            (node.locate(), node.data().min_numeric_value(), node.data().max_numeric_value())
        };
        assert_eq!((low, high), (Some(0.0), Some(15.0 / 8.0)), "{name}");
        desk.steps(3);
        press(&mut desk, Modifiers::NONE, Key::ArrowRight, 3);
        press(&mut desk, Modifiers::NONE, Key::ArrowLeft, 1);
        assert_eq!(position(&desk), 2.0, "{name}: frames");
        press(&mut desk, Modifiers::SHIFT, Key::ArrowRight, 1);
        assert_eq!(position(&desk), 12.0, "{name}: ten at once");
        press(&mut desk, Modifiers::NONE, Key::End, 1);
        assert_eq!(position(&desk), 15.0, "{name}: the end");
        press(&mut desk, Modifiers::NONE, Key::Home, 1);
        assert_eq!(position(&desk), 0.0, "{name}: the start");
        let ask = |desk: &mut Desk, action, data| {
            let (target_node, target_tree) = (id.0, TreeId::ROOT);
            desk.harness.event(Event::AccessKitActionRequest(ActionRequest {
                action,
                target_node,
                target_tree,
                data,
            }));
            desk.steps(2);
        };
        ask(&mut desk, Action::SetValue, Some(ActionData::NumericValue(1.0)));
        assert_eq!(position(&desk), 8.0, "{name}: a second");
        ask(&mut desk, Action::Increment, None);
        assert_eq!(position(&desk), 9.0, "{name}: one more");
        desk.harness.key_press(Key::Escape);
        desk.steps(2);
    }
}

/// What the panel library puts between the panels: splitters of six points and the ground of a row of tabs. It gives
/// them neither name nor role, and they take no keys.
fn between_panels(node: &egui_kittest::kittest::AccessKitNode<'_>) -> bool {
    let size = node.bounding_box().map(|found| (found.width(), found.height()));
    node.role() == eframe::egui::Role::Unknown
        && size.is_some_and(|(width, height)| width < 6.5 || height < 6.5 || (height - 32.0).abs() < 0.5)
}

/// Roles and places of nodes that can have the focus and say nothing.
fn unlabelled(desk: &Desk) -> BTreeSet<String> {
    let root = desk.harness.root();
    let mut found = BTreeSet::new();
    let mut waiting: Vec<_> = root.accesskit_node().children().collect();
    while let Some(node) = waiting.pop() {
        let says = |text: Option<String>| text.is_some_and(|text| !text.trim().is_empty());
        let focusable = node.data().supports_action(Action::Focus) && !node.is_hidden();
        if focusable && !says(node.label()) && !between_panels(&node) {
            found.insert(format!("{:?} at {:?}", node.role(), node.bounding_box()));
        }
        waiting.extend(node.children());
    }
    found
}

#[test]
fn every_control_of_every_panel_has_a_name() {
    let mut desk = desk();
    assert!(unlabelled(&desk).is_empty(), "the arrangement: {:?}", unlabelled(&desk));
    desk.state_mut().edit(|project| set_key(project, "shot", 0, 0.5, Some(0.5)));
    desk.state_mut().todo.push(Command::PauseQueue);
    desk.steps(2);
    desk.state_mut().animate();
    for pane in Pane::ALL {
        desk.harness.state_mut().only(pane);
        desk.steps(4);
        if pane == Pane::Models {
            desk.wait("the models are listed", |state| state.models.is_listed());
        }
        let nodes = desk.harness.query_all(egui_kittest::kittest::By::new()).count();
        assert!(nodes > 5, "{pane:?} has nodes");
        let found = unlabelled(&desk);
        assert!(found.is_empty(), "{pane:?}: {found:?}");
    }
    desk.state_mut().todo.push(Command::Palette);
    desk.steps(3);
    assert!(unlabelled(&desk).is_empty(), "the palette: {:?}", unlabelled(&desk));
}

#[test]
fn every_control_of_every_dialog_has_a_name() {
    let mut desk = desk();
    let (node, text) = ("file".to_owned(), String::new());
    let dialogs = [
        Modal::Refused { title: "film.kinora.json was not opened".into(), text: "why".into() },
        Modal::Unsaved(After::Close),
        Modal::ChangedOnDisk,
        Modal::Overwrite { node: node.clone(), dest: "/videos/rocket.mp4".into() },
        Modal::Finished("/videos/rocket.mp4".into()),
        Modal::Export { node, dest: "/videos/rocket.mp4".into() },
        Modal::Missing,
        Modal::Versions,
        Modal::Shortcuts,
        Modal::About,
        Modal::TypePath { wanted: Wanted::Media, text, fresh: true },
    ];
    desk.state_mut().save(false);
    for dialog in dialogs {
        let name = format!("{dialog:?}");
        desk.state_mut().modal = Some(dialog);
        desk.steps(4);
        let found = unlabelled(&desk);
        assert!(found.is_empty(), "{name}: {found:?}");
        desk.state_mut().modal = None;
        desk.steps(2);
    }
}
