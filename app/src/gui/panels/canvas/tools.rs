//! The bar of tools below the picture.

use eframe::egui::{Align, Layout, Role, Ui, WidgetInfo};

use super::brush;
use crate::gui::command::Command;
use crate::gui::icons;
use crate::gui::state::{MaskView, State, Tool};
use crate::gui::theme::{Type, palette, space};
use crate::gui::widgets::{Tone, button, icon_button, tool_button};

/// Draws the bar of tools.
pub(super) fn show(ui: &mut Ui, state: &mut State) {
    ui.horizontal_centered(|ui| {
        ui.spacing_mut().item_spacing.x = 2.0;
        let ctx = ui.ctx().clone();
        let tools = [
            (Tool::Pick, Command::ToolClick, icons::MOUSE_POINTER_CLICK),
            (Tool::LeaveOut, Command::ToolLeaveOut, icons::CIRCLE_MINUS),
            (Tool::Brush, Command::ToolBrush, icons::BRUSH),
            (Tool::Erase, Command::ToolErase, icons::ERASER),
            (Tool::Pan, Command::ToolPan, icons::HAND),
        ];
        ui.add_enabled_ui(state.item().is_some(), |ui| {
            for (tool, command, icon) in tools {
                let chosen = state.canvas.tool == tool;
                if tool_button(ui, icon, command.name(), &command.tip(&ctx), chosen).clicked() {
                    state.todo.push(command);
                }
            }
            ui.add_space(space::S);
            let can = state.region().is_some();
            ui.add_enabled_ui(can, |ui| {
                let (name, tip) = (Command::NewRegion.name(), Command::NewRegion.tip(&ctx));
                if tool_button(ui, icons::CIRCLE_PLUS, name, &tip, state.canvas.new_region).clicked() {
                    state.todo.push(Command::NewRegion);
                }
            });
            if matches!(state.canvas.tool, Tool::Brush | Tool::Erase) {
                ui.add_space(space::S);
                ui.scope(|ui| brush_size(ui, state));
            }
        });
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            ui.spacing_mut().item_spacing.x = 2.0;
            ui.add_enabled_ui(state.item().is_some(), |ui| {
                // Where there is little room what has a key goes first.
                let room = ui.available_width();
                if room > 150.0
                    && button(ui, None, "1:1", Tone::Quiet)
                        .on_hover_text(Command::ZoomPixels.tip(&ctx))
                        .clicked()
                {
                    state.todo.push(Command::ZoomPixels);
                }
                for command in [Command::ZoomFit, Command::ZoomIn, Command::ZoomOut] {
                    let icon = command.entry().and_then(|entry| entry.icon).unwrap_or_default();
                    if icon_button(ui, icon, command.name()).clicked() {
                        state.todo.push(command);
                    }
                }
                let percent = state.canvas.drawn_zoom * ctx.pixels_per_point() * 100.0;
                if room > 300.0 && state.item().is_some() && percent > 0.0 {
                    let text = format!("{percent:.0} %");
                    ui.label(
                        eframe::egui::RichText::new(text).font(Type::Caption.font()).color(palette(ui).muted),
                    );
                }
                if room < 260.0 {
                    if icon_button(ui, icons::LAYERS, Command::ViewNext.name()).clicked() {
                        state.todo.push(Command::ViewNext);
                    }
                    return;
                }
                ui.add_space(space::S);
                let order = [(MaskView::Tint, "Tint"), (MaskView::Matte, "Matte"), (MaskView::Hidden, "Off")];
                let mut view = state.canvas.view;
                ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                    crate::gui::widgets::segmented(ui, &mut view, &order);
                });
                state.canvas.view = view;
            });
        });
    });
}

fn brush_size(ui: &mut Ui, state: &mut State) {
    let enabled = ui.is_enabled();
    ui.spacing_mut().slider_width = 72.0;
    // As the sliders of the inspector: the knob follows this height.
    ui.spacing_mut().interact_size.y = 15.0;
    let slider = eframe::egui::Slider::new(&mut state.canvas.brush, brush::SIZES).logarithmic(true);
    let response = ui.add(slider.show_value(false));
    let percent = f64::from(state.canvas.brush) * 100.0;
    response.widget_info(|| {
        let mut info = WidgetInfo::labeled(Role::Slider, enabled, "Brush size");
        info.value = Some(percent);
        info
    });
    response.on_hover_text(format!("Brush size: {percent:.1} % of the picture"));
}
