//! Which matrix and range a stored frame has, by its tags or by the usual guess.

use ffmpeg_next::format::Pixel;

use crate::media::ff::{ColourTags, Matrix, Side};

/// The source side of a conversion to RGB.
///
/// Tags are the numbers of ITU-T H.273. An untagged matrix is BT.709 from 1280 wide or 577 high
/// on, BT.601 below, as players do; an untagged range is limited for YUV, full for RGB and grey.
pub(super) fn source_side(format: Pixel, tags: ColourTags, width: u32, height: u32) -> Side {
    let matrix = match tags.matrix {
        1 => Matrix::Bt709,
        4 => Matrix::Fcc,
        5 | 6 => Matrix::Bt601,
        7 => Matrix::Smpte240,
        9 | 10 => Matrix::Bt2020,
        _ if width >= 1280 || height > 576 => Matrix::Bt709,
        _ => Matrix::Bt601,
    };
    let full_range = match tags.range {
        1 => false,
        2 => true,
        _ => always_full(format),
    };
    let (format, full_by_format) = plain(format);
    Side { format, matrix, full_range: full_range || full_by_format }
}

/// `yuvj…` is a deprecated way to say full range: the plain format and the range say the same.
fn plain(format: Pixel) -> (Pixel, bool) {
    match format {
        Pixel::YUVJ420P => (Pixel::YUV420P, true),
        Pixel::YUVJ422P => (Pixel::YUV422P, true),
        Pixel::YUVJ444P => (Pixel::YUV444P, true),
        Pixel::YUVJ440P => (Pixel::YUV440P, true),
        Pixel::YUVJ411P => (Pixel::YUV411P, true),
        other => (other, false),
    }
}

fn always_full(format: Pixel) -> bool {
    let name = format.descriptor().map_or("", |d| d.name());
    !(name.starts_with("yuv") || name.starts_with("nv") || name.starts_with('p') && name != "pal8")
        || name.starts_with("yuvj")
}

/// What the 8-bit result cannot show, said once a clip.
pub(super) fn notice(tags: ColourTags) -> Option<&'static str> {
    match tags.transfer {
        16 => Some("it is HDR (PQ): highlights are shown without tone mapping"),
        18 => Some("it is HDR (HLG): highlights are shown without tone mapping"),
        _ if tags.primaries == 9 => Some("its primaries are BT.2020: colours are shown paler than meant"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: ColourTags = ColourTags { matrix: 2, transfer: 2, primaries: 2, range: 0 };

    #[test]
    fn untagged_clips_are_guessed_by_size_and_tags_win() {
        let side = |tags, w, h| source_side(Pixel::YUV420P, tags, w, h);
        assert_eq!(side(NONE, 640, 480).matrix, Matrix::Bt601);
        assert_eq!(side(NONE, 1280, 720).matrix, Matrix::Bt709);
        assert_eq!(side(NONE, 720, 576).matrix, Matrix::Bt601);
        let tagged = ColourTags { matrix: 9, range: 2, ..NONE };
        assert_eq!(side(tagged, 64, 64).matrix, Matrix::Bt2020);
        assert!(side(tagged, 64, 64).full_range);
        assert!(!side(NONE, 64, 64).full_range);
    }

    #[test]
    fn range_follows_the_format_when_unstated() {
        let full = |format| source_side(format, NONE, 64, 64).full_range;
        assert!(full(Pixel::YUVJ420P));
        assert!(full(Pixel::RGB24));
        assert!(full(Pixel::PAL8));
        assert!(full(Pixel::GRAY8));
        assert!(!full(Pixel::YUV422P10LE));
        assert!(!full(Pixel::P010LE));
    }
}
