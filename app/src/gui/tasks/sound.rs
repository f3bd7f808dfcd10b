//! The sound of what plays: mixed ahead on a thread, taken by the device, whose pace is the clock of the
//! program monitor. Without a device, or without anything that sounds, the monitor goes by its own clock.

#[cfg(feature = "sound")]
mod device;
mod mixer;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kinora_pipeline::media::SOUND_RATE;

/// Seconds of sound that are mixed ahead.
const AHEAD: f64 = 0.25;
/// How long play waits for a device to begin before it goes on without sound.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 60_000 } else { 700 });
/// How long sound goes on that nobody follows.
const ALONE: Duration = Duration::from_millis(if cfg!(test) { 60_000 } else { 2000 });
/// Looks at the window without anybody following after which its sound ends.
const UNSEEN: u32 = 8;
/// How long after a device refused another try is made.
const AGAIN: Duration = Duration::from_secs(10);

/// A stretch of a file that sounds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    /// The file.
    pub(crate) path: PathBuf,
    /// Where it begins and ends, in seconds of what plays.
    pub(crate) span: (f64, f64),
    /// The second of the file where it begins.
    pub(crate) from: f64,
    /// Seconds over which it rises and falls.
    pub(crate) fades: (f64, f64),
    /// How loud it is, as a factor.
    pub(crate) volume: f64,
}

/// All that sounds, over time.
pub(crate) type Score = Vec<Piece>;

/// Where the sound goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the system's device.
    #[cfg_attr(test, allow(dead_code, reason = "tests make no noise"))]
    Device,
    /// Nowhere.
    Off,
    /// To whoever takes it by hand.
    #[cfg(test)]
    Hand,
}

/// The run of play that sounds.
#[derive(Debug, Clone, Default)]
struct Run {
    score: Arc<Score>,
    /// The second it began at.
    begun: f64,
    /// Seconds of what plays per second.
    speed: f64,
}

/// What the threads share.
#[derive(Debug)]
struct Line {
    run: Option<Run>,
    /// Grows with every run, so that sound of an old one is not kept.
    number: u64,
    /// Mixed and not taken: left and right in turn.
    ready: VecDeque<f32>,
    /// Moments of this run that were mixed.
    mixed: u64,
    /// Moments of this run that were taken before the last time, and the last time.
    taken: (u64, u64),
    /// When something was taken last, and how long after that it is heard.
    last: Option<(Instant, Duration)>,
    /// When this run was asked for, and when somebody last wanted to know how far it is.
    asked: Instant,
    followed: Instant,
    /// Moments a second.
    rate: u32,
    volume: f32,
    /// When a device was refused or lost.
    refused: Option<Instant>,
    closed: bool,
}

/// Shared by the window, the mixing thread and the device.
#[derive(Debug)]
pub(super) struct Shared {
    line: Mutex<Line>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Line> {
        // Nothing that runs under the lock can panic half-way through a change.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills `out`, `channels` samples a moment, with what comes next; it is heard after `delay`.
    fn take(&self, out: &mut [f32], channels: usize, delay: Duration) {
        let mut line = self.lock();
        let volume = line.volume;
        let moments = out.len() / channels.max(1);
        let there = (line.ready.len() / 2).min(moments);
        for moment in out.chunks_exact_mut(channels.max(1)) {
            let (left, right) = match (line.ready.pop_front(), line.ready.pop_front()) {
                (Some(left), Some(right)) => (left * volume, right * volume),
                _ => (0.0, 0.0),
            };
            for (channel, sample) in moment.iter_mut().enumerate() {
                *sample = match (channels, channel) {
                    (1, _) => (left + right) / 2.0,
                    (_, 0) => left,
                    (_, 1) => right,
                    _ => 0.0,
                }
                .clamp(-1.0, 1.0);
            }
        }
        if line.run.is_some() && there > 0 {
            line.taken = (line.taken.0 + line.taken.1, there as u64);
            line.last = Some((Instant::now(), delay));
        }
        drop(line);
        self.changed.notify_all();
    }
}

/// The window's side of the sound.
#[derive(Debug)]
pub(crate) struct Sound {
    shared: Arc<Shared>,
    way: Way,
    started: bool,
    /// The moment the monitor was given last; another one there means that somebody moved it.
    given: f64,
    /// Looks at the window since somebody followed.
    unseen: u32,
}

impl Sound {
    /// Nothing sounds yet, and no device is opened before something does.
    pub(crate) fn new(way: Way) -> Self {
        let line = Line {
            run: None,
            number: 0,
            ready: VecDeque::new(),
            mixed: 0,
            taken: (0, 0),
            last: None,
            asked: Instant::now(),
            followed: Instant::now(),
            rate: SOUND_RATE,
            volume: 1.0,
            refused: None,
            closed: false,
        };
        let shared = Arc::new(Shared { line: Mutex::new(line), changed: Condvar::new() });
        Self { shared, way, started: false, given: 0.0, unseen: 0 }
    }

    /// How loud everything is, 0..=1.
    pub(crate) fn set_volume(&self, volume: f32) {
        self.shared.lock().volume = volume.clamp(0.0, 1.0);
    }

    /// Whether there is a device, as far as that is known.
    pub(crate) fn has_device(&self) -> bool {
        self.way != Way::Off && self.shared.lock().refused.is_none()
    }

