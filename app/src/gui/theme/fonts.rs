//! Inter for text, Lucide for icons, egui's own fonts for whatever those lack.

use std::sync::Arc;

use eframe::egui::{Context, FontData, FontDefinitions, FontFamily};

/// The family of names and labels that stand out.
pub(crate) fn medium() -> FontFamily {
    FontFamily::Name("medium".into())
}

/// The family of headings.
pub(crate) fn semibold() -> FontFamily {
    FontFamily::Name("semibold".into())
}

/// The family of icons.
pub(crate) fn icons() -> FontFamily {
    FontFamily::Name("icons".into())
}

macro_rules! font {
    ($name:literal) => {
        FontData::from_static(include_bytes!(concat!("../../../../assets/fonts/", $name)))
    };
}

/// Makes the fonts known.
pub(crate) fn install(ctx: &Context) {
    let mut fonts = FontDefinitions::default();
    for (name, data) in [
        ("inter", font!("Inter-Regular.otf")),
        ("inter-medium", font!("Inter-Medium.otf")),
        ("inter-semibold", font!("Inter-SemiBold.otf")),
        ("lucide", font!("lucide.ttf")),
    ] {
        fonts.font_data.insert(name.to_owned(), Arc::new(data));
    }
    let fallback = fonts.families.get(&FontFamily::Proportional).cloned().unwrap_or_default();
    let with = |first: &str| {
        let mut list = vec![first.to_owned(), "lucide".to_owned()];
        list.extend(fallback.iter().cloned());
        list
    };
    for (family, first) in
        [(FontFamily::Proportional, "inter"), (medium(), "inter-medium"), (semibold(), "inter-semibold")]
    {
        fonts.families.insert(family, with(first));
    }
    fonts.families.insert(icons(), vec!["lucide".to_owned(), "inter".to_owned()]);
    ctx.set_fonts(fonts);
}
