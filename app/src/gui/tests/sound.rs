//! Clips that sound: in the window by hand, on the timeline, and in the exported file.

use std::path::{Path, PathBuf};

use kinora_pipeline::media::{Channels, SOUND_RATE, SoundReader, VideoLimits};

use egui_kittest::kittest::Queryable as _;

use eframe::egui::Key;

use super::support::Desk;
use crate::gui::command::Command;
use crate::gui::model::timeline::Edge;
use crate::gui::tasks::sound::{Sound, Way};

/// Two seconds of a small clip whose left side has a level of a tenth; none without FFmpeg's command line.
fn clip(folder: &Path, name: &str) -> Option<PathBuf> {
    let path = folder.join(name);
    let made = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc=size=128x96:rate=12:duration=2", "-f", "lavfi"])
        .args(["-i", "aevalsrc=0.1|0:s=48000:d=2", "-c:v", "ffv1", "-c:a", "pcm_s16le"])
        .arg(&path)
        .status();
    if made.is_ok_and(|status| status.success()) {
        return Some(path);
    }
    eprintln!("skipped: ffmpeg is not installed");
    None
}

fn desk() -> Option<Desk> {
    let mut desk = Desk::new();
    let path = clip(&desk.root, "level.mkv")?;
    desk.state_mut().sound = Sound::new(Way::Hand);
    desk.open_any(&path);
    for _ in 0..2 {
        desk.wait("the clip can be placed", |state| state.placeable().is_some());
        let node = desk.state().placeable().unwrap();
        let begun = std::time::Instant::now();
        while !desk.state_mut().longest(&node).is_finite() {
            desk.steps(1);
            assert!(begun.elapsed().as_secs() < 60, "its length is never known");
        }
        desk.state_mut().todo.push(Command::AddToTimeline);
        desk.steps(3);
    }
    assert_eq!(desk.state().timeline().unwrap().clips().count(), 2);
    Some(desk)
}

fn play_or_pause(desk: &mut Desk) {
    desk.harness.key_press(Key::Space);
    desk.steps(3);
}

#[test]
fn the_picture_follows_the_sound_and_mute_is_at_hand() {
    let Some(mut desk) = desk() else { return };
    desk.state_mut().show_timeline_at(0.5);
    desk.wait("the frame is there", |state| !state.player.is_busy());
    play_or_pause(&mut desk);
    assert!((desk.state().monitor.position - 0.5).abs() < 1e-9, "it waits for the device");
    let heard = desk.state().sound.take(12_000);
    assert!(heard.iter().step_by(2).all(|left| (left - 0.1).abs() < 1e-3));
    std::thread::sleep(std::time::Duration::from_millis(300));
    desk.steps(1);
    let position = desk.state().monitor.position;
    assert!((position - 0.75).abs() < 1e-9, "a quarter of a second was taken: {position}");

    desk.click("Mute");
    assert!(desk.state().settings.muted);
    assert!(desk.state().sound.take(200).iter().all(|sample| *sample == 0.0));
    desk.click("Mute");
    assert!(desk.state().sound.take(200).iter().step_by(2).all(|left| *left > 0.09));

    // Moving the playhead moves the sound; standing still silences it.
    desk.state_mut().show_timeline_at(3.0);
    play_or_pause(&mut desk);
    assert!((desk.state().monitor.position - 3.0).abs() < 1e-9);
    desk.state().sound.take(100);
    play_or_pause(&mut desk);
    desk.steps(2);
    assert!(!desk.state().monitor.is_playing());
}

#[test]
fn clips_are_made_louder_crossed_and_heard_in_the_file() {
    let Some(mut desk) = desk() else { return };
    desk.state_mut().choose_clip((0, 0));
    for command in [Command::ClipLouder, Command::ClipLouder] {
        desk.state_mut().todo.push(command);
        desk.steps(3);
    }
    assert!(desk.harness.query_by_label_contains("+6 dB").is_some());
    desk.state_mut().choose_clip((0, 1));
    // Both clips have something left where they meet.
    desk.state_mut().arrange("Trim", |timeline| {
        timeline.trim((0, 0), Edge::End, 1.0, 2.0, 0.1);
        let second = &mut timeline.tracks[0].clips[1];
        (second.at, second.from) = (1.0, 1.0);
    });
    assert!(desk.state().blocked(Command::CrossFade).is_none());
    desk.state_mut().todo.push(Command::CrossFade);
    desk.steps(3);
    let second = desk.state().timeline().unwrap().clip((0, 1)).cloned().unwrap();
    assert!(second.cross && (second.fade_in - 0.5).abs() < 1e-9);
    let seen = desk.state_mut().seen(1.25);
    assert_eq!(seen.len(), 2, "one is seen through the other: {seen:?}");
    assert!(seen[0].1 >= 1.0 && (seen[1].1 - 0.5).abs() < 0.1);

    desk.state_mut().todo.push(Command::ExportTimeline);
    desk.steps(3);
    let film = crate::gui::model::film::output_of(desk.state().project.as_ref().unwrap().document());
    let node = film.expect("the timeline is a node").node;
    let file = desk.path("out.mov");
    desk.state_mut().edit(|project| {
        project.edit("Change format", None, |edit| {
            use crate::gui::model::patch::place;
            edit.set(place!["nodes", node.as_str(), "path"], serde_json::json!("out/film.mov"))?;
            Ok(edit.set(place!["nodes", node.as_str(), "codec"], serde_json::json!("prores"))?)
        })
    });
    desk.state_mut().modal = None;
    desk.state_mut().export_now(&node, &file, false);
    let wanted = file.clone();
    desk.wait("the file is there", move |state| wanted.is_file() && !state.runner.is_running());
    let limits = VideoLimits::default();
    let mut reader = SoundReader::open(&file, SOUND_RATE, Channels::Stereo, &limits).unwrap().unwrap();
    let mut heard = vec![0.0; SOUND_RATE as usize * 5];
    reader.read(0, &mut heard).unwrap();
    let left = |seconds: f64| f64::from(heard[(seconds * 48_000.0).round() as usize * 2]);
    let half = std::f64::consts::FRAC_1_SQRT_2;
    for (at, wanted) in [(0.1, 0.2), (0.99, 0.2), (1.25, half * 0.2 + half * 0.1), (1.6, 0.1), (2.1, 0.0)] {
        assert!((left(at) - wanted).abs() < 2e-3, "at {at}: {} is not {wanted}", left(at));
    }
}
