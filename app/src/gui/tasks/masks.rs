//! Turns clicks into masks while the person watches.
//!
//! The picture is prepared once and kept, so that a click costs only its own cut. What is shown is
//! what a render will use: the same candidates, chosen and refined the same way.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use eframe::egui::{Color32, ColorImage};
use kinora_pipeline::control::click::{CandidateKind, ClickCut};
use kinora_pipeline::media::{ImageLimits, Mask, Picture, read_mask, resize_mask};
use kinora_pipeline::store::assets::asset_roots;
use kinora_pipeline::store::paths::Roots;
use kinora_pipeline::workflow::Engines as _;
use kinora_pipeline::workflow::ops::MaskClick;

use super::images::mask_views;
use super::pictures::PictureKey;
use super::worker::Worker;
use super::{Shop, Wake, share};
use crate::engines::select;

/// Masks kept.
const KEPT: usize = 48;
/// Prepared pictures kept.
const PREPARED: usize = 2;

/// What gives a mask its shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MaskSource {
    /// Clicks on the picture.
    Clicks(MaskClick),
    /// A file of the project.
    File {
        /// Its name in the document.
        path: String,
    },
    /// Nothing: only prepares the picture, so that the first click is quick.
    Prepare,
}

/// Which mask.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MaskKey {
    picture: PictureKey,
    folder: PathBuf,
    source: MaskSource,
    colour: Color32,
}

impl MaskKey {
    /// The mask of `source` on a picture, shown in `colour`.
    pub(crate) fn new(picture: PictureKey, folder: PathBuf, source: MaskSource, colour: Color32) -> Self {
        Self { picture, folder, source, colour }
    }

    /// A text that is equal for equal masks.
    fn name(&self) -> String {
        format!("{self:?}")
    }
}

/// A mask with how it looks.
pub(crate) struct MaskShown {
    /// At the picture's size.
    pub(crate) mask: Arc<Mask>,
    /// The candidates the clicks have, with their scores.
    pub(crate) candidates: Vec<(CandidateKind, f32)>,
    /// Tinted with an outline.
    pub(crate) tint: Arc<ColorImage>,
    /// White on black.
    pub(crate) matte: Arc<ColorImage>,
}

impl std::fmt::Debug for MaskShown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MaskShown({:?})", self.mask)
    }
}

/// How far a mask is.
#[derive(Debug, Clone)]
pub(crate) enum Masking {
    /// Being cut.
    Waiting,
    /// There.
    Ready(Arc<MaskShown>),
    /// It cannot be had; the text says why.
    Failed(String),
}

struct Question {
    key: MaskKey,
    picture: Arc<Picture>,
}

/// The masks.
#[derive(Debug)]
pub(crate) struct Masks {
    worker: Worker<Question, (MaskKey, Result<MaskShown, String>)>,
    known: HashMap<String, Masking>,
    order: Vec<String>,
}

impl Masks {
    /// None yet.
    pub(crate) fn new(shop: Arc<Shop>, wake: Wake) -> Self {
        let start = move || -> Box<dyn FnMut(Question) -> _ + Send> {
            let mut cutter = Cutter { shop, prepared: vec![] };
            let every = share::every_core("masks");
            Box::new(move |question: Question| {
                let answer = match &every {
                    Some(pool) => pool.install(|| cutter.answer(&question)),
                    None => cutter.answer(&question),
                };
                (question.key, answer)
            })
        };
        Self { worker: Worker::new("masks", wake, start), known: HashMap::new(), order: vec![] }
    }

