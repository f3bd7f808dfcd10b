//! Frames of clips for the monitor, decoded ahead of the playhead.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use eframe::egui::ColorImage;
use kinora_pipeline::media::{TimedPicture, VideoLimits, VideoReader};
use kinora_pipeline::store::cache::{Cache, CacheKey};
use kinora_pipeline::workflow::{Clip, frame_at};

use super::Wake;
use super::images::preview;
use super::worker::Worker;

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
/// How far from the frame asked for one in a strip may be, as a part of the clip: less than is seen.
const ROUGH: usize = 200;
/// Frame rate where a file does not say.
const USUAL_FPS: f64 = 25.0;

/// Which clip.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Film {
    /// The result of a node.
    Take(CacheKey),
    /// A file.
    File(PathBuf),
}

/// What is known of a clip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FilmInfo {
    /// Pixels.
    pub(crate) width: u32,
    /// Pixels.
    pub(crate) height: u32,
    /// Frames, at least 1.
    pub(crate) frames: usize,
    /// Frames per second.
    pub(crate) fps: f64,
}

impl FilmInfo {
    /// Length in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.frames as f64 / self.fps
    }

    /// The frame shown at a moment.
    pub(crate) fn frame_at(&self, seconds: f64) -> usize {
        frame_at(seconds, self.fps, self.frames)
    }
}

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
            let mut projector = Projector { cache, room, open: vec![], jumps: theirs };
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
            // decoded as stretches, while it plays the one before too.
            let begin = index - index % BACK;
            let before = if speed < 0.0 { begin.saturating_sub(BACK) } else { begin };
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

enum Open {
    Clip(Clip),
    // Boxed: a decoder is large beside a clip. `next` is the frame it would give; none where it was left. `sought`
    // is the frame on the way to which it stands.
    File { reader: Box<VideoReader>, info: FilmInfo, next: Option<usize>, sought: Option<usize> },
}

struct Projector {
    cache: PathBuf,
    room: Room,
    /// The latest last; two for comparing takes.
    open: Vec<(Film, Open)>,
    jumps: Arc<AtomicU64>,
}

impl Projector {
    fn answer(&mut self, question: Question) -> Answer {
        let (longest, rough) = (self.room.longest, self.room.rough);
        match question {
            Question::Open(film) => {
                let info = self.opened(&film).map(|open| match open {
                    Open::Clip(clip) => clip_info(clip),
                    Open::File { info, .. } => *info,
                });
                Answer::Opened(film, info)
            }
            Question::Frames(film, from, to) => {
                let (jumps, begun) = (Arc::clone(&self.jumps), self.jumps.load(Ordering::Relaxed));
                let stop = || jumps.load(Ordering::Relaxed) != begun;
                let mut frames = vec![];
                for index in from..=to {
                    let image =
                        self.opened(&film).and_then(|open| decode(open, index, longest, rough, &stop));
                    match image.transpose() {
                        Some(image) => frames.push((index, image)),
                        None => return Answer::Left(film, from, to),
                    }
                }
                Answer::Frames(film, frames)
            }
            Question::Near(film, index) => {
                let found = self.opened(&film).and_then(|open| near(open, index, longest));
                Answer::Frames(
                    film,
                    found.ok().flatten().map(|(at, image)| (at, Ok(image))).into_iter().collect(),
                )
            }
        }
    }

    fn opened(&mut self, film: &Film) -> Result<&mut Open, String> {
        if let Some(at) = self.open.iter().position(|(known, _)| known == film) {
            let kept = self.open.remove(at);
            self.open.push(kept);
        } else {
            let open = match film {
                Film::Take(key) => {
                    let cache = Cache::open(&self.cache).map_err(|e| e.to_string())?;
                    let clip = Clip::open(&cache, key);
                    Open::Clip(clip.ok_or("this take is no longer in the cache; render it again")?)
                }
                Film::File(path) => {
                    let reader =
                        VideoReader::open(path, &VideoLimits::default()).map_err(|e| e.to_string())?;
                    let info = file_info(&reader);
                    Open::File { reader: Box::new(reader), info, next: Some(0), sought: None }
                }
            };
            self.open.push((film.clone(), open));
            if self.open.len() > 3 {
                self.open.remove(0);
            }
        }
        self.open.last_mut().map(|(_, open)| open).ok_or_else(|| "nothing is open".to_owned())
    }
}

