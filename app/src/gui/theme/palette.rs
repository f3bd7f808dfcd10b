//! Colours by role, for both themes.

use eframe::egui::{Color32, Context, Theme, Ui};

/// The colours of one theme.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Palette {
    /// Behind panels.
    pub(crate) chrome: Color32,
    /// Panels.
    pub(crate) panel: Color32,
    /// Cards on panels.
    pub(crate) raised: Color32,
    /// Fields that are typed or dragged into.
    pub(crate) field: Color32,
    /// Under the pointer.
    pub(crate) hover: Color32,
    /// Pressed.
    pub(crate) pressed: Color32,
    /// Around pictures, neutral so that their colours are judged rightly.
    pub(crate) stage: Color32,
    /// Lines between things.
    pub(crate) line: Color32,
    /// Outlines of fields.
    pub(crate) outline: Color32,
    /// Text.
    pub(crate) text: Color32,
    /// Labels and remarks.
    pub(crate) muted: Color32,
    /// What cannot be used now.
    pub(crate) faint: Color32,
    /// The one colour for what is chosen and for the main action.
    pub(crate) accent: Color32,
    /// The same under the pointer.
    pub(crate) accent_hover: Color32,
    /// Text on it.
    pub(crate) on_accent: Color32,
    /// Behind what is chosen.
    pub(crate) selected: Color32,
    /// Done.
    pub(crate) good: Color32,
    /// Look here.
    pub(crate) warning: Color32,
    /// Failed.
    pub(crate) bad: Color32,
    /// Over everything while a dialog asks.
    pub(crate) veil: Color32,
}

const fn rgb(hex: u32) -> Color32 {
    Color32::from_rgb((hex >> 16) as u8, (hex >> 8) as u8, hex as u8)
}

const DARK: Palette = Palette {
    chrome: rgb(0x0F1012),
    panel: rgb(0x18191C),
    raised: rgb(0x1F2125),
    field: rgb(0x111215),
    hover: rgb(0x2A2D32),
    pressed: rgb(0x33373D),
    stage: rgb(0x0B0B0C),
    line: rgb(0x26282D),
    outline: rgb(0x34373D),
    text: rgb(0xECEDEF),
    muted: rgb(0xA3A8B0),
    faint: rgb(0x6D727B),
    accent: rgb(0xFF7A4D),
    accent_hover: rgb(0xFF946E),
    on_accent: rgb(0x1D0B04),
    selected: rgb(0x3A261E),
    good: rgb(0x5CC489),
    warning: rgb(0xE8B24A),
    bad: rgb(0xF2706C),
    veil: Color32::from_rgba_premultiplied(0, 0, 0, 150),
};

const LIGHT: Palette = Palette {
    chrome: rgb(0xE4E4E1),
    panel: rgb(0xF7F7F5),
    raised: rgb(0xFFFFFF),
    field: rgb(0xFFFFFF),
    hover: rgb(0xEBEBE8),
    pressed: rgb(0xDEDEDA),
    stage: rgb(0xCFCFCC),
    line: rgb(0xDCDCD8),
    outline: rgb(0xC4C4BF),
    text: rgb(0x1B1C1E),
    muted: rgb(0x5A5E66),
    faint: rgb(0x8C9098),
    accent: rgb(0xB9421A),
    accent_hover: rgb(0xA23815),
    on_accent: rgb(0xFFFFFF),
    selected: rgb(0xF8DFD5),
    good: rgb(0x1F7A46),
    warning: rgb(0x8A5A00),
    bad: rgb(0xB3261E),
    veil: Color32::from_rgba_premultiplied(30, 30, 30, 90),
};

impl Palette {
    /// The colours of a theme.
    pub(crate) fn of(theme: Theme) -> &'static Self {
        match theme {
            Theme::Dark => &DARK,
            Theme::Light => &LIGHT,
        }
    }

    /// The colours in use.
    pub(crate) fn current(ctx: &Context) -> &'static Self {
        Self::of(ctx.theme())
    }
}

/// The colours in use.
pub(crate) fn palette(ui: &Ui) -> &'static Palette {
    Palette::current(ui.ctx())
}

/// Colours of regions on the picture, far from each other and from most of what is photographed.
const REGIONS: [Color32; 8] = [
    rgb(0x3DDBD9),
    rgb(0xFF66C4),
    rgb(0xC6F24E),
    rgb(0xFFB020),
    rgb(0x7AA7FF),
    rgb(0xFF6B5E),
    rgb(0xB98CFF),
    rgb(0x58E08A),
];

/// The colour of the region at `index`.
pub(crate) fn region_colour(index: usize) -> Color32 {
    REGIONS.get(index % REGIONS.len()).copied().unwrap_or(Color32::WHITE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance, WCAG 2.2.
    fn luminance(colour: Color32) -> f64 {
        let linear = |byte: u8| {
            let v = f64::from(byte) / 255.0;
            if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(colour.r()) + 0.7152 * linear(colour.g()) + 0.0722 * linear(colour.b())
    }

    fn contrast(a: Color32, b: Color32) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_can_be_read_on_everything_it_stands_on() {
        for theme in [Theme::Dark, Theme::Light] {
            let p = Palette::of(theme);
            for ground in [p.chrome, p.panel, p.raised, p.field, p.hover, p.selected] {
                assert!(contrast(p.text, ground) >= 7.0, "{theme:?} text on {ground:?}");
                assert!(
                    contrast(p.muted, ground) >= 4.5,
                    "{theme:?} muted on {ground:?}: {}",
                    contrast(p.muted, ground)
                );
            }
            for ground in [p.panel, p.raised] {
                for ink in [p.good, p.warning, p.bad, p.accent] {
                    assert!(contrast(ink, ground) >= 4.5, "{theme:?} {ink:?} on {ground:?}");
                }
                assert!(contrast(p.faint, ground) >= 2.8, "{theme:?} faint: {}", contrast(p.faint, ground));
            }
            for ground in [p.accent, p.accent_hover] {
                assert!(contrast(p.on_accent, ground) >= 4.5, "{theme:?} on accent");
            }
        }
    }
}
