//! Pictures on the graphics card.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use eframe::egui::{Color32, ColorImage, Context, TextureHandle, TextureId, TextureOptions};

/// Pictures on the graphics card.
#[derive(Default)]
pub(crate) struct Textures {
    // Weak, so that no other image can come to lie where one lay that is on the card.
    slots: HashMap<String, (TextureHandle, Weak<ColorImage>, u64)>,
    frame: u64,
}

impl std::fmt::Debug for Textures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Textures({})", self.slots.len())
    }
}

impl Textures {
    /// The texture of an image; uploaded when the slot held another one.
    pub(crate) fn get(&mut self, ctx: &Context, slot: &str, image: &Arc<ColorImage>) -> TextureId {
        let frame = self.frame;
        if let Some((handle, shown, used)) = self.slots.get_mut(slot) {
            *used = frame;
            if shown.as_ptr() != Arc::as_ptr(image) {
                handle.set(fitting(ctx, image), options());
                *shown = Arc::downgrade(image);
            }
            return handle.id();
        }
        let handle = ctx.load_texture(slot, fitting(ctx, image), options());
        let id = handle.id();
        self.slots.insert(slot.to_owned(), (handle, Arc::downgrade(image), frame));
        id
    }

    /// Frees what was not shown for a while.
    pub(crate) fn sweep(&mut self) {
        self.frame += 1;
        let frame = self.frame;
        self.slots.retain(|_, (_, _, used)| frame - *used < 240);
    }
}

fn options() -> TextureOptions {
    TextureOptions { mipmap_mode: Some(eframe::egui::TextureFilter::Linear), ..TextureOptions::LINEAR }
}

/// The image itself, or every n-th pixel of it where the card takes no texture of that size.
fn fitting(ctx: &Context, image: &Arc<ColorImage>) -> eframe::egui::ImageData {
    let limit = ctx.input(|input| input.max_texture_side).max(64);
    let [width, height] = image.size;
    if width <= limit && height <= limit {
        return eframe::egui::ImageData::Color(Arc::clone(image));
    }
    let step = width.max(height).div_ceil(limit);
    let (w, h) = (width.div_ceil(step), height.div_ceil(step));
    let pixels = (0..h)
        .flat_map(|y| (0..w).map(move |x| y * step * width + x * step))
        .map(|at| image.pixels.get(at).copied().unwrap_or(Color32::BLACK))
        .collect();
    eframe::egui::ImageData::Color(Arc::new(ColorImage::new([w, h], pixels)))
}
