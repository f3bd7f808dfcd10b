//! Where Kinora's own files lie: models, samples, licences.

use std::path::{Path, PathBuf};

/// How far up from the working folder and the executable an `assets` folder is looked for.
const MAX_CLIMB: usize = 8;

/// The folders names beginning with `assets/` resolve in, best first, each existing.
///
/// `$KINORA_ASSETS`, `assets` beside the executable, then `assets` in the ancestors of the
/// executable and of `document` (so that a checkout works from anywhere inside it).
pub fn asset_roots(document: Option<&Path>) -> Vec<PathBuf> {
    let named = std::env::var_os("KINORA_ASSETS").filter(|v| !v.is_empty()).map(PathBuf::from);
    let executable = std::env::current_exe().ok();
    roots_from(named, executable.as_deref(), document)
}

fn roots_from(named: Option<PathBuf>, executable: Option<&Path>, document: Option<&Path>) -> Vec<PathBuf> {
    let document = document.and_then(|path| path.canonicalize().ok());
    let climb = |path: &Path| {
        path.ancestors().skip(1).take(MAX_CLIMB).map(|folder| folder.join("assets")).collect::<Vec<_>>()
    };
    let mut candidates: Vec<PathBuf> = named.into_iter().collect();
    candidates.extend(executable.map(climb).unwrap_or_default());
    candidates.extend(document.as_deref().map(climb).unwrap_or_default());
    let mut roots: Vec<PathBuf> = vec![];
    for candidate in candidates {
        let Ok(path) = candidate.canonicalize() else { continue };
        if path.is_dir() && !roots.contains(&path) {
            roots.push(path);
        }
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_folder_comes_first_and_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path.canonicalize().unwrap()
        };
        let (named, own) = (make("elsewhere"), make("checkout/assets"));
        make("checkout/target/debug");
        make("checkout/workflows");
        let roots = roots_from(
            Some(named.clone()),
            Some(&dir.path().join("checkout/target/debug/kinora")),
            Some(&dir.path().join("checkout/workflows")),
        );
        assert_eq!(roots[..2], [named, own]);
        assert!(roots_from(Some(dir.path().join("absent")), None, None).is_empty());
    }
}