    /// Lets `score` sound from `position` on, `speed` seconds a second, unless it does already. Gives the
    /// moment that is heard now; none where nothing sounds and another clock must do.
    pub(crate) fn follow(&mut self, score: Score, position: f64, speed: f64) -> Option<f64> {
        self.unseen = 0;
        if self.way == Way::Off || speed == 0.0 || score.is_empty() {
            self.stop();
            return None;
        }
        let mut line = self.shared.lock();
        line.followed = Instant::now();
        let same = line.run.as_ref().is_some_and(|run| *run.score == score && run.speed == speed);
        if !same || (position - self.given).abs() > 1e-9 {
            if line.refused.is_some_and(|at| at.elapsed() < AGAIN) {
                return None;
            }
            line.refused = None;
            line.run = Some(Run { score: Arc::new(score), begun: position, speed });
            line.number += 1;
            line.ready.clear();
            (line.mixed, line.taken, line.last) = (0, (0, 0), None);
            line.asked = Instant::now();
        }
        let now = line.heard();
        drop(line);
        self.shared.changed.notify_all();
        if !std::mem::replace(&mut self.started, true) {
            self.start();
        }
        match now {
            Some(now) => {
                self.given = now;
                Some(now)
            }
            None => {
                // A device that does not begin, or stops, is left alone for a while.
                self.shared.lock().refused.get_or_insert_with(Instant::now);
                self.stop();
                None
            }
        }
    }

    /// The window was looked at: silence where nobody followed what plays for a while, because its panel is
    /// not on the screen.
    pub(crate) fn rest(&mut self) {
        self.unseen = self.unseen.saturating_add(1);
        if self.unseen > UNSEEN {
            self.stop();
        }
    }

    /// Silence.
    pub(crate) fn stop(&self) {
        let mut line = self.shared.lock();
        if line.run.take().is_some() {
            line.number += 1;
            line.ready.clear();
        }
    }

    fn start(&self) {
        let shared = Arc::clone(&self.shared);
        let way = self.way;
        let spawned = std::thread::Builder::new().name("sound".into()).spawn(move || work(&shared, way));
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for sound");
            self.shared.lock().refused = Some(Instant::now());
        }
    }

    /// Takes sound as a device would: so many moments, left and right in turn.
    #[cfg(test)]
    pub(crate) fn take(&self, moments: usize) -> Vec<f32> {
        let begun = Instant::now();
        let mut out = vec![];
        while out.len() < moments * 2 {
            let there = (self.shared.lock().ready.len() / 2).min(moments - out.len() / 2);
            let mut part = vec![0.0; there * 2];
            if there > 0 {
                self.shared.take(&mut part, 2, Duration::ZERO);
            }
            out.extend(part);
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing is mixed");
            std::thread::sleep(Duration::from_millis(1));
        }
        out
    }
}

impl Drop for Sound {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Line {
    /// The moment that is heard now; none where nothing is, and will not soon be.
    fn heard(&self) -> Option<f64> {
        let run = self.run.as_ref()?;
        if self.refused.is_some() {
            return None;
        }
        let rate = f64::from(self.rate.max(1));
        let Some((at, delay)) = self.last else {
            // The device begins in a moment; until then time stands still.
            return (self.asked.elapsed() < PATIENCE).then_some(run.begun);
        };
        // What was taken last sounds bit by bit; nobody knows how long a device that stopped will stay so.
        if at.elapsed() > PATIENCE {
            return None;
        }
        let (before, now) = self.taken;
        let into = (at.elapsed().as_secs_f64() * rate).min(now as f64);
        let moments = (before as f64 + into - delay.as_secs_f64() * rate).max(0.0);
        Some(run.begun + run.speed * moments / rate)
    }
}

/// The thread: opens the device when something is to sound, and mixes ahead of it.
fn work(shared: &Arc<Shared>, way: Way) {
    let mut mixer = mixer::Mixer::default();
    #[cfg(feature = "sound")]
    let mut device: Option<device::Device> = None;
    loop {
        let (run, mixed, number, rate) = {
            let mut line = shared.lock();
            loop {
                if line.closed {
                    return;
                }
                // A device that failed is closed; it would go on saying so.
                #[cfg(feature = "sound")]
                if line.refused.is_some() && device.is_some() {
                    drop(line);
                    drop(device.take());
                    line = shared.lock();
                    continue;
                }
                let enough = line.followed.elapsed() > ALONE
                    || line.ready.len() as f64 / 2.0 >= AHEAD * f64::from(line.rate);
                if let (Some(run), false) = (&line.run, enough) {
                    break (run.clone(), line.mixed, line.number, line.rate);
                }
                let waited = shared.changed.wait_timeout(line, Duration::from_millis(200));
                line = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        };
        #[cfg(feature = "sound")]
        if way == Way::Device && device.is_none() {
            match device::Device::open(shared) {
                Ok(opened) => {
                    shared.lock().rate = opened.rate;
                    device = Some(opened);
                }
                Err(why) => {
                    tracing::warn!("no sound: {why}");
                    let mut line = shared.lock();
                    (line.run, line.refused) = (None, Some(Instant::now()));
                }
            }
            continue;
        }
        #[cfg(not(feature = "sound"))]
        if way == Way::Device {
            shared.lock().refused = Some(Instant::now());
            shared.lock().run = None;
            continue;
        }
        let block = mixer.block(&run.score, run.begun, run.speed, mixed, rate);
        let mut line = shared.lock();
        if line.number == number {
            line.mixed += block.len() as u64 / 2;
            line.ready.extend(block);
        }
    }
}

#[cfg(test)]
mod tests;
