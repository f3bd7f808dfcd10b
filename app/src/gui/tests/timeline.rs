//! Clips over time, keys, and the brush, by mouse and key.

use eframe::egui::{Event, Key, Modifiers, pos2};
use egui_kittest::kittest::Queryable as _;
use kinora_pipeline::workflow::Number;
use kinora_pipeline::workflow::ops::{MaskClick, Op};

use super::support::{Desk, SMALL};
use crate::gui::command::Command;
use crate::gui::model::keys::keys_of;
use crate::gui::model::scene::Shape;
use crate::gui::state::Tool;
use crate::gui::tasks::masks::Masking;

/// Two shots of two seconds each.
fn two() -> String {
    let small = SMALL.replace("\"frames\": 3, \"fps\": 8", "\"frames\": 16, \"fps\": 8");
    small.replace(
        "    \"file\": {",
        "    \"other\": {
      \"op\": \"animate.click\", \"image\": \"@photo\", \"mask\": \"@rocket\", \"prompt\": \"sink\",
      \"frames\": 16, \"fps\": 8, \"steps\": 1, \"size\": 128
    },
    \"file\": {",
    )
}

fn desk() -> Desk {
    let mut desk = Desk::new();
    desk.open(&two());
    desk.wait("the picture is there", |state| {
        state
            .item()
            .and_then(|item| state.picture_key(item))
            .is_some_and(|key| state.pictures.size(&key).is_some())
    });
    desk
}

fn spans(desk: &Desk) -> Vec<(String, f64, f64)> {
    let timeline = desk.state().timeline().unwrap();
    timeline.clips().map(|(_, clip)| (clip.node.clone(), clip.at, clip.end())).collect()
}

fn span(node: &str, at: f64, end: f64) -> (String, f64, f64) {
    (node.to_owned(), at, end)
}

fn key(desk: &mut Desk, modifiers: Modifiers, key: Key) {
    desk.harness.key_press_modifiers(modifiers, key);
    desk.steps(3);
}

fn magnitude(desk: &Desk) -> Number {
    desk.state().project.as_ref().unwrap().scene().item("shot").unwrap().regions()[0].magnitude.clone()
}

#[test]
fn clips_are_split_trimmed_moved_and_all_is_undone() {
    let mut desk = desk();
    let begun = desk.state().project.as_ref().unwrap().value().clone();
    assert_eq!(spans(&desk), [span("shot", 0.0, 2.0), span("other", 2.0, 4.0)]);

    // The playhead is put at a second, the clip there is cut in two.
    let ruler = desk.harness.get_by_label("Timeline playhead").rect();
    let zoom = desk.state().sequence.drawn_zoom;
    desk.press(pos2(ruler.left() + zoom, ruler.center().y));
    assert!(desk.state().monitor.sequence, "the monitor shows the timeline now");
    assert!((desk.state().sequence.playhead - 1.0).abs() < 0.01, "{}", desk.state().sequence.playhead);
    key(&mut desk, Modifiers::NONE, Key::S);
    assert_eq!(spans(&desk), [span("shot", 0.0, 1.0), span("shot", 1.0, 2.0), span("other", 2.0, 4.0)]);

    // An end is dragged; it snaps to nothing there, and stays on the grid of frames.
    let handle = desk.harness.get_by_label("Trim the end of Other").rect();
    desk.drag(handle.center(), handle.center() - eframe::egui::vec2(zoom * 0.77, 0.0));
    assert_eq!(spans(&desk)[2], span("other", 2.0, 3.25));

    // A clip is dragged far right, and back near the cut, where it snaps.
    let zoom = desk.state().sequence.drawn_zoom;
    let clip = desk.harness.get_by_label_contains("Clip Other at").rect();
    desk.drag(clip.center(), clip.center() + eframe::egui::vec2(zoom * 2.0, 0.0));
    assert_eq!(spans(&desk)[2], span("other", 4.0, 5.25));
    let zoom = desk.state().sequence.drawn_zoom;
    let clip = desk.harness.get_by_label_contains("Clip Other at").rect();
    desk.drag(clip.center(), clip.center() - eframe::egui::vec2(zoom * 2.0 - 5.0, 0.0));
    assert_eq!(spans(&desk)[2], span("other", 2.0, 3.25), "snapped to the end of the clip before");

    key(&mut desk, Modifiers::NONE, Key::Delete);
    assert_eq!(spans(&desk).len(), 2, "the chosen clip is taken off; its shot stays");
    assert!(desk.state().project.as_ref().unwrap().document().node("other").is_some());
    for _ in 0..5 {
        key(&mut desk, Modifiers::COMMAND, Key::Z);
    }
    assert_eq!(desk.state().project.as_ref().unwrap().value(), &begun);
    assert!(!desk.state().project.as_ref().unwrap().is_dirty());
}

