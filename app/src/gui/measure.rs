//! `kinora open FILE --measure SECONDS`: how soon the window is there, and how evenly it draws while
//! a clip is rendered. Prints JSON and closes.
//!
//! Where there is no display the same frames are made without one ([`without_screen`]): what is timed
//! then is all that the window's thread does up to the triangles, and no drawing of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use eframe::egui::{Context, Pos2, RawInput, Rect, Vec2, vec2};
use serde_json::{Value, json};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

use super::app::App;
use super::command::Command;
use super::state::State;
use super::tasks::masks::Masking;
use super::tasks::pictures::Loading;

/// Upper ends of the histogram's columns, in milliseconds; 18.2 is a frame of 55 a second.
const COLUMNS: [f64; 8] = [8.4, 11.2, 16.8, 18.2, 25.0, 33.4, 50.0, 100.0];

/// Where a picture in which nothing was clicked yet is clicked, one thing after the other.
const CLICKS: [(f64, f64); 5] = [(0.5, 0.6), (0.2, 0.2), (0.8, 0.7), (0.5, 0.3), (0.9, 0.1)];

/// A measurement that goes on.
#[derive(Debug)]
pub(crate) struct Measure {
    begun: Instant,
    /// Seconds of the process before this was made.
    before: f64,
    /// How long frames are timed.
    wanted: Duration,
    first: Option<f64>,
    empty_bytes: u64,
    asked: bool,
    /// Whether the picture is one to click in, once that is known.
    bare: Option<bool>,
    clicked: Option<Instant>,
    /// Milliseconds from a click to its mask.
    clicks: Vec<f64>,
    timed: Option<Instant>,
    last: Option<Instant>,
    /// Milliseconds from frame to frame.
    frames: Vec<f64>,
    /// Milliseconds of work a frame.
    work: Vec<f64>,
    /// Bytes of pictures a frame that went to the graphics card.
    uploads: Vec<f64>,
    /// Seconds of processor time each kind of thread had used when timing began.
    used: BTreeMap<String, f64>,
    /// Whether the frames are made without a screen.
    screenless: bool,
    finished: bool,
}

impl Measure {
    /// Begins; frames are timed for `seconds` once a render runs.
    pub(crate) fn new(seconds: f64) -> Self {
        Self {
            begun: Instant::now(),
            before: age_of_process().unwrap_or(0.0),
            wanted: Duration::from_secs_f64(seconds.clamp(0.1, 3600.0)),
            first: None,
            empty_bytes: 0,
            asked: false,
            bare: None,
            clicked: None,
            clicks: vec![],
            timed: None,
            last: None,
            frames: vec![],
            work: vec![],
            uploads: vec![],
            used: BTreeMap::new(),
            screenless: false,
            finished: false,
        }
    }

    /// After each frame; `worked` is what it took.
    pub(crate) fn frame(&mut self, ctx: &Context, state: &mut State, worked: Duration) {
        let now = Instant::now();
        if self.first.is_none() {
            self.first = Some(self.before + self.begun.elapsed().as_secs_f64());
            self.empty_bytes = resident();
        }
        ctx.request_repaint();
        let ready = matches!(state.picture(), Some((_, Loading::Ready(_))));
        if ready && self.click(state) {
            return;
        }
        if ready && !self.asked && state.blocked(Command::Animate).is_none() {
            self.asked = true;
            state.todo.push(Command::Animate);
        }
        let running = state.runner.is_running();
        let began = *match (running, &mut self.timed) {
            (true, timed) => timed.get_or_insert(now),
            (false, Some(began)) => began,
            (false, None) => {
                // Nothing to render: an empty window is timed as it is.
                if state.project.is_none() && self.begun.elapsed() > self.wanted {
                    self.finish(state);
                }
                return;
            }
        };
        // The picture moves under a steady hand, so that every frame is really drawn.
        let turn = self.begun.elapsed().as_secs_f64();
        state.canvas.zoom = Some(state.canvas.drawn_zoom.max(0.01));
        state.canvas.centre = [0.5 + 0.05 * turn.sin() as f32, 0.5 + 0.05 * turn.cos() as f32];
        if self.last.is_none() {
            self.used = threads();
        }
        if let Some(last) = self.last.replace(now) {
            self.frames.push((now - last).as_secs_f64() * 1e3);
            self.work.push(worked.as_secs_f64() * 1e3);
        }
        if !running || began.elapsed() > self.wanted {
            self.finish(state);
        }
    }

    /// Clicks, or waits for the mask of the last click. Says whether there is more of it.
    fn click(&mut self, state: &mut State) -> bool {
        let regions = state.item().map_or(0, |item| item.regions().len());
        let bare = *self.bare.get_or_insert(regions == 0);
        let Some(&(x, y)) = CLICKS.get(self.clicks.len()).filter(|_| bare) else { return false };
        match self.clicked {
            None if state.masks.is_busy() => {}
            None => {
                state.canvas.new_region = true;
                state.clicked(x, y, true);
                self.clicked = Some(Instant::now());
            }
            Some(at) => {
                if matches!(state.mask(regions.saturating_sub(1)), Some(Masking::Ready(_))) {
                    self.clicks.push(at.elapsed().as_secs_f64() * 1e3);
                    self.clicked = None;
                }
            }
        }
        true
    }

    fn finish(&mut self, state: &mut State) {
        use std::io::Write as _;
        // The window takes a frame or two to close.
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let text = format!("{:#}\n", self.report());
        // Whoever asked for it reads it; a closed pipe is their decision.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
        // Nobody is there to be asked about the take that was made.
        state.leaving = true;
    }

