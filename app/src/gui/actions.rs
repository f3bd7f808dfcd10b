//! What each command does, and when it cannot.

use eframe::egui::{Context, ViewportCommand};

use super::command::Command;
use super::files::After;
use super::model::changes;
use super::model::project::Project;
use super::model::scene::Shape;
use super::model::timeline::Edge;
use super::overlays::modal::Modal;
use super::overlays::palette::PaletteState;
use super::overlays::toasts::Kind;
use super::panels::timeline::{MAX_ZOOM, MIN_ZOOM};
use super::sequence::Focus;
use super::state::{MaskView, State, Tool};
use super::tasks::dialogs::Wanted;
use super::tasks::player::FilmInfo;

/// One step of the zoom commands.
const ZOOM_STEP: f32 = 1.25;

impl State {
    /// Why a command cannot be done now; none when it can.
    pub(crate) fn blocked(&self, command: Command) -> Option<String> {
        use Command as C;
        let say = |why: &str| Some(why.to_owned());
        let (project, item) = (self.project.as_ref(), self.item());
        match command {
            C::Save | C::SaveAs | C::CloseProject if project.is_none() => say("no project is open"),
            C::Versions if project.is_none_or(|project| project.versions().is_empty()) => {
                say("there are no earlier versions yet")
            }
            C::FindMissing if self.missing.as_ref().is_none_or(|missing| missing.gone.is_empty()) => {
                say("every file is where it was")
            }
            C::Undo if project.and_then(Project::undo_label).is_none() => say("nothing to take back"),
            C::Redo if project.and_then(Project::redo_label).is_none() => say("nothing was taken back"),
            C::RemoveRegion | C::RaiseRegion | C::LowerRegion | C::NewRegion if self.region().is_none() => {
                say("no region is chosen")
            }
            C::NextCandidate | C::PreviousCandidate
                if !self.region().is_some_and(|(_, region)| matches!(region.shape, Shape::Clicks(_))) =>
            {
                say("no region is chosen that clicks give its shape")
            }
            C::PlaySource if !self.has_source() => say("the picture is not a frame of a clip"),
            C::AnimateFrame if !self.shows_source() => say("play the source, and stop at a frame"),
            C::PlayTimeline if self.timeline_info().is_none() => say("the timeline is empty"),
            C::HideTrack | C::MuteTrack | C::LockTrack if project.is_none() => say("no project is open"),
            C::EaseKeys | C::ClearKeys if self.keyed_region().is_none() => say("the magnitude has no keys"),
            C::KeysEarlier | C::KeysLater | C::RaiseKeys | C::LowerKeys if self.sequence.keys.is_none() => {
                say("no keys are chosen")
            }
            C::RetryJob if self.job_to_retry().is_none() => say("every job ended well"),
            C::JobEarlier | C::JobLater if self.job_to_shift(command == C::JobEarlier).is_none() => {
                say("no other job waits")
            }
            C::ClearFinished if !self.has_finished_jobs() => say("no job is done"),
            C::CompareTakes if self.comparable_take().is_none() => say("show one of two takes first"),
            C::StarTake | C::UseTake if self.shown_take().is_none() => say("no take is shown"),
            C::RenderTakeAgain if self.lost_take().is_none() => say("every take has its frames"),
            C::PreviousRegion | C::NextRegion if item.is_none_or(|item| item.regions().len() < 2) => {
                say("there are no other regions")
            }
            C::RemoveItem if project.is_none_or(|project| project.scene().items.len() < 2) => {
                say("a project has at least one picture")
            }
            C::ZoomIn | C::ZoomOut | C::ZoomFit | C::ZoomPixels | C::ViewNext if item.is_none() => {
                say("there is no picture")
            }
            C::ToolClick | C::ToolLeaveOut | C::ToolBrush | C::ToolErase | C::ToolPan if item.is_none() => {
                say("there is no picture")
            }
            C::Export if self.monitor.sequence => self.blocked(C::ExportTimeline),
            C::Animate | C::Retake | C::Extend | C::Export if item.is_none() => say("there is no picture"),
            C::Animate | C::Retake | C::Extend | C::Export
                if item.is_some_and(|item| item.shot.is_none()) =>
            {
                say("click on what should move first")
            }
            C::Extend if self.last_take().is_none() => say("there is no clip yet; press Animate"),
            C::ExportTimeline if self.timeline_info().is_none() => say("the timeline is empty"),
            C::StopRender if !self.runner.is_running() => say("nothing is being made"),
            C::PlayPause
            | C::PlayBackward
            | C::Pause
            | C::PlayForward
            | C::StepBack
            | C::StepForward
            | C::GoToStart
            | C::GoToEnd
                if !self.can_play() =>
            {
                say("there is no clip yet; press Animate")
            }
            C::MarkIn | C::MarkOut | C::ClearMarks | C::GoToIn | C::GoToOut if self.marked().is_none() => {
                say("nothing that can be exported is shown; press Animate, or play the timeline")
            }
            C::ClearMarks if self.shown_marks().is_none() => say("nothing is marked"),
            C::GoToIn if self.shown_marks().from.is_none() => say("no in point is marked"),
            C::GoToOut if self.shown_marks().to.is_none() => say("no out point is marked"),
            C::SplitClip | C::TrimStart | C::TrimEnd if self.clip_at_playhead().is_none() => {
                say("no clip that can be cut is under the playhead")
            }
            C::RemoveClip | C::RippleClip if self.sequence.chosen.is_none() => say("no clip is chosen"),
            C::SlipEarlier | C::SlipLater | C::FadeIn | C::FadeOut if self.chosen_clip().is_none() => {
                say("no clip that can be changed is chosen")
            }
            C::CrossFade if !self.can_cross() => say("choose a clip that begins where another one ends"),
            C::ClipLouder | C::ClipQuieter | C::MuteClip if !self.chosen_sounds() => {
                say("no clip with sound is chosen")
            }
            C::AddToTimeline if self.placeable().is_none() => {
                say("choose a picture in which something moves, or a clip")
            }
            C::AddTrack | C::FitTimeline | C::ZoomTimelineIn | C::ZoomTimelineOut if project.is_none() => {
                say("no project is open")
            }
            C::PreviousCut | C::NextCut if self.timeline_info().is_none() => say("the timeline is empty"),
            C::SetKey if self.region().is_none() => say("no region is chosen"),
            C::Delete
                if self.sequence.keys.is_none()
                    && self.sequence.chosen.is_none()
                    && self.region().is_none() =>
            {
                say("nothing is chosen")
            }
            C::CopyKeys if self.sequence.keys.is_none() => say("no keys are chosen"),
            _ => None,
        }
    }

