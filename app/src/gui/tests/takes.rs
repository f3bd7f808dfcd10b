//! Takes: compared side by side, kept up to a number, found again by the next window.

use eframe::egui::pos2;
use egui_kittest::kittest::Queryable as _;

use super::support::{Desk, SMALL};
use crate::gui::command::Command;
use crate::gui::layout::Pane;
use crate::gui::model::queue::{Ending, Order, Purpose};
use crate::gui::model::takes::{self, MAX_TAKES, Take};
use crate::gui::tasks::player::Film;

#[test]
fn two_takes_are_compared_across_a_line_that_can_be_dragged() {
    let mut desk = Desk::new();
    desk.open(SMALL);
    desk.click("Animate");
    desk.wait("the clip is there", |state| state.takes().len() == 1);
    desk.state_mut().todo.push(Command::Retake);
    desk.wait("there is another", |state| state.takes().len() == 2 && state.monitor.drawn.is_some());
    desk.state_mut().todo.push(Command::ShowPane(Pane::Takes));
    desk.steps(3);
    desk.state_mut().monitor.pause();
    let first = desk.state().takes()[1].cache_key().map(Film::Take);
    desk.click("Compare with Take 1");
    assert_eq!(desk.state().monitor.other, first);
    assert_ne!(desk.state().monitor.film, first, "beside the one that was shown");
    assert!(desk.has("Clip of 3 frames, compared from 50 % of its width on"));

    let stage = desk.harness.get_by_label_contains("Clip of 3 frames").rect();
    let (middle, y) = (stage.center().x, stage.center().y);
    desk.drag(pos2(middle, y), pos2(middle - stage.width() / 40.0, y));
    let wipe = desk.state().monitor.wipe;
    assert!((0.02..0.49).contains(&wipe), "{wipe}");
    assert!(!desk.state().monitor.is_playing(), "a drag does not play");
    desk.drag(pos2(middle, y), pos2(stage.right() + 200.0, y));
    assert_eq!(desk.state().monitor.wipe, 1.0, "no further than the picture");

    // Pressed again, or with the other take shown, there is one clip.
    desk.click("Compare with Take 1");
    assert_eq!(desk.state().monitor.other, None);
    assert!(desk.has("Clip of 3 frames"));
    desk.click("Compare with Take 1");
    desk.click("Take 1");
    assert_eq!((desk.state().monitor.film.clone(), desk.state().monitor.other.clone()), (first, None));
}

#[test]
fn the_oldest_take_goes_with_a_word() {
    let mut desk = Desk::new();
    desk.open(SMALL);
    for number in 0..MAX_TAKES {
        let project = desk.state_mut().project.as_mut().unwrap();
        let nodes = takes::nodes_of(project.value(), "shot");
        let take = Take { key: format!("{number:064x}"), made: 1, seconds: 1.0, star: number == 0, nodes };
        takes::record(project, "shot", take).unwrap();
    }
    desk.click("Animate");
    desk.wait("the clip is there", |state| state.takes().first().is_some_and(|take| take.made > 1));
    let list = desk.state().takes();
    assert_eq!(list.len(), MAX_TAKES);
    assert!(list.last().unwrap().star, "a favourite stays");
    let said = "a shot keeps 64 takes: the oldest without a star is off the list of Shot";
    assert!(desk.said().iter().any(|text| text == said), "{:?}", desk.said());
}

#[test]
fn a_take_made_while_its_project_was_closed_is_listed_when_it_opens() {
    let mut desk = Desk::new();
    let path = desk.open(SMALL);
    let (folder, document) = {
        let project = desk.state().project.as_ref().unwrap();
        (project.folder(), project.value().clone())
    };
    desk.state_mut().todo.push(Command::CloseProject);
    desk.steps(3);
    let purpose = Purpose::Take { shot: "shot".into() };
    let order = Order { title: "Shot", purpose, document, folder: &folder, out: None, force: false };
    desk.state_mut().runner.change(|queue| queue.add(order));
    desk.wait("it is made", |state| {
        state.runner.look(|queue, _| queue.jobs()[0].seconds > 0.0 && queue.jobs()[0].ended.is_some())
    });
    // The next window knows it too.
    let mut desk = desk.reopened();
    desk.open_any(&path);
    assert_eq!(desk.state().takes().len(), 1);
    assert!(desk.state().has_frames(&desk.state().takes()[0]));
    let again = desk.state_mut().runner.change(|queue| queue.take_unlisted(&folder));
    assert!(again.is_empty(), "it is listed once");
    // One that was stopped has made nothing.
    desk.state_mut().runner.change(|queue| {
        let purpose = Purpose::Take { shot: "shot".into() };
        let document = serde_json::json!({});
        let order = Order { title: "Other", purpose, document, folder: &folder, out: None, force: false };
        queue.set_paused(true);
        let id = queue.add(order);
        queue.end(id, Ending::Stopped, 0.0, vec![]);
    });
    desk.state_mut().list_takes();
    assert_eq!(desk.state().takes().len(), 1);
}
