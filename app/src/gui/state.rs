//! Everything the panels show and change.

mod canvas;
mod choosing;
mod marking;
mod textures;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eframe::egui::{ColorImage, Context};

use super::command::Command;
use super::model::journal::{Orphan, orphans};
use super::model::media::Named;
use super::model::places::Places;
use super::model::project::Project;
use super::model::queue::{Phase, Queue};
use super::model::settings::{Settings, ThemeChoice};
use super::monitor::Monitor;
use super::overlays::modal::Modal;
use super::overlays::palette::PaletteState;
use super::overlays::toasts::{Kind, Toasts};
use super::samples::SamplePictures;
use super::sequence::{Focus, TimelineView};
use super::tasks::dialogs::Dialogs;
use super::tasks::forecast::Outlooks;
use super::tasks::masks::Masks;
use super::tasks::models::ModelsState;
use super::tasks::opener::Opener;
use super::tasks::pictures::Pictures;
use super::tasks::player::{Film, Player, Room};
use super::tasks::runner::Runner;
use super::tasks::sound::{Sound, Way};
use super::tasks::waves::Waves;
use super::tasks::{Shop, Wake};
pub(crate) use canvas::{Canvas, MaskView, Tool};
pub(crate) use choosing::Choice;
pub(crate) use textures::Textures;

/// Which files of a document are not there.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// The revision of the document that was looked at.
    pub(crate) revision: u64,
    /// Every file it names.
    pub(crate) named: Vec<Named>,
    /// Those that are not there, with the reason.
    pub(crate) gone: Vec<(Named, String)>,
}

/// Everything the panels show and change.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) places: Places,
    pub(crate) settings: Settings,
    /// The models that plan, cut and render.
    pub(crate) shop: Arc<Shop>,
    pub(crate) project: Option<Project>,
    pub(crate) choice: Choice,
    pub(crate) canvas: Canvas,
    pub(crate) pictures: Pictures,
    pub(crate) masks: Masks,
    pub(crate) runner: Runner,
    pub(crate) player: Player,
    /// Small frames for the strips of the timeline.
    pub(crate) strips: Player,
    pub(crate) waves: Waves,
    pub(crate) sound: Sound,
    pub(crate) outlooks: Outlooks,
    /// Those of files in the export dialog.
    pub(crate) export_outlooks: Outlooks,
    pub(crate) monitor: Monitor,
    pub(crate) sequence: TimelineView,
    /// The job that commands about jobs are for.
    pub(crate) chosen_job: Option<u64>,
    /// Which panel the keys that change things are meant for.
    pub(crate) focus: Focus,
    /// Which shots were changed since their latest take, for one revision of the document.
    pub(crate) changed: Option<(u64, HashMap<String, bool>)>,
    /// The films of nodes, for one revision of the document.
    pub(crate) films: Option<(u64, HashMap<String, Option<Film>>)>,
    pub(crate) dialogs: Dialogs,
    pub(crate) opener: Opener,
    pub(crate) models: ModelsState,
    pub(crate) samples: SamplePictures,
    pub(crate) textures: Textures,
    pub(crate) toasts: Toasts,
    pub(crate) modal: Option<Modal>,
    pub(crate) palette: Option<PaletteState>,
    pub(crate) orphans: Vec<Orphan>,
    /// Commands given by controls, done after everything is drawn.
    pub(crate) todo: Vec<Command>,
    /// Panels asked for, brought forward after everything is drawn.
    pub(crate) show_pane: Option<super::layout::Pane>,
    /// Whether the arrangement is to be put back.
    pub(crate) reset_layout: bool,
    /// The prompt as it is typed, which may be empty for a moment: item, region, text.
    pub(crate) typed: Option<(String, usize, String)>,
    /// Whether the window may close.
    pub(crate) leaving: bool,
    /// Files the document names that are not there.
    pub(crate) missing: Option<Missing>,
    /// The CUDA cards, looked for once someone asks.
    cards: std::cell::OnceCell<Vec<String>>,
    settings_changed: Option<Instant>,
    flushed: Instant,
}

