//! The files of a public checkpoint: found, opened, told apart, hashed and fitted, before any weight is read.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::nets::layouts::{
    Checkpoint, Layout, PartConfig, StateMap, TensorFile, detect, merge_motion_lora, open_checkpoint,
    part_config,
};
use crate::nets::unet_motion::parameter_count;
use crate::nets::{AutoencoderKlConfig, ClipTextConfig, UnetMotionConfig};
use crate::store::model_store::{ModelFiles, ModelStore, ModelStoreError};
use crate::store::registry::RegistryError;
use crate::systems::follow_your_click::AnimateError;

/// Where diffusers keeps the parts of a model.
const PARTS: [&str; 5] = ["", "text_encoder", "vae", "unet", "motion_adapter"];
/// Endings of PyTorch's own format, read where a folder has nothing better.
const TORCH: [&str; 4] = ["ckpt", "pth", "pt", "bin"];
/// Longest `config.json` believed, bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// What adds motion modules to a base that is not in the same place.
const USUAL_BASE: &str = "sd15";

/// A checkpoint as its headers describe it.
#[derive(Debug, Clone)]
pub struct CheckpointFiles {
    /// Hash over the names and contents of all its files; for a pulled model over the recorded contents.
    pub digest: String,
    /// The text encoder's weights.
    pub text: StateMap,
    /// The autoencoder's weights.
    pub vae: StateMap,
    /// The UNet's weights, in exactly the shapes of `unet_config`.
    pub unet: StateMap,
    /// The text encoder.
    pub text_config: ClipTextConfig,
    /// The autoencoder.
    pub vae_config: AutoencoderKlConfig,
    /// The UNet with its motion modules.
    pub unet_config: UnetMotionConfig,
}

/// One file of weights.
struct Found {
    layout: Layout,
    file: Arc<dyn TensorFile>,
}

/// What a model of the store says when it cannot be had.
pub(super) fn store_error(id: &str, error: ModelStoreError) -> AnimateError {
    match error {
        ModelStoreError::Registry(RegistryError::Unknown { id, known }) => {
            AnimateError::UnknownModel { model: id, known }
        }
        ModelStoreError::Absent { id: pull } | ModelStoreError::Incomplete { id: pull, .. } => {
            AnimateError::NotInstalled { model: id.to_owned(), pull }
        }
        other => AnimateError::Model { model: id.to_owned(), message: other.to_string() },
    }
}

impl CheckpointFiles {
    /// Opens the model made of `folders`, bases first. Motion modules alone take Stable Diffusion 1.5 from `store`.
    ///
    /// # Errors
    /// [`AnimateError::NotInstalled`] for a base that is not here; [`AnimateError::Model`] naming the file and what is
    /// missing, left over or misshapen.
    pub fn open(id: &str, folders: &[ModelFiles], store: &ModelStore) -> Result<Self, AnimateError> {
        let fail = |problem: &dyn std::fmt::Display| AnimateError::Model {
            model: id.to_owned(),
            message: problem.to_string(),
        };
        let mut hash = blake3::Hasher::new();
        let mut found = Vec::new();
        for folder in folders {
            found.extend(gather(folder, &mut hash).map_err(|problem| fail(&problem))?);
        }
        if found.is_empty() {
            let expected = "expected *.safetensors or *.ckpt in it or in its folders text_encoder, vae, unet and \
                            motion_adapter";
            return Err(fail(&format!("it has no weights; {expected}")));
        }
        let moves =
            |layout: &Layout| matches!(layout, Layout::Motion(_) | Layout::Pia(_) | Layout::VideoUnet { .. });
        if !found.iter().any(|found| moves(&found.layout)) {
            return Err(fail(
                &"it has no motion modules; choose a model with AnimateDiff, PIA or Follow-Your-Click weights",
            ));
        }
        let mut folders = folders.to_vec();
        if lacks_base(&found) {
            let base = store
                .resolve(USUAL_BASE)
                .map_err(|error| store_error(&format!("{USUAL_BASE}, the base of {id},"), error))?;
            // Before the model's own files, so that those have the last word.
            let mut all = gather(&base, &mut hash).map_err(|problem| fail(&problem))?;
            all.append(&mut found);
            found = all;
            folders.insert(0, base);
        }
        let configs = Configs::read(&folders).map_err(|problem| fail(&problem))?;

        // Stable: within a rank the base's files stay before the model's own.
        found.sort_by_key(|found| rank(&found.layout));
        let mut checkpoint = Checkpoint::new(configs.unet);
        for Found { layout, file } in found {
            if layout == Layout::MotionLora {
                merge_motion_lora(&mut checkpoint.unet, &file, 1.0).map_err(|error| fail(&error))?;
            } else {
                checkpoint.add(file).map_err(|error| fail(&error))?;
            }
        }
        let unet = checkpoint.fitted_unet().map_err(|error| fail(&error))?;
        let files = Self {
            digest: hash.finalize().to_hex().to_string(),
            text: checkpoint.text,
            vae: checkpoint.vae,
            unet,
            text_config: configs.text,
            vae_config: configs.vae,
            unet_config: checkpoint.config,
        };
        files.check().map_err(|problem| fail(&problem))?;
        Ok(files)
    }