    /// Does a command, or says why not.
    pub(crate) fn perform(&mut self, command: Command, ctx: &Context) {
        use Command as C;
        if let Some(why) = self.blocked(command) {
            let name = command.name().trim_end_matches('…');
            self.toasts.add(Kind::Info, format!("{name}: {why}"));
            return;
        }
        match command {
            C::AddMedia => self.dialogs.ask(Wanted::Media, None, ""),
            C::OpenDocument => self.dialogs.ask(Wanted::Document, self.dialog_folder().as_deref(), ""),
            C::OpenPictures => self.dialogs.ask(Wanted::Pictures, self.dialog_folder().as_deref(), ""),
            C::Save => {
                self.save(false);
            }
            C::SaveAs => self.ask_where_to_save(),
            C::Versions => self.modal = Some(Modal::Versions),
            C::FindMissing => self.modal = Some(Modal::Missing),
            C::CloseProject => self.leave(After::Close),
            C::Quit => ctx.send_viewport_cmd(ViewportCommand::Close),
            C::Undo | C::Redo => self.walk_history(command == C::Undo),
            C::Delete => {
                let timeline = self.focus == Focus::Timeline;
                if !(timeline && self.remove_from_timeline(false)) {
                    self.remove_chosen();
                }
            }
            C::RemoveRegion => self.remove_chosen(),
            C::NewRegion => {
                self.canvas.new_region = !self.canvas.new_region;
                if self.canvas.tool != Tool::Brush {
                    self.canvas.tool = Tool::Pick;
                }
            }
            C::NextCandidate | C::PreviousCandidate => self.next_candidate(command == C::NextCandidate),
            C::AnimateFrame => self.with_film(Self::animate_frame),
            C::RemoveItem => {
                let id = self.choice.item.clone();
                self.edit(|project| changes::remove_item(project, &id));
            }
            C::PreviousRegion => self.choose_region(false),
            C::NextRegion => self.choose_region(true),
            C::RaiseRegion | C::LowerRegion => self.reorder_region(command == C::RaiseRegion),
            C::ZoomIn => self.zoom_by(ZOOM_STEP),
            C::ZoomOut => self.zoom_by(1.0 / ZOOM_STEP),
            C::ZoomFit => (self.canvas.zoom, self.canvas.centre) = (None, [0.5, 0.5]),
            C::ZoomPixels => self.canvas.zoom = Some(1.0 / ctx.pixels_per_point()),
            C::ViewNext => {
                self.canvas.view = match self.canvas.view {
                    MaskView::Tint => MaskView::Matte,
                    MaskView::Matte => MaskView::Hidden,
                    MaskView::Hidden => MaskView::Tint,
                };
            }
            C::Theme(theme) => {
                self.settings.theme = theme;
                self.settings_chosen(ctx);
            }
            C::LargerText | C::SmallerText => {
                self.settings.step_text_scale(command == C::LargerText);
                self.settings_chosen(ctx);
            }
            C::ShowPane(pane) => self.show_pane = Some(pane),
            C::ResetLayout => self.reset_layout = true,
            C::ToolClick => self.canvas.tool = Tool::Pick,
            C::ToolLeaveOut => self.canvas.tool = Tool::LeaveOut,
            C::ToolBrush => self.canvas.tool = Tool::Brush,
            C::ToolErase => self.canvas.tool = Tool::Erase,
            C::ToolPan => self.canvas.tool = Tool::Pan,
            C::Animate => self.animate(),
            C::StopRender => {
                let running = self.runner.look(|_, live| live.map(|live| live.id));
                if let Some(id) = running {
                    self.runner.stop(id);
                }
            }
            C::Retake => self.retake(),
            C::Extend => self.extend(),
            C::Export if self.monitor.sequence => self.export_timeline(),
            C::Export => self.export(),
            C::ExportTimeline => self.export_timeline(),
            C::PauseQueue => self.runner.change(|queue| queue.set_paused(!queue.is_paused())),
            C::RetryJob => self.retry_job(),
            C::JobEarlier | C::JobLater => self.shift_job(command == C::JobEarlier),
            C::ClearFinished => self.runner.change(|queue| queue.clear_done()),
            C::CompareTakes => self.compare_takes(),
            C::StarTake => self.star_take(),
            C::UseTake => self.use_take(),
            C::RenderTakeAgain => self.render_lost_take(),
            C::Offline => {
                self.settings.offline = !self.settings.offline;
                self.touch_settings();
            }
            C::PlayTimeline if self.monitor.sequence => self.monitor_latest(),
            C::PlayTimeline => self.show_timeline_at(self.sequence.playhead),
            C::PlaySource => self.play_source(),
            C::PlayPause => self.monitor.toggle(),
            C::PlayBackward => self.monitor.shuttle(false),
            C::Pause => self.monitor.pause(),
            C::PlayForward => self.monitor.shuttle(true),
            C::StepBack => self.with_film(|state, info| state.monitor.step(info, false)),
            C::StepForward => self.with_film(|state, info| state.monitor.step(info, true)),
            C::GoToStart => self.with_film(|state, info| state.monitor.go_to(info, 0)),
            C::GoToEnd => self.with_film(|state, info| state.monitor.go_to(info, info.frames - 1)),
            C::MarkIn | C::MarkOut => self.mark(command == C::MarkOut),
            C::ClearMarks => self.clear_marks(),
            C::GoToIn | C::GoToOut => self.go_to_mark(command == C::GoToOut),
            C::SplitClip => self.split_clip(),
            C::TrimStart => self.trim_to_playhead(Edge::Start),
            C::TrimEnd => self.trim_to_playhead(Edge::End),
            C::RemoveClip | C::RippleClip => {
                self.sequence.keys = None;
                self.remove_from_timeline(command == C::RippleClip);
            }
            C::SlipEarlier | C::SlipLater => self.slip_clip(command == C::SlipLater),
            C::FadeIn => self.fade_clip(Edge::Start),
            C::FadeOut => self.fade_clip(Edge::End),
            C::CrossFade => self.cross_clip(),
            C::ClipLouder | C::ClipQuieter => self.turn_clip(command == C::ClipLouder),
            C::MuteClip => self.mute_clip(),
            C::AddToTimeline => self.add_to_timeline(),
            C::AddTrack => {
                if self.arrange("Add track", |timeline| timeline.add_track()) == Some(None) {
                    self.toasts.add(Kind::Info, "a timeline has at most 16 tracks");
                }
            }
            C::HideTrack => self.change_track(|track| track.hidden = !track.hidden),
            C::MuteTrack => self.change_track(|track| track.muted = !track.muted),
            C::LockTrack => self.change_track(|track| track.locked = !track.locked),
            C::EaseKeys => self.ease_keys(),
            C::ClearKeys => self.clear_keys(),
            C::KeysEarlier | C::KeysLater => {
                self.nudge_keys(if command == C::KeysLater { 1.0 } else { -1.0 }, 0.0);
            }
            C::RaiseKeys | C::LowerKeys => {
                self.nudge_keys(0.0, if command == C::RaiseKeys { 1.0 } else { -1.0 });
            }
            C::Snap => self.sequence.snap = !self.sequence.snap,
            C::ZoomTimelineIn => self.zoom_timeline(ZOOM_STEP * ZOOM_STEP),
            C::ZoomTimelineOut => self.zoom_timeline(1.0 / (ZOOM_STEP * ZOOM_STEP)),
            C::FitTimeline => (self.sequence.zoom, self.sequence.scroll) = (None, 0.0),
            C::PreviousCut => self.go_to_cut(false),
            C::NextCut => self.go_to_cut(true),
            C::SetKey => self.set_key(),
            C::CopyKeys => {
                self.copy_keys(ctx);
            }
            C::PasteKeys => ctx.send_viewport_cmd(ViewportCommand::RequestPaste),
            C::Repeat => {
                self.settings.repeat = !self.settings.repeat;
                self.touch_settings();
            }
            C::Mute => {
                self.settings.muted = !self.settings.muted;
                self.apply_volume();
                self.touch_settings();
            }
            C::Louder | C::Quieter => {
                let step = if command == C::Louder { 0.1 } else { -0.1 };
                self.settings.volume = (self.settings.volume + step).clamp(0.0, 1.0);
                self.settings.muted = false;
                self.apply_volume();
                self.touch_settings();
            }
            C::Palette => self.palette = Some(PaletteState::new()),
            C::Shortcuts => self.modal = Some(Modal::Shortcuts),
            C::About => self.modal = Some(Modal::About),
        }
        ctx.request_repaint();
    }

