//! AV1 by SVT-AV1.

use ffmpeg_next::format::Pixel;

use super::super::EncodeSpec;
use super::super::stream::FamilyPlan;

pub(in super::super) fn plan(spec: &EncodeSpec) -> FamilyPlan {
    FamilyPlan {
        encoder: "libsvtav1",
        format: Pixel::YUV420P,
        options: vec![
            ("preset", spec.quality.pick("10", "8", "6").into()),
            ("crf", spec.quality.pick("42", "26", "16").into()),
            ("svtav1-params", "lp=2".into()),
        ],
        tag: None,
        threads: 1,
    }
}
