//! Working controls of our own by keyboard and screen reader, as egui's own ones can be.

use std::ops::RangeInclusive;

use eframe::egui::accesskit::{Action, ActionData};
use eframe::egui::{EventFilter, Key, Modifiers, Response, Ui, Vec2, vec2};

/// How many steps an arrow key goes with Shift held.
const WIDE: f32 = 10.0;

/// Steps right and down that arrow keys ask for while a control has the focus; with Shift ten at once. Such a control
/// keeps the arrow keys, which else lead from one control to the next.
pub(crate) fn arrows(ui: &Ui, response: &Response) -> Vec2 {
    if !response.has_focus() {
        return Vec2::ZERO;
    }
    ui.memory_mut(|memory| {
        let filter = EventFilter { horizontal_arrows: true, vertical_arrows: true, ..Default::default() };
        memory.set_focus_lock_filter(response.id, filter);
    });
    ui.input_mut(|input| {
        let mut count = |key| {
            // First with Shift: a key without modifiers is also one with Shift that nobody minds.
            let wide = input.count_and_consume_key(Modifiers::SHIFT, key) as f32;
            wide * WIDE + input.count_and_consume_key(Modifiers::NONE, key) as f32
        };
        let right = count(Key::ArrowRight) - count(Key::ArrowLeft);
        vec2(right, count(Key::ArrowDown) - count(Key::ArrowUp))
    })
}

/// Where keys and screen readers take a slider of our own that stands at `value`: arrows by `step`, Home and End to the
/// ends, or what a screen reader says. `None` where nobody asks.
pub(crate) fn slid(
    ui: &Ui,
    response: &Response,
    value: f64,
    range: &RangeInclusive<f64>,
    step: f64,
) -> Option<f64> {
    let (low, high) = (*range.start(), *range.end());
    ui.ctx().accesskit_node_builder(response.id, |node| {
        node.set_min_numeric_value(low);
        node.set_max_numeric_value(high);
        node.set_numeric_value_step(step);
        for action in [Action::SetValue, Action::Increment, Action::Decrement] {
            node.add_action(action);
        }
    });
    let asked = ui.input(|input| {
        let times = |action| input.num_accesskit_action_requests(response.id, action) as f64;
        let set =
            input.accesskit_action_requests(response.id, Action::SetValue).filter_map(
                |request| match request.data {
                    Some(ActionData::NumericValue(value)) => Some(value),
                    _ => None,
                },
            );
        let steps = times(Action::Increment) - times(Action::Decrement);
        set.last().or((steps != 0.0).then_some(value + steps * step))
    });
    let by = arrows(ui, response);
    let steps = f64::from(by.x - by.y);
    let end = response.has_focus().then(|| {
        ui.input_mut(|input| {
            let mut pressed = |key| input.consume_key(Modifiers::NONE, key);
            if pressed(Key::Home) { Some(low) } else { pressed(Key::End).then_some(high) }
        })
    });
    let wanted = asked.or(end.flatten()).or((steps != 0.0).then_some(value + steps * step))?;
    wanted.is_finite().then(|| wanted.clamp(low, high.max(low)))
}
