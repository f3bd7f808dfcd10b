//! What the buttons of lists do is in the table of commands too, for the one that is chosen.

use eframe::egui::{Color32, ColorImage, Event, Key, ViewportCommand};
use egui_kittest::kittest::Queryable as _;
use kinora_pipeline::workflow::ops::Candidate;
use std::sync::Arc;

use super::support::{Desk, SMALL};
use crate::gui::command::Command;
use crate::gui::layout::Pane;
use crate::gui::model::changes;
use crate::gui::model::scene::Shape;
use crate::gui::state::MaskView;
use crate::gui::tasks::masks::{MaskShown, Masking};
use crate::gui::tasks::player::Film;

fn do_it(desk: &mut Desk, command: Command) {
    assert_eq!(desk.state().blocked(command), None, "{command:?}");
    desk.state_mut().todo.push(command);
    desk.steps(3);
}

fn mask(desk: &mut Desk) -> Arc<MaskShown> {
    let begun = std::time::Instant::now();
    loop {
        desk.steps(1);
        match desk.state_mut().mask(0) {
            Some(Masking::Ready(mask)) => return mask,
            Some(Masking::Failed(why)) => panic!("{why}"),
            _ => {}
        }
        assert!(begun.elapsed().as_secs() < 120, "the mask was not cut");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn pictures_are_pasted_from_menu_and_palette_too() {
    let mut desk = Desk::new();
    for project in [false, true] {
        // Nothing that moves is needed for a picture, nor a project.
        assert_eq!(desk.state().blocked(Command::PasteKeys), None, "with a project: {project}");
        desk.click("Edit");
        desk.harness.get_by_label_contains("Paste Ctrl").click();
        let asked = (0..6).any(|_| {
            desk.harness.step();
            let mut viewports = desk.harness.output().viewport_output.values();
            viewports.any(|viewport| viewport.commands.contains(&ViewportCommand::RequestPaste))
        });
        assert!(asked, "the desktop is asked what it has, as Ctrl-V does");
        // Which the desktop answers with what lies there.
        let copied = ColorImage::filled([40, 30], Color32::from_rgb(10, 200, 30));
        desk.harness.event(Event::PasteImage(Arc::new(copied)));
        desk.opened();
    }
    assert_eq!(desk.state().project.as_ref().unwrap().scene().items.len(), 2);
    assert!(desk.state().item().unwrap().name.starts_with("Pasted"));
}

#[test]
fn takes_are_compared_starred_and_gone_back_to_by_command() {
    let mut desk = Desk::new();
    desk.open(SMALL);
    assert!(desk.state().blocked(Command::CompareTakes).is_some());
    desk.state_mut().animate();
    desk.wait("the first take is there", |state| state.takes().len() == 1);
    do_it(&mut desk, Command::Retake);
    desk.wait("the second take is there", |state| state.takes().len() == 2);
    desk.wait("a frame is shown", |state| state.monitor.drawn.is_some());
    let [second, first] = [0, 1].map(|at| desk.state().takes()[at].clone());

    do_it(&mut desk, Command::CompareTakes);
    assert_eq!(desk.state().monitor.film, second.cache_key().map(Film::Take));
    assert_eq!(desk.state().monitor.other, first.cache_key().map(Film::Take), "the one before, beside it");
    // The line between them is dragged to a quarter.
    desk.wait("both are decoded", |state| !state.player.is_busy());
    desk.state_mut().monitor.pause();
    let stage = desk.harness.get_by_label_contains("Clip of 3 frames").rect();
    let from = stage.center();
    desk.drag(from, from - eframe::egui::vec2(stage.width() / 8.0, 0.0));
    let wipe = desk.state().monitor.wipe;
    assert!((0.2..0.45).contains(&wipe), "{wipe}");
    assert!(!desk.state().monitor.is_playing(), "a drag is no click");
    do_it(&mut desk, Command::CompareTakes);
    assert_eq!(desk.state().monitor.other, None);

    do_it(&mut desk, Command::StarTake);
    assert!(desk.state().takes()[0].star && !desk.state().takes()[1].star);
    desk.state_mut().edit(|project| changes::set_prompt(project, "shot", 0, "something else"));
    desk.state_mut().close_gesture();
    do_it(&mut desk, Command::UseTake);
    assert_eq!(desk.state().item().unwrap().regions()[0].prompt, "rise slowly");

    // The frames of the first are lost, and made again.
    assert!(desk.state().blocked(Command::RenderTakeAgain).is_some());
    let cache = kinora_pipeline::store::cache::Cache::open(&desk.state().places.cache).unwrap();
    let frames = cache.get(&first.cache_key().unwrap()).unwrap();
    std::fs::remove_dir_all(frames.path()).unwrap();
    drop(frames);
    do_it(&mut desk, Command::RenderTakeAgain);
    desk.wait("they are there again", |state| {
        !state.runner.is_running() && state.takes().iter().all(|take| state.has_frames(take))
    });
}

#[test]
fn jobs_tracks_and_the_network_by_command() {
    let mut desk = Desk::new();
    desk.open(SMALL);
    do_it(&mut desk, Command::PauseQueue);
    for name in ["One", "Two", "Three"] {
        desk.state_mut().edit(|project| changes::rename(project, "shot", name));
        desk.state_mut().close_gesture();
        desk.state_mut().animate();
    }
    desk.steps(2);
    let titles = |desk: &Desk| -> Vec<String> {
        desk.state().runner.look(|queue, _| queue.jobs().iter().map(|job| job.title.clone()).collect())
    };
    assert_eq!(titles(&desk), ["One", "Two", "Three"]);
    // Without a choice the last goes forward, and is the one that is chosen from then on.
    do_it(&mut desk, Command::JobEarlier);
    do_it(&mut desk, Command::JobEarlier);
    assert_eq!(titles(&desk), ["Three", "One", "Two"]);
    assert!(desk.state().blocked(Command::JobEarlier).is_some(), "it is the first");
    desk.state_mut().show_pane = Some(Pane::Jobs);
    desk.steps(3);
    desk.click("One");
    do_it(&mut desk, Command::JobLater);
    assert_eq!(titles(&desk), ["Three", "Two", "One"]);
    assert!(desk.state().blocked(Command::RetryJob).is_some());
    let id = desk.state().chosen_job.unwrap();
    desk.state_mut().runner.stop(id);
    desk.steps(2);
    do_it(&mut desk, Command::RetryJob);
    assert_eq!(desk.state().runner.look(|queue, _| queue.jobs().len()), 3, "it waits again");
    assert!(desk.state().blocked(Command::ClearFinished).is_some());

    let track = |desk: &Desk| desk.state().timeline().unwrap().tracks[0].clone();
    for command in [Command::HideTrack, Command::MuteTrack, Command::LockTrack] {
        do_it(&mut desk, command);
    }
    assert!(track(&desk).hidden && track(&desk).muted && track(&desk).locked);
    for command in [Command::LockTrack, Command::MuteTrack, Command::HideTrack] {
        do_it(&mut desk, command);
    }
    assert!(!track(&desk).hidden && !track(&desk).muted && !track(&desk).locked);

    do_it(&mut desk, Command::Offline);
    assert!(desk.state().settings.offline);
    do_it(&mut desk, Command::Offline);
    assert!(!desk.state().settings.offline);
}

#[test]
fn shapes_are_gone_through_and_regions_begun_by_key() {
    let mut desk = Desk::new();
    desk.open(SMALL);
    let count = mask(&mut desk).candidates.len();
    assert!(count > 1, "this click may mean several things");
    let candidate = |desk: &Desk| match &desk.state().item().unwrap().regions()[0].shape {
        Shape::Clicks(clicks) => clicks.candidate,
        other => panic!("{other:?}"),
    };
    let mut seen = vec![candidate(&desk)];
    loop {
        desk.harness.key_press(Key::C);
        desk.steps(2);
        mask(&mut desk);
        if candidate(&desk) == Candidate::Best {
            break;
        }
        assert!(!seen.contains(&candidate(&desk)), "each once: {seen:?}");
        seen.push(candidate(&desk));
    }
    assert_eq!(seen.len(), count + 1, "automatic and all that were found");
    do_it(&mut desk, Command::PreviousCandidate);
    assert_eq!(Some(&candidate(&desk)), seen.last(), "and backward");
    desk.harness.key_press(Key::R);
    desk.steps(2);
    assert!(desk.state().canvas.new_region);
}

#[test]
fn the_matte_is_the_mask_of_the_chosen_region_white_on_black() {
    let mut desk = Desk::new();
    desk.open(SMALL);
    let shown = mask(&mut desk);
    desk.click("Matte");
    assert_eq!(desk.state().canvas.view, MaskView::Matte);
    desk.steps(2);
    let image = desk.state().textures.shown("mask 0 Matte").expect("it is on the canvas");
    assert_eq!(image.size, [shown.mask.width() as usize, shown.mask.height() as usize]);
    let (mut white, mut black) = (0, 0);
    for (pixel, alpha) in image.pixels.iter().zip(shown.mask.alpha()) {
        assert_eq!(*pixel, Color32::from_gray((alpha * 255.0 + 0.5) as u8), "opaque and as grey as covered");
        white += usize::from(*alpha > 0.99);
        black += usize::from(*alpha < 0.01);
    }
    assert!(white > 1000 && black > 1000, "{white} {black}");

    // The key goes on: hidden, tinted, matte.
    for view in [MaskView::Hidden, MaskView::Tint, MaskView::Matte] {
        desk.harness.key_press(Key::M);
        desk.steps(2);
        assert_eq!(desk.state().canvas.view, view);
    }
    // Another region's mask is not on it.
    desk.state_mut().canvas.new_region = true;
    desk.state_mut().clicked(0.2, 0.15, true);
    desk.steps(2);
    assert_eq!(desk.state().choice.region, Some(1));
    let begun = std::time::Instant::now();
    while !matches!(desk.state_mut().mask(1), Some(Masking::Ready(_))) {
        desk.steps(1);
        assert!(begun.elapsed().as_secs() < 120, "the mask was not cut");
    }
    desk.steps(300);
    assert!(desk.state().textures.shown("mask 1 Matte").is_some());
    assert!(desk.state().textures.shown("mask 0 Matte").is_none(), "only the chosen one");
}
