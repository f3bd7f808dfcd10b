//! Three ways to watch a job: a bar for people, JSON lines for programs, nothing.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle as BarStyle};
use kinora_pipeline::progress::{CancelToken, Event, Progress};

use crate::cli::ProgressStyle;

/// Chooses by what was asked and, failing that, by whether a person is looking.
pub(crate) fn watcher(style: Option<ProgressStyle>, cancel: CancelToken) -> Box<dyn Progress> {
    let style = style.unwrap_or_else(|| {
        if std::io::stderr().is_terminal() { ProgressStyle::Bar } else { ProgressStyle::Jsonl }
    });
    match style {
        ProgressStyle::Bar => Box::new(Bar::new(cancel)),
        ProgressStyle::Jsonl => Box::new(JsonLines { start: Instant::now(), cancel }),
        ProgressStyle::None => Box::new(Silent { cancel }),
    }
}

struct Silent {
    cancel: CancelToken,
}

impl Progress for Silent {
    fn event(&self, _event: Event) {}

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

/// One JSON object a line on standard error, each with the seconds since the start.
struct JsonLines {
    start: Instant,
    cancel: CancelToken,
}

impl Progress for JsonLines {
    fn event(&self, event: Event) {
        let Ok(mut value) = serde_json::to_value(&event) else { return };
        if let Some(object) = value.as_object_mut() {
            let seconds = (self.start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
            object.insert("t".to_owned(), serde_json::json!(seconds));
        }
        // A closed pipe must not end the render it reports on.
        let _ = writeln!(std::io::stderr().lock(), "{value}");
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

struct Bar {
    bar: ProgressBar,
    memory: Mutex<Memory>,
    cancel: CancelToken,
}

impl Bar {
    fn new(cancel: CancelToken) -> Self {
        let bar = ProgressBar::new(0);
        let style = BarStyle::with_template("{prefix:<12} {bar:28} {pos:>3}/{len:<3} {msg}")
            .unwrap_or_else(|_| BarStyle::default_bar());
        bar.set_style(style);
        Self { bar, memory: Mutex::new(Memory::new()), cancel }
    }

    fn line(&self, text: String) {
        self.bar.suspend(|| {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        });
    }

    fn message(&self, stage: &str) -> String {
        let eta = self.bar.eta();
        let eta =
            if self.bar.position() > 0 { format!(" · {} left", human_seconds(eta)) } else { String::new() };
        let memory = self.memory.lock().map(|mut memory| memory.resident()).unwrap_or(0);
        format!("{stage}{eta} · {} MB", memory / 1_000_000)
    }
}

impl Progress for Bar {
    fn event(&self, event: Event) {
        match event {
            Event::NodeStarted { node, .. } => {
                self.bar.set_prefix(node);
                self.bar.set_length(0);
                self.bar.reset();
            }
            Event::Step { stage, done, total, .. } => {
                if self.bar.length() != Some(total as u64) || done <= 1 {
                    self.bar.set_length(total as u64);
                    self.bar.reset_eta();
                }
                self.bar.set_position(done as u64);
                self.bar.set_message(self.message(stage));
            }
            Event::NodeFinished { node, op, seconds, cached } => {
                let how =
                    if cached { "unchanged, from the cache".to_owned() } else { format!("{seconds:.1} s") };
                self.line(format!("{node:<12} {op:<16} {how}"));
            }
            Event::Notice { node, message } => self.line(format!("{node:<12} {message}")),
            Event::Wrote { path, bytes, .. } => self.line(format!("wrote {path} ({})", human_bytes(bytes))),
        }
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Resident memory of this process, asked for at most twice a second.
struct Memory {
    system: Option<sysinfo::System>,
    read: Option<(Instant, u64)>,
}

impl Memory {
    fn new() -> Self {
        Self { system: sysinfo::System::new().ok(), read: None }
    }

    fn resident(&mut self) -> u64 {
        if let Some((at, bytes)) = self.read
            && at.elapsed() < Duration::from_millis(500)
        {
            return bytes;
        }
        let Some(system) = &mut self.system else { return 0 };
        let bytes = sysinfo::get_current_pid().map_or(0, |pid| {
            system.refresh_processes(sysinfo::ProcessesToUpdate::Some(&[pid]), true);
            system.process(pid).map_or(0, sysinfo::Process::memory)
        });
        self.read = Some((Instant::now(), bytes));
        bytes
    }
}

fn human_seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0..60 => format!("{} s", duration.as_secs().max(1)),
        seconds @ 60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Decimal units, as file managers show them.
pub(crate) fn human_bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}
