//! What draws the window: wgpu where there is a graphics card, OpenGL elsewhere.
//!
//! A process can make one event loop only, so what draws is decided before the first window: a failed try cannot be
//! followed by another, only by another process ([`again_with_gl`]). A software driver behind wgpu draws no better than one behind OpenGL, and takes longer to start.

use eframe::egui_wgpu::{WgpuConfiguration, WgpuSetup};
use eframe::wgpu::{Backends, DeviceType, Instance, InstanceDescriptor};

use crate::failure::{Failure, Kind};

/// The variable that chooses: `wgpu` or `gl`.
pub(super) const VARIABLE: &str = "KINORA_RENDERER";

/// What draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renderer {
    /// Vulkan, Metal or Direct3D 12 through wgpu.
    Wgpu,
    /// OpenGL.
    Gl,
}

impl Renderer {
    /// What the person asks for, else what the machine has; and whether it was found out rather than said.
    ///
    /// # Errors
    /// Another word than `wgpu` or `gl` in [`VARIABLE`].
    pub(super) fn choose() -> Result<(Self, bool), Failure> {
        let said = std::env::var(VARIABLE).unwrap_or_default();
        let said = Self::said(&said).map_err(|message| Failure::message(Kind::Usage, message))?;
        let begun = std::time::Instant::now();
        let chosen = said.unwrap_or_else(|| if has_card() { Self::Wgpu } else { Self::Gl });
        tracing::debug!(?chosen, seconds = begun.elapsed().as_secs_f64(), "what draws the window");
        Ok((chosen, said.is_none()))
    }

    fn said(text: &str) -> Result<Option<Self>, String> {
        match text {
            "" => Ok(None),
            "wgpu" => Ok(Some(Self::Wgpu)),
            "gl" => Ok(Some(Self::Gl)),
            other => Err(format!("{VARIABLE}: expected wgpu or gl, got {other:?}")),
        }
    }

    /// Sets the window's options.
    pub(super) fn apply(self, options: &mut eframe::NativeOptions) {
        match self {
            Self::Gl => options.renderer = eframe::Renderer::Glow,
            Self::Wgpu => {
                options.renderer = eframe::Renderer::Wgpu;
                let mut wgpu = WgpuConfiguration::default();
                if let WgpuSetup::CreateNew(setup) = &mut wgpu.wgpu_setup {
                    // Without OpenGL, whose libraries take time to load and are what the other way is for.
                    setup.instance_descriptor.backends = Backends::PRIMARY;
                }
                options.wgpu_options = wgpu;
            }
        }
    }
}

/// Goes on as another process of the same command that draws with OpenGL: some screens, such as those of remote
/// desktops, cannot be drawn on by a card that is there.
///
/// # Errors
/// The process cannot be started, or fails; where one process can become another this returns only then.
pub(super) fn again_with_gl() -> Result<(), std::io::Error> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(VARIABLE, "gl");
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt as _;
        Err(command.exec())
    }
    #[cfg(not(unix))]
    {
        let status = command.status()?;
        if status.success() { Ok(()) } else { Err(std::io::Error::other(status.to_string())) }
    }
}

/// Whether the system knows a graphics card at all: quicker to find out than from drivers, of which Vulkan loads every
/// one. Elsewhere than on Linux there is always one.
fn may_have_card() -> bool {
    if cfg!(not(target_os = "linux")) {
        return true;
    }
    let mut nodes = std::fs::read_dir("/dev/dri").into_iter().flatten().flatten();
    let drawing = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("renderD");
    nodes.any(drawing) || std::path::Path::new("/dev/nvidiactl").exists()
}

/// Whether wgpu finds a graphics card.
fn has_card() -> bool {
    if !may_have_card() {
        return false;
    }
    let mut descriptor = InstanceDescriptor::new_without_display_handle();
    descriptor.backends = Backends::PRIMARY;
    let instance = Instance::new(descriptor);
    let adapters = pollster::block_on(instance.enumerate_adapters(Backends::PRIMARY));
    adapters.iter().any(|adapter| is_card(adapter.get_info().device_type))
}

fn is_card(kind: DeviceType) -> bool {
    matches!(kind, DeviceType::DiscreteGpu | DeviceType::IntegratedGpu | DeviceType::VirtualGpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_draws_is_said_or_found_out() {
        assert_eq!(Renderer::said("wgpu"), Ok(Some(Renderer::Wgpu)));
        assert_eq!(Renderer::said("gl"), Ok(Some(Renderer::Gl)));
        assert_eq!(Renderer::said(""), Ok(None));
        assert!(Renderer::said("vulkan").unwrap_err().contains("KINORA_RENDERER: expected wgpu or gl"));
        assert!(
            is_card(DeviceType::IntegratedGpu) && !is_card(DeviceType::Cpu) && !is_card(DeviceType::Other)
        );
        let mut options = eframe::NativeOptions::default();
        Renderer::Gl.apply(&mut options);
        assert_eq!(options.renderer, eframe::Renderer::Glow);
        Renderer::Wgpu.apply(&mut options);
        assert_eq!(options.renderer, eframe::Renderer::Wgpu);
    }
}