impl State {
    /// The state of a window that was just opened.
    pub(crate) fn new(places: Places, wake: Wake) -> Self {
        let (settings, complaint) = Settings::read(&places.settings());
        let shop = Arc::new(Shop::new(&places.models, settings.device()));
        let mut queue = Queue::open(&places.queue());
        let mut toasts = Toasts::default();
        for problem in complaint.into_iter().chain(queue.take_fault()) {
            toasts.add(Kind::Warning, problem);
        }
        let orphans = orphans(&places.journals());
        let mut state = Self {
            pictures: Pictures::new(Arc::clone(&wake)),
            masks: Masks::new(Arc::clone(&shop), Arc::clone(&wake)),
            runner: Runner::new(queue, Arc::clone(&shop), &places.cache, Arc::clone(&wake)),
            player: Player::new(&places.cache, Room::MONITOR, Arc::clone(&wake)),
            strips: Player::new(&places.cache, Room::STRIPS, Arc::clone(&wake)),
            waves: Waves::new(Arc::clone(&wake)),
            // Tests make no noise, and must not depend on what is plugged in.
            sound: Sound::new(if cfg!(test) { Way::Off } else { Way::Device }),
            outlooks: Outlooks::new(Arc::clone(&shop), &places.cache, Arc::clone(&wake)),
            export_outlooks: Outlooks::new(Arc::clone(&shop), &places.cache, Arc::clone(&wake)),
            monitor: Monitor::default(),
            sequence: TimelineView::default(),
            chosen_job: None,
            focus: Focus::default(),
            changed: None,
            films: None,
            dialogs: Dialogs::new(Arc::clone(&wake)),
            opener: Opener::new(&places, Arc::clone(&wake)),
            samples: SamplePictures::new(&places.state, Arc::clone(&wake)),
            models: ModelsState::new(&places.models, wake),
            textures: Textures::default(),
            project: None,
            choice: Choice::default(),
            canvas: Canvas::default(),
            modal: None,
            palette: None,
            todo: vec![],
            show_pane: None,
            reset_layout: false,
            typed: None,
            leaving: false,
            missing: None,
            cards: std::cell::OnceCell::new(),
            settings_changed: None,
            flushed: Instant::now(),
            places,
            settings,
            shop,
            toasts,
            orphans,
        };
        if !state.orphans.is_empty() {
            state.modal = Some(Modal::Recover);
        }
        state.go_on_with_jobs();
        state
    }

    /// Begins with jobs that were left waiting, and says so; of those that do not begin by themselves too.
    fn go_on_with_jobs(&mut self) {
        let (cut, waiting) = self.runner.look(|queue, _| {
            let count = |phase| queue.jobs().iter().filter(|job| job.phase == phase).count();
            (count(Phase::Interrupted), count(Phase::Waiting))
        });
        let jobs = |count: usize| if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") };
        if self.runner.go_on() > 0 {
            self.toasts.add(Kind::Info, format!("going on with {} that waited", jobs(waiting)));
        } else if waiting > 0 {
            self.toasts.add(Kind::Info, format!("the queue is paused: {} in it", jobs(waiting)));
        }
        if cut > 0 {
            let text = format!("cut short last time: {}; under Jobs to go on with", jobs(cut));
            self.toasts.add(Kind::Warning, text);
        }
    }

