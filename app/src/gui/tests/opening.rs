//! Long clips, finished files, several files at once.

use std::path::Path;
use std::process::Command as Program;
use std::time::Instant;

use egui_kittest::kittest::Queryable as _;

use super::support::{Desk, SMALL};
use crate::gui::command::Command;
use crate::gui::layout::Pane;
use crate::gui::model::patch::place;
use crate::gui::overlays::modal::Modal;
use crate::gui::state::State;
use crate::gui::tasks::player::Film;

fn picture_is_there(state: &State) -> bool {
    state
        .item()
        .and_then(|item| state.picture_key(item))
        .is_some_and(|key| state.pictures.size(&key).is_some())
}

/// Memory of this process in bytes, as Linux counts it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) << 10
}

fn ffmpeg(args: &[&str]) -> bool {
    match Program::new("ffmpeg").args(["-v", "error", "-y"]).args(args).status() {
        Ok(status) => {
            assert!(status.success(), "ffmpeg {args:?}");
            true
        }
        Err(_) => {
            println!("skipped: ffmpeg is not installed");
            false
        }
    }
}

/// An hour of 1080p at 25 frames a second, of a few seconds that repeat.
fn hour(folder: &Path) -> Option<std::path::PathBuf> {
    let (part, whole) = (folder.join("part.mp4"), folder.join("hour.mp4"));
    let source = "testsrc2=size=1920x1080:rate=25:duration=8";
    let made = ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        source,
        "-f",
        "lavfi",
        "-i",
        "sine=frequency=220:duration=8",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-crf",
        "45",
        "-g",
        "50",
        "-c:a",
        "aac",
        "-b:a",
        "24k",
        "-shortest",
        part.to_str()?,
    ]) && ffmpeg(&["-stream_loop", "449", "-i", part.to_str()?, "-c", "copy", whole.to_str()?]);
    std::fs::remove_file(part).ok();
    made.then_some(whole)
}

#[test]
fn an_hour_of_video_opens_at_once_and_scrubs_in_little_memory() {
    let mut desk = Desk::new();
    // Another file can be measured: `KINORA_TEST_HOUR=clip.mp4`.
    let given = std::env::var_os("KINORA_TEST_HOUR").map(std::path::PathBuf::from);
    let Some(path) = given.or_else(|| hour(&desk.root)) else { return };
    let (size, before) = (std::fs::metadata(&path).unwrap().len(), resident());
    let begun = Instant::now();
    let mut longest_frame = 0.0f64;
    desk.state_mut().open_any(&path);
    loop {
        let frame = Instant::now();
        desk.harness.step();
        longest_frame = longest_frame.max(frame.elapsed().as_secs_f64());
        if desk.state().opener.is_idle() && picture_is_there(desk.state()) {
            break;
        }
        assert!(begun.elapsed().as_secs() < 60, "not open: {:?}", desk.said());
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let opened = begun.elapsed().as_secs_f64();
    // What prepares the picture for clicks would be measured too.
    desk.wait("the picture is prepared", |state| !state.masks.is_busy());
    let node = desk.state().placeable().expect("the clip itself can be put on the timeline");
    let film = desk.state_mut().film_of(&node).unwrap();
    let wanted = film.clone();
    let mut known = None;
    while known.is_none() {
        desk.steps(1);
        known = desk.state_mut().player.film(&wanted);
    }
    let info = known.unwrap().unwrap();
    assert!((info.seconds() - 3600.0).abs() < 30.0, "{}", info.seconds());
    desk.state_mut().todo.push(Command::AddToTimeline);
    desk.steps(3);
    let length = desk.state().timeline().unwrap().length();
    assert!((length - info.seconds()).abs() < 1.0, "{length}");

    let (mut waits, mut firsts) = (vec![], vec![]);
    for second in [1800.0, 303.3, 3541.9, 757.2, 2643.8] {
        let asked = Instant::now();
        desk.state_mut().show_timeline_at(second);
        let frame = info.frame_at(desk.state().sequence.playhead);
        desk.wait("something near is shown", |state| {
            let near = (frame.saturating_sub(400)..=frame).rev();
            near.into_iter().any(|at| state.player.known(&film, at).is_some())
        });
        firsts.push(asked.elapsed().as_secs_f64());
        desk.wait("the frame is shown", |state| {
            state.monitor.drawn.as_ref().is_some_and(|(_, at)| at.abs_diff(frame) <= 1)
        });
        waits.push(asked.elapsed().as_secs_f64());
    }
    let grown = resident().saturating_sub(before);
    println!(
        "{:.0} MB file: open in {opened:.2} s, longest frame {:.0} ms, jumps show something near after \
         {firsts:.2?} s and the frame itself after {waits:.2?} s, memory +{} MB",
        size as f64 / 1e6,
        longest_frame * 1e3,
        grown >> 20,
    );
    // Tests run beside each other on slow machines; the figures above are what is looked at.
    assert!(opened < 10.0, "{opened}");
    assert!(grown < 600 << 20, "{} MB", grown >> 20);
}

/// Frames a second that are shown while the playhead is drawn along under a hand that wants 30.
fn drawn_along(desk: &mut Desk, film: &Film, from: usize, back: bool, fps: f64) -> f64 {
    let (mut shown, begun) = (std::collections::HashSet::new(), Instant::now());
    for step in 0..90u32 {
        let at = if back { from - step as usize } else { from + step as usize };
        desk.state_mut().show_timeline_at(at as f64 / fps);
        let due = begun + std::time::Duration::from_secs_f64(f64::from(step + 1) / 30.0);
        // Two looks at the window for each move of the hand, as a screen of 60 a second has.
        for _ in 0..2 {
            desk.harness.step();
            if let Some((_, drawn)) = desk.state().monitor.drawn.clone().filter(|(of, _)| of == film) {
                shown.insert(drawn);
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()) / 2);
        }
    }
    shown.len() as f64 / begun.elapsed().as_secs_f64()
}

