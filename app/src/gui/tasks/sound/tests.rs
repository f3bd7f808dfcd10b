//! Sound taken by hand, as a device would take it.

use super::*;

/// A file with a level that climbs a tenth a second on the left, and none on the right; none without FFmpeg's
/// command line.
fn ramp(dir: &tempfile::TempDir) -> Option<PathBuf> {
    let path = dir.path().join("ramp.wav");
    let made = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "aevalsrc=t/10|0:s=48000:d=4", "-c:a", "pcm_s16le"])
        .arg(&path)
        .status();
    if made.is_ok_and(|status| status.success()) {
        return Some(path);
    }
    eprintln!("skipped: ffmpeg is not installed");
    None
}

fn piece(path: &std::path::Path) -> Piece {
    Piece { path: path.to_path_buf(), span: (0.0, 4.0), from: 0.0, fades: (0.0, 0.0), volume: 1.0 }
}

fn close(found: f32, wanted: f64) {
    assert!((f64::from(found) - wanted).abs() < 1e-3, "{found} is not {wanted}");
}

#[test]
fn the_clock_is_what_the_device_took() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = ramp(&dir) else { return };
    let mut sound = Sound::new(Way::Hand);
    let score = vec![piece(&path)];
    assert_eq!(sound.follow(score.clone(), 1.0, 1.0), Some(1.0), "it stands until something is taken");
    let heard = sound.take(24_000);
    close(heard[0], 0.1);
    close(heard[2 * 23_999], 0.15);
    assert!(heard.iter().skip(1).step_by(2).all(|right| *right == 0.0));
    std::thread::sleep(Duration::from_millis(600));
    let now = sound.follow(score.clone(), 1.0, 1.0).unwrap();
    assert!((now - 1.5).abs() < 1e-9, "half a second was taken: {now}");

    // Somebody moves the playhead: what was mixed ahead is never heard.
    assert_eq!(sound.follow(score.clone(), 3.0, 1.0), Some(3.0));
    close(sound.take(100)[0], 0.3);
    // Twice as fast, and backward.
    sound.follow(score.clone(), 1.0, 2.0);
    let fast = sound.take(12_001);
    close(fast[0], 0.1);
    close(fast[24_000], 0.15);
    sound.follow(score.clone(), 2.0, -1.0);
    let back = sound.take(24_001);
    close(back[0], 0.2);
    close(back[48_000], 0.15);
    // Quieter, at once.
    sound.set_volume(0.5);
    close(sound.take(1)[0], 0.5 * 0.15);
    assert_eq!(sound.follow(score, 0.0, 0.0), None, "what stands makes no sound");
    assert_eq!(sound.follow(vec![], 0.0, 1.0), None, "and what has none goes by another clock");
}

#[test]
fn clips_sound_where_they_lie() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = ramp(&dir) else { return };
    let mut sound = Sound::new(Way::Hand);
    let absent = dir.path().join("absent.mp4");
    let score = vec![
        Piece { span: (0.5, 1.0), from: 2.0, volume: 0.5, ..piece(&path) },
        Piece { span: (1.0, 2.0), from: 0.0, fades: (0.5, 0.0), ..piece(&path) },
        Piece { path: absent, ..piece(&path) },
    ];
    sound.follow(score, 0.0, 1.0);
    let heard = sound.take(72_000);
    let left = |seconds: f64| heard[(seconds * 48_000.0).round() as usize * 2];
    close(left(0.2), 0.0);
    close(left(0.5), 0.5 * 0.2);
    close(left(0.999), 0.5 * 0.2499);
    close(left(1.25), 0.025 * std::f64::consts::FRAC_1_SQRT_2);
    close(left(1.49), 0.049);
}

#[test]
fn without_a_device_another_clock_is_used() {
    let mut sound = Sound::new(Way::Off);
    let score = vec![piece(std::path::Path::new("/nowhere.wav"))];
    assert_eq!(sound.follow(score, 0.0, 1.0), None);
    assert!(!sound.has_device());
}