    /// Weights in all networks.
    pub fn parameters(&self) -> usize {
        [&self.text, &self.vae, &self.unet].map(|map| parameter_count(&map.parameters())).iter().sum()
    }

    /// Whether the parts fit each other.
    fn check(&self) -> Result<(), String> {
        for (part, map) in [("text encoder", &self.text), ("autoencoder", &self.vae)] {
            if map.is_empty() {
                return Err(format!(
                    "no file has a {part}; expected a Stable Diffusion 1.5 model as one file or in the folders \
                     text_encoder, vae and unet"
                ));
            }
        }
        let (text, reads) = (self.text_config.hidden_size, self.unet_config.cross_attention_dim);
        if text != reads {
            return Err(format!("the text encoder is {text} wide, the UNet reads {reads}"));
        }
        let latent = self.vae_config.latent_channels;
        let (inner, out) = (self.unet_config.in_channels, self.unet_config.out_channels);
        if out != latent || (inner != latent && inner != 2 * latent + 1) {
            return Err(format!(
                "the autoencoder has {latent} latent channels; expected a UNet that gives {latent} and reads {latent} or \
                 {} (with mask and first frame), found {out} and {inner}",
                2 * latent + 1
            ));
        }
        Ok(())
    }
}

/// Bases first, then what extends them, then low-rank updates.
fn rank(layout: &Layout) -> u8 {
    match layout {
        Layout::SingleFile | Layout::DiffusersUnet | Layout::DiffusersVae | Layout::Text => 0,
        Layout::Motion(_) | Layout::Pia(_) | Layout::VideoUnet { .. } => 1,
        Layout::MotionLora => 2,
    }
}

/// Whether a text encoder, an autoencoder or the spatial UNet is missing.
fn lacks_base(found: &[Found]) -> bool {
    let any = |test: &dyn Fn(&Layout) -> bool| found.iter().any(|found| test(&found.layout));
    if any(&|layout| *layout == Layout::SingleFile) {
        return false;
    }
    let unet = any(&|layout| matches!(layout, Layout::DiffusersUnet | Layout::VideoUnet { .. }));
    !(unet && any(&|layout| *layout == Layout::DiffusersVae) && any(&|layout| *layout == Layout::Text))
}

/// Opens the weights in a folder and in the folders of its parts, in order of name.
fn gather(folder: &ModelFiles, hash: &mut blake3::Hasher) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    for part in PARTS {
        for path in weight_files(&folder.root.join(part)) {
            let told = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
            inside(folder, &path)?;
            digest_file(hash, folder, &path).map_err(|error| told(&error))?;
            let file = open_checkpoint(&path).map_err(|error| error.to_string())?;
            let layout = detect(file.as_ref()).map_err(|error| error.to_string())?;
            found.push(Found { layout, file });
        }
    }
    Ok(found)
}

fn weight_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    let ends = |path: &PathBuf, ends: &[&str]| {
        path.extension().and_then(|end| end.to_str()).is_some_and(|end| ends.contains(&end))
    };
    let (safe, other): (Vec<_>, Vec<_>) = files.into_iter().partition(|path| ends(path, &["safetensors"]));
    // The same weights are often published twice.
    if safe.is_empty() { other.into_iter().filter(|path| ends(path, &TORCH)).collect() } else { safe }
}

