//! Animated WebP by libwebp.

use ffmpeg_next::format::Pixel;

use super::super::EncodeSpec;
use super::super::stream::FamilyPlan;

pub(in super::super) fn plan(spec: &EncodeSpec) -> FamilyPlan {
    FamilyPlan {
        encoder: "libwebp_anim",
        // RGB in: libwebp makes its own YUV, with the matrix WebP prescribes.
        format: Pixel::BGRA,
        options: vec![
            ("quality", spec.quality.pick("60", "85", "96").into()),
            ("compression_level", spec.quality.pick("2", "4", "4").into()),
        ],
        tag: None,
        threads: 1,
    }
}
