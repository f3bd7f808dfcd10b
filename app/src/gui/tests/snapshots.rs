//! How it looks, in both themes. The pictures were drawn by Mesa's lavapipe, which
//! `scripts/setup.sh --tests` installs; other renderers may round otherwise.
//!
//! `UPDATE_SNAPSHOTS=1 cargo nextest run -p kinora snapshots` draws them anew.

use std::panic::{AssertUnwindSafe, catch_unwind};

use eframe::egui::vec2;
use egui_kittest::wgpu::WgpuTestRenderer;
use egui_kittest::{SnapshotOptions, SnapshotResults};
use serde_json::json;

use super::support::{Desk, SMALL};
use kinora_pipeline::media::{ImageLimits, read_picture};
use kinora_pipeline::progress::Preview;
use kinora_pipeline::workflow::Document;

use crate::gui::layout::Pane;
use crate::gui::model::media::Named;
use crate::gui::model::patch::place;
use crate::gui::model::queue::{Ending, Order, Purpose};
use crate::gui::model::settings::ThemeChoice;
use crate::gui::model::timeline::Edge;
use crate::gui::overlays::modal::Modal;
use crate::gui::state::{MaskView, Missing, State};
use crate::gui::tasks::forecast::Outlook;
use crate::gui::tasks::masks::Masking;
use crate::gui::tasks::moving::Moving;
use crate::gui::tasks::player::Film;
use crate::gui::tasks::runner::Live;

/// Whether anything can be drawn here; says so where not.
fn can_draw() -> bool {
    let there = catch_unwind(AssertUnwindSafe(WgpuTestRenderer::new)).is_ok();
    if !there {
        println!("skipped: no graphics adapter; install mesa-vulkan-drivers for lavapipe");
    }
    there
}

const THEMES: [(ThemeChoice, &str); 2] = [(ThemeChoice::Dark, "dark"), (ThemeChoice::Light, "light")];

struct Album {
    results: SnapshotResults,
    options: SnapshotOptions,
}

impl Album {
    fn new() -> Self {
        // Text is what differs between versions of one renderer, and only by a few edges.
        Self { results: SnapshotResults::new(), options: SnapshotOptions::new().max_failed_pixels(24) }
    }

    /// Draws what the desk shows in both themes.
    fn take(&mut self, desk: &mut Desk, name: &str) {
        for (theme, suffix) in THEMES {
            desk.state_mut().settings.theme = theme;
            let ctx = desk.harness.ctx.clone();
            desk.state().apply_settings(&ctx);
            desk.harness.remove_cursor();
            desk.steps(8);
            self.results.add(desk.harness.try_snapshot_options(format!("{name}_{suffix}"), &self.options));
        }
    }
}

fn masks_are_there(state: &mut State) -> bool {
    let count = state.item().map_or(0, |item| item.regions().len());
    (0..count).all(|index| matches!(state.mask(index), Some(Masking::Ready(_))))
}

#[test]
fn the_first_screen() {
    if !can_draw() {
        return;
    }
    let mut desk = Desk::sized(vec2(1100.0, 700.0));
    let begun = std::time::Instant::now();
    while (0..3).any(|index| desk.state_mut().sample_picture(index).is_none()) {
        desk.steps(1);
        std::thread::sleep(std::time::Duration::from_millis(10));
        assert!(begun.elapsed().as_secs() < 60, "the samples are not decoded");
    }
    let mut album = Album::new();
    album.take(&mut desk, "welcome");
}

