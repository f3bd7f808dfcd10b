//! Where the files of a model come from.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Largest file a model may consist of.
const MAX_FILE_BYTES: u64 = 16 << 30;

/// Why a file of a model could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ModelSourceError {
    /// The model has no such file.
    #[error("{origin} has no file {file:?}; expected the files named in its config.json")]
    Missing { origin: String, file: String },
    /// A name that is not a plain file name.
    #[error("{origin}: {file:?} is not a plain file name")]
    Name { origin: String, file: String },
    /// The file system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A folder, pipe or device.
    #[error("{} is not a file", path.display())]
    Kind { path: PathBuf },
    /// A link that leads elsewhere.
    #[error("{} leaves the model's folder through a symbolic link; copy the file into it", path.display())]
    Escape { path: PathBuf },
    /// A file beyond any sensible size.
    #[error("{} has {bytes} bytes, the limit is {MAX_FILE_BYTES}", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
}

/// The files of one model.
pub trait ModelSource {
    /// What to call it in messages.
    fn origin(&self) -> String;

    /// The bytes of a file directly in the model's folder.
    fn read(&self, file: &str) -> Result<Cow<'_, [u8]>, ModelSourceError>;
}

/// A folder on disk.
#[derive(Debug, Clone)]
pub struct FolderModel {
    root: PathBuf,
    contained: bool,
}

impl FolderModel {
    /// The model in this folder.
    pub fn new(folder: impl AsRef<Path>) -> Self {
        Self { root: folder.as_ref().to_path_buf(), contained: false }
    }

    /// With `true` a link that leads out of the folder is refused: for folders the user did not choose himself.
    pub fn contained(mut self, contained: bool) -> Self {
        self.contained = contained;
        self
    }
}

impl ModelSource for FolderModel {
    fn origin(&self) -> String {
        self.root.display().to_string()
    }

    fn read(&self, file: &str) -> Result<Cow<'_, [u8]>, ModelSourceError> {
        if file.is_empty() || file.contains(['/', '\\', '\0']) || file == ".." || file == "." {
            return Err(ModelSourceError::Name { origin: self.origin(), file: file.to_owned() });
        }
        let path = self.root.join(file);
        let missing = || ModelSourceError::Missing { origin: self.origin(), file: file.to_owned() };
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing()),
            Err(source) => return Err(ModelSourceError::Io { path, source }),
        };
        if metadata.len() > MAX_FILE_BYTES {
            return Err(ModelSourceError::TooLarge { path, bytes: metadata.len() });
        }
        if !metadata.is_file() {
            return Err(ModelSourceError::Kind { path });
        }
        if self.contained {
            let real = |path: &Path| {
                path.canonicalize()
                    .map_err(|source| ModelSourceError::Io { path: path.to_path_buf(), source })
            };
            if !real(&path)?.starts_with(real(&self.root)?) {
                return Err(ModelSourceError::Escape { path });
            }
        }
        let bytes = std::fs::read(&path).map_err(|source| ModelSourceError::Io { path, source })?;
        Ok(Cow::Owned(bytes))
    }
}

/// Files held in memory: compiled into the binary, or made by a test.
#[derive(Debug, Clone)]
pub struct MemoryModel {
    name: &'static str,
    files: BTreeMap<&'static str, &'static [u8]>,
}

impl MemoryModel {
    /// A model of these files.
    pub fn new(name: &'static str, files: &[(&'static str, &'static [u8])]) -> Self {
        Self { name, files: files.iter().copied().collect() }
    }
}

impl ModelSource for MemoryModel {
    fn origin(&self) -> String {
        self.name.to_owned()
    }

    fn read(&self, file: &str) -> Result<Cow<'_, [u8]>, ModelSourceError> {
        let missing = || ModelSourceError::Missing { origin: self.origin(), file: file.to_owned() };
        self.files.get(file).map(|bytes| Cow::Borrowed(*bytes)).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_own_files_only() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), b"{}").unwrap();
        let model = FolderModel::new(folder.path());
        assert_eq!(&*model.read("config.json").unwrap(), b"{}");
        assert!(matches!(model.read("unet.safetensors"), Err(ModelSourceError::Missing { .. })));
        for name in ["../x", "/etc/passwd", "", "a/b", ".."] {
            assert!(matches!(model.read(name), Err(ModelSourceError::Name { .. })), "{name:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_contained_folder_does_not_follow_links_out_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("model");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(folder.path().join("secret"), b"secret").unwrap();
        std::os::unix::fs::symlink("../secret", inner.join("config.json")).unwrap();
        assert_eq!(&*FolderModel::new(&inner).read("config.json").unwrap(), b"secret");
        let contained = FolderModel::new(&inner).contained(true);
        assert!(matches!(contained.read("config.json"), Err(ModelSourceError::Escape { .. })));
        std::fs::create_dir(inner.join("folder")).unwrap();
        assert!(matches!(contained.read("folder"), Err(ModelSourceError::Kind { .. })));
    }

    #[test]
    fn memory_gives_what_it_was_given() {
        let model = MemoryModel::new("tiny", &[("a", b"1")]);
        assert_eq!(&*model.read("a").unwrap(), b"1");
        assert_eq!(
            model.read("b").unwrap_err().to_string(),
            "tiny has no file \"b\"; expected the files named in its config.json"
        );
    }
}
