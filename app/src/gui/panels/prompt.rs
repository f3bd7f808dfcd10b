//! The field a motion prompt is typed in.

use eframe::egui::{Id, Key, Response, Ui};

use crate::gui::command::Command;
use crate::gui::model::changes;
use crate::gui::model::scene::Region;
use crate::gui::state::State;
use crate::gui::widgets::{plain_text_field, text_field};

/// The longest prompt that can be typed; the model reads fewer words and says so.
const LONGEST: usize = 200;
/// What an empty field says.
const HINT: &str = "Say how it moves, such as “drift to the left”";

/// How the field looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// With a frame of its own.
    Framed,
    /// On a ground that is drawn already.
    Plain,
}

/// The prompt of a region of an item. It may be empty while it is typed; the document keeps the last words
/// until then.
pub(super) fn field(
    ui: &mut Ui,
    state: &mut State,
    (item, index): (&str, usize),
    region: &Region,
    id: Id,
    (name, look): (&str, Look),
) -> Response {
    let typed = state.typed.as_ref().filter(|(of, at, _)| of == item && *at == index);
    let mut text = typed.map_or_else(|| region.prompt.clone(), |(_, _, text)| text.clone());
    let response = match look {
        Look::Framed => text_field(ui, id, name, HINT, &mut text, LONGEST),
        Look::Plain => plain_text_field(ui, id, name, HINT, &mut text, LONGEST),
    };
    if response.changed() {
        if !text.trim().is_empty() {
            state.edit(|project| changes::set_prompt(project, item, index, &text));
        }
        state.typed = Some((item.to_owned(), index, text));
    }
    if response.lost_focus() {
        state.typed = None;
        state.close_gesture();
        if ui.input(|input| input.key_pressed(Key::Enter) && input.modifiers.command) {
            state.todo.push(Command::Animate);
        }
    }
    response
}
