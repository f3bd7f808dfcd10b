//! A window without a screen.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eframe::egui::{DroppedFile, Pos2, Vec2, vec2};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable as _;
use kinora_pipeline::media::{Picture, VideoLimits, VideoReader};

use crate::gui::app::App;
use crate::gui::model::places::Places;
use crate::gui::state::State;

/// A window over folders of its own.
pub(crate) struct Desk {
    pub(crate) harness: Harness<'static, App>,
    pub(crate) root: PathBuf,
    /// Removes the folders in the end; declared last, so that the window goes first.
    keep: Option<tempfile::TempDir>,
}

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(240);

impl Desk {
    /// A window that was just opened for the first time.
    pub(crate) fn new() -> Self {
        Self::sized(vec2(1440.0, 900.0))
    }

    /// A window of that size that was just opened for the first time.
    pub(crate) fn sized(size: Vec2) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut desk = Self::over(dir.path(), size);
        desk.keep = Some(dir);
        desk
    }

    /// A window over folders that are there already and stay.
    pub(crate) fn over(root: &Path, size: Vec2) -> Self {
        let places = Places::below(root);
        let harness = Harness::builder()
            .with_size(size)
            .with_step_dt(1.0 / 30.0)
            .with_max_steps(64)
            .build_eframe(|cc| App::new(&cc.egui_ctx, places));
        let mut desk = Self { harness, root: root.to_path_buf(), keep: None };
        desk.steps(3);
        desk
    }

    /// Closes the window and opens another over the same folders.
    pub(crate) fn reopened(self) -> Self {
        let Self { harness, root, keep } = self;
        drop(harness);
        let mut desk = Self::over(&root, vec2(1440.0, 900.0));
        desk.keep = keep;
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn state(&self) -> &State {
        &self.harness.state().state
    }

    pub(crate) fn state_mut(&mut self) -> &mut State {
        &mut self.harness.state_mut().state
    }

    pub(crate) fn steps(&mut self, count: usize) {
        self.harness.run_steps(count);
    }

    /// Draws until `ready`.
    pub(crate) fn wait(&mut self, what: &str, ready: impl Fn(&State) -> bool) {
        let begun = Instant::now();
        loop {
            self.harness.step();
            if ready(self.state()) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}; said: {:?}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
        self.steps(2);
    }

    /// What the window said so far.
    pub(crate) fn said(&self) -> Vec<String> {
        self.state().toasts.log().iter().map(|(_, text)| text.clone()).collect()
    }

    /// Clicks on what is called that.
    pub(crate) fn click(&mut self, label: &str) {
        self.harness.get_by_label(label).click();
        self.steps(3);
    }

    /// Clicks on the last that is called that: a dialog's own lies over the panel's of the same name.
    pub(crate) fn click_top(&mut self, label: &str) {
        let all: Vec<_> = self.harness.get_all_by_label(label).collect();
        all.last().unwrap().click();
        drop(all);
        self.steps(3);
    }

    /// Whether something is called that.
    pub(crate) fn has(&self, label: &str) -> bool {
        self.harness.query_by_label(label).is_some()
    }

    /// Clicks at a fraction of the picture on the canvas.
    pub(crate) fn click_picture(&mut self, x: f32, y: f32) {
        let at = self.on_picture(x, y);
        self.press(at);
    }

    /// Where a fraction of the fitted picture is on the screen.
    pub(crate) fn on_picture(&self, x: f32, y: f32) -> Pos2 {
        let stage = self.harness.get_by_label_contains("Picture ").rect();
        let state = self.state();
        let item = state.item().unwrap();
        let key = state.picture_key(item).unwrap();
        let size = state.pictures.size(&key).expect("the picture is there");
        let size = vec2(size[0] as f32, size[1] as f32) * state.canvas.drawn_zoom;
        let centre = state.canvas.centre;
        stage.center() + vec2((x - centre[0]) * size.x, (y - centre[1]) * size.y)
    }

    /// Presses and releases the button at a point of the screen.
    pub(crate) fn press(&mut self, at: Pos2) {
        self.harness.hover_at(at);
        self.steps(1);
        self.harness.drag_at(at);
        self.steps(1);
        self.harness.drop_at(at);
        self.steps(3);
    }

    /// Opens a file and waits until that is done or refused.
    pub(crate) fn open_any(&mut self, path: &Path) {
        self.state_mut().open_any(path);
        self.opened();
    }

    /// Waits until nothing is being opened.
    pub(crate) fn opened(&mut self) {
        self.steps(1);
        self.wait("everything is open", |state| state.opener.is_idle());
        self.steps(2);
    }

    /// Presses at a point, goes to another in a few ticks, and lets go.
    pub(crate) fn drag(&mut self, from: Pos2, to: Pos2) {
        self.harness.hover_at(from);
        self.steps(1);
        self.harness.drag_at(from);
        self.steps(1);
        for step in 1..=8 {
            self.harness.hover_at(from + (to - from) * (step as f32 / 8.0));
            self.steps(1);
        }
        self.harness.drop_at(to);
        self.steps(3);
    }

    /// Writes a document beside a copy of the rocket and opens it.
    pub(crate) fn open(&mut self, text: &str) -> PathBuf {
        let path = self.path("project/shot.kinora.json");
        self.put("project/rocket.jpg", crate::gui::samples::SAMPLES[0].bytes);
        self.put("project/shot.kinora.json", text.as_bytes());
        self.open_any(&path);
        path
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Everything below a folder, by name.
    pub(crate) fn list(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

/// A small shot of the rocket: quick to render.
pub(crate) const SMALL: &str = r#"{
  "kinora": 1,
  "nodes": {
    "photo": { "op": "image.load", "path": "rocket.jpg" },
    "rocket": { "op": "mask.click", "image": "@photo", "points": [{ "x": 0.5, "y": 0.6, "keep": true }] },
    "shot": {
      "op": "animate.click", "image": "@photo", "regions": [{ "mask": "@rocket", "prompt": "rise slowly" }],
      "frames": 3, "fps": 8, "steps": 1, "size": 128
    },
    "file": { "op": "video.save", "video": "@shot", "path": "out/rocket.mp4" }
  }
}
"#;

/// A file as a desktop drops it on a window.
#[derive(Debug)]
pub(crate) struct Dropped(pub(crate) PathBuf);

impl DroppedFile for Dropped {
    fn path(&self) -> &Path {
        &self.0
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        std::fs::read(&self.0).map_err(|error| error.to_string())
    }
}

/// Every frame of a file.
pub(crate) fn frames(file: &Path) -> Vec<Picture> {
    let mut reader = VideoReader::open(file, &VideoLimits::default()).unwrap();
    let mut frames = vec![];
    while let Some(frame) = reader.next_frame().unwrap() {
        frames.push(frame.picture);
    }
    frames
}
