//! The whole way by the names of what is on the screen, and every kind of edit there and back.

use eframe::egui::{Event, Key, Modifiers, vec2};
use egui_kittest::kittest::Queryable as _;
use kinora_pipeline::control::mask::Stroke;
use kinora_pipeline::media::{VideoLimits, VideoReader};
use kinora_pipeline::workflow::KeyEase;
use kinora_pipeline::workflow::ops::Candidate;
use serde_json::json;

use super::support::{Desk, SMALL};
use crate::gui::command::Command;
use crate::gui::model::changes::{self, Click, NewItem};
use crate::gui::model::project::{EditError, Project};
use crate::gui::model::takes::{self, Take};
use crate::gui::model::timeline::Edge;
use crate::gui::model::{film, keys};

/// Types into a field in place of what is there.
fn type_into(desk: &mut Desk, label: &str, text: &str) {
    desk.harness.get_by_label(label).focus();
    desk.steps(2);
    desk.harness.key_press_modifiers(Modifiers::COMMAND, Key::A);
    desk.harness.event(Event::Text(text.into()));
    desk.steps(2);
}

fn choose(desk: &mut Desk, list: &str, line: &str) {
    desk.click(list);
    desk.click(line);
}

#[test]
fn a_picture_is_opened_clicked_told_rendered_played_and_exported() {
    let mut desk = Desk::sized(vec2(1440.0, 1300.0));
    desk.put("pictures/rocket.jpg", crate::gui::samples::SAMPLES[0].bytes);
    // What the desktop's own dialogs answer, in order.
    let picture = desk.path("pictures/rocket.jpg");
    std::fs::create_dir_all(desk.path("work")).unwrap();
    let document = desk.path("work/rocket.kinora.json");
    desk.state_mut().dialogs.script(vec![picture]);
    desk.click("Use your own picture…");
    desk.opened();
    desk.wait("the picture is there", |state| {
        let key = state.item().and_then(|item| state.picture_key(item));
        key.is_some_and(|key| state.pictures.size(&key).is_some())
    });
    desk.click_picture(0.5, 0.6);
    let regions = desk.harness.query_all_by_label_contains("Region 1").count();
    assert!(regions > 0, "what was clicked is a region");
    type_into(&mut desk, "How it moves", "sink slowly");
    type_into(&mut desk, "Frames", "3");
    desk.harness.key_press(Key::Enter);
    desk.steps(2);
    choose(&mut desk, "Longer side", "256");
    choose(&mut desk, "Steps", "4, quick");

    desk.click("Animate");
    desk.wait("the clip is there", |state| !state.takes().is_empty());
    assert!(
        desk.has("Clip of 3 frames") && desk.has("Take 1") || {
            desk.click("Takes");
            desk.has("Take 1")
        }
    );
    desk.wait("a frame is shown", |state| state.monitor.drawn.is_some());
    desk.wait("it plays by itself", |state| state.monitor.position > 0.1);
    desk.click("Pause");
    assert!(!desk.state().monitor.is_playing());
    desk.click("To the first frame");
    assert_eq!(desk.state().monitor.position, 0.0);
    // The menu of that name comes first.
    desk.harness.get_all_by_label("Play").next_back().unwrap().click();
    desk.wait("it plays again", |state| state.monitor.position > 0.1);
    desk.click("Pause");

    desk.state_mut().dialogs.script(vec![document.clone()]);
    desk.click("Save");
    desk.wait("it is saved", |state| state.project.as_ref().is_some_and(|project| !project.is_dirty()));
    desk.click("Export");
    choose(&mut desk, "Format", "FFV1 — lossless");
    desk.click_top("Export");
    let file = desk.path("work/out/rocket.mkv");
    let wanted = file.clone();
    desk.wait("the file is there", move |state| wanted.is_file() && !state.runner.is_running());

    let mut reader = VideoReader::open(&file, &VideoLimits::default()).unwrap();
    let mut frames = vec![];
    while let Some(frame) = reader.next_frame().unwrap() {
        frames.push(frame.picture);
    }
    assert_eq!(frames.len(), 3);
    let take = desk.state().takes()[0].clone();
    let clip = crate::gui::jobs::clip_of(desk.state(), &take).unwrap();
    for (at, frame) in frames.iter().enumerate() {
        let made = clip.frame(at).unwrap();
        assert_eq!((frame.width().max(frame.height()), made.width()), (256, frame.width()));
        let apart = made.rgb().iter().zip(frame.rgb()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(apart <= Some(1), "frame {at} of the file is that of the take: {apart:?}");
    }
    assert_ne!(clip.frame(0).unwrap().rgb(), clip.frame(2).unwrap().rgb(), "and something moves");
    let receipt = std::fs::read_to_string(format!("{}.receipt.json", file.display())).unwrap();
    assert!(receipt.contains("sink slowly"), "the file knows what made it");
}

/// Makes one edit after the other and remembers the document before each.
struct Walk {
    desk: Desk,
    before: Vec<(String, String)>,
}

fn text(desk: &Desk) -> String {
    serde_json::to_string_pretty(desk.state().project.as_ref().unwrap().value()).unwrap()
}

impl Walk {
    /// Makes one edit, which is called so.
    fn make(&mut self, label: &str, act: impl FnOnce(&mut Desk)) {
        let before = text(&self.desk);
        act(&mut self.desk);
        self.desk.steps(2);
        self.desk.state_mut().close_gesture();
        assert_ne!(text(&self.desk), before, "{label} changes something; said: {:?}", self.desk.said());
        assert_eq!(self.desk.state().project.as_ref().unwrap().undo_label(), Some(label));
        self.before.push((label.to_owned(), before));
    }

    fn edit(&mut self, label: &str, act: impl FnOnce(&mut Project) -> Result<(), EditError>) {
        self.make(label, |desk| {
            desk.state_mut().edit(act);
        });
    }

    fn command(&mut self, label: &str, command: Command) {
        self.make(label, |desk| desk.state_mut().todo.push(command));
    }
}

fn pictures_and_shapes(walk: &mut Walk) {
    walk.make("Add click", |desk| desk.state_mut().clicked(0.5, 0.4, true));
    walk.make("Leave out", |desk| desk.state_mut().clicked(0.1, 0.9, false));
    walk.edit("Move click", |p| changes::move_click(p, "shot", 0, 1, Click { x: 0.45, y: 0.45, keep: true }));
    walk.edit("Remove click", |p| changes::remove_click(p, "shot", 0, 1).map(|_| ()));
    let line = vec![(0.2, 0.2), (0.3, 0.25)];
    let more = line.clone();
    walk.make("Paint", |desk| desk.state_mut().stroked(line, false));
    walk.make("Erase", |desk| desk.state_mut().stroked(more, true));
    walk.edit("Remove strokes", |p| changes::clear_strokes(p, "shot", 0));
    walk.edit("Choose shape", |p| changes::set_candidate(p, "shot", 0, Candidate::Whole));
    walk.edit("Change feather", |p| changes::set_edge(p, "shot", 0, "feather", 3.0));
    walk.edit("Change grow", |p| changes::set_edge(p, "shot", 0, "dilate", -2.0));
    walk.edit("Change prompt", |p| changes::set_prompt(p, "shot", 0, "sway"));
    walk.edit("Change magnitude", |p| changes::set_magnitude(p, "shot", 0, 0.3));
    walk.edit("Rename", |p| changes::rename(p, "rocket", "The rocket"));
    walk.make("Add region", |desk| {
        desk.state_mut().canvas.new_region = true;
        desk.state_mut().clicked(0.2, 0.15, true);
    });
    walk.command("Reorder regions", Command::LowerRegion);
    walk.edit("Remove region", |p| changes::remove_region(p, "shot", 0));
    walk.edit("Add picture", |p| changes::add_item(p, NewItem::Picture("rocket.jpg")).map(|_| ()));
    walk.edit("Extend shot", |p| changes::add_continuation(p, "rocket.jpg", "shot").map(|_| ()));
    walk.edit("Remove picture", |p| changes::remove_item(p, "rocket_2"));
    let frame = |p: &mut Project| changes::add_item(p, NewItem::Frame("media/sea.mp4", 0.0)).map(|_| ());
    walk.edit("Add frame", frame);
    walk.edit("Choose frame", |p| changes::set_frame(p, "sea", 1.25));
    // A region of a picture without a shot makes that, and what saves it.
    walk.edit("Add region", |p| {
        let stroke = Stroke { points: vec![(0.5, 0.5)], radius: 0.05, erase: false };
        changes::add_region(p, "sea", changes::Start::Stroke(&stroke), "ripple").map(|_| ())
    });
    let found = crate::gui::model::patch::place!["nodes", "photo", "path"];
    walk.edit("Find missing file", |p| changes::relink(p, vec![(found, "media/other.jpg".into())]));
}

fn shots(walk: &mut Walk) {
    for (name, value) in [
        ("frames", json!(12)),
        ("fps", json!(12)),
        ("ease", json!("loop")),
        ("seed", json!(11)),
        ("size", json!(256)),
        ("steps", json!(6)),
        ("guide", json!(false)),
        ("composite", json!(false)),
    ] {
        walk.edit(&format!("Change {name}"), |p| changes::set_shot(p, "shot", name, Some(value)));
    }
    walk.edit("Change model", |p| changes::set_model(p, "shot", "pia"));
    for (name, value) in [
        ("negative_prompt", json!("rain")),
        ("guidance_scale", json!(3.5)),
        ("sampler", json!("euler")),
        ("working_size", json!(256)),
        ("pin_background", json!(false)),
    ] {
        walk.edit(&format!("Change {name}"), |p| changes::set_shot(p, "shot", name, Some(value)));
    }
    walk.edit("Change model", |p| changes::set_model(p, "shot", "embedded"));
    walk.edit("Change export", |p| changes::set_output(p, "file", "quality", Some(json!("high"))));
    walk.edit("Set key", |p| keys::set_key(p, "shot", 0, 0.25, Some(0.4)));
    walk.edit("Set key", |p| keys::set_key(p, "shot", 0, 0.75, Some(0.8)));
    walk.make("Move key", |desk| {
        desk.state_mut().choose("shot");
        desk.state_mut().sequence.keys = Some((0, vec![1]));
        desk.state_mut().todo.push(Command::RaiseKeys);
    });
    walk.edit("Change easing", |p| keys::set_ease(p, "shot", 0, KeyEase::Step));
    let copied = keys::Copied::from_text(r#"{"kinora_keys":[[0.0,0.1],[0.1,0.2]],"ease":"smooth"}"#).unwrap();
    walk.edit("Paste keys", |p| keys::paste_keys(p, "shot", 0, 0.5, &copied));
    walk.edit("Remove key", |p| keys::remove_keys(p, "shot", 0, &[0]));
    walk.edit("Remove all keys", |p| keys::clear_keys(p, "shot", 0, 0.5));
    walk.edit("Use take's settings", |p| takes::use_settings(p, "shot", &"a".repeat(64)));
    walk.make("Edit job", |desk| {
        let id = desk.state().runner.look(|queue, _| queue.jobs()[0].id);
        desk.state_mut().edit_job(id);
    });
}

fn timeline(walk: &mut Walk) {
    walk.command("Add track", Command::AddTrack);
    walk.make("Add to timeline", |desk| {
        desk.state_mut().choose("shot");
        desk.state_mut().todo.push(Command::AddToTimeline);
    });
    let arrange =
        |walk: &mut Walk, label: &str, change: &dyn Fn(&mut crate::gui::model::timeline::Timeline)| {
            walk.make(label, |desk| {
                desk.state_mut().arrange(label, change);
            });
        };
    arrange(walk, "Trim end", &|t| t.trim((0, 0), Edge::End, t.tracks[0].clips[0].end() - 0.125, 9.0, 0.125));
    arrange(walk, "Trim start", &|t| t.trim((0, 0), Edge::Start, 0.125, 9.0, 0.125));
    walk.make("Slip clip", |desk| {
        desk.state_mut().sequence.chosen = Some((0, 0));
        desk.state_mut().todo.push(Command::SlipEarlier);
    });
    for (label, command) in [
        ("Fade in", Command::FadeIn),
        ("Fade out", Command::FadeOut),
        ("Change track", Command::HideTrack),
        ("Change track", Command::HideTrack),
        ("Change track", Command::MuteTrack),
        ("Change track", Command::LockTrack),
        ("Change track", Command::LockTrack),
    ] {
        walk.command(label, command);
    }
    arrange(walk, "Change volume", &|t| t.set_volume((0, 0), 0.5));
    arrange(walk, "Mute clip", &|t| t.set_volume((0, 0), 0.0));
    arrange(walk, "Split clip", &|t| {
        let middle = (t.tracks[0].clips[0].at + t.tracks[0].clips[0].end()) / 2.0;
        assert!(t.split((0, 0), middle).is_some());
    });
    arrange(walk, "Cross-fade", &|t| assert!(t.cross((0, 1), 0.125)));
    arrange(walk, "Move clip", &|t| {
        t.move_clip((0, 1), 1, 3.0);
    });
    walk.make("Remove clip", |desk| {
        desk.state_mut().sequence.chosen = Some((1, 0));
        desk.state_mut().todo.push(Command::RemoveClip);
    });
    arrange(walk, "Remove track", &|t| assert!(t.remove_track(1)));
    walk.make("Remove clip and gap", |desk| {
        desk.state_mut().sequence.chosen = Some((0, 0));
        desk.state_mut().todo.push(Command::RippleClip);
    });
    walk.make("Make timeline a file", |desk| {
        let timeline = desk.state().timeline().unwrap().clone();
        desk.state_mut().edit(|project| film::make(project, &timeline, 8.0));
    });
    walk.make("Restore version", |desk| {
        let version = desk.path("version.kinora.json");
        desk.state_mut().project.as_mut().unwrap().restore(&version).unwrap();
    });
}

#[test]
fn every_kind_of_edit_is_undone_to_the_byte_and_made_again() {
    let mut desk = Desk::new();
    let small = SMALL.replace("\"frames\": 3", "\"frames\": 16");
    desk.open(&small);
    desk.put("version.kinora.json", small.replace("rise slowly", "grow").as_bytes());
    // A take to go back to, and a job that waits: neither is an edit.
    let nodes = desk.state().project.as_ref().unwrap().value()["nodes"].as_object().unwrap().clone();
    let mut nodes = nodes;
    nodes["shot"]["seed"] = json!(99);
    let take = Take { key: "a".repeat(64), made: 1, seconds: 1.0, star: false, nodes };
    desk.state_mut().edit(|project| takes::record(project, "shot", take));
    desk.state_mut().todo.push(Command::PauseQueue);
    desk.steps(2);
    desk.state_mut().animate();
    desk.steps(2);

    let begun = text(&desk);
    let mut walk = Walk { desk, before: vec![] };
    pictures_and_shapes(&mut walk);
    shots(&mut walk);
    timeline(&mut walk);
    let Walk { mut desk, before } = walk;
    let after: Vec<String> =
        before.iter().skip(1).map(|(_, text)| text.clone()).chain([text(&desk)]).collect();
    assert!(before.len() >= 70, "{}", before.len());

    for (label, earlier) in before.iter().rev() {
        desk.harness.key_press_modifiers(Modifiers::COMMAND, Key::Z);
        desk.steps(2);
        assert_eq!(&text(&desk), earlier, "{label} is taken back");
    }
    assert_eq!(text(&desk), begun);
    assert!(desk.state().project.as_ref().unwrap().undo_label().is_none());
    for ((label, _), later) in before.iter().zip(&after) {
        desk.harness.key_press_modifiers(Modifiers::COMMAND | Modifiers::SHIFT, Key::Z);
        desk.steps(2);
        assert_eq!(&text(&desk), later, "{label} is made again");
    }
    assert!(desk.state().project.as_ref().unwrap().redo_label().is_none());
}
