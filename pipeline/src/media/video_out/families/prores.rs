//! ProRes 422 HQ, 10-bit, by prores_ks.

use ffmpeg_next::format::Pixel;

use super::super::EncodeSpec;
use super::super::stream::FamilyPlan;

pub(in super::super) fn plan(spec: &EncodeSpec) -> FamilyPlan {
    FamilyPlan {
        encoder: "prores_ks",
        format: Pixel::YUV422P10LE,
        options: vec![
            ("profile", "hq".into()),
            // Editors look at who wrote it.
            ("vendor", "apl0".into()),
            ("bits_per_mb", spec.quality.pick("2000", "4000", "8000").into()),
        ],
        tag: None,
        threads: 4,
    }
}