#[test]
fn scrubbing_shows_frames_both_ways() {
    let mut desk = Desk::new();
    let path = desk.path("hd.mp4");
    let source = "testsrc2=size=1280x720:rate=30:duration=8";
    let options = ["-c:v", "libx264", "-preset", "veryfast", "-g", "60"];
    let args = [&["-f", "lavfi", "-i", source], &options[..], &[path.to_str().unwrap()]].concat();
    let given = std::env::var_os("KINORA_TEST_SCRUB").map(std::path::PathBuf::from);
    let path = match given {
        Some(given) => given,
        None if ffmpeg(&args) => path,
        None => return,
    };
    desk.open_any(&path);
    desk.wait("the clip can be placed", |state| state.placeable().is_some());
    let node = desk.state().placeable().unwrap();
    let film = desk.state_mut().film_of(&node).unwrap();
    let mut known = None;
    while known.is_none() {
        desk.steps(1);
        known = desk.state_mut().player.film(&film);
    }
    let fps = known.unwrap().unwrap().fps;
    desk.wait("the picture is prepared", |state| !state.masks.is_busy());
    desk.state_mut().todo.push(Command::AddToTimeline);
    desk.steps(3);
    let forward = drawn_along(&mut desk, &film, 30, false, fps);
    let back = drawn_along(&mut desk, &film, 210, true, fps);
    println!("scrubbing shows {forward:.1} frames a second forward, {back:.1} backward, of 30 asked for");
    // Tests run beside each other on slow machines; the figures above are what is looked at.
    assert!(forward > 0.0 && back > 0.0, "{forward} {back}");
}

