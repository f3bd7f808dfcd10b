//! The formats a clip can be written in, and how each stores colours.

use std::path::Path;

use kinora_pipeline::media::Colour;
use kinora_pipeline::workflow::ops::SaveCodec;

/// One format.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format {
    /// The codec in documents; for folders of pictures what each is stored as.
    pub(super) codec: &'static str,
    /// The ending of its files; none for a folder of pictures.
    pub(super) ending: &'static str,
    /// What people call it.
    pub(super) name: &'static str,
}

const fn format(codec: &'static str, ending: &'static str, name: &'static str) -> Format {
    Format { codec, ending, name }
}

/// All of them.
pub(super) const FORMATS: [Format; 10] = [
    format("h264", "mp4", "H.264 — plays everywhere"),
    format("h265", "mp4", "H.265 — half the size"),
    format("prores", "mov", "ProRes 422 HQ — for editing"),
    format("av1", "mp4", "AV1 — smallest"),
    format("vp9", "webm", "VP9 — for the web"),
    format("ffv1", "mkv", "FFV1 — lossless"),
    format("gif", "gif", "GIF"),
    format("webp", "webp", "Animated WebP"),
    format(PNG, "", "PNG pictures — a folder"),
    format(EXR, "", "OpenEXR pictures — a folder, linear light"),
];
/// The formats that are no file but a folder.
const PNG: &str = "png";
const EXR: &str = "exr";

impl Format {
    /// Whether it is a folder of pictures.
    pub(super) fn is_folder(&self) -> bool {
        self.ending.is_empty()
    }

    /// The ways it stores colours, the usual one first; none for pictures.
    pub(super) fn colours(&self) -> &'static [Colour] {
        let codec = serde_json::from_value::<SaveCodec>(serde_json::Value::from(self.codec)).ok();
        codec.map_or(&[], |codec| codec.media().colours())
    }

    /// What is said of the colours of a folder of pictures.
    pub(super) fn picture_colours(&self) -> &'static str {
        if self.codec == EXR { "linear light, BT.709 primaries" } else { "sRGB" }
    }
}

/// What people call a way to store colours.
pub(super) fn colour_name(colour: Colour) -> &'static str {
    match colour {
        Colour::Bt709 => "BT.709, limited range",
        Colour::Bt709Full => "BT.709, full range",
        Colour::Bt601 => "BT.601, limited range",
        Colour::Srgb => "sRGB",
    }
}

/// Which of the formats: `stored` is the codec of a file, or the format of a folder's pictures.
pub(super) fn format_of(op: &str, stored: Option<&str>, dest: &Path) -> usize {
    let wanted = if op == "sequence.save" { stored.or(Some(PNG)) } else { stored };
    let named = wanted.and_then(|codec| FORMATS.iter().position(|format| format.codec == codec));
    let end = dest.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
    let by_ending = || FORMATS.iter().position(|format| !format.is_folder() && format.ending == end);
    named.or_else(by_ending).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_codec_and_else_by_ending() {
        let video = |codec, dest: &str| format_of("video.save", codec, Path::new(dest));
        assert_eq!((video(Some("av1"), "a.mp4"), video(None, "a.MOV"), video(None, "a.xyz")), (3, 2, 0));
        assert_eq!(format_of("sequence.save", None, Path::new("frames")), 8);
        assert_eq!(format_of("sequence.save", Some("exr"), Path::new("frames")), 9);
        assert_eq!(video(None, "frames"), 0, "a name without an ending is no folder of pictures by itself");
    }

    #[test]
    fn every_format_says_how_it_stores_colours() {
        for format in FORMATS {
            assert_eq!(format.colours().is_empty(), format.is_folder(), "{}", format.name);
        }
        assert_eq!(FORMATS[2].colours(), [Colour::Bt709, Colour::Bt601]);
    }
}
