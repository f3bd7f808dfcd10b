//! A shot is rendered with a public checkpoint that is chosen by name: a miniature, installed as if it had been fetched.

#[path = "../../../../pipeline/tests/support/tiny_sd.rs"]
#[allow(dead_code)]
mod tiny_sd;

use eframe::egui::{Event, Key, Modifiers, vec2};
use egui_kittest::kittest::Queryable as _;
use serde_json::{Value, json};

use super::support::{Desk, SMALL};
use crate::cli::DeviceChoice;
use crate::gui::layout::Pane;
use crate::gui::model::changes;
use crate::gui::model::queue::Phase;
use tiny_sd::Kind;

/// A window with room for the whole inspector, a small shot, and the miniature installed as PIA.
fn desk(steps: u32) -> Desk {
    let mut desk = Desk::sized(vec2(1440.0, 1500.0));
    tiny_sd::install(&desk.path("models"), "pia", Kind::Pia);
    desk.open(&SMALL.replace("\"steps\": 1", &format!("\"steps\": {steps}")));
    desk.wait("the models are listed", |state| state.models.is_listed());
    desk
}

fn shot(desk: &Desk) -> Value {
    desk.state().project.as_ref().unwrap().value()["nodes"]["shot"].clone()
}

fn choose(desk: &mut Desk, list: &str, line: &str) {
    desk.click(list);
    desk.click(line);
}

/// What the forecast says once it is about the document as it is.
fn outlook(desk: &mut Desk) -> String {
    let words = |desk: &Desk| {
        use egui_kittest::kittest::NodeT as _;
        let all = desk.harness.query_all_by_label_contains(" of memory");
        all.filter_map(|node| node.accesskit_node().value())
            .find(|words| words.starts_with("about ") || words.starts_with("perhaps "))
    };
    desk.wait("the forecast is there", |state| state.outlooks.is_settled());
    words(desk).expect("time and memory are told")
}

const OWN: [&str; 5] =
    ["Negative prompt", "Guidance scale", "Sampler", "Working size", "Hold the background"];

#[test]
fn a_shot_is_rendered_with_a_checkpoint_chosen_by_name() {
    let mut desk = desk(2);
    for label in OWN {
        assert!(!desk.has(label), "the embedded model has no {label}");
    }
    let small = outlook(&mut desk);
    // One that is not here leads to where it can be fetched.
    choose(&mut desk, "Model", "animatediff-v2, not here");
    assert!(desk.has("Fetch animatediff-v2") && desk.has("About 1.82 GB to fetch"));
    let memory = desk.harness.query_all_by_label_contains("Needs about 5.9").count();
    assert!(memory >= 3, "what it takes in memory is told: {memory}");
    assert_eq!(shot(&desk).get("model"), None);

    let before = desk.state().project.as_ref().unwrap().value().clone();
    choose(&mut desk, "Model", "pia");
    assert_eq!(shot(&desk)["model"], "pia");
    for label in OWN {
        assert!(desk.has(label), "a public checkpoint has {label}");
    }
    assert!(!desk.has("Carry the picture along its motion"), "nor what only the embedded one does");
    desk.harness.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    desk.steps(3);
    assert_eq!(desk.state().project.as_ref().unwrap().value(), &before);
    assert!(!desk.has("Sampler"));
    desk.harness.key_press_modifiers(Modifiers::COMMAND | Modifiers::SHIFT, Key::Z);
    desk.steps(3);

    choose(&mut desk, "Sampler", "Euler, Karras");
    choose(&mut desk, "Working size", "256");
    let large = outlook(&mut desk);
    assert_ne!(large, small, "the forecast is that of the model");
    desk.state_mut().edit(|project| changes::set_shot(project, "shot", "working_size", Some(json!(64))));
    desk.state_mut().close_gesture();
    assert_ne!(outlook(&mut desk), large, "and of its working size");
    desk.harness.get_by_label("Negative prompt").click();
    desk.steps(2);
    desk.harness.event(Event::Text("rain".into()));
    desk.steps(3);
    desk.click("Hold the background");
    let expected = json!({ "sampler": "euler_karras", "working_size": 64, "negative_prompt": "rain",
        "pin_background": false, "model": "pia" });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&shot(&desk)[name], value, "{name}");
    }

    // What was said lies over the button for a while.
    desk.state_mut().toasts.clear();
    desk.steps(2);
    desk.click("Animate");
    desk.wait("the clip is there", |state| !state.takes().is_empty());
    let takes = desk.state().takes();
    assert_eq!(takes.len(), 1, "{:?}", desk.said());
    assert_eq!(takes[0].nodes["shot"]["model"], "pia");
    let clip = crate::gui::jobs::clip_of(desk.state(), &takes[0]).unwrap();
    assert_eq!((clip.frames(), clip.width().max(clip.height())), (3, 128));

    // The embedded model has no use for any of it; going back to it is one edit.
    let public = desk.state().project.as_ref().unwrap().value().clone();
    // The list of models, which names it too, goes out of the way.
    desk.state_mut().show_pane = Some(Pane::Media);
    desk.steps(3);
    choose(&mut desk, "Model", "Kinora mini");
    let embedded = shot(&desk);
    assert_eq!(embedded["model"], "embedded");
    for name in ["negative_prompt", "guidance_scale", "sampler", "working_size", "pin_background"] {
        assert_eq!(embedded.get(name), None, "{name}");
    }
    desk.state_mut().todo.push(crate::gui::command::Command::Undo);
    desk.steps(3);
    assert_eq!(desk.state().project.as_ref().unwrap().value(), &public);
    desk.state_mut().todo.push(crate::gui::command::Command::Save);
    desk.steps(3);
    let text = std::fs::read_to_string(desk.path("project/shot.kinora.json")).unwrap();
    assert!(text.contains("\"model\": \"pia\"") && text.contains("\"negative_prompt\": \"rain\""), "{text}");
}