    /// The mask, which is asked for when it is not known. Of one node only the latest is cut.
    pub(crate) fn get(&mut self, key: &MaskKey, picture: &Arc<Picture>) -> Masking {
        let name = key.name();
        if let Some(masking) = self.known.get(&name) {
            return masking.clone();
        }
        self.known.insert(name.clone(), Masking::Waiting);
        self.order.push(name);
        while self.order.len() > KEPT {
            let old = self.order.remove(0);
            self.known.remove(&old);
        }
        let question = Question { key: key.clone(), picture: Arc::clone(picture) };
        let mut dropped = vec![];
        {
            let stale = std::cell::RefCell::new(&mut dropped);
            // A drag asks for many masks of one region; only its end matters.
            self.worker.ask(question, |waiting| {
                let same = waiting.key.colour == key.colour
                    && waiting.key.picture == key.picture
                    && !matches!(waiting.key.source, MaskSource::Prepare);
                if same {
                    stale.borrow_mut().push(waiting.key.name());
                }
                same
            });
        }
        for name in dropped {
            self.known.remove(&name);
            self.order.retain(|known| *known != name);
        }
        Masking::Waiting
    }

    /// Takes in what was cut. Says whether anything was.
    pub(crate) fn poll(&mut self) -> bool {
        let answers = self.worker.answers();
        let any = !answers.is_empty();
        for (key, answer) in answers {
            if let Some(known) = self.known.get_mut(&key.name()) {
                *known = match answer {
                    Ok(shown) => Masking::Ready(Arc::new(shown)),
                    Err(message) => Masking::Failed(message),
                };
            }
        }
        any
    }

    /// Whether a mask is being cut.
    pub(crate) fn is_busy(&self) -> bool {
        self.worker.is_busy()
    }
}

struct Cutter {
    shop: Arc<Shop>,
    /// The latest last.
    prepared: Vec<(PictureKey, ClickCut)>,
}

impl Cutter {
    fn answer(&mut self, question: &Question) -> Result<MaskShown, String> {
        let begun = std::time::Instant::now();
        let Question { key, picture } = question;
        let machinery = self.shop.for_plans()?;
        let (mask, found) = match &key.source {
            MaskSource::Prepare => {
                self.prepared(key, picture)?;
                let nothing = Mask::new(1, 1, vec![0.0]).map_err(|e| e.to_string())?;
                (nothing, vec![])
            }
            MaskSource::Clicks(clicks) => {
                let (found, kinds) = match clicks.query() {
                    Some(query) => {
                        let found =
                            select(self.prepared(key, picture)?, &query).map_err(|e| e.to_string())?;
                        (Some(found.0), found.1)
                    }
                    None => (None, vec![]),
                };
                let painted = clicks.painted(found, picture.width(), picture.height());
                let mask = machinery
                    .refine(painted.map_err(|e| e.to_string())?, clicks.dilate, clicks.feather)
                    .map_err(|e| e.to_string())?;
                (mask, kinds)
            }
            MaskSource::File { path } => (read(key, path, picture)?, vec![]),
        };
        let (tint, matte) = mask_views(&mask, key.colour);
        tracing::debug!(seconds = begun.elapsed().as_secs_f64(), "cut a mask");
        Ok(MaskShown {
            mask: Arc::new(mask),
            candidates: found,
            tint: Arc::new(tint),
            matte: Arc::new(matte),
        })
    }

    fn prepared(&mut self, key: &MaskKey, picture: &Picture) -> Result<&ClickCut, String> {
        if let Some(at) = self.prepared.iter().position(|(known, _)| *known == key.picture) {
            let kept = self.prepared.remove(at);
            self.prepared.push(kept);
        } else {
            let cut = self.shop.for_plans()?.prepare(picture).map_err(|e| e.to_string())?;
            self.prepared.push((key.picture.clone(), cut));
            if self.prepared.len() > PREPARED {
                self.prepared.remove(0);
            }
        }
        self.prepared.last().map(|(_, cut)| cut).ok_or_else(|| "the picture was not prepared".to_owned())
    }
}

fn read(key: &MaskKey, path: &str, picture: &Picture) -> Result<Mask, String> {
    let roots = Roots::open(&key.folder, None, &asset_roots(Some(&key.folder))).map_err(|e| e.to_string())?;
    let path = roots.file(path).map_err(|e| e.to_string())?;
    let mask = read_mask(&path, &ImageLimits::default()).map_err(|e| e.to_string())?;
    let same = (mask.width(), mask.height()) == (picture.width(), picture.height());
    Ok(if same { mask } else { resize_mask(&mask, picture.width(), picture.height()) })
}
