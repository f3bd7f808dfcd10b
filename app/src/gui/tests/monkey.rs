//! A person who presses anything anywhere.

use std::sync::Arc;
use std::time::Instant;

use eframe::egui::{
    Event, Key, Modifiers, MouseWheelSource, MouseWheelUnit, PointerButton, Pos2, TouchPhase, pos2, vec2,
};
use kinora_pipeline::workflow::Document;

use super::support::{Desk, Dropped, SMALL};
use crate::gui::files::After;
use crate::gui::model::project::Place;
use crate::gui::model::settings::TEXT_SCALES;
use crate::gui::samples::SAMPLES;

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

/// Documents it begins with: pictures, shots and clips of several kinds, on several tracks.
fn documents() -> [String; 3] {
    let photos = r#"
    "photo": { "op": "image.load", "path": "rocket.jpg" },
    "cup": { "op": "image.load", "path": "coffee.jpg", "ui": { "name": "Coffee" } },
    "cat": { "op": "image.load", "path": "cat.jpg" },"#;
    let shots = r#"
    "rocket": { "op": "mask.click", "image": "@photo", "points": [{ "x": 0.5, "y": 0.6 }] },
    "sky": { "op": "mask.click", "image": "@photo", "points": [{ "x": 0.9, "y": 0.1 }],
             "strokes": [{ "points": [[0.1, 0.2], [0.4, 0.3]], "radius": 0.05 }] },
    "steam": { "op": "mask.click", "image": "@cup", "points": [{ "x": 0.5, "y": 0.3 }, { "x": 0.1, "y": 0.9, "keep": false }] },
    "shot": { "op": "animate.click", "image": "@photo", "frames": 3, "fps": 8, "steps": 1, "size": 128, "regions": [
        { "mask": "@rocket", "prompt": "rise slowly", "magnitude": { "keys": [[0, 0.2], [0.3, 0.8]], "ease": "linear" } },
        { "mask": "@sky", "prompt": "drift left", "magnitude": 0.4 }] },
    "other": { "op": "animate.click", "image": "@cup", "mask": "@steam", "prompt": "swirl", "frames": 2, "fps": 12,
               "steps": 1, "size": 128, "ui": { "name": "Steam" } },
    "file": { "op": "video.save", "video": "@shot", "path": "out/rocket.mp4", "from": 0.125 },
    "other_frames": { "op": "video.sequence", "clips": [{ "video": "@other" }], "fps": 24, "width": 320, "height": 240 },
    "other_file": { "op": "video.save", "video": "@other_frames", "path": "out/steam.gif" }"#;
    let timeline = r#"
    "timeline": { "tracks": [
        { "name": "V1", "clips": [
            { "node": "shot", "at": 0, "from": 0, "to": 0.375 },
            { "node": "other", "at": 0.375, "from": 0, "to": 0.16666, "fade_in": 0.1, "cross": true },
            { "node": "shot", "at": 1, "from": 0.125, "to": 0.375 }] },
        { "name": "V2", "clips": [{ "node": "other", "at": 0.2, "from": 0, "to": 0.16666, "volume": 0.5 }] },
        { "name": "V3", "muted": true, "clips": [] }] },
    "marks": { "timeline": { "from": 0.125, "to": 1.125 }, "shots": { "shot": { "to": 0.25 } } }"#;
    [
        SMALL.to_owned(),
        format!("{{ \"kinora\": 1, \"nodes\": {{{photos}{shots} }} }}"),
        format!("{{ \"kinora\": 1, \"nodes\": {{{photos}{shots} }}, \"ui\": {{{timeline} }} }}"),
    ]
}

/// Files that are dropped on the window: pictures, a document, and what is none of these.
const DROPPED: [&str; 6] = [
    "drop/cat.jpg",
    "drop/coffee.jpg",
    "drop/broken.png",
    "drop/notes.txt",
    "drop",
    "drop/other.kinora.json",
];

/// What happens to a window beside keys and pointer.
fn shake(desk: &mut Desk, dice: &mut Dice, size: &mut (usize, usize)) {
    match dice.roll(3) {
        0 => {
            *size = (320 + dice.roll(1400), 240 + dice.roll(900));
            desk.harness.set_size(vec2(size.0 as f32, size.1 as f32));
        }
        1 => {
            // A project does not grow without end.
            let items = desk.state().project.as_ref().map_or(0, |project| project.scene().items.len());
            if items < 12 {
                let path = desk.path(dice.one(&DROPPED));
                desk.harness.input_mut().dropped_files.push(Arc::new(Dropped(path)));
            }
        }
        _ => {
            let scale = dice.one(&TEXT_SCALES);
            desk.state_mut().settings.text_scale = scale;
            let ctx = desk.harness.ctx.clone();
            desk.state().apply_settings(&ctx);
        }
    }
}

fn open_one(desk: &mut Desk, dice: &mut Dice) {
    let documents = documents();
    for sample in &SAMPLES {
        desk.put(&format!("project/{}", sample.file), sample.bytes);
        desk.put(&format!("drop/{}", sample.file), sample.bytes);
    }
    desk.put("drop/broken.png", b"\x89PNG\r\n\x1a\nnothing more");
    desk.put("drop/notes.txt", b"no picture");
    desk.put("drop/other.kinora.json", documents[dice.roll(documents.len())].as_bytes());
    desk.put("project/shot.kinora.json", documents[dice.roll(documents.len())].as_bytes());
    let path = desk.path("project/shot.kinora.json");
    // Whatever is not saved is not missed.
    desk.state_mut().go_on(After::Open(path));
    desk.opened();
}

/// Presses anything anywhere: no fault, and a document that is still one.
fn monkey(count: usize, seed: u64) {
    let mut size = (1280usize, 800usize);
    let mut desk = Desk::sized(vec2(size.0 as f32, size.1 as f32));
    // Nothing it does may leave the folders of this test or wait for a dialog.
    desk.state_mut().dialogs.script(vec![]);
    let mut dice = Dice(seed);
    open_one(&mut desk, &mut dice);
    let mut at = pos2(400.0, 300.0);
    let (begun, mut made, mut slowest) = (Instant::now(), 0, 0.0f64);
    let (mut opened, mut shaken) = (1, 0);
    while made < count {
        for event in events(&mut dice, &mut at, size) {
            desk.harness.event(event);
            made += 1;
        }
        if dice.roll(60) == 0 {
            shake(&mut desk, &mut dice, &mut size);
            (made, shaken) = (made + 1, shaken + 1);
        }
        let frame = Instant::now();
        desk.harness.step();
        slowest = slowest.max(frame.elapsed().as_secs_f64());
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
            open_one(&mut desk, &mut dice);
            opened += 1;
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
    println!(
        "{made} events of seed {seed} in {:.1} s: {opened} documents, {shaken} times resized, dropped on or \
         rescaled, slowest frame {:.0} ms",
        begun.elapsed().as_secs_f64(),
        slowest * 1e3
    );
}

#[test]
fn anything_anywhere_does_no_harm() {
    let count = std::env::var(COUNT).ok().and_then(|count| count.parse().ok()).unwrap_or(FEW);
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("seed {seed}");
    monkey(count, seed);
}