#[test]
fn every_panel_and_dialog() {
    if !can_draw() {
        return;
    }
    let mut desk = Desk::sized(vec2(1280.0, 800.0));
    let small = SMALL.replace(
        "[{ \"mask\": \"@rocket\", \"prompt\": \"rise slowly\" }]",
        "[{ \"mask\": \"@rocket\", \"prompt\": \"rise slowly\" }, { \"mask\": \"@sky\", \"prompt\": \"drift left\" }]",
    );
    let sky = "\"sky\": { \"op\": \"mask.click\", \"image\": \"@photo\", \"points\": [{ \"x\": 0.9, \"y\": 0.1 }] },";
    let small = small.replace("    \"shot\": {", &format!("    {sky}\n    \"shot\": {{"));
    desk.open(&small);
    let begun = std::time::Instant::now();
    while !masks_are_there(desk.state_mut()) {
        desk.steps(1);
        std::thread::sleep(std::time::Duration::from_millis(10));
        assert!(begun.elapsed().as_secs() < 120, "the masks are not cut");
    }
    desk.state_mut().animate();
    desk.wait("the clip is there", |state| !state.takes().is_empty());
    desk.wait("a frame is shown", |state| state.monitor.drawn.is_some());
    desk.wait("the outlook is renewed", |state| state.outlooks.is_known());
    let state = desk.state_mut();
    state.monitor.pause();
    state.monitor.position = 0.0;
    state.toasts.clear();
    jobs(state);
    let mut album = Album::new();
    album.take(&mut desk, "workspace");
    let revision = desk.state().project.as_ref().unwrap().revision();
    desk.state_mut().export_outlooks.pretend(revision, "file", plenty());
    for (modal, name) in [
        (Modal::Shortcuts, "dialog_shortcuts"),
        (Modal::Export { node: "file".into(), dest: "/videos/rocket.mp4".into() }, "dialog_export"),
    ] {
        desk.state_mut().modal = Some(modal);
        album.take(&mut desk, name);
        desk.state_mut().modal = None;
    }
    desk.state_mut().missing = Some(gone(desk.state().project.as_ref().unwrap().revision()));
    desk.state_mut().modal = Some(Modal::Missing);
    album.take(&mut desk, "dialog_missing");
    desk.state_mut().modal = None;
    desk.state_mut().look_for_missing();
    desk.state_mut().palette = Some(crate::gui::overlays::palette::PaletteState::new());
    album.take(&mut desk, "palette");
    desk.state_mut().palette = None;
    for (pane, size) in [
        (Pane::Canvas, vec2(640.0, 480.0)),
        (Pane::Program, vec2(640.0, 480.0)),
        (Pane::Media, vec2(280.0, 360.0)),
        (Pane::Inspector, vec2(340.0, 1160.0)),
        (Pane::Takes, vec2(640.0, 280.0)),
        (Pane::Jobs, vec2(640.0, 480.0)),
        (Pane::Models, vec2(340.0, 600.0)),
    ] {
        desk.harness.state_mut().only(pane);
        desk.harness.set_size(size);
        desk.steps(4);
        if pane == Pane::Models {
            desk.wait("the models are listed", |state| state.models.is_listed());
        }
        album.take(&mut desk, &format!("panel_{}", pane.title().to_lowercase()));
    }
    desk.harness.state_mut().only(Pane::Canvas);
    desk.harness.set_size(vec2(640.0, 480.0));
    desk.state_mut().canvas.view = MaskView::Matte;
    album.take(&mut desk, "panel_canvas_matte");
    desk.state_mut().canvas.view = MaskView::Tint;
    desk.harness.state_mut().only(Pane::Program);
    desk.state_mut().runner.pretend(Some(being_made()));
    desk.state_mut().monitor.watch(MADE);
    album.take(&mut desk, "panel_program_making");
    // The list of jobs, with the small moving picture of the one that seems to run.
    let waiting = desk
        .state()
        .runner
        .look(|queue, _| queue.jobs().iter().find(|job| job.title == "Coffee").unwrap().id);
    desk.state_mut().runner.pretend(Some(Live { id: waiting, ..being_made() }));
    desk.harness.state_mut().only(Pane::Jobs);
    album.take(&mut desk, "panel_jobs_making");
    desk.harness.state_mut().only(Pane::Program);
    desk.state_mut().runner.pretend(None);
    desk.state_mut().monitor_latest();
    // Last, because it changes the document the other panels show.
    desk.harness.state_mut().only(Pane::Timeline);
    desk.harness.set_size(vec2(960.0, 400.0));
    arranged(desk.state_mut());
    desk.steps(4);
    desk.wait("the strips are decoded", |state| !state.strips.is_busy());
    album.take(&mut desk, "panel_timeline");
    let timeline = desk.state().timeline().unwrap().clone();
    let made = desk.state_mut().edit(|project| crate::gui::model::film::make(project, &timeline, 8.0));
    let dest = "/videos/timeline.mp4".into();
    let (made, revision) = (made.unwrap(), desk.state().project.as_ref().unwrap().revision());
    // What there is too little of is said where the rest would be.
    let poor = Outlook { memory: 9_000_000_000, ..plenty() };
    desk.state_mut().export_outlooks.pretend(revision, &made, poor);
    desk.state_mut().modal = Some(Modal::Export { node: made, dest });
    desk.harness.set_size(vec2(640.0, 620.0));
    album.take(&mut desk, "dialog_export_timeline");
}

/// What a file takes where there is enough of everything.
fn plenty() -> Outlook {
    Outlook {
        seconds: 4.0,
        measured: true,
        memory: 700_000_000,
        disk: 24_000_000,
        memory_free: 8_000_000_000,
        disk_free: 90_000_000_000,
        file: 2_000_000,
        file_free: None,
        known: false,
    }
}

