//! The models Kinora knows by name: which public repository has them, which files are needed, under
//! which licence. Sizes and digests not known for certain are null; the first download records them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The registry shipped with the program.
const SHIPPED: &str = include_str!("../../../assets/models/registry.json");

/// Why a registry or the name of a model was refused.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("the model registry is not valid: {0}")]
    Syntax(#[from] serde_json::Error),
    #[error("the model registry has {field} {value:?}: {expected}")]
    Value { field: &'static str, value: String, expected: &'static str },
    #[error(
        "no model {id:?}; known are {known}, or hub:OWNER/NAME[@REVISION], or the path of a folder with a model"
    )]
    Unknown { id: String, known: String },
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryFile {
    /// Path in the repository, `/` between parts.
    pub path: String,
    /// Length in bytes, if known.
    pub bytes: Option<u64>,
    /// SHA-256 in lower-case hexadecimal, if known.
    pub sha256: Option<String>,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryModel {
    /// Name on the command line and in documents.
    pub id: String,
    /// Name for people.
    pub title: String,
    /// `owner/name` on the hub.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// What is known of the licence of the weights.
    pub licence: String,
    /// Models this one is an addition to.
    pub needs: Vec<String>,
    /// Files to fetch. Empty for a repository named by the user: all its weights and configurations.
    pub files: Vec<RegistryFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    kinora_models: u32,
    models: Vec<RegistryModel>,
}

/// The known models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    models: Vec<RegistryModel>,
}

impl Registry {
    /// The registry shipped with the program.
    ///
    /// # Errors
    /// None in a tested build.
    pub fn shipped() -> Result<Self, RegistryError> {
        Self::parse(SHIPPED)
    }

    /// Reads and checks a registry.
    ///
    /// # Errors
    /// JSON that is not a registry, or a path, id or reference that is not allowed.
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        let content: Content = serde_json::from_str(text)?;
        let refuse =
            |field, value: &str, expected| RegistryError::Value { field, value: value.to_owned(), expected };
        if content.kinora_models != 1 {
            return Err(refuse("kinora_models", &content.kinora_models.to_string(), "expected version 1"));
        }
        let mut before = BTreeSet::new();
        for model in &content.models {
            if !is_plain(&model.id) || model.id.contains(['/', ':', '@']) {
                return Err(refuse("id", &model.id, "expected letters, digits, '-', '_' and '.'"));
            }
            if split_repo(&model.repo).is_none() {
                return Err(refuse("repo", &model.repo, "expected OWNER/NAME"));
            }
            if !is_plain(&model.revision) {
                return Err(refuse("revision", &model.revision, "expected a branch, tag or commit"));
            }
            for need in &model.needs {
                // Only earlier models: references cannot run in a circle.
                if !before.contains(need.as_str()) {
                    return Err(refuse("needs", need, "expected the id of a model listed before this one"));
                }
            }
            for file in &model.files {
                if !is_contained(&file.path) {
                    return Err(refuse("path", &file.path, "expected a relative path of plain names"));
                }
            }
            if !before.insert(model.id.as_str()) {
                return Err(refuse("id", &model.id, "it is listed twice"));
            }
        }
        Ok(Self { models: content.models })
    }

    /// All models, in the order of the file.
    pub fn models(&self) -> &[RegistryModel] {
        &self.models
    }

    /// The model a user means by `id`: one of the registry, or `hub:owner/name[@revision]`.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] with the known names.
    pub fn find(&self, id: &str) -> Result<RegistryModel, RegistryError> {
        if let Some(model) = self.models.iter().find(|model| model.id == id) {
            return Ok(model.clone());
        }
        let unknown = || {
            let known = self.models.iter().map(|model| model.id.as_str()).collect::<Vec<_>>().join(", ");
            RegistryError::Unknown { id: id.to_owned(), known }
        };
        let rest = id.strip_prefix("hub:").ok_or_else(unknown)?;
        let (repo, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        if split_repo(repo).is_none() || !is_plain(revision) {
            return Err(unknown());
        }
        Ok(RegistryModel {
            id: id.to_owned(),
            title: repo.to_owned(),
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            licence: "see the repository page".to_owned(),
            needs: Vec::new(),
            files: Vec::new(),
        })
    }
}

impl RegistryModel {
    /// Name of the model's folder below the store.
    pub fn folder_name(&self) -> String {
        self.id.replace([':', '/', '@'], "--")
    }
}

/// Splits `owner/name`; `None` unless both are plain.
pub fn split_repo(repo: &str) -> Option<(&str, &str)> {
    let (owner, name) = repo.split_once('/')?;
    (is_plain(owner) && is_plain(name)).then_some((owner, name))
}

fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && name.chars().all(allowed)
}

/// Whether a repository path stays inside its folder.
pub fn is_contained(path: &str) -> bool {
    !path.is_empty() && path.len() <= 1000 && path.split('/').all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_registry_has_the_public_models() {
        let registry = Registry::shipped().unwrap();
        for id in ["sd15", "animatediff-v1", "animatediff-v2", "animatediff-v3", "pia"] {
            let model = registry.find(id).unwrap();
            assert!(!model.licence.is_empty());
            assert!(model.files.iter().any(|file| file.path.ends_with(".safetensors")));
            assert!(id == "sd15" || model.needs == ["sd15"]);
        }
    }

    #[test]
    fn repositories_of_the_hub_are_named_with_a_revision() {
        let registry = Registry::shipped().unwrap();
        let model = registry.find("hub:owner/some.name@v1.2").unwrap();
        assert_eq!((model.repo.as_str(), model.revision.as_str()), ("owner/some.name", "v1.2"));
        assert_eq!(model.folder_name(), "hub--owner--some.name--v1.2");
        assert_eq!(registry.find("hub:owner/name").unwrap().revision, "main");
        for id in [
            "hub:owner",
            "hub:../name",
            "hub:owner/..",
            "hub:owner/name@",
            "hub:a/b/c",
            "hub:a/b@..",
            "sd14",
            "",
        ] {
            assert!(matches!(registry.find(id), Err(RegistryError::Unknown { .. })), "{id:?}");
        }
    }

    #[test]
    fn paths_and_references_that_leave_are_refused() {
        let with = |id: &str, path: &str, need: &str| {
            let needs = if need.is_empty() { String::new() } else { format!("{need:?}") };
            Registry::parse(&format!(
                r#"{{"kinora_models":1,"models":[{{"id":{id:?},"title":"","repo":"a/b","revision":"main",
                "licence":"","needs":[{needs}],"files":[{{"path":{path:?},"bytes":null,"sha256":null}}]}}]}}"#
            ))
        };
        assert!(with("m", "unet/w.safetensors", "").is_ok());
        for path in ["../w", "/w", "a//b", "a/../b", "", ".", "a\\b", "a/.hidden"] {
            assert!(
                matches!(with("m", path, ""), Err(RegistryError::Value { field: "path", .. })),
                "{path:?}"
            );
        }
        assert!(matches!(with("a/b", "w", ""), Err(RegistryError::Value { field: "id", .. })));
        assert!(matches!(with("m", "w", "m"), Err(RegistryError::Value { field: "needs", .. })));
        assert!(Registry::parse("{}").is_err());
    }
}
