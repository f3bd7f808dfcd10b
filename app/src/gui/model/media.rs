//! Brings files into a project's folder, where alone its document may name them.

use std::path::{Path, PathBuf};

use kinora_pipeline::media::{Picture, write_png};
use kinora_pipeline::store::cache::digest_file;
use kinora_pipeline::store::paths::{Roots, check_name};
use serde_json::Value;

use super::patch::{Path as Place, place};

/// Files longer than this are linked where the file system can, because copying takes long.
const LINK_FROM: u64 = 256 << 20;

/// Why a file was not brought in.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be brought into the project ({source})", path.display())]
pub(crate) struct ImportError {
    /// The file.
    pub(crate) path: PathBuf,
    source: std::io::Error,
}

/// The name by which a document in `folder` can use `file`, which is copied into `media/` unless
/// it lies in the folder already.
pub(crate) fn import(folder: &Path, file: &Path) -> Result<String, ImportError> {
    let fail = |source| ImportError { path: file.to_path_buf(), source };
    let file = file.canonicalize().map_err(fail)?;
    let folder = folder.canonicalize().map_err(fail)?;
    if let Some(name) = file.strip_prefix(&folder).ok().and_then(plain_name) {
        return Ok(name);
    }
    let wished = file.file_name().map(|name| clean(&name.to_string_lossy())).unwrap_or_default();
    bring(&folder, &file, &format!("media/{wished}")).map_err(fail)
}

/// Writes bytes of the program's own into the project, as `media/NAME`.
pub(crate) fn import_bytes(folder: &Path, name: &str, bytes: &[u8]) -> Result<String, ImportError> {
    let path = folder.join("media").join(name);
    let fail = |source| ImportError { path: path.clone(), source };
    std::fs::create_dir_all(folder.join("media")).map_err(fail)?;
    if std::fs::read(&path).is_ok_and(|there| there == bytes) {
        return Ok(format!("media/{name}"));
    }
    kinora_pipeline::store::atomic::write_file(&path, bytes, true)
        .map_err(|error| fail(std::io::Error::other(error)))?;
    Ok(format!("media/{name}"))
}

/// Writes a picture into the project under a name like `media/NAME` that is free.
pub(crate) fn import_picture(folder: &Path, name: &str, picture: &Picture) -> Result<String, ImportError> {
    let media = folder.join("media");
    let fail = |source| ImportError { path: media.join(name), source };
    std::fs::create_dir_all(&media).map_err(fail)?;
    let wished = format!("media/{name}");
    let names =
        (1..1000).map(|attempt| if attempt == 1 { wished.clone() } else { numbered(&wished, attempt) });
    let free = names.into_iter().find(|name| !folder.join(name).exists());
    let free =
        free.ok_or_else(|| fail(std::io::Error::other("a thousand of that name are there already")))?;
    write_png(&folder.join(&free), picture, false).map_err(|error| fail(std::io::Error::other(error)))?;
    Ok(free)
}

/// A path inside the folder as a document writes it, if it may.
fn plain_name(inside: &Path) -> Option<String> {
    let parts: Option<Vec<&str>> = inside.iter().map(|part| part.to_str()).collect();
    let name = parts?.join("/");
    check_name(&name).is_ok().then_some(name)
}

/// A file name that a document may use.
fn clean(name: &str) -> String {
    let bad = |c: char| c.is_control() || matches!(c, '/' | '\\' | ':');
    let name: String = name.chars().map(|c| if bad(c) { '_' } else { c }).take(120).collect();
    let name = name.trim_end_matches([' ', '.']).trim_start();
    if name.is_empty() || check_name(name).is_err() { format!("file_{name}") } else { name.to_owned() }
}

/// Copies `file` to the first free name like `wished` in `folder`, or finds that it is there.
fn bring(folder: &Path, file: &Path, wished: &str) -> std::io::Result<String> {
    let mut digest = None;
    for attempt in 1..1000 {
        let name = if attempt == 1 { wished.to_owned() } else { numbered(wished, attempt) };
        let dest = folder.join(&name);
        if dest.exists() {
            let same = dest.metadata()?.len() == file.metadata()?.len() && {
                let wanted = match &digest {
                    Some(known) => known,
                    None => digest.insert(digest_file(file)?),
                };
                digest_file(&dest)? == *wanted
            };
            if same {
                return Ok(name);
            }
            continue;
        }
        if let Some(parent) = dest.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let long = file.metadata()?.len() >= LINK_FROM;
        if !(long && std::fs::hard_link(file, &dest).is_ok()) {
            copy(file, &dest)?;
        }
        return Ok(name);
    }
    Err(std::io::Error::other("a thousand files of that name are there already"))
}

/// A copy that has its name only once it is whole.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let file = kinora_pipeline::store::atomic::AtomicFile::create(to).map_err(std::io::Error::other)?;
    std::fs::copy(from, file.path())?;
    file.commit(false).map_err(std::io::Error::other)
}

fn numbered(name: &str, number: u32) -> String {
    let (folder, file) = name.rsplit_once('/').map_or(("", name), |(folder, file)| (folder, file));
    let (stem, end) = match file.rsplit_once('.') {
        Some((stem, end)) if !stem.is_empty() => (stem, format!(".{end}")),
        _ => (file, String::new()),
    };
    let slash = if folder.is_empty() { "" } else { "/" };
    format!("{folder}{slash}{stem}-{number}{end}")
}

