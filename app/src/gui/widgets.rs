//! The controls every panel is made of. Each carries a name for screen readers, which is also
//! what tests find it by.

mod button;
mod field;
mod keyboard;
mod layout;

pub(crate) use button::{Tone, button, icon_button, icon_text, tool_button, wide_button};
pub(crate) use field::{Dragged, choice, menu, number, plain_text_field, segmented, slider, text_field};
pub(crate) use keyboard::{arrows, slid};
pub(crate) use layout::{badge, caption, card, empty, muted, progress, rule, section, shortened};