fn clip_info(clip: &Clip) -> FilmInfo {
    let (rate, base) = clip.fps();
    let fps = f64::from(rate) / f64::from(base.max(1));
    FilmInfo { width: clip.width(), height: clip.height(), frames: clip.frames().max(1), fps: sane(fps) }
}

fn file_info(reader: &VideoReader) -> FilmInfo {
    let info = reader.info();
    let fps = info.fps.map_or(USUAL_FPS, |(rate, base)| f64::from(rate) / f64::from(base.max(1)));
    let fps = sane(fps);
    let counted = info.frames.and_then(|frames| usize::try_from(frames).ok());
    let timed = info.seconds.map(|seconds| (seconds * fps).round() as usize);
    let frames = counted.or(timed).unwrap_or(1).max(1);
    FilmInfo { width: info.width, height: info.height, frames, fps }
}

fn sane(fps: f64) -> f64 {
    if fps.is_finite() && fps > 0.0 { fps.clamp(0.5, 240.0) } else { USUAL_FPS }
}

/// A frame; none where `stop` called it off. With `rough` one of a long clip may be a little earlier, where
/// decoding can begin.
fn decode(
    open: &mut Open,
    index: usize,
    longest: u32,
    rough: bool,
    stop: &dyn Fn() -> bool,
) -> Result<Option<ColorImage>, String> {
    let (reader, info, next, sought) = match open {
        Open::Clip(clip) => {
            let frame = clip.frame(index).map_err(|e| e.to_string())?;
            return Ok(Some(preview(&frame, longest)));
        }
        Open::File { reader, info, next, sought } => (reader, info, next, sought.take()),
    };
    let seconds = index as f64 / info.fps;
    let at = next.take();
    let there = match at {
        Some(at) if at == index => true,
        Some(at) if at < index && (index - at <= ON || sought == Some(index)) => {
            reader.advance_unless(seconds, stop).map_err(|e| e.to_string())?
        }
        _ => {
            if rough {
                let frame = reader.seek_near(seconds).map_err(|e| e.to_string())?;
                let close = |found: &TimedPicture| {
                    index.saturating_sub(info.frame_at(found.seconds)) <= info.frames / ROUGH
                };
                if let Some(found) = frame.filter(close) {
                    *next = Some(info.frame_at(found.seconds) + 1);
                    return Ok(Some(preview(&found.picture, longest)));
                }
            }
            reader.seek_unless(seconds, stop).map_err(|e| e.to_string())?
        }
    };
    if !there {
        return Ok(None);
    }
    let frame = reader.next_frame().map_err(|e| e.to_string())?;
    *next = Some(index + 1);
    let frame = frame.ok_or_else(|| format!("the clip ends before frame {index}"))?;
    Ok(Some(preview(&frame.picture, longest)))
}

/// The frame at or before one where decoding can begin; none where the one itself is as quick.
fn near(open: &mut Open, index: usize, longest: u32) -> Result<Option<(usize, ColorImage)>, String> {
    let Open::File { reader, info, next, sought } = open else { return Ok(None) };
    if next.is_some_and(|next| next <= index && index - next <= ON) {
        return Ok(None);
    }
    *next = None;
    let found = reader.seek_near(index as f64 / info.fps).map_err(|e| e.to_string())?;
    let Some(found) = found else { return Ok(None) };
    let at = info.frame_at(found.seconds);
    // From here it goes on to the frame itself, however far that is.
    (*next, *sought) = (Some(at + 1), Some(index));
    Ok(Some((at, preview(&found.picture, longest))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_frames_agree() {
        let info = FilmInfo { width: 1, height: 1, frames: 48, fps: 23.976 };
        for frame in 0..48 {
            assert_eq!(info.frame_at(frame as f64 / info.fps), frame);
        }
        assert_eq!((info.frame_at(-1.0), info.frame_at(99.0)), (0, 47));
        assert!((info.seconds() - 2.002).abs() < 1e-3);
        assert_eq!((sane(f64::NAN), sane(0.0), sane(1e9)), (USUAL_FPS, USUAL_FPS, 240.0));
    }
}
