//! The thread's side of the player: clips that are open, and frames out of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use eframe::egui::ColorImage;
use kinora_pipeline::media::{TimedPicture, VideoLimits, VideoReader};
use kinora_pipeline::store::cache::Cache;
use kinora_pipeline::workflow::Clip;

use super::film::{Film, FilmInfo, clip_info, file_info};
use super::{Answer, ON, Question, Room};
use crate::gui::tasks::images::preview;

/// How far from the frame asked for one in a strip may be, as a part of the clip: less than is seen.
const ROUGH: usize = 200;

enum Open {
    Clip(Clip),
    // Boxed: a decoder is large beside a clip. `next` is the frame it would give; none where it was left. `sought`
    // is the frame on the way to which it stands.
    File { reader: Box<VideoReader>, info: FilmInfo, next: Option<usize>, sought: Option<usize> },
}

/// What decodes, on the thread of its own.
pub(super) struct Projector {
    cache: PathBuf,
    room: Room,
    /// The latest last; two for comparing takes.
    open: Vec<(Film, Open)>,
    jumps: Arc<AtomicU64>,
}

impl Projector {
    /// Takes come from the cache in `cache`; when `jumps` grows, what is being decoded is called off.
    pub(super) fn new(cache: PathBuf, room: Room, jumps: Arc<AtomicU64>) -> Self {
        Self { cache, room, open: vec![], jumps }
    }

    /// Opens a clip or decodes frames of one.
    pub(super) fn answer(&mut self, question: Question) -> Answer {
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
