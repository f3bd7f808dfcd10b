//! What is rendered, what waits, what became of the rest.

use eframe::egui::{Align, Layout, Margin, RichText, Role, ScrollArea, Sense, Ui, WidgetInfo};

use super::making;
use crate::gui::command::Command;
use crate::gui::files::After;
use crate::gui::icons;
use crate::gui::layout::Pane;
use crate::gui::model::places::unix_now;
use crate::gui::model::queue::{Job, Phase, Purpose};
use crate::gui::state::State;
use crate::gui::tasks::player::Film;
use crate::gui::tasks::runner::Live;
use crate::gui::text::{ago, seconds};
use crate::gui::theme::{Palette, Type, palette, space};
use crate::gui::widgets::{Tone, badge, button, caption, card, empty, icon_button, progress};

/// What a click in the list asks for.
enum Act {
    Stop(u64),
    Retry(u64),
    Remove(u64),
    Shift(u64, bool),
    Edit(u64),
    Watch(u64),
    Show(std::path::PathBuf),
    Project(std::path::PathBuf),
}

/// Draws the panel.
pub(crate) fn show(ui: &mut Ui, state: &mut State) {
    let (jobs, live, paused) =
        state.runner.look(|queue, live| (queue.jobs().to_vec(), live.cloned(), queue.is_paused()));
    if jobs.is_empty() {
        empty(ui, icons::LIST_ORDERED, "Nothing to do", "Clips and exports wait here for their turn.");
        return;
    }
    let mut act = None;
    eframe::egui::Frame::new().inner_margin(Margin::same(10)).show(ui, |ui| {
        ui.horizontal(|ui| {
            let waiting = jobs.iter().filter(|job| job.phase == Phase::Waiting).count();
            caption(ui, format!("{waiting} waiting"));
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                let name = if paused { "Go on with the queue" } else { "Pause the queue" };
                let icon = if paused { icons::PLAY } else { icons::PAUSE };
                if button(ui, Some(icon), name, Tone::Quiet).clicked() {
                    state.todo.push(Command::PauseQueue);
                }
                if jobs.iter().any(|job| job.phase == Phase::Done)
                    && button(ui, None, "Clear finished", Tone::Quiet).clicked()
                {
                    state.todo.push(Command::ClearFinished);
                }
            });
        });
        ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| {
            for job in &jobs {
                let live = live.as_ref().filter(|live| live.id == job.id);
                if let Some(asked) = row(ui, state, job, live) {
                    act = Some(asked);
                }
                ui.add_space(space::XS);
            }
        });
    });
    match act {
        Some(Act::Stop(id)) => state.runner.stop(id),
        Some(Act::Retry(id)) => state.runner.change(|queue| queue.retry(id)),
        Some(Act::Remove(id)) => state.runner.change(|queue| queue.remove(id)),
        Some(Act::Shift(id, earlier)) => state.runner.change(|queue| queue.shift(id, earlier)),
        Some(Act::Edit(id)) => state.edit_job(id),
        Some(Act::Watch(id)) => {
            state.monitor.watch(id);
            state.show_pane = Some(Pane::Program);
        }
        Some(Act::Show(path)) => {
            let film = Film::File(path);
            state.player.forget(&film);
            state.monitor.load(Some(film), true);
        }
        Some(Act::Project(path)) => state.leave(After::Recipe(path)),
        None => {}
    }
    if live.is_some() {
        ui.ctx().request_repaint_after(std::time::Duration::from_millis(500));
    }
}

fn words(p: &Palette, job: &Job, live: Option<&Live>) -> (&'static str, eframe::egui::Color32) {
    match job.phase {
        Phase::Waiting => ("Waiting", p.muted),
        Phase::Running if live.is_some_and(|live| live.stopping) => ("Stopping…", p.warning),
        Phase::Running => ("Running", p.accent),
        Phase::Interrupted => ("Interrupted", p.warning),
        Phase::Stopped => ("Stopped", p.muted),
        Phase::Failed => ("Failed", p.bad),
        Phase::Done => ("Done", p.good),
    }
}