#[test]
fn the_timeline_plays_with_shuttle_keys_and_goes_from_cut_to_cut() {
    let mut desk = desk();
    key(&mut desk, Modifiers::NONE, Key::ArrowDown);
    assert_eq!(desk.state().sequence.playhead, 2.0);
    assert!(desk.has("Timeline of 32 frames"));
    key(&mut desk, Modifiers::NONE, Key::L);
    key(&mut desk, Modifiers::NONE, Key::L);
    assert_eq!(desk.state().monitor.speed, 2.0);
    desk.steps(12);
    let later = desk.state().sequence.playhead;
    assert!(later > 2.2, "{later}");
    key(&mut desk, Modifiers::NONE, Key::J);
    desk.steps(6);
    assert!(desk.state().sequence.playhead < later, "backward");
    key(&mut desk, Modifiers::NONE, Key::K);
    assert!(!desk.state().monitor.is_playing());
    key(&mut desk, Modifiers::NONE, Key::ArrowUp);
    assert_eq!(desk.state().sequence.playhead, 2.0);
    let (node, _) = desk.state().timeline().unwrap().seen(2.0).map(|(_, c)| (c.node.clone(), ())).unwrap();
    assert_eq!(node, "other");
    // Cut off what comes before 2.5 s of it.
    desk.state_mut().show_timeline_at(2.5);
    desk.steps(2);
    key(&mut desk, Modifiers::NONE, Key::Q);
    assert_eq!(spans(&desk)[1], span("other", 2.5, 4.0));
}

#[test]
fn tracks_are_added_hidden_and_locked() {
    let mut desk = desk();
    desk.click("Add track");
    desk.click("Fit timeline");
    assert!(desk.has("Track V2"));
    let (clip, track) = (
        desk.harness.get_by_label_contains("Clip Other at").rect(),
        desk.harness.get_by_label("Track V2").rect(),
    );
    desk.drag(clip.center(), pos2(clip.center().x - 60.0, track.center().y));
    let at = desk.state().sequence.chosen.unwrap();
    assert_eq!(at.0, 1, "it lies on the upper track");
    desk.click("Hide track V2");
    assert!(desk.state().timeline().unwrap().tracks[1].hidden && desk.has("Show track V2"));
    desk.click("Lock track V2");
    let before = spans(&desk);
    let clip = desk.harness.get_by_label_contains("Clip Other at").rect();
    desk.drag(clip.center(), clip.center() + eframe::egui::vec2(80.0, 0.0));
    assert_eq!(spans(&desk), before, "a locked track stays as it is");
}

#[test]
fn keys_are_set_dragged_copied_and_pasted() {
    let mut desk = desk();
    desk.state_mut().choose("shot");
    desk.state_mut().show_timeline_at(0.5);
    desk.steps(3);
    desk.click("Set key of Magnitude of Rocket");
    assert_eq!(keys_of(&magnitude(&desk)), [(0.5, 0.6)]);
    desk.state_mut().show_timeline_at(1.0);
    desk.steps(2);
    // With keys the slider sets one where the playhead is; its ticks are one edit.
    for percent in [30.0, 25.0, 20.0] {
        desk.state_mut().change_magnitude(0, percent / 100.0);
    }
    desk.state_mut().close_gesture();
    desk.steps(3);
    assert_eq!(keys_of(&magnitude(&desk)), [(0.5, 0.6), (1.0, 0.2)]);

    let second = desk.harness.get_by_label_contains("Key 2 of Magnitude of Rocket").rect();
    let zoom = desk.state().sequence.drawn_zoom;
    desk.drag(second.center(), second.center() + eframe::egui::vec2(zoom * 0.5, -8.0));
    let moved = keys_of(&magnitude(&desk))[1];
    assert!((moved.0 - 1.5).abs() < 0.03 && moved.1 > 0.3, "{moved:?}");
    key(&mut desk, Modifiers::COMMAND, Key::Z);
    assert_eq!(keys_of(&magnitude(&desk))[1], (1.0, 0.2), "one drag, one edit");

    // Both keys go over the clipboard to another moment.
    desk.state_mut().sequence.keys = Some((0, vec![0, 1]));
    desk.harness.event(Event::Copy);
    desk.harness.step();
    let commands = desk.harness.output().platform_output.commands.clone();
    let copied = commands.iter().find_map(|command| match command {
        eframe::egui::OutputCommand::CopyText(text) => Some(text.clone()),
        _ => None,
    });
    let copied = copied.expect("the keys are on the clipboard");
    desk.state_mut().show_timeline_at(1.25);
    desk.harness.event(Event::Paste(copied));
    desk.steps(3);
    assert_eq!(keys_of(&magnitude(&desk)), [(0.5, 0.6), (1.0, 0.2), (1.25, 0.6), (1.75, 0.2)]);

    desk.state_mut().sequence.keys = Some((0, vec![0, 1, 2, 3]));
    desk.state_mut().focus = crate::gui::sequence::Focus::Timeline;
    key(&mut desk, Modifiers::NONE, Key::Delete);
    assert_eq!(magnitude(&desk), Number::Constant(0.6), "without keys it is one number again");
}

fn clicks(desk: &Desk, region: usize) -> MaskClick {
    match &desk.state().item().unwrap().regions()[region].shape {
        Shape::Clicks(clicks) => clicks.clone(),
        other => panic!("{other:?}"),
    }
}

