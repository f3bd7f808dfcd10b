//! A person who presses anything anywhere.

use std::time::Instant;

use eframe::egui::{
    Event, Key, Modifiers, MouseWheelSource, MouseWheelUnit, PointerButton, Pos2, TouchPhase, pos2, vec2,
};
use kinora_pipeline::workflow::Document;

use super::support::{Desk, SMALL};
use crate::gui::model::project::Place;

/// How many events where nothing else is said.
const FEW: usize = 3000;
/// Says how many.
const COUNT: &str = "KINORA_TEST_MONKEY";
/// Names another beginning of the dice.
const SEED: &str = "KINORA_TEST_MONKEY_SEED";

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % sides.max(1) as u64) as usize
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }
}

/// Keys apart from those that leave the window.
const KEYS: [Key; 50] = [
    Key::A,
    Key::B,
    Key::C,
    Key::D,
    Key::E,
    Key::F,
    Key::H,
    Key::J,
    Key::K,
    Key::L,
    Key::M,
    Key::N,
    Key::P,
    Key::S,
    Key::V,
    Key::X,
    Key::Y,
    Key::Z,
    Key::Q,
    Key::Num1,
    Key::Num5,
    Key::Space,
    Key::Enter,
    Key::Escape,
    Key::Tab,
    Key::Delete,
    Key::Backspace,
    Key::ArrowLeft,
    Key::ArrowRight,
    Key::ArrowUp,
    Key::ArrowDown,
    Key::Home,
    Key::End,
    Key::PageUp,
    Key::PageDown,
    Key::Plus,
    Key::Minus,
    Key::Equals,
    Key::Period,
    Key::OpenBracket,
    Key::CloseBracket,
    Key::F1,
    Key::F2,
    Key::I,
    Key::O,
    Key::G,
    Key::R,
    Key::T,
    Key::U,
    Key::Comma,
];

const TEXTS: [&str; 6] = [
    "drift left",
    "",
    "wörd ünï — “a”",
    "0.5",
    "-7e300",
    "{\"kinora_keys\":[[0,1],[0.5,0]],\"ease\":\"step\"}",
];

fn events(dice: &mut Dice, at: &mut Pos2, size: (usize, usize)) -> Vec<Event> {
    let modifiers = dice.one(&[
        Modifiers::NONE,
        Modifiers::NONE,
        Modifiers::NONE,
        Modifiers::SHIFT,
        Modifiers::COMMAND,
        Modifiers::COMMAND | Modifiers::SHIFT,
        Modifiers::ALT,
    ]);
    let button = dice.one(&[
        PointerButton::Primary,
        PointerButton::Primary,
        PointerButton::Primary,
        PointerButton::Secondary,
        PointerButton::Middle,
    ]);
    let press = |pos: Pos2, pressed: bool| Event::PointerButton { pos, button, pressed, modifiers };
    match dice.roll(12) {
        0..=2 => {
            *at = pos2(dice.roll(size.0) as f32, dice.roll(size.1) as f32);
            vec![Event::PointerMoved(*at), press(*at, true), press(*at, false)]
        }
        3 => vec![Event::PointerMoved(*at), press(*at, true)],
        4 => vec![press(*at, false)],
        5..=6 => {
            let by = vec2(dice.roll(161) as f32 - 80.0, dice.roll(161) as f32 - 80.0);
            *at = (*at + by).clamp(Pos2::ZERO, pos2(size.0 as f32, size.1 as f32));
            vec![Event::PointerMoved(*at)]
        }
        7 => {
            let delta = vec2(dice.roll(201) as f32 - 100.0, dice.roll(201) as f32 - 100.0);
            let unit = dice.one(&[MouseWheelUnit::Point, MouseWheelUnit::Line]);
            let (phase, source) = (TouchPhase::Move, MouseWheelSource::Unknown);
            vec![Event::MouseWheel { unit, delta, phase, source, modifiers }]
        }
        8 => match dice.roll(4) {
            0 => vec![Event::Text(dice.one(&TEXTS).to_owned())],
            1 => vec![Event::Paste(dice.one(&TEXTS).to_owned())],
            2 => vec![Event::Copy],
            _ => vec![Event::Zoom(0.5 + dice.roll(100) as f32 / 50.0)],
        },
        _ => {
            let key = dice.one(&KEYS);
            let event = |pressed| Event::Key { key, physical_key: None, pressed, repeat: false, modifiers };
            vec![event(true), event(false)]
        }
    }
}

/// Presses anything anywhere: no fault, and a document that is still one.
fn monkey(count: usize, seed: u64) {
    let size = (1280usize, 800usize);
    let mut desk = Desk::sized(vec2(size.0 as f32, size.1 as f32));
    // Nothing it does may leave the folders of this test or wait for a dialog.
    desk.state_mut().dialogs.script(vec![]);
    desk.open(SMALL);
    let mut dice = Dice(seed);
    let mut at = pos2(400.0, 300.0);
    let (begun, mut made) = (Instant::now(), 0);
    while made < count {
        for event in events(&mut dice, &mut at, size) {
            desk.harness.event(event);
            made += 1;
        }
        desk.harness.step();
        let state = desk.state_mut();
        // It renders nothing long, and does not stay out once it has left.
        if state.runner.is_running() && dice.roll(4) == 0 {
            state.todo.push(crate::gui::command::Command::StopRender);
        }
        state.settings.offline = true;
        // Nothing of an untitled project may be exported to where a person keeps videos.
        let untitled = state.project.as_ref().is_some_and(|p| matches!(p.place(), Place::Untitled(_)));
        if state.leaving || untitled || state.project.is_none() && state.opener.is_idle() && dice.roll(3) == 0
        {
            state.leaving = false;
            state.modal = None;
            desk.open(SMALL);
        }
        if made % 512 < 3
            && let Some(project) = &desk.state().project
        {
            let text = project.document().to_text();
            Document::parse(&text, "monkey").unwrap_or_else(|error| panic!("after {made} events: {error}"));
        }
    }
    let state = desk.state();
    if let Some(project) = &state.project {
        Document::parse(&project.document().to_text(), "monkey").unwrap();
        let mut back = project.timeline().clone();
        back.tracks.retain(|track| track.clips.iter().all(|clip| clip.length() > 0.0));
        assert_eq!(back.tracks.len(), project.timeline().tracks.len());
    }
    println!("{made} events of seed {seed} in {:.1} s", begun.elapsed().as_secs_f64());
}

#[test]
fn anything_anywhere_does_no_harm() {
    let count = std::env::var(COUNT).ok().and_then(|count| count.parse().ok()).unwrap_or(FEW);
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("seed {seed}");
    monkey(count, seed);
}