/// A file the document names, at a place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// The field, `nodes.photo.path`.
    pub(crate) at: Place,
    /// Its node.
    pub(crate) node: String,
    /// The name.
    pub(crate) name: String,
}

/// Every file the document reads, once: the parts of files in the film follow their clips.
pub(crate) fn named(value: &Value) -> Vec<Named> {
    let nodes = value.get("nodes").and_then(Value::as_object);
    let reads = |op: &str| matches!(op, "image.load" | "video.load" | "mask.import");
    nodes
        .into_iter()
        .flatten()
        .filter(|(name, node)| {
            node.get("op").and_then(Value::as_str).is_some_and(reads) && !super::film::is_derived(value, name)
        })
        .filter_map(|(node, fields)| {
            let name = fields.get("path")?.as_str()?.to_owned();
            Some(Named { at: place!["nodes", node.as_str(), "path"], node: node.clone(), name })
        })
        .collect()
}

/// The files a document names that are not there, with the reason.
pub(crate) fn missing(value: &Value, folder: &Path, assets: &[PathBuf]) -> Vec<(Named, String)> {
    let named = named(value);
    let roots = match Roots::open(folder, None, assets) {
        Ok(roots) => roots,
        Err(error) => return named.into_iter().map(|file| (file, error.to_string())).collect(),
    };
    named
        .into_iter()
        .filter_map(|file| {
            let error = roots.file(&file.name).err()?.to_string();
            Some((file, error))
        })
        .collect()
}

/// Copies what the document names from one folder to another for saving there. Returns the places
/// whose name changed because another file had it.
///
/// Files of the asset folders stay where they are; missing ones stay missing.
pub(crate) fn carry(
    value: &Value,
    from: &Path,
    to: &Path,
    assets: &[PathBuf],
) -> Result<Vec<(Place, String)>, ImportError> {
    let fail = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ImportError { path, source }
    };
    let (from, to) = (from.canonicalize().map_err(fail(from))?, to.canonicalize().map_err(fail(to))?);
    if from == to {
        return Ok(vec![]);
    }
    let roots =
        Roots::open(&from, None, assets).map_err(|error| fail(&from)(std::io::Error::other(error)))?;
    let mut renamed = vec![];
    for file in named(value) {
        let Ok(full) = roots.file(&file.name) else { continue };
        if !full.starts_with(&from) {
            continue;
        }
        let name = bring(&to, &full, &file.name).map_err(fail(&full))?;
        if name != file.name {
            renamed.push((file.at, name));
        }
    }
    Ok(renamed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_are_copied_once_and_named_safely() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, project) = (dir.path().join("photos"), dir.path().join("project"));
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::create_dir_all(project.join("in")).unwrap();
        let make = |path: PathBuf, text: &str| {
            std::fs::write(&path, text).unwrap();
            path
        };
        let sea = make(outside.join("sea.jpg"), "sea");
        assert_eq!(import(&project, &sea).unwrap(), "media/sea.jpg");
        assert_eq!(import(&project, &sea).unwrap(), "media/sea.jpg", "the same file is not copied twice");
        std::fs::create_dir_all(outside.join("other")).unwrap();
        let other = make(outside.join("other/sea.jpg"), "another sea");
        assert_eq!(import(&project, &other).unwrap(), "media/sea-2.jpg");
        let inside = make(project.join("in/own.png"), "own");
        assert_eq!(import(&project, &inside).unwrap(), "in/own.png");
        let odd = make(outside.join("a:b\\c. .png"), "odd");
        let name = import(&project, &odd).unwrap();
        assert!(check_name(&name).is_ok() && project.join(&name).is_file(), "{name}");
        assert!(import(&project, &outside.join("gone.png")).unwrap_err().to_string().contains("gone.png"));
        assert_eq!(clean("nul"), "file_nul");
        assert_eq!(numbered("media/.hidden", 2), "media/.hidden-2");
        assert_eq!(import_bytes(&project, "x.jpg", b"x").unwrap(), "media/x.jpg");
    }

    #[test]
    fn saving_elsewhere_takes_the_media_along() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new, assets) = (dir.path().join("old"), dir.path().join("new"), dir.path().join("assets"));
        for folder in [old.join("media"), new.join("media"), assets.clone()] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(old.join("media/a.png"), "a").unwrap();
        std::fs::write(old.join("media/b.png"), "b").unwrap();
        std::fs::write(new.join("media/b.png"), "someone else's").unwrap();
        std::fs::write(assets.join("s.jpg"), "s").unwrap();
        let load = |path: &str| json!({ "op": "image.load", "path": path });
        let value = json!({ "kinora": 1, "nodes": {
            "a": load("media/a.png"), "b": load("media/b.png"), "s": load("assets/s.jpg"), "gone": load("x.png") } });
        let assets = [assets];
        let renamed = carry(&value, &old, &new, &assets).unwrap();
        assert_eq!(renamed, [(place!["nodes", "b", "path"], "media/b-2.png".to_owned())]);
        assert_eq!(std::fs::read(new.join("media/b-2.png")).unwrap(), b"b");
        assert_eq!(std::fs::read(new.join("media/b.png")).unwrap(), b"someone else's");
        assert!(new.join("media/a.png").is_file() && !new.join("assets").exists());
        let gone = missing(&value, &new, &assets);
        assert_eq!((gone.len(), gone[0].0.node.as_str()), (1, "gone"));
        assert!(carry(&value, &old, &old, &assets).unwrap().is_empty());
    }
}