fn mask(desk: &mut Desk, region: usize) -> kinora_pipeline::media::Mask {
    let begun = std::time::Instant::now();
    loop {
        desk.steps(1);
        match desk.state_mut().mask(region) {
            Some(Masking::Ready(mask)) => return (*mask.mask).clone(),
            Some(Masking::Failed(why)) => panic!("{why}"),
            _ => {}
        }
        assert!(begun.elapsed().as_secs() < 120, "the mask was not cut");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn brush_and_eraser_shape_a_mask_as_a_render_does() {
    let mut desk = desk();
    let before = mask(&mut desk, 0);
    key(&mut desk, Modifiers::NONE, Key::B);
    assert_eq!(desk.state().canvas.tool, Tool::Brush);
    let (from, to) = (desk.on_picture(0.1, 0.1), desk.on_picture(0.3, 0.1));
    desk.drag(from, to);
    let strokes = clicks(&desk, 0).strokes;
    assert_eq!(strokes.len(), 1);
    assert!(strokes[0].points.len() > 3 && !strokes[0].erase, "{strokes:?}");
    key(&mut desk, Modifiers::NONE, Key::E);
    desk.click_picture(0.2, 0.1);
    let strokes = clicks(&desk, 0).strokes;
    assert!(strokes.len() == 2 && strokes[1].erase, "a dot of the eraser: {strokes:?}");

    let after = mask(&mut desk, 0);
    let at = |mask: &kinora_pipeline::media::Mask, x: f64, y: f64| {
        let (w, h) = (f64::from(mask.width()), f64::from(mask.height()));
        mask.alpha()[(y * h) as usize * mask.width() as usize + (x * w) as usize]
    };
    assert_eq!((at(&before, 0.12, 0.1), at(&after, 0.12, 0.1)), (0.0, 1.0), "painted");
    assert_eq!(at(&after, 0.2, 0.1), 0.0, "and erased");
    assert_eq!(at(&after, 0.5, 0.6), at(&before, 0.5, 0.6), "the rest is as it was clicked");

    // The very same pixels come out of a render of the document.
    let document = desk.state().project.as_ref().unwrap().document().clone();
    let Some(Op::MaskClick(op)) = document.node("rocket").map(|node| node.op.clone()) else {
        panic!("no mask")
    };
    let theirs = op.painted(Some(before), after.width(), after.height()).unwrap();
    assert_eq!(after, theirs);

    // A region may be nothing but paint.
    desk.click("New region");
    key(&mut desk, Modifiers::NONE, Key::B);
    let (from, to) = (desk.on_picture(0.7, 0.2), desk.on_picture(0.8, 0.3));
    desk.drag(from, to);
    assert_eq!(desk.state().item().unwrap().regions().len(), 2);
    assert!(clicks(&desk, 1).points.is_empty() && clicks(&desk, 1).strokes.len() == 1);
    let painted = mask(&mut desk, 1);
    assert_eq!((at(&painted, 0.75, 0.25), at(&painted, 0.5, 0.6)), (1.0, 0.0));
    desk.state_mut().todo.push(Command::Undo);
    desk.steps(3);
    assert_eq!(desk.state().item().unwrap().regions().len(), 1);
}

#[test]
fn the_words_of_a_region_are_typed_where_they_stand_over_time() {
    let mut desk = desk();
    let begun = desk.state().project.as_ref().unwrap().value().clone();
    let name = desk.state().item().unwrap().regions()[0].name.clone();
    let label = format!("Prompt of {name}");
    let bar = desk.harness.get_by_label(&label).rect();
    let length = 2.0 * desk.state().sequence.drawn_zoom;
    assert!(bar.width() > 48.0 && bar.width() <= length, "{bar:?} within {length} points of the shot");
    desk.harness.get_by_label(&label).focus();
    desk.steps(2);
    desk.harness.key_press_modifiers(Modifiers::COMMAND, Key::A);
    desk.harness.event(Event::Text("sway in the wind".into()));
    desk.steps(2);
    let prompt = |desk: &Desk| desk.state().item().unwrap().regions()[0].prompt.clone();
    assert_eq!(prompt(&desk), "sway in the wind");
    assert_eq!(desk.state().choice.region, Some(0), "and the region is the chosen one");
    // Letters are words there, not shortcuts: nothing was split or marked.
    assert_eq!(spans(&desk), [span("shot", 0.0, 2.0), span("other", 2.0, 4.0)]);
    key(&mut desk, Modifiers::NONE, Key::Enter);
    key(&mut desk, Modifiers::COMMAND, Key::Z);
    assert_eq!(*desk.state().project.as_ref().unwrap().value(), begun, "all of it is one step back");
    // A field with nothing in it leaves the last words in the document.
    desk.harness.get_by_label(&label).focus();
    desk.steps(2);
    desk.harness.key_press_modifiers(Modifiers::COMMAND, Key::A);
    desk.harness.key_press(Key::Delete);
    desk.steps(2);
    assert_eq!(*desk.state().project.as_ref().unwrap().value(), begun);
}
