//! Sound read by position, written to the sample, and heard by FFmpeg's own tools.

use std::path::Path;

use kinora_pipeline::media::{
    Channels, Codec, EncodeSpec, Quality, SOUND_RATE, SoundReader, VideoLimits, create_sink,
};
use kinora_pipeline::workflow::sample_at;

use super::support::{patches, tool};

/// A tone on the left that grows, a lower one on the right.
fn tone(at: u64) -> [f32; 2] {
    let t = at as f64 / f64::from(SOUND_RATE);
    let left = (t * 440.0 * std::f64::consts::TAU).sin() * 0.3 * (0.2 + t).min(1.0);
    [left as f32, ((t * 220.0 * std::f64::consts::TAU).sin() * 0.2) as f32]
}

fn write(path: &Path, codec: Codec, frames: u64) -> u64 {
    let fps = (24_000, 1001);
    let spec = EncodeSpec {
        codec,
        width: 64,
        height: 64,
        fps,
        quality: Quality::High,
        colour: None,
        sound: true,
        recipe: None,
        overwrite: false,
    };
    let mut sink = create_sink(path, &spec).unwrap();
    for frame in 0..frames {
        sink.write(&patches(64, 64, frame as u32)).unwrap();
        let samples: Vec<f32> = (sample_at(frame, fps)..sample_at(frame + 1, fps)).flat_map(tone).collect();
        sink.sound(&samples).unwrap();
    }
    assert_eq!(sink.finish().unwrap().frames, frames);
    sample_at(frames, fps)
}

fn open(path: &Path) -> SoundReader {
    SoundReader::open(path, SOUND_RATE, Channels::Stereo, &VideoLimits::default()).unwrap().unwrap()
}

/// The samples FFmpeg's command line decodes, left and right in turn.
fn heard(path: &Path) -> Option<Vec<f32>> {
    let raw = path.with_added_extension("raw");
    let (from, to) = (path.to_str().unwrap(), raw.to_str().unwrap());
    tool("ffmpeg", &["-v", "error", "-i", from, "-map", "0:a", "-f", "f32le", to])?;
    let bytes = std::fs::read(&raw).unwrap();
    Some(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// How many samples the container says there are; none where it counts otherwise.
fn stated(path: &Path) -> Option<u64> {
    let entries = "stream=duration_ts,time_base";
    let args = ["-v", "error", "-select_streams", "a:0", "-show_entries", entries, "-of", "csv=p=0"];
    let text = tool("ffprobe", &[&args[..], &[path.to_str().unwrap()]].concat())?;
    let (base, length) = text.trim().split_once(',')?;
    (base == "1/48000").then(|| length.parse().unwrap())
}

fn error(found: &[f32], from: u64) -> f64 {
    let want = (from..).flat_map(tone);
    let sum: f64 = found.iter().zip(want).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (sum / found.len() as f64).sqrt()
}

#[test]
fn sound_is_as_long_as_the_frames_and_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    for (name, codec, worst) in [
        ("a.mov", Codec::ProRes, 1e-6),
        ("a.mkv", Codec::Ffv1, 1e-6),
        ("a.mp4", Codec::H264, 0.01),
        ("b.mov", Codec::H264, 0.01),
        ("a.webm", Codec::Vp9, 0.01),
    ] {
        let path = dir.path().join(name);
        let count = write(&path, codec, 35);
        if let Some(heard) = heard(&path) {
            // The last packet of AAC decodes whole, and the container says how much of it counts.
            let (decoded, rest) = (heard.len() as u64 / 2, if codec == Codec::H264 { 1023 } else { 0 });
            assert!((count..=count + rest).contains(&decoded), "{name}: {decoded} samples, not {count}");
            if let Some(stated) = stated(&path) {
                assert_eq!(stated, count, "{name}: to the sample");
            }
            let heard = &heard[..count as usize * 2];
            assert!(error(heard, 0) < worst, "{name}: {}", error(heard, 0));
        }
        // FFmpeg 5 writes WebM whose sound leads by the delay of its coder, 6.5 ms.
        if codec == Codec::Vp9 {
            continue;
        }
        let mut reader = open(&path);
        let mut all = vec![0.0; count as usize * 2];
        reader.read(0, &mut all).unwrap();
        assert!(error(&all, 0) < worst, "{name}: {}", error(&all, 0));
        // By position, backwards and forwards, and beyond both ends.
        for from in [40_000u64, 3_000, 60_001, 0] {
            let mut part = vec![9.0; 4000];
            reader.read(from as i64, &mut part).unwrap();
            let error = error(&part, from);
            assert!(error < worst.max(2e-6) * 1.5, "{name} from {from}: {error}");
        }
        let mut before = vec![9.0; 200];
        reader.read(-1000, &mut before).unwrap();
        let mut after = vec![9.0; 200];
        reader.read(count as i64 + 3000, &mut after).unwrap();
        assert!(before.iter().chain(&after).all(|sample| sample.abs() < 0.02), "{name}: silence around it");
    }
}

#[test]
fn equal_sound_gives_equal_bytes_and_formats_without_take_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    write(&file("a.mp4"), Codec::H264, 6);
    write(&file("b.mp4"), Codec::H264, 6);
    assert!(std::fs::read(file("a.mp4")).unwrap() == std::fs::read(file("b.mp4")).unwrap());
    write(&file("a.gif"), Codec::Gif, 2);
    let none = SoundReader::open(&file("a.gif"), SOUND_RATE, Channels::Stereo, &VideoLimits::default());
    assert!(none.unwrap().is_none());
}

#[test]
fn one_channel_of_another_rate_is_heard_on_both_sides_as_loud_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mono.wav");
    let tone = "sine=frequency=440:sample_rate=44100:duration=2";
    if tool("ffmpeg", &["-v", "error", "-f", "lavfi", "-i", tone, path.to_str().unwrap()]).is_none() {
        return;
    }
    let mut reader = open(&path);
    let mut samples = vec![0.0; SOUND_RATE as usize * 4];
    reader.read(0, &mut samples).unwrap();
    let loudest = samples.iter().fold(0.0f32, |most, sample| most.max(sample.abs()));
    assert!((loudest - 0.125).abs() < 0.002, "{loudest}");
    assert!(samples.chunks(2).all(|pair| pair[0] == pair[1]));
    // It neither drifts nor ends early: the last tenth still rings, in step with the first.
    let at = |second: f64| {
        let place = (second * f64::from(SOUND_RATE)) as usize;
        let crossings = (place..place + 4800).filter(|i| samples[i * 2] <= 0.0 && samples[i * 2 + 2] > 0.0);
        crossings.count()
    };
    assert_eq!((at(0.1), at(1.85)), (44, 44));
}