fn row(ui: &mut Ui, state: &mut State, job: &Job, live: Option<&Live>) -> Option<Act> {
    let p = palette(ui);
    let mut act = None;
    let chosen = state.chosen_job == Some(job.id);
    card(ui, chosen, |ui| {
        ui.horizontal(|ui| {
            if let Some(live) = live
                && making::thumbnail(ui, state, live).is_some_and(|thumbnail| thumbnail.clicked())
            {
                act = Some(Act::Watch(job.id));
            }
            let (word, colour) = words(p, job, live);
            badge(ui, word, colour);
            let name = RichText::new(&job.title).font(Type::Strong.font()).color(p.text);
            let name = ui.add(eframe::egui::Label::new(name).selectable(false).sense(Sense::click()));
            name.widget_info(|| WidgetInfo::selected(Role::ListItem, true, chosen, &job.title));
            if name.clicked() {
                state.chosen_job = Some(job.id);
            }
            caption(ui, remark(job, live));
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                ui.spacing_mut().item_spacing.x = 0.0;
                act = buttons(ui, job, live).or(act.take());
            });
        });
        if let Some(live) = live {
            ui.add_space(space::XS);
            progress(ui, live.fraction, &format!("Progress of {}", job.title));
        }
        if let Some(error) = &job.error {
            ui.label(RichText::new(error).font(Type::Label.font()).color(p.bad));
        }
        for notice in live.map_or(&job.notices, |live| &live.notices) {
            caption(ui, notice.as_str());
        }
        for file in &job.files {
            caption(ui, file.display().to_string());
        }
    });
    act
}

fn remark(job: &Job, live: Option<&Live>) -> String {
    match (live, job.ended) {
        (Some(live), _) => {
            let left = live.seconds_left().map(|s| format!(", {} left", seconds(s))).unwrap_or_default();
            format!("{}{left}", live.doing)
        }
        (None, Some(ended)) if job.phase == Phase::Done => {
            format!("in {}, {}", seconds(job.seconds), ago(ended, unix_now()))
        }
        (None, Some(ended)) => ago(ended, unix_now()),
        (None, None) => String::new(),
    }
}

fn buttons(ui: &mut Ui, job: &Job, live: Option<&Live>) -> Option<Act> {
    let title = &job.title;
    let mut act = None;
    match job.phase {
        Phase::Waiting => {
            if icon_button(ui, icons::X, &format!("Take {title} out")).clicked() {
                act = Some(Act::Stop(job.id));
            }
            if icon_button(ui, icons::SLIDERS_HORIZONTAL, &format!("Edit {title}")).clicked() {
                act = Some(Act::Edit(job.id));
            }
            if icon_button(ui, icons::ARROW_DOWN, &format!("{title} later")).clicked() {
                act = Some(Act::Shift(job.id, false));
            }
            if icon_button(ui, icons::ARROW_UP, &format!("{title} earlier")).clicked() {
                act = Some(Act::Shift(job.id, true));
            }
        }
        Phase::Running => {
            let stopping = live.is_some_and(|live| live.stopping);
            ui.add_enabled_ui(!stopping, |ui| {
                if icon_button(ui, icons::CIRCLE_STOP, &format!("Stop {title}")).clicked() {
                    act = Some(Act::Stop(job.id));
                }
            });
        }
        phase => {
            if icon_button(ui, icons::TRASH_2, &format!("Forget {title}")).clicked() {
                act = Some(Act::Remove(job.id));
            }
            if phase != Phase::Done {
                let again = if phase == Phase::Failed { "Try again" } else { "Go on with" };
                if icon_button(ui, icons::ROTATE_CCW, &format!("{again} {title}")).clicked() {
                    act = Some(Act::Retry(job.id));
                }
            }
            let made = job.files.iter().find(|file| phase == Phase::Done && file.exists());
            if let Some(made) = made
                && icon_button(ui, icons::FOLDER_OPEN, &format!("Open the project of {title}"))
                    .on_hover_text("Opens the project as it was when this file was made")
                    .clicked()
            {
                act = Some(Act::Project(made.clone()));
            }
            let file =
                job.files.iter().find(|file| file.is_file() && !matches!(job.purpose, Purpose::Take { .. }));
            if let Some(file) = file
                && icon_button(ui, icons::CIRCLE_PLAY, &format!("Play {title}")).clicked()
            {
                act = Some(Act::Show(file.clone()));
            }
        }
    }
    act
}
