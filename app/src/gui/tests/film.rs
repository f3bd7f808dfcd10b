//! The timeline as one file: slipped, faded, exported, and the same from a terminal.

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use eframe::egui::{Event, Key, Modifiers, vec2};
use egui_kittest::kittest::Queryable as _;
use serde_json::Value;

use super::support::{Desk, SMALL, frames};
use crate::gui::command::Command;
use crate::gui::model::queue::Phase;
use crate::gui::overlays::modal::Modal;
use crate::gui::sequence::Seen;

/// Two shots of six frames each.
fn two() -> String {
    let small = SMALL.replace("\"frames\": 3", "\"frames\": 6");
    small.replace(
        "    \"file\": {",
        "    \"other\": {
      \"op\": \"animate.click\", \"image\": \"@photo\", \"mask\": \"@rocket\", \"prompt\": \"sink\",
      \"frames\": 6, \"fps\": 8, \"steps\": 1, \"size\": 128
    },
    \"file\": {",
    )
}

fn desk() -> (Desk, PathBuf) {
    let mut desk = Desk::new();
    let path = desk.open(&two());
    desk.wait("the picture is there", |state| {
        let key = state.item().and_then(|item| state.picture_key(item));
        key.is_some_and(|key| state.pictures.size(&key).is_some())
    });
    (desk, path)
}

fn clip(desk: &Desk, index: usize) -> crate::gui::model::timeline::Placed {
    desk.state().timeline().unwrap().clip((0, index)).unwrap().clone()
}

fn choose(desk: &mut Desk, name: &str) {
    let rect = desk.harness.get_by_label_contains(&format!("Clip {name} at")).rect();
    desk.press(rect.center());
}

fn pixels(file: &Path) -> Value {
    let receipt = std::fs::read_to_string(format!("{}.receipt.json", file.display())).unwrap();
    serde_json::from_str::<Value>(&receipt).unwrap()["output"]["pixels"].clone()
}

#[test]
fn a_clip_is_slipped_by_key_and_by_dragging_with_alt() {
    let (mut desk, _) = desk();
    let begun = desk.state().project.as_ref().unwrap().value().clone();
    choose(&mut desk, "Other");
    desk.state_mut().show_timeline_at(1.25);
    desk.steps(2);
    // The whole shot is seen: there is nothing to slip until it is trimmed.
    desk.harness.key_press_modifiers(Modifiers::ALT, Key::ArrowRight);
    desk.steps(3);
    assert!(desk.said().iter().any(|said| said == "the end of the shot is seen already"));
    desk.harness.key_press_modifiers(Modifiers::NONE, Key::W);
    desk.steps(3);
    assert_eq!((clip(&desk, 1).from, clip(&desk, 1).to), (0.0, 0.5), "trimmed to half a second");
    desk.harness.key_press_modifiers(Modifiers::ALT, Key::ArrowRight);
    desk.steps(3);
    let slipped = clip(&desk, 1);
    assert_eq!((slipped.at, slipped.from, slipped.to), (0.75, 0.125, 0.625), "in its place, one frame later");

    // Dragged to the left with Alt held, later frames come into sight, as far as there are any.
    let rect = desk.harness.get_by_label_contains("Clip Other at").rect();
    let zoom = desk.state().sequence.drawn_zoom;
    desk.harness.event(Event::ModifiersChanged(Modifiers::ALT));
    desk.steps(1);
    desk.drag(rect.center(), rect.center() - vec2(zoom * 2.0, 0.0));
    desk.harness.event(Event::ModifiersChanged(Modifiers::NONE));
    desk.steps(1);
    let slipped = clip(&desk, 1);
    assert_eq!((slipped.at, slipped.from, slipped.to), (0.75, 0.25, 0.75));
    for _ in 0..3 {
        desk.state_mut().todo.push(Command::Undo);
        desk.steps(2);
    }
    assert_eq!(desk.state().project.as_ref().unwrap().value(), &begun, "three steps, three undone");
}

