//! Opens documents and brings files in, one after the other, while the window goes on.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use eframe::egui::ColorImage;
use kinora_pipeline::media::{ALPHA_GROUND, Picture, read_recipe};
use kinora_pipeline::store::assets::asset_roots;

use super::Wake;
use super::worker::Worker;
use crate::gui::model::media::{carry, import, import_bytes, import_picture, missing};
use crate::gui::model::places::{Places, unix_now};
use crate::gui::model::project::{OpenError, Project};
use crate::gui::samples::SAMPLES;

/// Folders above a finished file in which its project's media are looked for.
const MAX_CLIMB: usize = 4;

/// Something to open.
#[derive(Debug, Clone)]
pub(crate) enum Wish {
    /// A document.
    Document(PathBuf),
    /// A picture or clip; one that knows the document that made it is asked about first.
    Media(PathBuf),
    /// A picture or clip as it is.
    Plain(PathBuf),
    /// The document that made a file, from that file.
    Recipe(PathBuf),
    /// The sample at this place of the list.
    Sample(usize),
    /// A picture from the clipboard.
    Pasted(Arc<ColorImage>),
}

impl Wish {
    /// What people call it.
    pub(crate) fn name(&self) -> String {
        let named = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        match self {
            Self::Document(path) | Self::Media(path) | Self::Plain(path) | Self::Recipe(path) => {
                named(path).unwrap_or_default()
            }
            Self::Sample(index) => SAMPLES.get(*index).map_or("", |sample| sample.name).to_owned(),
            Self::Pasted(_) => "the picture on the clipboard".to_owned(),
        }
    }
}

/// A file that is in a project's folder.
#[derive(Debug)]
pub(crate) struct Brought {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// Its name there.
    pub(crate) name: String,
    /// Whether it is a clip.
    pub(crate) clip: bool,
    /// Whether the folder was made for it.
    pub(crate) fresh: bool,
}

/// What came of a wish.
#[derive(Debug)]
pub(crate) enum Opened {
    /// A document, or why not.
    Document(PathBuf, Result<Box<Project>, OpenError>),
    /// The project that made a file, or why not.
    Recipe(PathBuf, Result<Box<Project>, OpenError>),
    /// A file.
    Media(Brought),
    /// A file that knows the document that made it; nothing was done yet.
    Asks(PathBuf),
    /// Nothing; the text says why.
    Nothing(String),
}

struct Question {
    wish: Wish,
    /// The folder of the open project.
    folder: Option<PathBuf>,
}

/// What waits to be opened.
#[derive(Debug)]
pub(crate) struct Opener {
    worker: Worker<Question, Opened>,
    waiting: VecDeque<Wish>,
    busy: Option<String>,
}

impl Opener {
    /// Nothing yet.
    pub(crate) fn new(places: &Places, wake: Wake) -> Self {
        let places = places.clone();
        let start = move || -> Box<dyn FnMut(Question) -> Opened + Send> {
            Box::new(move |question| open(&question, &places))
        };
        Self { worker: Worker::new("opener", wake, start), waiting: VecDeque::new(), busy: None }
    }

    /// Asks for something.
    pub(crate) fn ask(&mut self, wish: Wish) {
        self.waiting.push_back(wish);
    }

    /// What is being opened.
    pub(crate) fn busy(&self) -> Option<&str> {
        self.busy.as_deref()
    }

    /// Whether something waits that could be begun.
    pub(crate) fn waits(&self) -> bool {
        self.busy.is_none() && !self.waiting.is_empty()
    }

    /// Whether nothing is being opened and nothing waits.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.busy.is_none() && self.waiting.is_empty()
    }

    /// What was opened since the last time.
    pub(crate) fn answer(&mut self) -> Option<Opened> {
        let answer = self.worker.answers().into_iter().next();
        // A fault leaves a question without an answer; the next one goes on.
        if answer.is_some() || !self.worker.is_busy() {
            self.busy = None;
        }
        answer
    }

    /// Begins with what waits, for the project in `folder`. One at a time, because each may open the
    /// project the next one goes into.
    pub(crate) fn go_on(&mut self, folder: impl FnOnce() -> Option<PathBuf>) {
        if self.busy.is_some() {
            return;
        }
        let Some(wish) = self.waiting.pop_front() else { return };
        self.busy = Some(wish.name());
        self.worker.ask(Question { wish, folder: folder() }, |_| false);
    }
}

/// What of a finished file can be used as a picture or clip: the file itself, of a folder its first picture.
/// None for OpenEXR, which is written for other programs and not read.
pub(crate) fn usable(path: &Path) -> Option<PathBuf> {
    let file = if path.is_dir() { path.join("frame_00000.png") } else { path.to_path_buf() };
    let exr = file.extension().is_some_and(|end| end.eq_ignore_ascii_case("exr"));
    (!exr && file.is_file()).then_some(file)
}