#[test]
fn nothing_of_a_job_that_was_stopped_stays_in_memory() {
    let mut desk = desk(400);
    desk.state_mut().edit(|project| changes::set_model(project, "shot", "pia"));
    desk.state_mut().edit(|project| changes::set_shot(project, "shot", "working_size", Some(json!(64))));
    desk.steps(2);
    for model in ["pia", "embedded"] {
        desk.state_mut().edit(|project| changes::set_model(project, "shot", model));
        // What was said lies over the button for a while.
        desk.state_mut().toasts.clear();
        desk.steps(2);
        desk.click("Animate");
        desk.wait("it denoises", |state| {
            state.runner.look(|_, live| live.is_some_and(|live| live.doing.starts_with("Imagining")))
        });
        let machinery = desk.state().shop.held().expect("the job renders with something");
        let weights = {
            let held = machinery.upgrade().expect("while it runs");
            let name = kinora_pipeline::workflow::ModelName { name: model, folder: None };
            std::sync::Arc::downgrade(&kinora_pipeline::workflow::Engines::animator(&*held, &name).unwrap())
        };
        assert!(weights.upgrade().is_some(), "its weights are there while it runs");
        let begun = std::time::Instant::now();
        desk.click("Stop");
        while desk.state().runner.is_running() {
            assert!(begun.elapsed().as_secs() < 60, "it never stops");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        // Whoever waits for the job to be over finds everything gone.
        assert!(weights.upgrade().is_none() && machinery.upgrade().is_none(), "{model} is still there");
        println!("{model}: everything is free {} ms after Stop", begun.elapsed().as_millis());
        // A step of the embedded model takes as long as the processor is busy; the miniature's takes no time.
        assert!(model != "pia" || begun.elapsed().as_millis() < 2000, "{:?}", begun.elapsed());
        desk.steps(3);
        let phase = desk.state().runner.look(|queue, _| queue.jobs()[0].phase);
        assert_eq!(phase, Phase::Stopped);
    }
}

#[test]
fn jobs_render_on_the_device_that_is_chosen_where_there_is_a_choice() {
    let mut desk = Desk::new();
    desk.open(SMALL);
    desk.state_mut().show_pane = Some(Pane::Models);
    desk.steps(3);
    let cards = desk.state().cards().len();
    assert_eq!(desk.has("Compute on"), cards > 0, "shown only where there is a card");
    assert!(cards == 0 || cfg!(feature = "cuda"));
    assert_eq!(desk.state().settings.device(), DeviceChoice::Cpu);

    // A card that is not there is refused by the job itself, and the processor is chosen again.
    desk.state_mut().choose_device(DeviceChoice::Cuda(63));
    desk.click("Animate");
    desk.wait("it failed", |state| !state.runner.is_running() && !state.toasts.log().is_empty());
    let said = desk.said().join(" ");
    assert!(said.contains("cuda:63"), "{said}");
    assert_eq!(desk.state().settings.device, "cuda:63");
    desk.state_mut().choose_device(DeviceChoice::Cpu);
    desk.state_mut().toasts.clear();
    desk.steps(2);
    desk.click("Animate");
    desk.wait("the clip is there", |state| !state.takes().is_empty());
    let desk = desk.reopened();
    assert_eq!(desk.state().settings.device, "cpu", "it is remembered");
}
