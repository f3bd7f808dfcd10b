//! Short messages that go away by themselves.

use std::time::Duration;

use eframe::egui::{Align, Align2, Area, Context, Frame, Id, Layout, Margin, Order, RichText, Stroke, vec2};

use crate::gui::icons;
use crate::gui::theme::{Palette, RADIUS_LARGE, Type, fonts, space};
use crate::gui::widgets::icon_button;

/// Messages shown at once.
const MOST: usize = 4;
/// Messages remembered.
const KEPT: usize = 100;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Something to know.
    Info,
    /// Something succeeded.
    Done,
    /// Something to look at.
    Warning,
    /// Something failed.
    Error,
}

#[derive(Debug, Clone)]
struct Toast {
    kind: Kind,
    text: String,
    count: usize,
    /// Seconds it still stays.
    left: f32,
}

/// The messages.
#[derive(Debug, Default)]
pub(crate) struct Toasts {
    shown: Vec<Toast>,
    log: Vec<(Kind, String)>,
}

impl Toasts {
    /// Says something. The same again only counts.
    pub(crate) fn add(&mut self, kind: Kind, text: impl Into<String>) {
        let text: String = text.into().chars().take(600).collect();
        let left = match kind {
            Kind::Info | Kind::Done => 5.0,
            Kind::Warning => 9.0,
            Kind::Error => 14.0,
        };
        if let Some(same) = self.shown.iter_mut().find(|toast| toast.text == text) {
            (same.count, same.left) = (same.count + 1, left);
            return;
        }
        self.log.push((kind, text.clone()));
        if self.log.len() > KEPT {
            self.log.remove(0);
        }
        self.shown.push(Toast { kind, text, count: 1, left });
        if self.shown.len() > MOST {
            self.shown.remove(0);
        }
    }

    /// Takes all messages away.
    #[cfg(test)]
    pub(crate) fn clear(&mut self) {
        self.shown.clear();
    }

    /// Everything that was said lately, the latest last.
    #[cfg(test)]
    pub(crate) fn log(&self) -> &[(Kind, String)] {
        &self.log
    }

    /// Draws them, the latest lowest, on the side where no button is that one would press next.
    pub(crate) fn show(&mut self, ctx: &Context) {
        if self.shown.is_empty() {
            return;
        }
        let p = Palette::current(ctx);
        let passed = ctx.input(|input| input.stable_dt.min(0.1));
        let mut closed = vec![];
        let area = Area::new(Id::unique("toasts"))
            .order(Order::Foreground)
            .anchor(Align2::LEFT_BOTTOM, vec2(space::L, -40.0))
            .show(ctx, |ui| {
                ui.set_width(340.0);
                for (index, toast) in self.shown.iter().enumerate() {
                    let (icon, colour) = match toast.kind {
                        Kind::Info => (icons::INFO, p.muted),
                        Kind::Done => (icons::CIRCLE_CHECK, p.good),
                        Kind::Warning => (icons::TRIANGLE_ALERT, p.warning),
                        Kind::Error => (icons::CIRCLE_X, p.bad),
                    };
                    Frame::new()
                        .fill(p.raised)
                        .stroke(Stroke::new(1.0, p.outline))
                        .corner_radius(RADIUS_LARGE)
                        .inner_margin(Margin::symmetric(12, 8))
                        .shadow(ui.visuals().popup_shadow)
                        .show(ui, |ui| {
                            ui.horizontal_top(|ui| {
                                let font = eframe::egui::FontId::new(16.0, fonts::icons());
                                ui.add_space(2.0);
                                ui.label(RichText::new(icon).font(font).color(colour));
                                ui.with_layout(Layout::right_to_left(Align::TOP), |ui| {
                                    if icon_button(ui, icons::X, "Dismiss").clicked() {
                                        closed.push(index);
                                    }
                                    ui.with_layout(Layout::top_down(Align::LEFT), |ui| {
                                        ui.add_space(4.0);
                                        let times = if toast.count > 1 {
                                            format!(" ({} times)", toast.count)
                                        } else {
                                            String::new()
                                        };
                                        let text = format!("{}{times}", toast.text);
                                        ui.label(RichText::new(text).font(Type::Body.font()).color(p.text));
                                    });
                                });
                            });
                        });
                    ui.add_space(space::S);
                }
            });
        // Nothing goes away while it is read.
        if !area.response.contains_pointer() {
            self.shown.iter_mut().for_each(|toast| toast.left -= passed);
        }
        let mut index = 0;
        self.shown.retain(|toast| {
            let keep = toast.left > 0.0 && !closed.contains(&index);
            index += 1;
            keep
        });
        ctx.request_repaint_after(Duration::from_millis(250));
    }
}
