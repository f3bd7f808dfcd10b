//! What the window remembers between starts.

use std::path::{Path, PathBuf};

use kinora_pipeline::store::atomic::{AtomicError, write_file};
use serde::{Deserialize, Serialize};

use crate::cli::{DeviceChoice, parse_device};

/// Documents remembered for File ▸ Open recent.
const MAX_RECENT: usize = 12;
/// The text sizes that can be chosen, in percent.
pub(crate) const TEXT_SCALES: [u32; 8] = [75, 90, 100, 110, 125, 150, 175, 200];

/// Which colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ThemeChoice {
    /// As the desktop says.
    System,
    /// Dark, for looking at pictures.
    #[default]
    Dark,
    /// Light.
    Light,
}

/// The settings. Every field has a default, so that a file of any version can be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    /// Which colours.
    pub(crate) theme: ThemeChoice,
    /// Size of everything, percent; one of [`TEXT_SCALES`].
    pub(crate) text_scale: u32,
    /// Size of the window in points.
    pub(crate) window: [f32; 2],
    /// Documents opened lately, the newest first.
    pub(crate) recent: Vec<PathBuf>,
    /// The arrangement of panels, as the panel library writes it.
    pub(crate) layout: Option<serde_json::Value>,
    /// Never touch the network.
    pub(crate) offline: bool,
    /// Where clips are computed, as `--device` says it.
    pub(crate) device: String,
    /// Play clips again from the start.
    pub(crate) repeat: bool,
    /// How loud everything is, 0..=1.
    pub(crate) volume: f32,
    /// Play without sound.
    pub(crate) muted: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            theme: ThemeChoice::default(),
            text_scale: 100,
            window: [1440.0, 900.0],
            recent: vec![],
            layout: None,
            offline: false,
            device: DeviceChoice::Auto.to_string(),
            repeat: true,
            volume: 1.0,
            muted: false,
        }
    }
}

impl Settings {
    /// Reads the settings; the defaults where there are none. The second value says what was wrong
    /// with a file that could not be used and is now kept aside.
    pub(crate) fn read(path: &Path) -> (Self, Option<String>) {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return (Self::default(), None),
            Err(error) => {
                return (
                    Self::default(),
                    Some(format!("the settings {} cannot be read: {error}", path.display())),
                );
            }
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(settings) => (settings.sane(), None),
            Err(error) => {
                let aside = path.with_extension("damaged.json");
                let kept = std::fs::rename(path, &aside).is_ok();
                let place =
                    if kept { format!(" and are kept as {}", aside.display()) } else { String::new() };
                (Self::default(), Some(format!("the settings could not be understood ({error}){place}")))
            }
        }
    }

    /// Where clips are computed. What this build does not have is the processor: settings are shared by every build.
    pub(crate) fn device(&self) -> DeviceChoice {
        match parse_device(&self.device) {
            Ok(DeviceChoice::Cuda(card)) if cfg!(feature = "cuda") => DeviceChoice::Cuda(card),
            _ => DeviceChoice::Cpu,
        }
    }

    fn sane(mut self) -> Self {
        if !TEXT_SCALES.contains(&self.text_scale) {
            self.text_scale = 100;
        }
        for side in &mut self.window {
            *side = if side.is_finite() { side.clamp(640.0, 8192.0) } else { 1024.0 };
        }
        self.volume = if self.volume.is_finite() { self.volume.clamp(0.0, 1.0) } else { 1.0 };
        self.recent.truncate(MAX_RECENT);
        self
    }

    /// Writes the settings whole.
    pub(crate) fn write(&self, path: &Path) -> Result<(), AtomicError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|source| AtomicError::from_io("create", folder, source))?;
        }
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| AtomicError::from_io("write", path, std::io::Error::other(error)))?;
        write_file(path, &text, true)
    }

    /// Puts a document first in the list of recent ones.
    pub(crate) fn remember(&mut self, document: &Path) {
        self.recent.retain(|known| known != document);
        self.recent.insert(0, document.to_path_buf());
        self.recent.truncate(MAX_RECENT);
    }

    /// The next larger or smaller text size.
    pub(crate) fn step_text_scale(&mut self, larger: bool) {
        let at = TEXT_SCALES.iter().position(|&scale| scale == self.text_scale).unwrap_or(2);
        let next = if larger { at + 1 } else { at.saturating_sub(1) };
        if let Some(&scale) = TEXT_SCALES.get(next) {
            self.text_scale = scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_a_restart_and_old_or_wild_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/window.json");
        assert_eq!(Settings::read(&path), (Settings::default(), None));
        let mut settings = Settings { theme: ThemeChoice::Light, text_scale: 125, ..Settings::default() };
        settings.remember(Path::new("/a"));
        settings.remember(Path::new("/b"));
        settings.remember(Path::new("/a"));
        settings.write(&path).unwrap();
        assert_eq!(Settings::read(&path), (settings.clone(), None));
        assert_eq!(settings.recent, [PathBuf::from("/a"), PathBuf::from("/b")]);
        std::fs::write(&path, r#"{ "text_scale": 7, "window": [1e9, -5], "future": [] }"#).unwrap();
        let (read, complaint) = Settings::read(&path);
        assert_eq!((read.text_scale, read.window, complaint), (100, [8192.0, 640.0], None));
    }

    #[test]
    fn a_damaged_file_is_kept_aside_and_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("window.json");
        std::fs::write(&path, "{ \"theme\": ").unwrap();
        let (read, complaint) = Settings::read(&path);
        assert_eq!(read, Settings::default());
        assert!(complaint.unwrap().contains("window.damaged.json"));
        assert!(dir.path().join("window.damaged.json").is_file());
    }

    #[test]
    fn a_device_this_build_does_not_have_is_the_processor() {
        let with = |device: &str| Settings { device: device.to_owned(), ..Settings::default() }.device();
        for processor in ["auto", "cpu", "", "quantum"] {
            assert_eq!(with(processor), DeviceChoice::Cpu, "{processor}");
        }
        let card = if cfg!(feature = "cuda") { DeviceChoice::Cuda(1) } else { DeviceChoice::Cpu };
        assert_eq!(with("cuda:1"), card);
    }

    #[test]
    fn text_sizes_stop_at_their_ends() {
        let mut settings = Settings::default();
        for _ in 0..20 {
            settings.step_text_scale(true);
        }
        assert_eq!(settings.text_scale, 200);
        for _ in 0..20 {
            settings.step_text_scale(false);
        }
        assert_eq!(settings.text_scale, 75);
    }
}