    /// Takes in what the threads finished. Called often, also while nothing is drawn.
    pub(crate) fn poll(&mut self, ctx: &Context) {
        let mut news = self.pictures.poll();
        news |= self.masks.poll();
        news |= self.player.poll();
        news |= self.strips.poll();
        news |= self.waves.poll();
        news |= self.outlooks.poll();
        news |= self.export_outlooks.poll();
        if self.models.poll(&mut self.toasts) {
            self.models_changed();
            news = true;
        }
        for ended in self.runner.news() {
            self.job_ended(ended);
            news = true;
        }
        for (wanted, answer) in self.dialogs.answers() {
            self.file_answered(wanted, answer);
            news = true;
        }
        news |= self.take_opened();
        if let Some(fault) = self.project.as_mut().and_then(Project::take_fault) {
            self.toasts.add(Kind::Warning, fault);
        }
        self.sound.rest();
        self.keep_choice();
        self.follow_monitor();
        self.follow_files();
        if self.flushed.elapsed() > Duration::from_secs(5) {
            self.flushed = Instant::now();
            if let Some(project) = &self.project {
                project.flush();
            }
        }
        if self.settings_changed.is_some_and(|at| at.elapsed() > Duration::from_secs(1)) {
            self.write_settings();
        }
        if news {
            ctx.request_repaint();
        }
    }

    /// Notes that the settings are to be written.
    pub(crate) fn touch_settings(&mut self) {
        self.settings_changed.get_or_insert_with(Instant::now);
    }

    /// Writes the settings now if they changed.
    pub(crate) fn write_settings(&mut self) {
        if self.settings_changed.take().is_some()
            && let Err(error) = self.settings.write(&self.places.settings())
        {
            self.toasts.add(Kind::Warning, format!("the settings are not kept: {error}"));
        }
    }

    /// Brings theme and text size into egui.
    pub(crate) fn apply_settings(&self, ctx: &Context) {
        use eframe::egui::ThemePreference;
        ctx.set_theme(match self.settings.theme {
            ThemeChoice::Dark => ThemePreference::Dark,
            ThemeChoice::Light => ThemePreference::Light,
            ThemeChoice::System => ThemePreference::System,
        });
        ctx.set_zoom_factor(self.settings.text_scale as f32 / 100.0);
        self.apply_volume();
    }

    /// Looks at models and forecasts anew when a model came or went.
    fn models_changed(&mut self) {
        if self.models.take_change() {
            self.shop.look_again();
            self.outlooks.renew();
        }
    }

    /// The names of the CUDA cards; none in builds without CUDA and on machines without a driver.
    pub(crate) fn cards(&self) -> &[String] {
        self.cards.get_or_init(crate::session::cards)
    }

    /// Renders on another device from now on.
    pub(crate) fn choose_device(&mut self, device: crate::cli::DeviceChoice) {
        self.settings.device = device.to_string();
        self.shop.set_device(device);
        self.outlooks.renew();
        self.touch_settings();
    }

    /// Jobs that wait or run.
    pub(crate) fn open_jobs(&self) -> usize {
        self.runner.look(|queue, _| {
            queue.jobs().iter().filter(|job| matches!(job.phase, Phase::Waiting | Phase::Running)).count()
        })
    }

    /// Makes an edit and says what is wrong with it if anything is.
    pub(crate) fn edit<T>(
        &mut self,
        change: impl FnOnce(&mut Project) -> Result<T, super::model::project::EditError>,
    ) -> Option<T> {
        let result = change(self.project.as_mut()?);
        let answer = match result {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.toasts.add(Kind::Error, error.to_string());
                None
            }
        };
        self.keep_choice();
        answer
    }

    /// Ends a drag or a stretch of typing.
    pub(crate) fn close_gesture(&mut self) {
        if let Some(project) = &mut self.project {
            project.close_gesture();
        }
    }

    /// A sample as the first screen shows it.
    pub(crate) fn sample_picture(&mut self, index: usize) -> Option<Arc<ColorImage>> {
        self.samples.get(index)
    }

    /// The folder a dialog begins in.
    pub(crate) fn dialog_folder(&self) -> Option<PathBuf> {
        match self.project.as_ref()?.place() {
            super::model::project::Place::File(path) => path.parent().map(PathBuf::from),
            super::model::project::Place::Untitled(_) => None,
        }
    }
}
