//! Where a document may read and write.
//!
//! A document names files relative to its own folder. Reads stay inside that folder and the asset
//! roots (for names that begin with `assets/`); writes stay inside the output folder, which is
//! the document's own unless the user named another. Names are checked as text first, so the
//! answer is the same on every platform, and then resolved through a directory handle that
//! cannot be left by `..` or a symbolic link.

use std::io;
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;

/// The longest name a document may use, in bytes.
pub const MAX_NAME: usize = 4096;

const ASSETS: &str = "assets/";

/// Why a name in a document does not lead to a file.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// The text of the name is not acceptable.
    #[error("the path {name:?} {problem}; use a name inside the document's folder, like \"out/clip.mp4\"")]
    Name { name: String, problem: &'static str },
    /// A symbolic link leads out of the folder.
    #[error("the path {name:?} leaves {} through a symbolic link; copy the file into the folder", root.display())]
    Escape { name: String, root: PathBuf },
    /// A write would go through a symbolic link.
    #[error("the path {name:?} goes through a symbolic link; outputs are never written through links")]
    LinkOnWrite { name: String },
    /// Nothing there.
    #[error("there is no {name:?} in {}{}", folder.display(), if *assets { " or the asset folders" } else { "" })]
    Missing { name: String, folder: PathBuf, assets: bool },
    /// A folder, pipe or device where a file was expected, or the other way round.
    #[error("the path {name:?} is {found}, expected {expected}")]
    Kind { name: String, expected: &'static str, found: &'static str },
    /// The file system said no.
    #[error("cannot {action} {name:?}: {source}")]
    Io { action: &'static str, name: String, source: io::Error },
}

impl PathError {
    /// What was found and what to do, for a message that says itself what was expected.
    pub fn found_and_help(&self) -> (String, Option<String>) {
        match self {
            Self::Name { name, problem } => (
                format!("{name:?}, which {problem}"),
                Some("use a name inside the document's folder, like \"out/clip.mp4\"".into()),
            ),
            Self::Escape { name, root } => (
                format!("{name:?}, a symbolic link that leads out of {}", root.display()),
                Some("copy the file into the folder".into()),
            ),
            Self::LinkOnWrite { name } => (
                format!("{name:?}, which goes through a symbolic link"),
                Some("outputs are never written through links; name another place".into()),
            ),
            Self::Missing { .. } => (
                format!("nothing: {self}"),
                Some("check the spelling; names are looked for in the folder of the document".into()),
            ),
            Self::Kind { name, expected, found } => {
                (format!("{name:?}, which is {found}, expected {expected}"), None)
            }
            Self::Io { .. } => (self.to_string(), None),
        }
    }
}

/// One folder names resolve in.
#[derive(Debug)]
struct Root {
    path: PathBuf,
    dir: Dir,
}

impl Root {
    fn open(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let dir = Dir::open_ambient_dir(&path, ambient_authority())?;
        Ok(Self { path, dir })
    }
}

/// The folders of one document.
#[derive(Debug)]
pub struct Roots {
    document: Root,
    output: Root,
    assets: Vec<Root>,
}

impl Roots {
    /// Opens the folder of a document, the output folder (the document's own when `None`; created
    /// when missing, because the user named it) and the asset folders that exist.
    pub fn open(document: &Path, output: Option<&Path>, assets: &[PathBuf]) -> Result<Self, PathError> {
        let fail = |action: &'static str, path: &Path| {
            let name = path.display().to_string();
            move |source| PathError::Io { action, name, source }
        };
        let output = output.unwrap_or(document);
        if output.exists() && !output.is_dir() {
            let source = io::Error::from(io::ErrorKind::NotADirectory);
            return Err(fail("use the folder", output)(source));
        }
        if output != document {
            std::fs::create_dir_all(output).map_err(fail("create the folder", output))?;
        }
        Ok(Self {
            document: Root::open(document).map_err(fail("open the folder", document))?,
            output: Root::open(output).map_err(fail("open the folder", output))?,
            assets: assets.iter().filter_map(|path| Root::open(path).ok()).collect(),
        })
    }

    /// The document's folder.
    pub fn document(&self) -> &Path {
        &self.document.path
    }

    /// The folder outputs go to.
    pub fn output(&self) -> &Path {
        &self.output.path
    }

    /// A regular file to read.
    ///
    /// The document's folder is asked first; `assets/…` names are then looked for in the asset
    /// roots in order.
    pub fn file(&self, name: &str) -> Result<PathBuf, PathError> {
        self.existing(name, false)
    }

    /// A folder to read.
    pub fn folder(&self, name: &str) -> Result<PathBuf, PathError> {
        self.existing(name, true)
    }

    fn existing(&self, name: &str, folder: bool) -> Result<PathBuf, PathError> {
        check_name(name)?;
        match look_up(&self.document, name, name, folder) {
            Err(PathError::Missing { .. }) => {}
            answer => return answer,
        }
        let inner = name.strip_prefix(ASSETS);
        for root in inner.map(|_| self.assets.as_slice()).unwrap_or_default() {
            match look_up(root, name, inner.unwrap_or(name), folder) {
                Err(PathError::Missing { .. }) => {}
                answer => return answer,
            }
        }
        Err(PathError::Missing {
            name: name.to_owned(),
            folder: self.document.path.clone(),
            assets: inner.is_some(),
        })
    }

    /// Where an output will be; checks the name and what exists, creates nothing.
    pub fn plan_output(&self, name: &str) -> Result<PathBuf, PathError> {
        self.walk_output(name, false)
    }

    /// Where an output goes; creates its missing folders inside the output folder.
    pub fn create_output(&self, name: &str) -> Result<PathBuf, PathError> {
        self.walk_output(name, true)
    }

    fn walk_output(&self, name: &str, create: bool) -> Result<PathBuf, PathError> {
        check_name(name)?;
        let dir = &self.output.dir;
        let relative = Path::new(name);
        let io = |action, source| PathError::Io { action, name: name.to_owned(), source };
        let parents: Vec<&Path> = relative.ancestors().skip(1).collect();
        for folder in parents.into_iter().rev().filter(|p| !p.as_os_str().is_empty()) {
            match dir.symlink_metadata(folder) {
                Ok(meta) if meta.is_symlink() => {
                    return Err(PathError::LinkOnWrite { name: name.to_owned() });
                }
                Ok(meta) if meta.is_dir() => {}
                Ok(_) => {
                    return Err(PathError::Kind {
                        name: folder.display().to_string(),
                        expected: "a folder",
                        found: "a file",
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    if !create {
                        break;
                    }
                    match dir.create_dir(folder) {
                        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                            return Err(io("create the folder of", e));
                        }
                        _ => {}
                    }
                }
                Err(e) => return Err(io("look at the folder of", e)),
            }
        }
        match dir.symlink_metadata(relative) {
            Ok(meta) if meta.is_symlink() => Err(PathError::LinkOnWrite { name: name.to_owned() }),
            Ok(meta) if !meta.is_file() && !meta.is_dir() => Err(PathError::Kind {
                name: name.to_owned(),
                expected: "a file or nothing",
                found: "a device or pipe",
            }),
            Ok(_) => Ok(self.output.path.join(relative)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(self.output.path.join(relative)),
            Err(e) => Err(io("look at", e)),
        }
    }
}

fn look_up(root: &Root, name: &str, inner: &str, folder: bool) -> Result<PathBuf, PathError> {
    let relative = match root.dir.canonicalize(inner) {
        Ok(relative) => relative,
        Err(e) => {
            return Err(match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                    PathError::Missing { name: name.to_owned(), folder: root.path.clone(), assets: false }
                }
                // The handle's own refusal carries no number of the operating system.
                io::ErrorKind::PermissionDenied if e.raw_os_error().is_none() => {
                    PathError::Escape { name: name.to_owned(), root: root.path.clone() }
                }
                _ => PathError::Io { action: "read", name: name.to_owned(), source: e },
            });
        }
    };
    let meta = root.dir.metadata(&relative).map_err(|source| PathError::Io {
        action: "read",
        name: name.to_owned(),
        source,
    })?;
    if if folder { meta.is_dir() } else { meta.is_file() } {
        return Ok(root.path.join(relative));
    }
    Err(PathError::Kind {
        name: name.to_owned(),
        expected: if folder { "a folder" } else { "a file" },
        found: match (meta.is_dir(), meta.is_file()) {
            (true, _) => "a folder",
            (_, true) => "a file",
            _ => "a device or pipe",
        },
    })
}

