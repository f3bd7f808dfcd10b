//! The line of jobs: paused, reordered, edited, kept.

use egui_kittest::kittest::{NodeT as _, Queryable as _};

use super::support::{Desk, SMALL};
use crate::gui::command::Command;
use crate::gui::layout::Pane;
use crate::gui::model::changes;
use crate::gui::model::queue::Phase;

fn titles(desk: &Desk) -> Vec<String> {
    desk.state().runner.look(|queue, _| queue.jobs().iter().map(|job| job.title.clone()).collect())
}

fn prompt(desk: &Desk) -> String {
    desk.state().item().unwrap().regions()[0].prompt.clone()
}

#[test]
fn the_line_is_paused_reordered_edited_and_survives_a_restart() {
    let mut desk = Desk::new();
    desk.open(SMALL);
    desk.state_mut().todo.extend([Command::PauseQueue, Command::ShowPane(Pane::Jobs)]);
    desk.steps(2);
    desk.state_mut().animate();
    desk.state_mut().edit(|project| changes::rename(project, "shot", "Second"));
    desk.state_mut().edit(|project| changes::set_prompt(project, "shot", 0, "drift left"));
    desk.state_mut().close_gesture();
    desk.state_mut().animate();
    desk.steps(3);
    assert_eq!(titles(&desk), ["Shot", "Second"]);
    desk.click("Second earlier");
    assert_eq!(titles(&desk), ["Second", "Shot"]);

    desk.click("Edit Shot");
    assert_eq!(titles(&desk), ["Second"], "it is out of the line");
    assert_eq!(prompt(&desk), "rise slowly", "what it would have made is in the inspector");
    desk.state_mut().todo.push(Command::Undo);
    desk.steps(3);
    assert_eq!(prompt(&desk), "drift left");

    let desk = desk.reopened();
    let (jobs, paused) = desk.state().runner.look(|queue, _| (queue.jobs().to_vec(), queue.is_paused()));
    assert!(paused && jobs.len() == 1 && jobs[0].phase == Phase::Waiting);
    assert_eq!(jobs[0].document["nodes"]["shot"]["regions"][0]["prompt"], "drift left");
}

#[test]
fn jobs_that_waited_begin_by_themselves_in_the_next_window() {
    let mut desk = Desk::new();
    desk.open(SMALL);
    desk.state_mut().todo.extend([Command::PauseQueue, Command::ShowPane(Pane::Jobs)]);
    desk.steps(2);
    desk.state_mut().animate();
    desk.steps(2);
    assert!(desk.has("Waiting"));
    // A queue that is paused stays so, and says what is in it.
    let mut desk = desk.reopened();
    assert!(desk.said().iter().any(|said| said == "the queue is paused: 1 job in it"), "{:?}", desk.said());
    std::thread::sleep(std::time::Duration::from_millis(200));
    desk.steps(3);
    assert!(!desk.state().runner.is_running());
    let path = desk.state().places.queue().join("queue.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"paused\":true"), "{text}");
    // As it is on the disk when a window dies while another job runs.
    std::fs::write(&path, text.replace("\"paused\":true", "\"paused\":false")).unwrap();
    let mut desk = desk.reopened();
    assert!(desk.said().iter().any(|said| said == "going on with 1 job that waited"), "{:?}", desk.said());
    // Nobody touches anything.
    desk.wait("it is done", |state| {
        state.runner.look(|queue, live| queue.jobs()[0].phase == Phase::Done && live.is_none())
    });
    let path = desk.path("project/shot.kinora.json");
    desk.open_any(&path);
    desk.state_mut().todo.push(Command::ShowPane(Pane::Jobs));
    desk.steps(3);
    assert!(desk.has("Done") && desk.has("Forget Shot"));
    assert_eq!(desk.state().takes().len(), 1, "its clip is among the takes");
}

#[test]
fn stop_is_answered_at_once() {
    let mut desk = Desk::new();
    desk.open(&SMALL.replace("\"steps\": 1", "\"steps\": 40"));
    desk.click("Animate");
    desk.wait("it runs", |state| state.runner.is_running());
    let begun = std::time::Instant::now();
    desk.state_mut().todo.push(Command::StopRender);
    desk.harness.step();
    desk.harness.step();
    let told = desk.state().runner.look(|_, live| live.is_none_or(|live| live.stopping));
    let took = begun.elapsed();
    println!("stop shown after {} ms", took.as_millis());
    assert!(told && took.as_millis() < 250, "{took:?}");
    assert!(desk.has("Stopping…") || !desk.state().runner.is_running());
    desk.wait("it stopped", |state| !state.runner.is_running());
}

#[test]
fn a_clip_moves_while_it_is_made() {
    let mut desk = Desk::new();
    desk.open(&SMALL.replace("\"steps\": 1", "\"steps\": 40"));
    desk.click("Animate");
    desk.wait("there is an outline", |state| state.made_now().is_some_and(|live| live.moving.is_some()));
    let seen = |desk: &Desk| {
        let found = desk.harness.query_all_by_label_contains("Preview of Shot, ");
        found.filter_map(|node| node.accesskit_node().label()).next()
    };
    assert_eq!(seen(&desk).as_deref(), Some("Preview of Shot, first outline"));
    desk.wait("steps show", |state| {
        state.made_now().and_then(|live| live.moving).is_some_and(|moving| moving.done > 0)
    });
    let label = seen(&desk).unwrap();
    assert!(label.ends_with(" of 40"), "{label}");

    // The list of jobs has it too, and leads back to it.
    desk.state_mut().monitor.toggle();
    desk.state_mut().todo.push(Command::ShowPane(Pane::Jobs));
    desk.steps(3);
    desk.click("Watch Shot being made");
    let live = desk.state().runner.look(|_, live| live.map(|live| live.id));
    assert_eq!(desk.state().monitor.making, live);
    desk.click("Stop");
    desk.wait("it stopped", |state| !state.runner.is_running());
    assert!(seen(&desk).is_none(), "what is not being made any more is not shown");
}
