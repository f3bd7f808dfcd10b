//! Frames of clips for the monitor, decoded ahead of the playhead.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use eframe::egui::ColorImage;
use kinora_pipeline::media::{VideoLimits, VideoReader};
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
}

impl Room {
    /// For the monitor.
    pub(crate) const MONITOR: Self = Self { longest: 1920, bytes: 144 << 20, waiting: 256 };
    /// For strips of small pictures.
    pub(crate) const STRIPS: Self = Self { longest: 160, bytes: 32 << 20, waiting: 3 };
}

/// Frames asked for ahead of the playhead.
const AHEAD: usize = 6;
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
    Frame(Film, usize),
}

enum Answer {
    Opened(Film, Result<FilmInfo, String>),
    Frame(Film, usize, Result<ColorImage, String>),
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
}

impl Player {
    /// Clips of nodes come from the cache in `cache`.
    pub(crate) fn new(cache: &Path, room: Room, wake: Wake) -> Self {
        let cache = cache.to_path_buf();
        let start = move || -> Box<dyn FnMut(Question) -> Answer + Send> {
            let mut projector = Projector { cache, longest: room.longest, open: vec![] };
            Box::new(move |question| projector.answer(question))
        };
        Self {
            worker: Worker::new("player", wake, start),
            films: HashMap::new(),
            frames: HashMap::new(),
            order: vec![],
            bytes: 0,
            room,
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

    /// A frame and, in the direction of play, those after it are asked for; the frame is given when
    /// it is there.
    pub(crate) fn frame(
        &mut self,
        film: &Film,
        info: &FilmInfo,
        index: usize,
        forward: bool,
    ) -> Option<Arc<ColorImage>> {
        let ahead = AHEAD.min(info.frames.saturating_sub(1));
        let near: Vec<usize> = (0..=ahead)
            .map(|step| {
                if forward {
                    (index + step) % info.frames
                } else {
                    (index + info.frames - step) % info.frames
                }
            })
            .collect();
        for &at in &near {
            let key = (film.clone(), at);
            if self.frames.contains_key(&key) {
                continue;
            }
            self.frames.insert(key, Slot::Asked);
            let mut dropped = vec![];
            {
                let dropped = std::cell::RefCell::new(&mut dropped);
                // Where a scrub has gone on, what it passed is not decoded any more.
                self.worker.ask(Question::Frame(film.clone(), at), |waiting| match waiting {
                    Question::Frame(other, frame) if other == film && !near.contains(frame) => {
                        dropped.borrow_mut().push(*frame);
                        true
                    }
                    _ => false,
                });
            }
            for frame in dropped {
                self.frames.remove(&(film.clone(), frame));
            }
        }
        match self.frames.get(&(film.clone(), index)) {
            Some(Slot::There(image)) => Some(Arc::clone(image)),
            _ => None,
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
        self.worker.ask(Question::Frame(film.clone(), index), |_| false);
        None
    }

    /// The frame that is there and nearest to `index`, while that one is decoded.
    pub(crate) fn there(&self, film: &Film, index: usize) -> Option<Arc<ColorImage>> {
        let there = self.order.iter().filter(|(other, _)| other == film);
        let near = there.min_by_key(|(_, at)| at.abs_diff(index))?;
        match self.frames.get(near) {
            Some(Slot::There(image)) => Some(Arc::clone(image)),
            _ => None,
        }
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
                Answer::Frame(film, index, Ok(image)) => {
                    self.bytes += image.pixels.len() * 4;
                    self.order.push((film.clone(), index));
                    self.frames.insert((film, index), Slot::There(Arc::new(image)));
                }
                Answer::Frame(film, index, Err(message)) => {
                    tracing::warn!(index, "a frame cannot be shown: {message}");
                    self.frames.insert((film, index), Slot::Bad);
                }
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

    /// Forgets a clip, so that it is opened anew.
    pub(crate) fn forget(&mut self, film: &Film) {
        self.films.remove(film);
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
    // Boxed: a decoder is large beside a clip.
    File { reader: Box<VideoReader>, info: FilmInfo, next: usize },
}

struct Projector {
    cache: PathBuf,
    longest: u32,
    /// The latest last; two for comparing takes.
    open: Vec<(Film, Open)>,
}

impl Projector {
    fn answer(&mut self, question: Question) -> Answer {
        match question {
            Question::Open(film) => {
                let info = self.opened(&film).map(|open| match open {
                    Open::Clip(clip) => clip_info(clip),
                    Open::File { info, .. } => *info,
                });
                Answer::Opened(film, info)
            }
            Question::Frame(film, index) => {
                let longest = self.longest;
                let image = self.opened(&film).and_then(|open| decode(open, index, longest));
                Answer::Frame(film, index, image)
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
                    Open::File { reader: Box::new(reader), info, next: 0 }
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

fn decode(open: &mut Open, index: usize, longest: u32) -> Result<ColorImage, String> {
    match open {
        Open::Clip(clip) => {
            clip.frame(index).map(|frame| preview(&frame, longest)).map_err(|e| e.to_string())
        }
        Open::File { reader, info, next } => {
            if index != *next {
                reader.seek(index as f64 / info.fps).map_err(|e| e.to_string())?;
            }
            let frame = reader.next_frame().map_err(|e| e.to_string())?;
            *next = index + 1;
            let frame = frame.ok_or_else(|| format!("the clip ends before frame {index}"))?;
            Ok(preview(&frame.picture, longest))
        }
    }
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
