//! Drives the real binary in folders of its own: documents in one, the cache in another, nothing of
//! the user's.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A document's folder and a cache, both gone at the end of the test.
pub(crate) struct Bench {
    dir: TempDir,
}

impl Bench {
    /// Holds `photo.png` (96x64, a disc on a gradient) and `mask.png` (the disc).
    pub(crate) fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(bench.shots()).unwrap();
        let photo = image(96, 64, |x, y| {
            let (dx, dy) = (f64::from(x) - 40.0, f64::from(y) - 32.0);
            if dx.hypot(dy) < 14.0 { [210, 60, (40 + x) as u8] } else { [x as u8, 120, (2 * y) as u8] }
        });
        bench.write("photo.png", &photo);
        let mask = image(96, 64, |x, y| {
            let (dx, dy) = (f64::from(x) - 40.0, f64::from(y) - 32.0);
            if dx.hypot(dy) < 14.0 { [255; 3] } else { [0; 3] }
        });
        bench.write("mask.png", &mask);
        bench
    }

    /// The folder of the documents.
    pub(crate) fn shots(&self) -> PathBuf {
        self.dir.path().join("shots")
    }

    /// A path in the folder of the documents.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.shots().join(name)
    }

    /// The folder above, for what a document must not reach.
    pub(crate) fn outside(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Writes `shot.kinora.json` with these nodes (a JSON object's inside).
    pub(crate) fn document(&self, nodes: &str) -> PathBuf {
        self.write("shot.kinora.json", format!("{{\n  \"kinora\": 1,\n  \"nodes\": {{\n{nodes}\n  }}\n}}\n"))
    }

    /// A folder of the embedded model's files, each as `change` leaves it.
    ///
    /// Untouched ones are linked, not copied: they have 64 MiB.
    pub(crate) fn weights(&self, name: &str, change: impl Fn(&str, &mut Vec<u8>)) {
        let folder = self.at(name);
        std::fs::create_dir_all(&folder).unwrap();
        for entry in std::fs::read_dir(repository().join("assets/models/kinora-mini")).unwrap() {
            let from = entry.unwrap().path();
            let file = from.file_name().unwrap().to_str().unwrap().to_owned();
            let to = folder.join(&file);
            if from.is_dir() {
                continue;
            }
            let _ = std::fs::remove_file(&to);
            if ["config.json", "text.safetensors"].contains(&file.as_str()) {
                let mut bytes = std::fs::read(&from).unwrap();
                change(&file, &mut bytes);
                std::fs::write(&to, bytes).unwrap();
            } else if std::fs::hard_link(&from, &to).is_err() {
                std::fs::copy(&from, &to).unwrap();
            }
        }
    }

    /// The same model working at 64x64: sixteen times faster, and everything else as it is.
    pub(crate) fn small_weights(&self, name: &str) {
        self.weights(name, |file, bytes| {
            if file == "config.json" {
                let mut config: Value = serde_json::from_slice(bytes).unwrap();
                config["area"] = (64 * 64).into();
                *bytes = config.to_string().into_bytes();
            }
        });
    }

    /// The binary, standing in the folder of the documents, with nothing of the user's around it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinora"));
        command.args(args).current_dir(self.shots()).stdin(Stdio::null());
        for name in
            ["KINORA_LOG", "KINORA_OFFLINE", "HF_TOKEN", "HF_HUB_OFFLINE", "XDG_CACHE_HOME", "XDG_DATA_HOME"]
        {
            command.env_remove(name);
        }
        command
            .env("KINORA_CACHE", self.cache())
            .env("KINORA_MODELS", self.dir.path().join("models"))
            .env("KINORA_ASSETS", repository().join("assets"))
            .env("HOME", self.dir.path())
            .env("NO_COLOR", "1");
        command
    }

    /// Runs the binary to its end.
    pub(crate) fn kinora(&self, args: &[&str]) -> Run {
        Run::of(args, self.command(args).output().unwrap())
    }

    /// Every file and folder beside the documents: what a failed command must leave as it was.
    pub(crate) fn listing(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        walk(&self.shots(), &mut found);
        found
    }

    /// Temporaries anywhere: in the outputs, in the cache, beside the documents.
    pub(crate) fn temporaries(&self) -> Vec<PathBuf> {
        temporaries(self.dir.path())
    }
}

