//! The desktop app: the same documents and the same core as the command line, with a window.
//!
//! [`model`] knows no window and is tested by itself; [`tasks`] are threads; [`panels`] and
//! [`overlays`] are thin; [`command`] is the one table of everything that can be done.

mod actions;
mod app;
mod arranging;
mod command;
mod comparing;
mod exporting;
mod files;
mod icons;
mod jobs;
mod layout;
mod marking;
mod measure;
mod model;
mod monitor;
mod outlook;
mod overlays;
mod panels;
mod renderer;
mod samples;
mod sequence;
mod sounding;
mod source;
mod state;
mod tasks;
#[cfg(test)]
mod tests;
mod text;
mod theme;
mod widgets;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use eframe::egui::{ViewportBuilder, vec2};

use crate::failure::{Failure, Kind, Outcome};
use app::App;
use measure::Measure;
use model::places::Places;
use model::settings::Settings;
use renderer::Renderer;

fn measure_without_screen(document: Option<&Path>, seconds: f64) {
    tasks::share::make_room();
    let ctx = eframe::egui::Context::default();
    let mut app = App::new(&ctx, Places::usual());
    app.measure = Some(Measure::new(seconds));
    if let Some(document) = document {
        app.state.open_any(document);
    }
    measure::without_screen(&ctx, &mut app);
}

/// Whether there is a desktop to open a window on.
pub(crate) fn has_display() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(not(target_os = "linux")) || set("DISPLAY") || set("WAYLAND_DISPLAY")
}

/// Opens the window, with `document` in it if there is one, and returns when it is closed. With
/// `measure` it times its frames for so many seconds and closes itself.
pub(crate) fn open(document: Option<&Path>, measure: Option<f64>) -> Outcome {
    if !has_display() {
        if let Some(seconds) = measure {
            measure_without_screen(document, seconds);
            return Ok(());
        }
        let message = "there is no display to open a window on (DISPLAY and WAYLAND_DISPLAY are not set); `kinora --help` lists what works without one";
        return Err(Failure::message(Kind::Unavailable, message));
    }
    tasks::share::make_room();
    let places = Places::usual();
    let (settings, _) = Settings::read(&places.settings());
    let [width, height] = settings.window;
    let mut options = eframe::NativeOptions {
        viewport: ViewportBuilder::default()
            .with_title("Kinora")
            .with_app_id("kinora")
            .with_inner_size(vec2(width, height))
            .with_min_inner_size(vec2(720.0, 480.0)),
        // Nothing here is a gradient, and without a graphics card noise for every pixel costs a good deal.
        dithering: false,
        ..Default::default()
    };
    let (renderer, found_out) = Renderer::choose()?;
    renderer.apply(&mut options);
    let document = document.map(Path::to_path_buf);
    let begun = Rc::new(Cell::new(false));
    let begins = Rc::clone(&begun);
    let create: eframe::AppCreator<'_> = Box::new(move |cc| {
        begins.set(true);
        let mut app = App::new(&cc.egui_ctx, places);
        app.measure = measure.map(Measure::new);
        if let Some(document) = &document {
            app.state.open_any(document);
        }
        Ok(Box::new(app))
    });
    let outcome = eframe::run_native("Kinora", options, create);
    if let Err(error) = &outcome
        && renderer == Renderer::Wgpu
        && found_out
        && !begun.get()
    {
        tracing::info!(%error, "the card cannot draw on this screen; trying OpenGL");
        return renderer::again_with_gl().map_err(|error| {
            Failure::message(Kind::Unavailable, format!("no window can be opened: {error}"))
        });
    }
    outcome.map_err(|error| {
        let other = format!("{}=gl or {0}=wgpu draws another way", renderer::VARIABLE);
        Failure::message(Kind::Unavailable, format!("no window can be opened: {error}; {other}"))
    })
}