    fn settings_chosen(&mut self, ctx: &Context) {
        self.apply_settings(ctx);
        self.touch_settings();
    }

    fn with_film(&mut self, act: impl FnOnce(&mut Self, &FilmInfo)) {
        if let Some(Ok(info)) = self.programme() {
            act(self, &info);
        }
    }

    fn walk_history(&mut self, back: bool) {
        self.typed = None;
        let walked = self.edit(|project| if back { project.undo() } else { project.redo() });
        if let Some(Some(label)) = walked {
            let verb = if back { "Took back" } else { "Made again" };
            self.toasts.add(Kind::Info, format!("{verb}: {}", label.to_lowercase()));
        }
    }

    fn remove_chosen(&mut self) {
        let Some((index, region)) = self.region() else { return };
        let clicks = matches!(region.shape, Shape::Clicks(_));
        let (id, click) = (self.choice.item.clone(), self.choice.click);
        match click.filter(|_| clicks) {
            Some(click) => {
                self.edit(|project| changes::remove_click(project, &id, index, click));
                self.choice.click = None;
            }
            None => {
                self.edit(|project| changes::remove_region(project, &id, index));
            }
        }
        self.typed = None;
    }

    fn choose_region(&mut self, next: bool) {
        let count = self.item().map_or(0, |item| item.regions().len());
        if count > 0 {
            let at = self.choice.region.unwrap_or(0);
            let step = if next { 1 } else { count - 1 };
            (self.choice.region, self.choice.click) = (Some((at + step) % count), None);
            self.typed = None;
        }
    }

    fn reorder_region(&mut self, up: bool) {
        let Some((index, _)) = self.region() else { return };
        let id = self.choice.item.clone();
        if let Some(at) = self.edit(|project| changes::move_region(project, &id, index, up)) {
            self.choice.region = Some(at);
        }
        self.typed = None;
    }

    fn zoom_timeline(&mut self, factor: f32) {
        let drawn = self.sequence.drawn_zoom;
        let next = (drawn * factor).clamp(MIN_ZOOM, MAX_ZOOM);
        // The playhead stays where it is on the screen.
        let behind = (self.sequence.playhead - self.sequence.scroll) * f64::from(drawn / next);
        self.sequence.scroll = (self.sequence.playhead - behind).max(0.0);
        self.sequence.zoom = Some(next);
    }

    fn zoom_by(&mut self, factor: f32) {
        let drawn = if self.canvas.drawn_zoom > 0.0 { self.canvas.drawn_zoom } else { 1.0 };
        self.canvas.zoom = Some((drawn * factor).clamp(0.02, 40.0));
    }
}
