//! Generated clips and the FFmpeg command line as a second opinion.

use std::path::Path;
use std::process::Command;

use kinora_pipeline::media::Picture;

/// Six flat patches (red, green, blue / white, black, grey) and a square that moves with `frame`.
pub(crate) fn patches(width: u32, height: u32, frame: u32) -> Picture {
    const COLOURS: [[u8; 3]; 6] =
        [[200, 30, 30], [30, 180, 40], [30, 50, 210], [240, 240, 240], [10, 10, 10], [128, 128, 128]];
    let mut rgb = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let patch = (x * 3 / width + 3 * (y * 2 / height)) as usize;
            let moving = x / 8 == frame % (width / 8) && y < 8;
            rgb.extend(if moving { [250, 220, 0] } else { COLOURS[patch.min(5)] });
        }
    }
    Picture::new(width, height, rgb).unwrap()
}

/// Largest difference of a channel over 8x8 pixels in the middle of each of the six patches.
pub(crate) fn patch_error(found: &Picture, wanted: &Picture) -> u8 {
    assert_eq!((found.width(), found.height()), (wanted.width(), wanted.height()));
    let (w, h) = (wanted.width(), wanted.height());
    let mut worst = 0;
    for patch in 0..6 {
        let cx = w * (2 * (patch % 3) + 1) / 6;
        let cy = h * (2 * (patch / 3) + 1) / 4;
        for y in cy - 4..cy + 4 {
            for x in cx - 4..cx + 4 {
                let at = ((y * w + x) * 3) as usize;
                for c in 0..3 {
                    worst = worst.max(found.rgb()[at + c].abs_diff(wanted.rgb()[at + c]));
                }
            }
        }
    }
    worst
}

pub(crate) fn psnr(a: &Picture, b: &Picture) -> f64 {
    let sum: f64 = a.rgb().iter().zip(b.rgb()).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum();
    10.0 * (255.0 * 255.0 / (sum / a.rgb().len() as f64).max(1e-9)).log10()
}

/// Output of a command, or `None` (said on stderr) where it is not installed.
pub(crate) fn tool(name: &str, args: &[&str]) -> Option<String> {
    match Command::new(name).args(args).output() {
        Ok(out) => {
            let error = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success(), "{name} {args:?}: {error}");
            Some(String::from_utf8_lossy(&out.stdout).into_owned())
        }
        Err(_) => {
            eprintln!("skipped a cross-check: {name} is not installed");
            None
        }
    }
}

/// Value of `key` in the first video stream, as ffprobe prints it.
#[cfg(feature = "video")]
pub(crate) fn probe(path: &Path, key: &str) -> Option<String> {
    let entry = format!("stream={key}");
    let args = [
        "-v",
        "error",
        "-count_frames",
        "-select_streams",
        "v:0",
        "-show_entries",
        &entry,
        "-of",
        "default=nk=1:nw=1",
        path.to_str().unwrap(),
    ];
    tool("ffprobe", &args).map(|text| text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Names in a folder, for "nothing was left behind".
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