#[test]
fn two_takes_beside_each_other() {
    if !can_draw() {
        return;
    }
    let mut desk = Desk::sized(vec2(1280.0, 800.0));
    desk.open(SMALL);
    desk.state_mut().animate();
    desk.wait("the clip is there", |state| state.takes().len() == 1);
    // Another motion, so that the two halves differ.
    desk.state_mut().edit(|project| crate::gui::model::changes::set_prompt(project, "shot", 0, "drift left"));
    desk.state_mut().close_gesture();
    desk.state_mut().animate();
    desk.wait("another is there", |state| state.takes().len() == 2 && state.monitor.drawn.is_some());
    let takes = desk.state().takes();
    let films: Vec<_> = takes.iter().map(|take| take.cache_key().map(Film::Take)).collect();
    let state = desk.state_mut();
    state.monitor.load(films[0].clone(), false);
    state.monitor.other = films[1].clone();
    (state.monitor.position, state.monitor.wipe) = (0.25, 0.45);
    state.toasts.clear();
    let wanted = films.clone();
    desk.wait("both are decoded", |state| {
        wanted.iter().flatten().all(|film| state.player.known(film, 2).is_some())
    });
    let mut album = Album::new();
    desk.harness.state_mut().only(Pane::Program);
    desk.harness.set_size(vec2(640.0, 480.0));
    album.take(&mut desk, "panel_program_compare");
    // The settings are no longer those of the take that is shown.
    desk.state_mut().edit(|project| crate::gui::model::changes::set_prompt(project, "shot", 0, "sink"));
    desk.state_mut().close_gesture();
    desk.harness.state_mut().only(Pane::Takes);
    desk.harness.set_size(vec2(640.0, 280.0));
    desk.steps(4);
    album.take(&mut desk, "panel_takes_changed");
}

/// The job that seems to run.
const MADE: u64 = 9999;

/// A clip with a few steps done.
fn being_made() -> Live {
    let bytes = crate::gui::samples::SAMPLES[0].bytes;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rocket.jpg");
    std::fs::write(&path, bytes).unwrap();
    let frame = read_picture(&path, &ImageLimits::default()).unwrap();
    let preview = Preview { node: "shot".into(), done: 5, total: 12, frames: vec![frame] };
    let document = Document::parse(SMALL, "small").unwrap();
    Live {
        id: MADE,
        title: "Shot".into(),
        purpose: Purpose::Take { shot: "shot".into() },
        // So that no time is left over that would change from one picture to the next.
        begun: std::time::Instant::now() + std::time::Duration::from_secs(3600),
        doing: "Imagining the motion 5 of 12".into(),
        fraction: 0.42,
        stopping: false,
        notices: vec![],
        moving: Moving::of(&preview, &document).map(std::sync::Arc::new),
    }
}

/// Two files that are not there.
fn gone(revision: u64) -> Missing {
    let named = |node: &str, name: &str| Named {
        at: place!["nodes", node, "path"],
        node: node.into(),
        name: name.into(),
    };
    let why = |name: &str| format!("there is no file \"{name}\" in the document's folder");
    let gone = ["photos/harbour.jpg", "clips/sea.mp4"].map(|name| (named("photo", name), why(name)));
    Missing { revision, named: vec![], gone: gone.to_vec() }
}

/// Two tracks with three clips, and keys.
fn arranged(state: &mut State) {
    state.arrange("Arrange", |timeline| {
        timeline.append("shot", Some(0.375), None);
        timeline.append("shot", Some(0.375), None);
        timeline.add_track();
        timeline.move_clip((0, 1), 1, 0.3);
        timeline.fade((1, 0), Edge::Start, 0.125);
    });
    let id = state.choice.item.clone();
    for (t, value) in [(0.0, 0.2), (0.2, 0.9), (0.36, 0.5)] {
        state.edit(|project| crate::gui::model::keys::set_key(project, &id, 0, t, Some(value)));
    }
    state.close_gesture();
    state.show_timeline_at(0.125);
    state.mark(false);
    state.show_timeline_at(0.5);
    state.mark(true);
    state.show_timeline_at(0.25);
    state.choose_clip((0, 0));
    state.sequence.keys = Some((0, vec![1]));
    state.toasts.clear();
}

/// Jobs of every kind, none of which runs.
fn jobs(state: &mut State) {
    let folder = state.project.as_ref().unwrap().folder();
    let endings = [
        ("Export rocket.mp4", Some(Ending::Done(vec!["/videos/rocket.mp4".into()]))),
        (
            "Harbour",
            Some(Ending::Failed("thing (mask.click): the click selects nothing; click elsewhere".into())),
        ),
        ("Cat", Some(Ending::Stopped)),
        ("Coffee", None),
    ];
    let done: Vec<u64> = state.runner.look(|queue, _| queue.jobs().iter().map(|job| job.id).collect());
    state.runner.change(|queue| {
        queue.set_paused(false);
        done.into_iter().for_each(|id| queue.remove(id));
        queue.set_paused(true);
        for (title, ending) in endings {
            let order = Order {
                title,
                purpose: Purpose::Export { node: "file".into() },
                document: json!({}),
                folder: &folder,
                out: None,
                force: false,
            };
            let id = queue.add(order);
            if let Some(ending) = ending {
                queue.end(id, ending, 12.0, vec![]);
            }
        }
    });
}
