//! The desktop's own file dialogs, without waiting for them.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::Wake;

/// An answer sooner than any person could give means that there was no dialog.
const TOO_SOON: Duration = Duration::from_millis(250);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A picture or clip to add.
    Media,
    /// A document to open.
    Document,
    /// A folder of pictures whose project is to be opened.
    Pictures,
    /// Where to save the document.
    SaveAs,
    /// A missing file of the node.
    Relink(String),
    /// Where to put a copy of a finished file.
    Export {
        /// The node that writes it.
        node: String,
    },
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// This file.
    Chosen(PathBuf),
    /// None.
    Dismissed,
    /// There is no such dialog on this desktop.
    Unavailable,
}

/// Asks for files. One dialog at a time.
pub(crate) struct Dialogs {
    wake: Wake,
    sender: Sender<(Wanted, Answer)>,
    receiver: Receiver<(Wanted, Answer)>,
    open: bool,
    /// Answers given in advance, for tests.
    scripted: Option<Vec<PathBuf>>,
}

impl std::fmt::Debug for Dialogs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialogs")
    }
}

const MEDIA: &[&str] = &[
    "png", "jpg", "jpeg", "webp", "gif", "avif", "mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg",
    "ts", "exr",
];

/// Whether a file is a picture or clip by its name.
pub(crate) fn is_media(path: &Path) -> bool {
    let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
    MEDIA.contains(&end.as_str())
}

impl Dialogs {
    /// The desktop's.
    pub(crate) fn new(wake: Wake) -> Self {
        let (sender, receiver) = channel();
        Self { wake, sender, receiver, open: false, scripted: None }
    }

    /// Answers with these files in order instead of asking anyone.
    #[cfg(test)]
    pub(crate) fn script(&mut self, answers: Vec<PathBuf>) {
        self.scripted = Some(answers);
    }

    /// Opens a dialog that begins in `folder` with the file name `name`.
    pub(crate) fn ask(&mut self, wanted: Wanted, folder: Option<&Path>, name: &str) {
        if let Some(scripted) = &mut self.scripted {
            let answer =
                if scripted.is_empty() { Answer::Dismissed } else { Answer::Chosen(scripted.remove(0)) };
            let _ = self.sender.send((wanted, answer));
            return;
        }
        if self.open {
            return;
        }
        self.open = true;
        let (sender, wake) = (self.sender.clone(), Arc::clone(&self.wake));
        let (folder, name) = (folder.map(Path::to_path_buf), name.to_owned());
        let spawned = std::thread::Builder::new().name("dialog".to_owned()).spawn(move || {
            let begun = Instant::now();
            let chosen = block_on(show(&wanted, folder.as_deref(), &name));
            let answer = match chosen {
                Some(path) => Answer::Chosen(path),
                None if begun.elapsed() < TOO_SOON => Answer::Unavailable,
                None => Answer::Dismissed,
            };
            let _ = sender.send((wanted, answer));
            wake();
        });
        self.open = spawned.is_ok();
    }

    /// What was answered since the last time.
    pub(crate) fn answers(&mut self) -> Vec<(Wanted, Answer)> {
        let answers: Vec<_> = self.receiver.try_iter().collect();
        self.open &= answers.is_empty();
        answers
    }
}

async fn show(wanted: &Wanted, folder: Option<&Path>, name: &str) -> Option<PathBuf> {
    let mut dialog = rfd::AsyncFileDialog::new();
    if let Some(folder) = folder.filter(|folder| folder.is_dir()) {
        dialog = dialog.set_directory(folder);
    }
    let file = match wanted {
        Wanted::Media => {
            dialog
                .set_title("Add a picture or clip")
                .add_filter("Pictures and clips", MEDIA)
                .pick_file()
                .await
        }
        Wanted::Document => {
            dialog
                .set_title("Open a project")
                .add_filter("Kinora projects", &["json"])
                .add_filter("Files made by Kinora", MEDIA)
                .pick_file()
                .await
        }
        Wanted::Pictures => dialog.set_title("Open the project of a folder of pictures").pick_folder().await,
        Wanted::SaveAs => dialog.set_title("Save the project").set_file_name(name).save_file().await,
        Wanted::Relink(_) => dialog.set_title("Find the missing file").pick_file().await,
        Wanted::Export { .. } => dialog.set_title("Export the clip").set_file_name(name).save_file().await,
    };
    file.map(|file| file.path().to_path_buf())
}

/// Waits for a future on this thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