#[test]
fn the_whole_timeline_is_exported_as_one_file_and_is_the_same_from_a_terminal() {
    let (mut desk, path) = desk();
    // The second shot lies on a track above, over the end of the first, and fades in.
    desk.state_mut().arrange("Arrange", |timeline| {
        timeline.add_track();
        timeline.move_clip((0, 1), 1, 0.5);
    });
    desk.state_mut().sequence.chosen = Some((1, 0));
    desk.state_mut().todo.push(Command::FadeIn);
    desk.steps(3);
    let faded = desk.state().timeline().unwrap().clip((1, 0)).unwrap().clone();
    assert_eq!(faded.fade_in, 0.375);
    assert!(desk.harness.query_all_by_label("Fade the start of Other").count() == 1);
    let layers = desk.state_mut().seen(0.5);
    assert!(
        matches!(&layers[..], [(Seen::Still(a), 1.0), (Seen::Still(b), part)]
        if a == "shot" && b == "other" && (*part - 1.0 / 6.0).abs() < 1e-6),
        "{layers:?}"
    );

    desk.state_mut().todo.push(Command::ExportTimeline);
    desk.steps(3);
    assert!(desk.has("Export the timeline") && desk.has("Other shapes"));
    // Without loss, so that the frames can be compared.
    desk.click("Format");
    desk.click("FFV1 — lossless");
    let Some(Modal::Export { dest, .. }) = desk.state().modal.clone() else { panic!("the dialog is gone") };
    assert_eq!(dest, path.parent().unwrap().join("out/timeline.mkv"));
    desk.click_top("Export");
    let wanted = dest.clone();
    desk.wait("the file is there", move |state| wanted.is_file() && !state.runner.is_running());
    let job = desk.state().runner.look(|queue, _| queue.jobs()[0].clone());
    assert_eq!((job.phase, job.files), (Phase::Done, vec![dest.clone()]), "{:?}", job.error);
    let ours = frames(&dest);
    let info = desk.state().timeline_info().unwrap();
    assert_eq!((ours.len(), info.frames), (10, 10), "1.25 s at eight a second");
    assert!(ours[0] != ours[9]);

    // The saved document gives the very same frames from a terminal, in a process and cache of its own.
    desk.state_mut().todo.push(Command::Save);
    desk.steps(2);
    let program = std::env::current_exe().unwrap();
    let program = program.ancestors().nth(2).unwrap().join(format!("kinora{}", std::env::consts::EXE_SUFFIX));
    if !program.is_file() {
        println!("skipped in part: the program is not built beside its tests");
        return;
    }
    let out = desk.path("elsewhere");
    let run = Process::new(&program)
        .arg("render")
        .arg(&path)
        .arg("--out")
        .arg(&out)
        .env("KINORA_CACHE", desk.path("other-cache"))
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let theirs = out.join("out/timeline.mkv");
    assert!(frames(&theirs) == ours, "frame by frame");
    assert_eq!(pixels(&theirs), pixels(&dest));
}

#[test]
fn a_timeline_becomes_a_folder_of_pictures() {
    let (mut desk, path) = desk();
    desk.state_mut().todo.push(Command::ExportTimeline);
    desk.steps(3);
    desk.click("Format");
    desk.click("PNG pictures — a folder");
    let saved = &desk.state().project.as_ref().unwrap().value()["nodes"]["timeline_file"];
    assert_eq!(saved["op"], "sequence.save");
    desk.click_top("Export");
    let folder = path.parent().unwrap().join("out/timeline");
    let wanted = folder.clone();
    desk.wait("the pictures are there", move |state| wanted.is_dir() && !state.runner.is_running());
    let pictures = Desk::list(&folder).into_iter().filter(|name| name.ends_with(".png"));
    assert_eq!(pictures.count(), 12);
    assert!(desk.state().project.as_ref().unwrap().undo_label().is_some());
    while desk.state().project.as_ref().unwrap().undo_label().is_some() {
        desk.state_mut().todo.push(Command::Undo);
        desk.steps(1);
    }
    assert!(desk.state().project.as_ref().unwrap().document().node("timeline").is_none());
}

#[test]
fn a_shot_is_made_again_with_another_seed_and_goes_on_from_its_last_frame() {
    let (mut desk, _) = desk();
    assert_eq!(desk.state().blocked(Command::Extend).as_deref(), Some("there is no clip yet; press Animate"));
    desk.click("Animate");
    desk.wait("the clip is there", |state| state.takes().len() == 1);
    desk.state_mut().todo.push(Command::Retake);
    desk.wait("there is another", |state| state.takes().len() == 2);
    let seeds: Vec<_> = desk.state().takes().iter().map(|take| take.summary("shot").1).collect();
    // The first was made with the seed a shot has unless it says one.
    assert_eq!(seeds, [Some(8), None]);
    let label = desk.state().project.as_ref().unwrap().undo_label().map(str::to_owned);
    assert_eq!(label.as_deref(), Some("Change seed"));

    desk.state_mut().todo.push(Command::Extend);
    desk.steps(3);
    let item = desk.state().item().unwrap().clone();
    assert_eq!((item.name.as_str(), item.shot.is_none()), ("Photo continued", true));
    desk.wait("the picture is there", |state| {
        let key = state.item().and_then(|item| state.picture_key(item));
        key.is_some_and(|key| state.pictures.size(&key).is_some())
    });
    desk.click_picture(0.5, 0.5);
    assert_eq!(desk.state().region().unwrap().1.prompt, "rise slowly", "it goes on as it moved before");
}
