//! Frames of clips for the monitor, decoded ahead of the playhead.

mod film;
mod projector;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use eframe::egui::ColorImage;

use super::Wake;
use super::worker::Worker;
pub(crate) use film::{Film, FilmInfo};
use projector::Projector;

/// How large frames are, and how many of them are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Longest side of a frame, in pixels.
    longest: u32,
    /// Bytes of decoded frames.
    bytes: usize,
    /// Frames that may wait to be decoded for lists.
    waiting: usize,
    /// Whether a frame near the one asked for will do in a long clip.
    rough: bool,
}

impl Room {
    /// For the monitor.
    pub(crate) const MONITOR: Self = Self { longest: 1920, bytes: 144 << 20, waiting: 256, rough: false };
    /// For strips of small pictures.
    pub(crate) const STRIPS: Self = Self { longest: 160, bytes: 32 << 20, waiting: 3, rough: true };
}

/// Frames asked for ahead of the playhead while it plays.
const AHEAD: usize = 6;
/// Frames decoded at once on the way back.
const BACK: usize = 8;
/// Frames passed over rather than sought: decoding on is quicker than beginning anew.
const ON: usize = 48;

#[derive(Debug, PartialEq)]
enum Question {
    Open(Film),
    /// The frames from one to another.
    Frames(Film, usize, usize),
    /// A frame near one, quickly.
    Near(Film, usize),
}

impl Question {
    /// The frames it is about.
    fn about(&self, film: &Film) -> Option<(usize, usize)> {
        match self {
            Self::Frames(of, from, to) if of == film => Some((*from, *to)),
            Self::Near(of, at) if of == film => Some((*at, *at)),
            _ => None,
        }
    }
}

enum Answer {
    Opened(Film, Result<FilmInfo, String>),
    Frames(Film, Vec<(usize, Result<ColorImage, String>)>),
    /// It was called off.
    Left(Film, usize, usize),
}

#[derive(Debug)]
enum Slot {
    Asked,
    There(Arc<ColorImage>),
    Bad,
}

/// The clips that are shown.
#[derive(Debug)]
pub(crate) struct Player {
    worker: Worker<Question, Answer>,
    films: HashMap<Film, Option<Result<FilmInfo, String>>>,
    frames: HashMap<(Film, usize), Slot>,
    /// Decoded frames, oldest first.
    order: Vec<(Film, usize)>,
    bytes: usize,
    room: Room,
    /// The frame of each clip that was asked for last.
    last: HashMap<Film, usize>,
    /// Grows when the playhead jumps, so that what is decoded for where it was is called off.
    jumps: Arc<AtomicU64>,
}

