//! FFV1 on RGB: lossless.

use ffmpeg_next::format::Pixel;

use super::super::stream::FamilyPlan;

pub(in super::super) fn plan() -> FamilyPlan {
    FamilyPlan {
        encoder: "ffv1",
        // 8-bit planar RGB is refused by the encoder; this layout is its RGB mode.
        format: Pixel::BGRZ,
        options: vec![
            ("level", "3".into()),
            ("slices", "4".into()),
            ("slicecrc", "1".into()),
            ("g", "1".into()),
        ],
        tag: None,
        threads: 1,
    }
}
