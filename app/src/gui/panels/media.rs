//! The pictures of the project.

use eframe::egui::{
    Color32, Margin, Pos2, Rect, Role, ScrollArea, Sense, Stroke, StrokeKind, Ui, WidgetInfo, pos2, vec2,
};

use crate::gui::command::Command;
use crate::gui::icons;
use crate::gui::model::scene::{Item, Source};
use crate::gui::state::State;
use crate::gui::tasks::pictures::Loading;
use crate::gui::theme::{RADIUS, RADIUS_LARGE, Type, palette, space};
use crate::gui::widgets::{Tone, empty, icon_text, wide_button};

/// Height of a picture in the list.
const THUMB: f32 = 92.0;

/// Draws the panel.
pub(crate) fn show(ui: &mut Ui, state: &mut State) {
    eframe::egui::Frame::new().inner_margin(Margin::same(10)).show(ui, |ui| {
        if wide_button(ui, Some(icons::IMAGE_PLUS), "Add media…", Tone::Plain).clicked() {
            state.todo.push(Command::AddMedia);
        }
        ui.add_space(space::XS);
        let items: Vec<Item> = state.project.as_ref().map(|p| p.scene().items.clone()).unwrap_or_default();
        if items.is_empty() {
            empty(ui, icons::IMAGE, "Nothing here yet", "Drop pictures and clips anywhere in the window.");
            return;
        }
        ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| {
            for item in &items {
                if tile(ui, state, item) {
                    state.choose(&item.id);
                }
                ui.add_space(2.0);
            }
        });
    });
}

fn tile(ui: &mut Ui, state: &mut State, item: &Item) -> bool {
    let p = palette(ui);
    let chosen = state.choice.item == item.id;
    let (rect, response) =
        ui.allocate_exact_size(vec2(ui.available_width().max(1.0), THUMB + 34.0), Sense::click());
    response.widget_info(|| WidgetInfo::selected(Role::ListItem, true, chosen, &item.name));
    if !ui.is_rect_visible(rect) {
        return response.clicked();
    }
    let fill = if response.hovered() { p.hover } else { p.raised };
    let line = if chosen || response.has_focus() { p.accent } else { p.line };
    ui.painter().rect(rect, RADIUS_LARGE, fill, Stroke::new(1.0, line), StrokeKind::Inside);
    let picture = rect.shrink(4.0).with_max_y(rect.top() + 4.0 + THUMB);
    ui.painter().rect_filled(picture, RADIUS, p.stage);
    let loading = state.picture_key(item).map(|key| state.pictures.get(&key));
    match loading {
        Some(Loading::Ready(shown)) => {
            let slot = if chosen { "canvas".to_owned() } else { format!("thumb {}", item.id) };
            let texture = state.textures.get(ui.ctx(), &slot, &shown.preview);
            let size = vec2(shown.picture.width() as f32, shown.picture.height() as f32);
            cover(ui, texture, picture, size);
        }
        Some(Loading::Waiting) => {}
        Some(Loading::Failed(_)) => icon_text(ui, picture.center(), icons::FILE_WARNING, 24.0, p.warning),
        None => icon_text(ui, picture.center(), icons::CLAPPERBOARD, 24.0, p.faint),
    }
    let text = pos2(rect.left() + 10.0, picture.bottom() + 15.0);
    let clip = ui.painter_at(rect.shrink2(vec2(8.0, 0.0)));
    clip.text(text, eframe::egui::Align2::LEFT_CENTER, &item.name, Type::Strong.font(), p.text);
    let remark = match (&item.shot, &item.source) {
        (Some(shot), _) if shot.regions.len() == 1 => "1 region".to_owned(),
        (Some(shot), _) => format!("{} regions", shot.regions.len()),
        (None, Source::Frame { .. }) => "Frame".to_owned(),
        (None, _) => String::new(),
    };
    let right = pos2(rect.right() - 10.0, text.y);
    ui.painter().text(right, eframe::egui::Align2::RIGHT_CENTER, remark, Type::Caption.font(), p.muted);
    response.clicked()
}

/// Fills a rectangle with the middle of a picture.
pub(crate) fn cover(ui: &Ui, texture: eframe::egui::TextureId, rect: Rect, size: Vec2) {
    let scale = (rect.width() / size.x).max(rect.height() / size.y).max(1e-6);
    let seen = rect.size() / (size * scale);
    let uv = Rect::from_center_size(pos2(0.5, 0.5), seen);
    let uv = uv.intersect(Rect::from_min_max(Pos2::ZERO, pos2(1.0, 1.0)));
    let shape =
        eframe::egui::epaint::RectShape::filled(rect, RADIUS, Color32::WHITE).with_texture(texture, uv);
    ui.painter().add(shape);
}

use eframe::egui::Vec2;
