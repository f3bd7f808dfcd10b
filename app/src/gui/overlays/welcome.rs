//! The first screen: three pictures to begin with, or one's own.

use eframe::egui::{
    Align2, Color32, Rect, RichText, Role, Sense, Stroke, StrokeKind, Ui, UiBuilder, Vec2, WidgetInfo, pos2,
    vec2,
};

use crate::gui::command::Command;
use crate::gui::files::After;
use crate::gui::icons;
use crate::gui::panels::media::cover;
use crate::gui::samples::SAMPLES;
use crate::gui::state::State;
use crate::gui::theme::{RADIUS_LARGE, Type, palette, space};
use crate::gui::widgets::{Tone, button, caption, icon_text, shortened};

/// Size of a sample's tile.
const TILE: Vec2 = vec2(236.0, 196.0);

/// Draws the first screen.
pub(crate) fn show(ui: &mut Ui, state: &mut State) {
    let p = palette(ui);
    let whole = ui.max_rect();
    ui.painter().rect_filled(whole, 0, p.chrome);
    let width = (3.0 * TILE.x + 2.0 * space::L).min(whole.width() - 2.0 * space::XL);
    let height = 520.0;
    let top = (whole.top() + (whole.height() - height) / 2.0).max(whole.top() + space::L);
    let page =
        Rect::from_min_size(pos2(whole.center().x - width / 2.0, top), vec2(width, whole.bottom() - top));
    ui.scope_builder(UiBuilder::new().max_rect(page), |ui| {
        ui.spacing_mut().item_spacing.y = space::S;
        ui.label(RichText::new("Kinora").font(Type::Display.font()).color(p.text));
        ui.label(
            RichText::new("Click a thing in a picture, say how it moves, get a clip.")
                .font(Type::Body.font())
                .color(p.muted),
        );
        ui.add_space(space::L);
        ui.label(RichText::new("Start with one of these").font(Type::Heading.font()).color(p.text));
        samples(ui, state, width);
        ui.add_space(space::L);
        ui.horizontal(|ui| {
            if button(ui, Some(icons::IMAGE_PLUS), "Use your own picture…", Tone::Main).clicked() {
                state.todo.push(Command::AddMedia);
            }
            if button(ui, Some(icons::FOLDER_OPEN), "Open project…", Tone::Plain).clicked() {
                state.todo.push(Command::OpenDocument);
            }
            caption(ui, "or drop a file anywhere");
        });
        recent(ui, state);
    });
}

fn samples(ui: &mut Ui, state: &mut State, width: f32) {
    let p = palette(ui);
    let columns = SAMPLES.len() as f32;
    let gap = space::L;
    let tile = vec2(((width - gap * (columns - 1.0)) / columns).min(TILE.x), TILE.y);
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = gap;
        for (index, sample) in SAMPLES.iter().enumerate() {
            let (rect, response) = ui.allocate_exact_size(tile, Sense::click());
            let name = format!("Start with the picture {}", sample.name);
            response.widget_info(|| WidgetInfo::labeled(Role::Button, true, &name));
            let line = if response.hovered() || response.has_focus() { p.accent } else { p.line };
            ui.painter().rect(rect, RADIUS_LARGE, p.raised, Stroke::new(1.0, line), StrokeKind::Inside);
            let picture = rect.shrink(5.0).with_max_y(rect.bottom() - 40.0);
            if let Some(image) = state.sample_picture(index) {
                let size = vec2(image.size[0] as f32, image.size[1] as f32);
                let texture = state.textures.get(ui.ctx(), &format!("sample {index}"), &image);
                cover(ui, texture, picture, size);
            }
            let at = pos2(rect.left() + 12.0, rect.bottom() - 20.0);
            ui.painter().text(at, Align2::LEFT_CENTER, sample.name, Type::Strong.font(), p.text);
            let arrow = pos2(rect.right() - 20.0, rect.bottom() - 20.0);
            icon_text(
                ui,
                arrow,
                icons::ARROW_RIGHT,
                15.0,
                if response.hovered() { p.accent } else { p.muted },
            );
            if response.clicked() {
                state.start_with_sample(index);
            }
        }
    });
}

fn recent(ui: &mut Ui, state: &mut State) {
    let p = palette(ui);
    let list: Vec<_> = state.settings.recent.iter().take(4).cloned().collect();
    if list.is_empty() {
        return;
    }
    ui.add_space(space::L);
    ui.label(RichText::new("Recent projects").font(Type::Heading.font()).color(p.text));
    for path in list {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let (rect, response) =
            ui.allocate_exact_size(vec2(ui.available_width().max(1.0), 26.0), Sense::click());
        response.widget_info(|| WidgetInfo::labeled(Role::Link, true, format!("Open {name}")));
        if response.hovered() || response.has_focus() {
            ui.painter().rect_filled(rect.expand2(vec2(6.0, 0.0)), 5, p.hover);
        }
        ui.scope_builder(UiBuilder::new().max_rect(rect), |ui| {
            ui.horizontal_centered(|ui| {
                shortened(ui, name.trim_end_matches(".kinora.json"), Type::Body, p.text, rect.width() * 0.4);
                let folder = path.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
                let left = ui.available_width();
                shortened(ui, &folder, Type::Caption, p.muted, left);
            });
        });
        if response.clicked() {
            state.leave(After::Open(path));
        }
    }
}

/// Shown over everything while a file is held over the window.
pub(crate) fn drop_hint(ctx: &eframe::egui::Context) {
    let held = ctx.input(|input| !input.raw.hovered_files.is_empty());
    if !held {
        return;
    }
    let p = crate::gui::theme::Palette::current(ctx);
    let layer =
        eframe::egui::LayerId::new(eframe::egui::Order::Foreground, eframe::egui::Id::unique("drop hint"));
    let painter = ctx.layer_painter(layer);
    let screen = ctx.content_rect();
    painter.rect_filled(screen, 0, p.veil);
    let inner = screen.shrink(24.0);
    painter.rect_stroke(inner, RADIUS_LARGE, Stroke::new(2.0, p.accent), StrokeKind::Inside);
    painter.text(screen.center(), Align2::CENTER_CENTER, "Drop to add", Type::Display.font(), Color32::WHITE);
}
