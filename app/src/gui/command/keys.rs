//! From keys to commands, and how keys are written.

use eframe::egui::{Context, Key, KeyboardShortcut};

use super::{Command, TABLE};

/// The commands whose keys were pressed, taken out of the input.
///
/// While someone types only keys with the command key count, and keys that work a focused control
/// are left to it.
pub(crate) fn pressed(ctx: &Context) -> Vec<Command> {
    let (typing, focused) = (ctx.text_edit_focused(), ctx.egui_wants_keyboard_input());
    let mut found = vec![];
    ctx.input_mut(|input| {
        // Those with more modifiers first: a shortcut also matches with extra shift.
        for wanted in [2, 1, 0] {
            for entry in TABLE {
                for keys in entry.keys {
                    let m = keys.modifiers;
                    let count = usize::from(m.command) + usize::from(m.shift) + usize::from(m.alt);
                    let free = m.command || keys.logical_key == Key::F1;
                    if count != wanted || (!free && (typing || focused && works_controls(keys.logical_key))) {
                        continue;
                    }
                    if input.consume_shortcut(keys) {
                        found.push(entry.command);
                    }
                }
            }
        }
    });
    found
}

/// Keys as this system writes them, signs as signs.
pub(crate) fn written(ctx: &Context, keys: &KeyboardShortcut) -> String {
    let text = ctx.format_shortcut(keys);
    let signs = [
        ("OpenBracket", "["),
        ("CloseBracket", "]"),
        ("Equals", "="),
        ("Plus", "+"),
        ("Minus", "-"),
        ("Period", "."),
        ("ArrowUp", "↑"),
        ("ArrowDown", "↓"),
        ("Up", "↑"),
        ("Down", "↓"),
        ("ArrowLeft", "←"),
        ("ArrowRight", "→"),
        ("Left", "←"),
        ("Right", "→"),
    ];
    let sign = signs.iter().find_map(|(name, sign)| Some(format!("{}{sign}", text.strip_suffix(name)?)));
    sign.unwrap_or(text)
}

fn works_controls(key: Key) -> bool {
    matches!(
        key,
        Key::Space | Key::ArrowLeft | Key::ArrowRight | Key::ArrowUp | Key::ArrowDown | Key::Home | Key::End
    )
}
