//! H.264 by libx264.

use ffmpeg_next::format::Pixel;

use super::super::EncodeSpec;
use super::super::stream::FamilyPlan;

pub(in super::super) fn plan(spec: &EncodeSpec) -> FamilyPlan {
    FamilyPlan {
        encoder: "libx264",
        format: Pixel::YUV420P,
        options: vec![
            ("preset", spec.quality.pick("veryfast", "medium", "slow").into()),
            ("crf", spec.quality.pick("26", "18", "13").into()),
            ("profile", "high".into()),
        ],
        tag: None,
        threads: 4,
    }
}