/// Files that are clips by their name; content decides when they are read.
pub(crate) fn is_clip(path: &Path) -> bool {
    const CLIPS: [&str; 10] = ["mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "m2ts"];
    let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
    CLIPS.contains(&end.as_str())
}

fn open(question: &Question, places: &Places) -> Opened {
    let Question { wish, folder } = question;
    match wish {
        Wish::Document(path) => {
            return Opened::Document(path.clone(), Project::open(path, places).map(Box::new));
        }
        Wish::Recipe(path) => return recipe(path, places),
        // A file that cannot be read is said to be so when it is shown.
        Wish::Media(path) if read_recipe(path).is_ok_and(|found| found.is_some()) => {
            return Opened::Asks(path.clone());
        }
        _ => {}
    }
    let fresh = folder.is_none();
    let brought = folder.clone().map_or_else(|| new_folder(places), Ok).and_then(|folder| {
        let found = bring(wish, &folder);
        if found.is_err() && fresh {
            let _ = std::fs::remove_dir_all(&folder);
        }
        let (name, clip) = found?;
        Ok(Brought { folder, name, clip, fresh })
    });
    brought.map_or_else(Opened::Nothing, Opened::Media)
}

fn bring(wish: &Wish, folder: &Path) -> Result<(String, bool), String> {
    match wish {
        Wish::Media(path) | Wish::Plain(path) => {
            if path.is_dir() && usable(path).is_none() {
                let path = path.display();
                return Err(format!(
                    "{path} holds no pictures that know what made them; add them one by one"
                ));
            }
            if !path.exists() {
                return Err(format!("there is no file {}", path.display()));
            }
            let file = usable(path).ok_or_else(|| {
                format!("{} is OpenEXR, which is not read; export PNG to use it here", path.display())
            })?;
            let name = import(folder, &file).map_err(|error| error.to_string())?;
            Ok((name, is_clip(&file)))
        }
        Wish::Sample(index) => {
            let sample = SAMPLES.get(*index).ok_or("there is no such sample")?;
            let name = import_bytes(folder, sample.file, sample.bytes).map_err(|error| error.to_string())?;
            Ok((name, false))
        }
        Wish::Pasted(image) => {
            let name = import_picture(folder, "pasted.png", &opaque(image)?);
            Ok((name.map_err(|error| error.to_string())?, false))
        }
        Wish::Document(path) | Wish::Recipe(path) => Err(format!("{} is no media file", path.display())),
    }
}

/// The project that made `file`, in a folder of its own. What it names is taken along from the
/// nearest folder above the file in which all of it is; else it is missing, as it is after a move.
fn recipe(file: &Path, places: &Places) -> Opened {
    let text = match read_recipe(file) {
        Ok(Some(text)) => text,
        Ok(None) => return Opened::Nothing(format!("{} does not say what made it", file.display())),
        Err(error) => return Opened::Nothing(error.to_string()),
    };
    let folder = match new_folder(places) {
        Ok(folder) => folder,
        Err(why) => return Opened::Nothing(why),
    };
    let project = Project::unsaved(places, folder.clone(), &text);
    let Ok(project) = project else {
        let _ = std::fs::remove_dir_all(&folder);
        return Opened::Recipe(file.to_path_buf(), project.map(Box::new));
    };
    for above in file.ancestors().skip(1).take(MAX_CLIMB) {
        let assets = asset_roots(Some(above));
        if missing(project.value(), above, &assets).is_empty() {
            return match carry(project.value(), above, &folder, &assets) {
                Ok(_) => Opened::Recipe(file.to_path_buf(), Ok(Box::new(project))),
                Err(error) => {
                    project.discard();
                    Opened::Nothing(error.to_string())
                }
            };
        }
    }
    Opened::Recipe(file.to_path_buf(), Ok(Box::new(project)))
}

/// A picture without transparency, which documents do not know.
fn opaque(image: &ColorImage) -> Result<Picture, String> {
    let [width, height] = image.size.map(|side| u32::try_from(side).unwrap_or(0));
    // The clipboard's colours are multiplied by their alpha already.
    let over = |colour: &eframe::egui::Color32| {
        let ground = u32::from(ALPHA_GROUND) * (255 - u32::from(colour.a())) / 255;
        [colour.r(), colour.g(), colour.b()].map(|byte| (u32::from(byte) + ground).min(255) as u8)
    };
    Picture::new(width, height, image.pixels.iter().flat_map(over).collect())
        .map_err(|error| format!("the picture on the clipboard cannot be used: {error}"))
}

/// A folder for a project without a file.
fn new_folder(places: &Places) -> Result<PathBuf, String> {
    let fail = |error: std::io::Error| format!("no project can be begun: {error}");
    let root = places.untitled();
    std::fs::create_dir_all(&root).map_err(fail)?;
    for attempt in 0..1000 {
        let folder = root.join(format!("{}-{}-{attempt}", unix_now(), std::process::id()));
        match std::fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(fail(error)),
        }
    }
    Err(fail(std::io::Error::other("no free name")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use eframe::egui::Color32;

    #[test]
    fn clips_are_known_by_name_and_clear_pixels_get_a_ground() {
        assert!(is_clip(Path::new("a.MP4")) && !is_clip(Path::new("a.gif")));
        let image = ColorImage::new([2, 1], vec![Color32::RED, Color32::TRANSPARENT]);
        assert_eq!(opaque(&image).unwrap().rgb(), [255, 0, 0, 128, 128, 128]);
        assert!(opaque(&ColorImage::new([0, 0], vec![])).is_err());
    }
}
