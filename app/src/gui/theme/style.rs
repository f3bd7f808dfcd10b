//! Brings the palette into egui's own widgets.

use std::collections::BTreeMap;

use eframe::egui::{
    Context, CornerRadius, FontFamily, FontId, Margin, Shadow, Stroke, Style, TextStyle, Theme, Vec2,
    Visuals,
    style::{HandleShape, ScrollStyle, Selection, WidgetVisuals},
};

use super::{Palette, RADIUS, RADIUS_LARGE, ROW, Type, fonts};

/// Sets fonts and both themes.
pub(crate) fn install(ctx: &Context) {
    fonts::install(ctx);
    for theme in [Theme::Dark, Theme::Light] {
        let mut style = (*ctx.style_of(theme)).clone();
        apply(&mut style, theme);
        ctx.set_style_of(theme, style);
    }
}

fn apply(style: &mut Style, theme: Theme) {
    let p = Palette::of(theme);
    style.text_styles = BTreeMap::from([
        (TextStyle::Small, Type::Caption.font()),
        (TextStyle::Body, Type::Body.font()),
        (TextStyle::Button, Type::Body.font()),
        (TextStyle::Heading, Type::Title.font()),
        (TextStyle::Monospace, FontId::new(12.0, FontFamily::Monospace)),
    ]);
    let s = &mut style.spacing;
    s.item_spacing = Vec2::new(8.0, 6.0);
    s.button_padding = Vec2::new(10.0, 5.0);
    s.interact_size = Vec2::new(28.0, ROW);
    s.window_margin = Margin::same(16);
    s.menu_margin = Margin::same(6);
    s.indent = 16.0;
    s.slider_width = 120.0;
    s.slider_rail_height = 4.0;
    s.combo_width = 96.0;
    s.icon_width = 16.0;
    s.icon_width_inner = 9.0;
    s.tooltip_width = 320.0;
    s.scroll = ScrollStyle { bar_width: 8.0, ..ScrollStyle::floating() };
    style.animation_time = 0.1;
    style.interaction.selectable_labels = false;
    style.interaction.tooltip_delay = 0.45;
    style.explanation_tooltips = false;
    style.visuals = visuals(theme, p);
}

fn visuals(theme: Theme, p: &Palette) -> Visuals {
    let mut v = if theme == Theme::Dark { Visuals::dark() } else { Visuals::light() };
    let radius = CornerRadius::same(RADIUS);
    let widget = |fill, line, ink| WidgetVisuals {
        bg_fill: fill,
        weak_bg_fill: fill,
        bg_stroke: Stroke::new(1.0, line),
        corner_radius: radius,
        fg_stroke: Stroke::new(1.0, ink),
        expansion: 0.0,
    };
    v.widgets.noninteractive = widget(p.panel, p.line, p.text);
    v.widgets.inactive = widget(p.raised, p.outline, p.text);
    v.widgets.hovered = widget(p.hover, p.outline, p.text);
    v.widgets.active = widget(p.pressed, p.accent, p.text);
    v.widgets.open = widget(p.hover, p.outline, p.text);
    v.weak_text_color = Some(p.muted);
    v.selection = Selection { bg_fill: p.selected, stroke: Stroke::new(1.0, p.text) };
    v.hyperlink_color = p.accent;
    v.faint_bg_color = p.raised;
    v.extreme_bg_color = p.field;
    v.text_edit_bg_color = Some(p.field);
    v.code_bg_color = p.field;
    v.warn_fg_color = p.warning;
    v.error_fg_color = p.bad;
    v.panel_fill = p.panel;
    v.window_fill = p.raised;
    v.window_stroke = Stroke::new(1.0, p.outline);
    v.window_corner_radius = CornerRadius::same(RADIUS_LARGE);
    v.menu_corner_radius = CornerRadius::same(RADIUS_LARGE);
    v.window_shadow = Shadow { offset: [0, 12], blur: 32, spread: 0, color: p.veil.gamma_multiply(0.7) };
    v.popup_shadow = Shadow { offset: [0, 6], blur: 16, spread: 0, color: p.veil.gamma_multiply(0.6) };
    v.handle_shape = HandleShape::Circle;
    v.slider_trailing_fill = true;
    v.disabled_alpha = 0.45;
    v
}
