//! The `model` field: a name Kinora knows, a repository of the hub, or a folder beside the document.

use std::path::PathBuf;

use super::context::animate_class;
use super::error::{ErrorClass, FieldPath, Finding, ProblemKind};
use super::shape::{nearest, short};
use crate::store::paths::{PathError, Roots};
use crate::systems::follow_your_click::AnimateError;

/// A `model` field with the folder it may mean looked up where the document may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName<'a> {
    /// As the document says it.
    pub name: &'a str,
    /// A folder of that name inside the document's folder or the asset roots. Names Kinora knows go before it.
    pub folder: Option<PathBuf>,
}

impl<'a> ModelName<'a> {
    /// The model inside Kinora.
    pub const EMBEDDED: &'static str = "embedded";

    /// A name without any folder.
    pub fn plain(name: &'a str) -> Self {
        Self { name, folder: None }
    }

    /// Looks the name up in `roots`.
    ///
    /// # Errors
    /// A path (a name with `/` in it) that is refused or leads nowhere. A name without `/` that is no folder is left
    /// to whoever knows the models.
    pub fn look_up(name: &'a str, roots: &Roots) -> Result<Self, PathError> {
        if name == Self::EMBEDDED || name.starts_with("hub:") {
            return Ok(Self::plain(name));
        }
        let is_path = name.contains(['/', '\\']) || name.starts_with(['.', '~']);
        match roots.folder(name.strip_prefix("./").unwrap_or(name)) {
            Ok(folder) => Ok(Self { name, folder: Some(folder) }),
            Err(error) if is_path => Err(error),
            Err(_) => Ok(Self::plain(name)),
        }
    }
}

/// What is wrong with a model that cannot be had.
pub(super) fn model_problem(at: FieldPath, error: &AnimateError) -> Finding {
    match error {
        AnimateError::UnknownModel { model, known } => {
            let names = || known.split(", ").chain([ModelName::EMBEDDED]);
            let expected = format!(
                "\"{}\", {known}, hub:OWNER/NAME@REVISION, or a folder of weights beside the document",
                ModelName::EMBEDDED
            );
            let found = format!("\"{}\"", short(model));
            let finding = Finding::new(ProblemKind::Value, at, expected, found);
            match nearest(model, names()) {
                Some(near) => finding.help(format!("did you mean \"{near}\"?")),
                None => finding.help("`kinora models list` shows the models known by name"),
            }
        }
        AnimateError::NotInstalled { model, pull } => {
            let expected = "a model whose weights are on this machine";
            let found = format!("{model}, whose weights are not");
            // On a line of its own: the command is to be copied whole.
            Finding::new(ProblemKind::Model, at, expected, found)
                .help(format!("fetch them once with\n`kinora models pull {pull}`"))
        }
        error => {
            let kind = match animate_class(error) {
                ErrorClass::Unavailable => ProblemKind::Model,
                ErrorClass::Io => ProblemKind::Io,
                _ => ProblemKind::Value,
            };
            Finding::new(kind, at, "a model that can be used", error.to_string())
                .help("\"embedded\" is the model inside Kinora")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_the_document_may_read_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let document = dir.path().join("document");
        for folder in ["document/mine", "document/models/deep", "outside", "assets/models/a"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let roots = Roots::open(&document, None, &[dir.path().join("assets")]).unwrap();
        let found = |name: &str| {
            let looked_up = ModelName::look_up(name, &roots);
            looked_up.map(|found| found.folder.is_some())
        };
        for name in ["mine", "./mine", "models/deep", "./models/deep", "assets/models/a"] {
            assert!(found(name).unwrap(), "{name}");
        }
        for name in ["embedded", "pia", "hub:own/er@main", "nothing"] {
            assert!(!found(name).unwrap(), "{name}");
        }
        let outside = dir.path().join("outside").display().to_string();
        for name in ["../outside", outside.as_str(), "models/none", "~/models", ".", "./../outside", "a\\b"] {
            assert!(found(name).is_err(), "{name}");
        }
    }
}
