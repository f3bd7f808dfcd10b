//! A clip among the media is played by itself, and the frame of it that is animated is chosen.

use std::path::{Path, PathBuf};

use eframe::egui::{Key, Modifiers};
use kinora_pipeline::media::{VideoLimits, VideoReader};

use super::support::Desk;
use crate::gui::command::Command;
use crate::gui::state::State;
use crate::gui::tasks::pictures::Loading;
use crate::gui::tasks::player::Film;

/// Two seconds of a clip at a rate whose frames do not begin at round moments; none without FFmpeg's command line.
fn clip(folder: &Path) -> Option<PathBuf> {
    let path = folder.join("count.mkv");
    let made = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc2=size=128x96:rate=30000/1001:duration=2"])
        .args(["-c:v", "ffv1"])
        .arg(&path)
        .status();
    if made.is_ok_and(|status| status.success()) {
        return Some(path);
    }
    println!("skipped: ffmpeg is not installed");
    None
}

fn shown(state: &State) -> Option<kinora_pipeline::media::Picture> {
    let key = state.item().and_then(|item| state.picture_key(item))?;
    match state.pictures.peek(&key)? {
        Loading::Ready(shown) => Some((*shown.picture).clone()),
        _ => None,
    }
}

#[test]
fn a_clip_plays_by_itself_and_the_frame_that_is_animated_is_chosen() {
    let mut desk = Desk::new();
    let Some(path) = clip(&desk.root) else { return };
    desk.open_any(&path);
    desk.wait("the first frame is there", |state| shown(state).is_some());
    // Nothing was made of it yet: the program monitor shows the clip as it is.
    assert!(matches!(desk.state().monitor.film, Some(Film::File(_))));
    desk.wait("a frame is shown", |state| state.monitor.drawn.is_some());
    assert!(desk.has("Clip of 60 frames") && desk.has("Animate this frame"));
    desk.harness.key_press(Key::Space);
    desk.wait("it plays", |state| state.monitor.position > 0.2);
    desk.harness.key_press(Key::K);
    desk.steps(2);
    desk.harness.key_press(Key::End);
    desk.steps(3);
    assert!((desk.state().monitor.position - 59.0 * 1001.0 / 30000.0).abs() < 1e-6);

    // Scrubbed to the 38th frame, which is animated from then on.
    let playhead = {
        use egui_kittest::kittest::Queryable as _;
        desk.harness.get_by_label("Playhead").rect()
    };
    let x = playhead.left() + 6.0 + (playhead.width() - 12.0) * 37.0 / 59.0;
    desk.press(eframe::egui::pos2(x, playhead.center().y));
    let begun = desk.state().project.as_ref().unwrap().value().clone();
    desk.click("Animate this frame");
    desk.wait("another frame is on the canvas", |state| shown(state).is_some());
    let mut reader = VideoReader::open(&path, &VideoLimits::default()).unwrap();
    for _ in 0..37 {
        reader.next_frame().unwrap().unwrap();
    }
    let expected = reader.next_frame().unwrap().unwrap().picture;
    assert_eq!(shown(desk.state()).unwrap(), expected, "the very frame that was shown");

    // A render takes the same one.
    desk.click_picture(0.5, 0.5);
    for (name, value) in [("frames", 2), ("steps", 1), ("size", 64)] {
        let set = |project: &mut crate::gui::model::project::Project| {
            let item = project.scene().items[0].id.clone();
            crate::gui::model::changes::set_shot(project, &item, name, Some(value.into()))
        };
        desk.state_mut().edit(set);
    }
    desk.state_mut().close_gesture();
    desk.click("Animate");
    desk.wait("the clip is there", |state| !state.takes().is_empty());
    let take = desk.state().takes()[0].clone();
    let made = crate::gui::jobs::clip_of(desk.state(), &take).unwrap().frame(0).unwrap();
    let small = kinora_pipeline::media::resize(&expected, made.width(), made.height());
    let apart = made.rgb().iter().zip(small.rgb()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
    assert!(apart / (made.rgb().len() as f64) < 8.0, "{apart}");

    // The source is at hand beside its takes.
    assert!(matches!(desk.state().monitor.film, Some(Film::Take(_))));
    desk.click("Play the source");
    assert!(desk.state().shows_source());
    let frame = desk.state().monitor.position * 30000.0 / 1001.0;
    assert!((frame - 37.0).abs() < 0.1, "at the frame that is animated: {frame}");
    desk.state_mut().todo.push(Command::PlaySource);
    desk.steps(3);
    assert!(matches!(desk.state().monitor.film, Some(Film::Take(_))), "and the take again");

    // Everything after the first look is taken back.
    for _ in 0..20 {
        desk.harness.key_press_modifiers(Modifiers::COMMAND, Key::Z);
        desk.steps(2);
    }
    let value = desk.state().project.as_ref().unwrap().value();
    assert_eq!(value["nodes"], begun["nodes"]);
}
