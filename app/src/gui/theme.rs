//! How the window looks: one palette, one type scale, one grid. Panels name roles, never values.

pub(crate) mod fonts;
pub(crate) mod palette;
mod style;

pub(crate) use palette::{Palette, palette, region_colour};
pub(crate) use style::install;

use eframe::egui::{FontFamily, FontId};

/// The grid everything sits on, in points.
pub(crate) mod space {
    /// Between things that belong together.
    pub(crate) const XS: f32 = 4.0;
    /// Between controls.
    pub(crate) const S: f32 = 8.0;
    /// Around groups.
    pub(crate) const M: f32 = 12.0;
    /// Between groups.
    pub(crate) const L: f32 = 16.0;
    /// Around pages.
    pub(crate) const XL: f32 = 24.0;
}

/// Height of buttons, fields and rows.
pub(crate) const ROW: f32 = 28.0;
/// Rounding of controls.
pub(crate) const RADIUS: u8 = 5;
/// Rounding of cards and windows.
pub(crate) const RADIUS_LARGE: u8 = 8;

/// The type scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    /// The name on the first screen.
    Display,
    /// Titles of dialogs.
    Title,
    /// Headings in panels.
    Heading,
    /// Everything people read.
    Body,
    /// Names of things in lists.
    Strong,
    /// Labels of fields.
    Label,
    /// Remarks.
    Caption,
}

impl Type {
    /// The font of this role.
    pub(crate) fn font(self) -> FontId {
        let (size, family) = match self {
            Self::Display => (30.0, fonts::semibold()),
            Self::Title => (18.0, fonts::semibold()),
            Self::Heading => (13.0, fonts::semibold()),
            Self::Body => (13.0, FontFamily::Proportional),
            Self::Strong => (13.0, fonts::medium()),
            Self::Label => (12.0, FontFamily::Proportional),
            Self::Caption => (11.0, FontFamily::Proportional),
        };
        FontId::new(size, family)
    }
}