/// Refuses a file that a link brings from outside a folder the user did not choose himself.
fn inside(folder: &ModelFiles, path: &Path) -> Result<(), String> {
    if !folder.contained {
        return Ok(());
    }
    let real = |path: &Path| path.canonicalize().map_err(|error| format!("{}: {error}", path.display()));
    if real(path)?.starts_with(real(&folder.root)?) {
        return Ok(());
    }
    Err(format!(
        "{} leaves the model's folder through a symbolic link; copy the file into it",
        path.display()
    ))
}

/// The recorded digest of a fetched file, the contents of a local one.
fn digest_file(hash: &mut blake3::Hasher, folder: &ModelFiles, path: &Path) -> std::io::Result<()> {
    let relative = path.strip_prefix(&folder.root).unwrap_or(path).to_string_lossy().replace('\\', "/");
    match folder.digests.get(&relative) {
        Some(digest) => drop(hash.update(digest.as_bytes())),
        None => drop(hash.update_reader(File::open(path)?)?),
    }
    hash.update(relative.as_bytes());
    Ok(())
}

/// What the folders' `config.json` files say, Stable Diffusion 1.5's values where they say nothing.
struct Configs {
    unet: UnetMotionConfig,
    vae: AutoencoderKlConfig,
    text: ClipTextConfig,
}

impl Configs {
    fn read(folders: &[ModelFiles]) -> Result<Self, String> {
        let mut all = Self {
            unet: UnetMotionConfig::sd15(),
            vae: AutoencoderKlConfig::default(),
            text: ClipTextConfig::default(),
        };
        for folder in folders {
            for part in PARTS {
                let path = folder.root.join(part).join("config.json");
                if !path.is_file() {
                    continue;
                }
                inside(folder, &path)?;
                match read_config(&path, part)? {
                    PartConfig::Unet(config) => {
                        all.unet = UnetMotionConfig { motion: all.unet.motion.take(), ..config };
                    }
                    PartConfig::VideoUnet(config) => all.unet = config,
                    PartConfig::Motion(config) => all.unet.motion = Some(config),
                    PartConfig::Vae(config) => all.vae = config,
                    PartConfig::Text(config) => all.text = config,
                    PartConfig::Other => {}
                }
            }
        }
        Ok(all)
    }
}

fn read_config(path: &Path, part: &str) -> Result<PartConfig, String> {
    let told = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
    let mut text = String::new();
    let file = File::open(path).map_err(|error| told(&error))?;
    file.take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text).map_err(|error| told(&error))?;
    if text.len() as u64 > MAX_CONFIG_BYTES {
        return Err(told(&format!(
            "expected a configuration of at most {MAX_CONFIG_BYTES} bytes, found more"
        )));
    }
    let content = serde_json::from_str(&text).map_err(|error| told(&error))?;
    part_config(&path.display().to_string(), part, &content).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::hub::HubOptions;

    fn open(root: &Path, contained: bool) -> String {
        let store = ModelStore::new(&root.join("no-models"), HubOptions::default()).unwrap();
        let files = ModelFiles::local("mine", root, contained);
        CheckpointFiles::open("mine", &[files], &store).unwrap_err().to_string()
    }

    #[test]
    fn a_folder_without_weights_or_with_damaged_ones_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        assert!(open(folder.path(), true).contains("no weights"), "{}", open(folder.path(), true));
        std::fs::write(folder.path().join("model.safetensors"), [1u8; 5]).unwrap();
        assert!(open(folder.path(), true).contains("model.safetensors"));
        std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
        std::fs::write(folder.path().join("model.ckpt"), b"not a zip").unwrap();
        assert!(
            open(folder.path(), true).contains("model.ckpt"),
            "PyTorch files are read where nothing else is"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_document_cannot_name_weights_outside_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(folder.path().join("secret"), [0u8; 16]).unwrap();
        std::os::unix::fs::symlink("../secret", model.join("weights.safetensors")).unwrap();
        assert!(open(&model, true).contains("symbolic link"), "{}", open(&model, true));
        assert!(!open(&model, false).contains("symbolic link"), "the user may link his own files");
    }
}