/// Checks a name as text: relative, no `..`, no NUL or control characters, no device names, no
/// drive letters or URL schemes, `/` between folders.
pub fn check_name(name: &str) -> Result<(), PathError> {
    let problem = if name.is_empty() {
        "is empty"
    } else if name.len() > MAX_NAME {
        "is longer than 4096 bytes"
    } else if name.contains('\0') {
        "contains a NUL character"
    } else if name.chars().any(char::is_control) {
        "contains a control character"
    } else if name.starts_with('/') || name.starts_with('\\') {
        "is absolute"
    } else if name.contains(':') {
        "contains a colon (a drive letter or an address)"
    } else if name.contains('\\') {
        "contains a backslash; write / between folders"
    } else if name.split('/').any(|part| part == "..") {
        "climbs out with .."
    } else if name.split('/').any(|part| part.is_empty() || part == ".") {
        "has an empty or . part"
    } else if name.split('/').any(|part| part.ends_with([' ', '.'])) {
        "has a part that ends in a space or a dot"
    } else if name.split('/').any(is_device) {
        "is a device name on Windows"
    } else {
        return Ok(());
    };
    let shown = name.chars().take(120).collect();
    Err(PathError::Name { name: shown, problem })
}

fn is_device(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or(part).trim_end().to_ascii_uppercase();
    match stem.as_str() {
        "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" => true,
        other => ["COM", "LPT"].iter().any(|port| {
            other.strip_prefix(port).is_some_and(|n| {
                let mut digits = n.chars();
                matches!((digits.next(), digits.next()), (Some('1'..='9' | '¹' | '²' | '³'), None))
            })
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(dir: &Path) -> Roots {
        let document = dir.join("shots");
        std::fs::create_dir_all(document.join("in")).unwrap();
        std::fs::create_dir_all(dir.join("assets/samples")).unwrap();
        std::fs::write(dir.join("assets/samples/a.jpg"), b"asset").unwrap();
        std::fs::write(document.join("in/a.png"), b"own").unwrap();
        Roots::open(&document, None, &[dir.join("assets"), dir.join("absent")]).unwrap()
    }

    #[test]
    fn names_resolve_in_the_document_folder_then_in_the_assets() {
        let dir = tempfile::tempdir().unwrap();
        let roots = roots(dir.path());
        assert_eq!(std::fs::read(roots.file("in/a.png").unwrap()).unwrap(), b"own");
        assert_eq!(std::fs::read(roots.file("assets/samples/a.jpg").unwrap()).unwrap(), b"asset");
        let missing = roots.file("in/b.png").unwrap_err();
        assert!(matches!(missing, PathError::Missing { assets: false, .. }), "{missing}");
        let missing = roots.file("assets/samples/b.jpg").unwrap_err().to_string();
        assert!(missing.contains("asset folders"), "{missing}");
        assert!(matches!(roots.file("in").unwrap_err(), PathError::Kind { .. }));
        assert!(roots.folder("in").is_ok());
    }

    #[test]
    fn bad_names_are_told_apart() {
        for (name, says) in [
            ("", "empty"),
            ("/etc/passwd", "absolute"),
            ("\\\\server\\share", "absolute"),
            ("C:/x.png", "colon"),
            ("http://host/x.png", "colon"),
            ("../x.png", ".."),
            ("a/../../x.png", ".."),
            ("a\\..\\x.png", "backslash"),
            ("a\0.png", "NUL"),
            ("a\n.png", "control"),
            ("a//b.png", "empty or ."),
            ("a/", "empty or ."),
            ("a./b", "dot"),
            ("out/nul.mp4", "device"),
            ("com1", "device"),
            ("LPT9.txt", "device"),
        ] {
            let error = check_name(name).unwrap_err().to_string();
            assert!(error.contains(says), "{name:?}: {error}");
        }
        for name in ["a.png", "a..b.png", "common/x", "com10.png", ".hidden/x", "ünïcode.png"] {
            check_name(name).unwrap();
        }
        assert!(check_name(&"x".repeat(5000)).is_err());
    }

    #[test]
    fn outputs_create_folders_inside_only() {
        let dir = tempfile::tempdir().unwrap();
        let roots = roots(dir.path());
        let planned = roots.plan_output("out/deep/clip.mp4").unwrap();
        assert!(!roots.document().join("out").exists());
        assert_eq!(roots.create_output("out/deep/clip.mp4").unwrap(), planned);
        assert!(planned.parent().unwrap().is_dir());
        let error = roots.create_output("in/a.png/clip.mp4").unwrap_err();
        assert!(matches!(error, PathError::Kind { .. }), "{error}");
        assert!(roots.plan_output("../clip.mp4").is_err());
    }

    #[test]
    fn another_output_folder_takes_the_writes_only() {
        let dir = tempfile::tempdir().unwrap();
        drop(roots(dir.path()));
        let out = dir.path().join("new/out");
        let roots = Roots::open(&dir.path().join("shots"), Some(&out), &[]).unwrap();
        assert!(roots.file("in/a.png").is_ok());
        assert!(roots.plan_output("clip.mp4").unwrap().starts_with(out.canonicalize().unwrap()));
    }

    #[cfg(unix)]
    #[test]
    fn symbolic_links_do_not_lead_out() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let roots = roots(dir.path());
        std::fs::write(dir.path().join("secret"), b"secret").unwrap();
        let own = roots.document().to_path_buf();
        symlink("../secret", own.join("relative")).unwrap();
        symlink(dir.path().join("secret"), own.join("absolute")).unwrap();
        symlink(dir.path(), own.join("folder")).unwrap();
        symlink("in/a.png", own.join("inside")).unwrap();
        for name in ["relative", "absolute", "folder/secret"] {
            let error = roots.file(name).unwrap_err();
            assert!(matches!(error, PathError::Escape { .. }), "{name}: {error}");
        }
        assert_eq!(std::fs::read(roots.file("inside").unwrap()).unwrap(), b"own");
        for name in ["inside", "absolute", "folder/clip.mp4"] {
            let error = roots.create_output(name).unwrap_err();
            assert!(matches!(error, PathError::LinkOnWrite { .. }), "{name}: {error}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_are_not_files() {
        let roots = Roots::open(Path::new("/dev"), None, &[]).unwrap();
        let error = roots.file("zero").unwrap_err();
        assert!(matches!(error, PathError::Kind { found: "a device or pipe", .. }), "{error}");
        assert!(roots.create_output("full").is_err());
    }
}
