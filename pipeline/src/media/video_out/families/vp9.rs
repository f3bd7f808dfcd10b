//! VP9 by libvpx.

use ffmpeg_next::format::Pixel;

use super::super::EncodeSpec;
use super::super::stream::FamilyPlan;

pub(in super::super) fn plan(spec: &EncodeSpec) -> FamilyPlan {
    FamilyPlan {
        encoder: "libvpx-vp9",
        format: Pixel::YUV420P,
        options: vec![
            ("b", "0".into()),
            ("crf", spec.quality.pick("40", "24", "14").into()),
            ("deadline", "good".into()),
            ("cpu-used", spec.quality.pick("6", "4", "2").into()),
            ("row-mt", "0".into()),
        ],
        tag: None,
        threads: 4,
    }
}