#[test]
fn a_finished_file_gives_back_the_project_that_made_it() {
    let mut desk = Desk::new();
    let path = desk.open(SMALL);
    desk.wait("the picture is there", picture_is_there);
    let folder = path.parent().unwrap().to_path_buf();
    let file = folder.join("out/rocket.gif");
    std::fs::create_dir_all(folder.join("out")).unwrap();
    desk.state_mut().edit(|project| {
        crate::gui::model::changes::set_output(
            project,
            "file",
            "path",
            Some(serde_json::json!("out/rocket.gif")),
        )
    });
    desk.state_mut().export_now("file", &file, false);
    let wanted = file.clone();
    desk.wait("the file is there", move |state| wanted.is_file() && !state.runner.is_running());
    desk.state_mut().save(false);
    desk.state_mut().todo.push(Command::CloseProject);
    desk.steps(3);
    assert!(desk.state().project.is_none());

    desk.open_any(&file);
    assert!(matches!(desk.state().modal, Some(Modal::Finished(_))));
    assert!(desk.has("rocket.gif was made here"));
    desk.click("Open its project");
    desk.opened();
    let project = desk.state().project.as_ref().unwrap();
    assert_ne!(project.folder(), folder, "it is a project of its own");
    assert_eq!(desk.state().item().unwrap().regions()[0].prompt, "rise slowly");
    desk.wait("its picture came along", picture_is_there);

    // The file can also be used as it is, beside what is there.
    desk.open_any(&file);
    desk.click("Use the file");
    desk.opened();
    assert_eq!(desk.state().project.as_ref().unwrap().scene().items.len(), 2);
}

#[test]
fn the_project_of_a_finished_job_is_one_click_away() {
    let mut desk = Desk::new();
    let path = desk.open(SMALL);
    let folder = path.parent().unwrap().to_path_buf();
    let made = folder.join("frames");
    desk.state_mut().edit(|project| {
        project.edit("Save pictures", None, |edit| {
            let node = serde_json::json!({ "op": "sequence.save", "video": "@shot", "path": "frames", "format": "exr" });
            Ok(edit.set(place!["nodes", "file"], node)?)
        })
    });
    desk.state_mut().export_now("file", &made, false);
    let wanted = made.clone();
    desk.wait("the pictures are there", move |state| wanted.is_dir() && !state.runner.is_running());
    desk.state_mut().todo.push(Command::Save);
    desk.steps(3);
    desk.state_mut().todo.push(Command::ShowPane(Pane::Jobs));
    desk.steps(3);
    desk.click("Open the project of Export frames");
    desk.opened();
    let project = desk.state().project.as_ref().unwrap();
    assert_ne!(project.folder(), folder, "it is a project of its own");
    assert_eq!(project.value()["nodes"]["file"]["format"], "exr");

    // The folder, or one picture of it, chosen in a dialog does the same.
    for (command, chosen) in
        [(Command::OpenPictures, made.clone()), (Command::OpenDocument, made.join("frame_00001.exr"))]
    {
        desk.state_mut().dialogs.script(vec![chosen]);
        desk.state_mut().todo.push(command);
        desk.wait("it is asked", |state| matches!(state.modal, Some(Modal::Finished(_))));
        assert!(!desk.has("Use the file") && !desk.has("Use the first picture"), "OpenEXR is not read");
        desk.click("Open its project");
        desk.opened();
        assert_eq!(desk.state().item().unwrap().regions()[0].prompt, "rise slowly");
    }
    // A folder of anything else says so.
    let other = desk.path("empty");
    std::fs::create_dir_all(&other).unwrap();
    desk.open_any(&other);
    assert!(desk.said().iter().any(|said| said.contains("holds no pictures that know what made them")));
}

#[test]
fn several_files_at_once_all_arrive_in_one_project() {
    let mut desk = Desk::new();
    for (index, name) in ["a.jpg", "b.jpg", "c.jpg"].iter().enumerate() {
        desk.put(&format!("photos/{name}"), crate::gui::samples::SAMPLES[index].bytes);
        let path = desk.path(&format!("photos/{name}"));
        desk.state_mut().open_any(&path);
    }
    let gone = desk.path("photos/gone.jpg");
    desk.state_mut().open_any(&gone);
    desk.opened();
    let names: Vec<_> =
        desk.state().project.as_ref().unwrap().scene().items.iter().map(|item| item.name.clone()).collect();
    assert_eq!(names, ["A", "B", "C"]);
    assert!(desk.said().iter().any(|text| text.contains("there is no file") && text.contains("gone.jpg")));
    assert!(desk.harness.query_by_label_contains("Opening").is_none());
}