/// Temporaries anywhere below a folder.
pub(crate) fn temporaries(folder: &Path) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    walk(folder, &mut found);
    found.into_iter().filter(|path| path.to_string_lossy().contains(".partial")).collect()
}

fn walk(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            walk(&path, found);
        }
        found.insert(path);
    }
}

/// The workspace.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Asks a process to stop, as Ctrl-C (`INT`) or a service manager (`TERM`) does.
#[cfg(unix)]
pub(crate) fn signal(process: &std::process::Child, name: &str) {
    let kill = format!("kill -{name} {}", process.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

/// What a finished command said.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) args: Vec<String>,
    /// `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    pub(crate) fn of(args: &[&str], output: Output) -> Self {
        Self {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
            err: String::from_utf8(output.stderr).expect("standard error is UTF-8"),
        }
    }

    /// Asserts success.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{:?} failed:\n{}\n{}", self.args, self.out, self.err);
        self
    }

    /// Asserts the exit code and that the message says each of `says`. No refusal may look like a
    /// crash.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, says: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{:?}:\n{}\n{}", self.args, self.out, self.err);
        let message = self.message();
        for part in says {
            assert!(message.contains(part), "{:?} does not say {part:?}:\n{}", self.args, self.err);
        }
        for bug in ["panicked", "this is a bug", "internal error"] {
            assert!(!message.contains(bug), "{}", self.err);
        }
        self
    }

    /// The message without progress lines, frames and line breaks.
    pub(crate) fn message(&self) -> String {
        let lines = self.err.lines().filter(|line| !line.starts_with('{'));
        let text: String = lines.map(|line| line.to_owned() + " ").collect();
        let plain: String = text.chars().map(|c| if "│╭╰─┬▲·×".contains(c) { ' ' } else { c }).collect();
        plain.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The progress events.
    pub(crate) fn events(&self) -> Vec<Value> {
        let lines = self.err.lines().filter(|line| line.starts_with('{'));
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    /// `(node, cached)` of every node that was dealt with.
    pub(crate) fn finished(&self) -> Vec<(String, bool)> {
        let done = |event: &Value| {
            (event["event"] == "node_finished")
                .then(|| (event["node"].as_str().unwrap().to_owned(), event["cached"].as_bool().unwrap()))
        };
        self.events().iter().filter_map(done).collect()
    }

    /// The `done` counts of the denoise steps that were computed.
    pub(crate) fn denoised(&self) -> Vec<u64> {
        denoised(&self.events())
    }
}

/// The `done` counts of denoise steps among `events`.
pub(crate) fn denoised(events: &[Value]) -> Vec<u64> {
    let steps = events.iter().filter(|event| event["event"] == "step" && event["stage"] == "denoise");
    steps.map(|event| event["done"].as_u64().unwrap()).collect()
}

/// A PNG of `width` x `height` coloured by `pixel`.
pub(crate) fn image(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) -> Vec<u8> {
    let mut bytes = vec![];
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    let rows = (0..height).flat_map(|y| (0..width).flat_map(move |x| [x, y]));
    let places: Vec<u32> = rows.collect();
    let data: Vec<u8> = places.chunks_exact(2).flat_map(|at| pixel(at[0], at[1])).collect();
    writer.write_image_data(&data).unwrap();
    writer.finish().unwrap();
    bytes
}

/// Output of a command, or `None` (said on standard error) where it is not installed.
pub(crate) fn tool(name: &str, args: &[&str]) -> Option<String> {
    match Command::new(name).args(args).output() {
        Ok(out) => {
            assert!(out.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
            Some(String::from_utf8_lossy(&out.stdout).into_owned())
        }
        Err(_) => {
            eprintln!("skipped a cross-check: {name} is not installed");
            None
        }
    }
}

/// A small file system of its own, until it is dropped.
#[cfg(target_os = "linux")]
pub(crate) struct Mounted(PathBuf);

#[cfg(target_os = "linux")]
impl Mounted {
    /// `None`, with the reason on standard error, where mounting is not allowed.
    pub(crate) fn new(at: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        let done = mount.is_ok_and(|output| output.status.success());
        if !done {
            eprintln!("skipped: this user may not mount a file system");
        }
        done.then(|| Self(at.to_path_buf()))
    }
}

#[cfg(target_os = "linux")]
impl Drop for Mounted {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()), "{} stays mounted", self.0.display());
    }
}