    /// What each kind of thread took for a frame, whoever else used the processor meanwhile: of the window's
    /// own thread, of the rasteriser's where that is software, of the render's.
    fn per_frame(&self) -> Value {
        let now = threads();
        let count = self.frames.len().max(1) as f64;
        let each = |(name, seconds): (&String, &f64)| {
            let spent = seconds - self.used.get(name).unwrap_or(&0.0);
            (spent > 0.0).then(|| (name.clone(), json!((spent / count * 1e5).round() / 100.0)))
        };
        Value::Object(now.iter().filter_map(each).collect())
    }

    fn report(&self) -> Value {
        let total: f64 = self.frames.iter().sum();
        let count = self.frames.len();
        json!({
            "first_frame_seconds": self.first,
            "resident_bytes_at_first_frame": self.empty_bytes,
            "resident_bytes_at_end": resident(),
            "click_to_mask_milliseconds": self.clicks,
            "frames": count,
            "frames_per_second": if total > 0.0 { count as f64 / total * 1e3 } else { 0.0 },
            "frame_milliseconds": quantiles(&self.frames),
            "work_milliseconds": quantiles(&self.work),
            "uploaded_bytes": quantiles(&self.uploads),
            "processor_milliseconds_per_frame": self.per_frame(),
            "screen": !self.screenless,
            "histogram": histogram(&self.frames),
        })
    }
}

/// A screen as large as the window usually is.
const SCREEN: Vec2 = vec2(1440.0, 900.0);
/// Frames a second that are tried for.
const WANTED: f64 = 60.0;

/// Makes frames of `app` without a screen until its measurement is finished. A frame takes as long
/// as there is work for it: input, panels, and cutting everything into triangles.
pub(crate) fn without_screen(ctx: &Context, app: &mut App) {
    if let Some(measure) = &mut app.measure {
        measure.screenless = true;
    }
    let begun = Instant::now();
    while app.measure.as_ref().is_some_and(|measure| !measure.finished) {
        let frame = Instant::now();
        let input = RawInput {
            screen_rect: Some(Rect::from_min_size(Pos2::ZERO, SCREEN)),
            time: Some(begun.elapsed().as_secs_f64()),
            focused: true,
            ..RawInput::default()
        };
        app.tick(ctx);
        let mut output = ctx.run_ui(input, |ui| app.draw(ui));
        let uploaded: usize = output
            .textures_delta
            .set
            .values()
            .flatten()
            .map(|delta| delta.image.width() * delta.image.height() * delta.image.bytes_per_pixel())
            .sum();
        // There is no card to bring them to.
        output.textures_delta.clear();
        let triangles = ctx.tessellate(std::mem::take(&mut output.shapes), output.pixels_per_point);
        let worked = frame.elapsed();
        drop(triangles);
        let App { state, measure, .. } = app;
        if let Some(measure) = measure {
            measure.frame(ctx, state, worked);
            if measure.frames.len() > measure.uploads.len() {
                measure.uploads.push(uploaded as f64);
            }
        }
        std::thread::sleep(Duration::from_secs_f64(1.0 / WANTED).saturating_sub(frame.elapsed()));
    }
}

fn quantiles(times: &[f64]) -> Value {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted.get(((sorted.len().saturating_sub(1)) as f64 * share).round() as usize);
    json!({ "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0) })
}

fn histogram(times: &[f64]) -> Value {
    let mut low = 0.0;
    let mut columns = vec![];
    for high in COLUMNS.into_iter().chain([f64::INFINITY]) {
        let count = times.iter().filter(|time| **time >= low && **time < high).count();
        let below = high.is_finite().then_some(high);
        columns.push(json!({ "from": low, "below": below, "frames": count }));
        low = high;
    }
    Value::Array(columns)
}

/// Memory of this process, in bytes.
fn resident() -> u64 {
    let (Ok(id), Ok(mut system)) = (sysinfo::get_current_pid(), System::new()) else { return 0 };
    let what = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[id]), false, what);
    system.process(id).map_or(0, sysinfo::Process::memory)
}

/// Seconds of processor time by the names of threads, their numbers left out; none where the system does not
/// tell.
fn threads() -> BTreeMap<String, f64> {
    let mut used = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let Some((head, rest)) = stat.rsplit_once(')') else { continue };
        let name = head.split_once('(').map_or("", |(_, name)| name);
        let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
        // The 14th and 15th field of all: ticks in the program and in the system.
        let ticks = |at: usize| rest.split_whitespace().nth(at).and_then(|n| n.parse::<f64>().ok());
        let seconds = (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0;
        *used.entry(name.to_owned()).or_insert(0.0) += seconds;
    }
    used
}

/// Seconds since the process was started, to a hundredth, where the system tells.
fn age_of_process() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name may hold anything; fields are counted from its end, the start is the 22nd of all.
    let ticks: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let now: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Some((now - ticks / 100.0).clamp(0.0, 60.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_in_one_column() {
        let times = [1.0, 8.4, 16.7, 18.1, 18.2, 400.0];
        let columns = histogram(&times);
        let counts: Vec<u64> =
            columns.as_array().unwrap().iter().map(|c| c["frames"].as_u64().unwrap()).collect();
        assert_eq!(counts, [1, 1, 1, 1, 1, 0, 0, 0, 1]);
        assert_eq!(quantiles(&times)["max"], 400.0);
        assert!(quantiles(&[])["p50"].is_null());
        assert!(resident() > 1 << 20);
    }
}