impl Player {
    /// Clips of nodes come from the cache in `cache`.
    pub(crate) fn new(cache: &Path, room: Room, wake: Wake) -> Self {
        let cache = cache.to_path_buf();
        let jumps = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&jumps);
        let start = move || -> Box<dyn FnMut(Question) -> Answer + Send> {
            let mut projector = Projector::new(cache, room, theirs);
            Box::new(move |question| projector.answer(question))
        };
        Self {
            worker: Worker::new("player", wake, start),
            films: HashMap::new(),
            frames: HashMap::new(),
            order: vec![],
            bytes: 0,
            room,
            last: HashMap::new(),
            jumps,
        }
    }

    /// What is known of a clip; it is opened when it was not. None while that goes on.
    pub(crate) fn film(&mut self, film: &Film) -> Option<Result<FilmInfo, String>> {
        if let Some(known) = self.films.get(film) {
            return known.clone();
        }
        self.films.insert(film.clone(), None);
        self.worker.ask(Question::Open(film.clone()), |_| false);
        None
    }

    /// A frame, when it is there; else it is asked for. While it plays, at `speed` clip seconds per second,
    /// those that come next are asked for too.
    pub(crate) fn frame(
        &mut self,
        film: &Film,
        info: &FilmInfo,
        index: usize,
        speed: f64,
    ) -> Option<Arc<ColorImage>> {
        let last = self.last.insert(film.clone(), index);
        if speed > 0.0 {
            let ahead = AHEAD.min(info.frames.saturating_sub(1));
            let near: Vec<usize> = (0..=ahead).map(|step| (index + step) % info.frames).collect();
            for &at in &near {
                self.want(film, at, at, &near);
            }
        } else if speed < 0.0 || last.is_some_and(|last| (index + 1..=index + BACK).contains(&last)) {
            // Every frame by itself would begin at the same place before all of them: backward they are
            // decoded as stretches, and the one before too: a stretch is there only when all of it is.
            let begin = index - index % BACK;
            let before = begin.saturating_sub(BACK);
            let near: Vec<usize> = (before..=index).collect();
            self.want(film, begin, index, &near);
            if before < begin {
                self.want(film, before, begin - 1, &near);
            }
        } else if !self.frames.contains_key(&(film.clone(), index)) {
            if last.is_none_or(|last| last.abs_diff(index) > ON) && matches!(film, Film::File(_)) {
                self.jumps.fetch_add(1, Ordering::Relaxed);
                self.ask(film, Question::Near(film.clone(), index), &[index]);
            }
            self.want(film, index, index, &[index]);
        }
        self.known(film, index)
    }

    /// A frame that is there already.
    pub(crate) fn known(&self, film: &Film, index: usize) -> Option<Arc<ColorImage>> {
        match self.frames.get(&(film.clone(), index)) {
            Some(Slot::There(image)) => Some(Arc::clone(image)),
            _ => None,
        }
    }

    /// Asks for the frames of a stretch that are not there.
    fn want(&mut self, film: &Film, from: usize, to: usize, near: &[usize]) {
        let missing = |at: &usize| !self.frames.contains_key(&(film.clone(), *at));
        let (Some(from), Some(to)) = ((from..=to).find(missing), (from..=to).rev().find(missing)) else {
            return;
        };
        for at in from..=to {
            self.frames.entry((film.clone(), at)).or_insert(Slot::Asked);
        }
        self.ask(film, Question::Frames(film.clone(), from, to), near);
    }

    /// Asks; what waits for frames that are not near any more is not decoded.
    fn ask(&mut self, film: &Film, question: Question, near: &[usize]) {
        let dropped = std::cell::RefCell::new(vec![]);
        self.worker.ask(question, |waiting| {
            let Some((from, to)) = waiting.about(film) else { return false };
            let stale = !(from..=to).any(|at| near.contains(&at));
            if stale {
                dropped.borrow_mut().push((from, to));
            }
            stale
        });
        for (from, to) in dropped.into_inner() {
            self.unask(film, from, to);
        }
    }

    fn unask(&mut self, film: &Film, from: usize, to: usize) {
        for at in from..=to {
            let key = (film.clone(), at);
            if matches!(self.frames.get(&key), Some(Slot::Asked)) {
                self.frames.remove(&key);
            }
        }
    }

    /// One frame alone, for a list; it is asked for when it is not known.
    pub(crate) fn still(&mut self, film: &Film, info: &FilmInfo, index: usize) -> Option<Arc<ColorImage>> {
        let index = index.min(info.frames - 1);
        match self.frames.get(&(film.clone(), index)) {
            Some(Slot::There(image)) => return Some(Arc::clone(image)),
            Some(_) => return None,
            None if self.worker.waiting() >= self.room.waiting => return None,
            None => {}
        }
        self.frames.insert((film.clone(), index), Slot::Asked);
        self.worker.ask(Question::Frames(film.clone(), index, index), |_| false);
        None
    }

    /// The frame that is there and nearest to `index`, while that one is decoded.
    pub(crate) fn there(&self, film: &Film, index: usize) -> Option<(usize, Arc<ColorImage>)> {
        let there = self.order.iter().filter(|(other, _)| other == film);
        let (_, near) = there.min_by_key(|(_, at)| at.abs_diff(index))?;
        Some((*near, self.known(film, *near)?))
    }

    /// Whether a frame could not be decoded.
    pub(crate) fn is_bad(&self, film: &Film, index: usize) -> bool {
        matches!(self.frames.get(&(film.clone(), index)), Some(Slot::Bad))
    }

    /// Whether something is being decoded or waits for it.
    pub(crate) fn is_busy(&self) -> bool {
        self.worker.is_busy()
    }

    /// Takes in what was decoded. Says whether anything was.
    pub(crate) fn poll(&mut self) -> bool {
        let answers = self.worker.answers();
        let any = !answers.is_empty();
        for answer in answers {
            match answer {
                Answer::Opened(film, info) => {
                    self.films.insert(film, Some(info));
                }
                Answer::Frames(film, frames) => {
                    for (index, image) in frames {
                        self.keep(&film, index, image);
                    }
                }
                Answer::Left(film, from, to) => self.unask(&film, from, to),
            }
        }
        while self.bytes > self.room.bytes && self.order.len() > 1 {
            let old = self.order.remove(0);
            if let Some(Slot::There(image)) = self.frames.remove(&old) {
                self.bytes = self.bytes.saturating_sub(image.pixels.len() * 4);
            }
        }
        any
    }

    fn keep(&mut self, film: &Film, index: usize, image: Result<ColorImage, String>) {
        let key = (film.clone(), index);
        match image {
            Ok(image) if self.known(film, index).is_none() => {
                self.bytes += image.pixels.len() * 4;
                self.order.push(key.clone());
                self.frames.insert(key, Slot::There(Arc::new(image)));
            }
            Ok(_) => {}
            Err(message) => {
                tracing::warn!(index, "a frame cannot be shown: {message}");
                self.frames.insert(key, Slot::Bad);
            }
        }
    }

    /// Forgets a clip, so that it is opened anew.
    pub(crate) fn forget(&mut self, film: &Film) {
        self.films.remove(film);
        self.last.remove(film);
        let bytes = &mut self.bytes;
        self.frames.retain(|(other, _), slot| {
            let keep = other != film;
            if !keep && let Slot::There(image) = slot {
                *bytes = bytes.saturating_sub(image.pixels.len() * 4);
            }
            keep
        });
        self.order.retain(|(other, _)| other != film);
    }
}
