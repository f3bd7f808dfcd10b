//! H.265 by libx265.

use ffmpeg_next::format::Pixel;

use super::super::EncodeSpec;
use super::super::stream::FamilyPlan;

pub(in super::super) fn plan(spec: &EncodeSpec) -> FamilyPlan {
    FamilyPlan {
        encoder: "libx265",
        format: Pixel::YUV420P,
        options: vec![
            ("preset", spec.quality.pick("ultrafast", "fast", "medium").into()),
            ("crf", spec.quality.pick("28", "20", "15").into()),
            // Threads are fixed and the settings are not written into the stream: equal bytes.
            ("x265-params", "log-level=none:info=0:pools=4:frame-threads=2:repeat-headers=0".into()),
        ],
        // Apple players refuse the muxer's own `hev1`.
        tag: Some(*b"hvc1"),
        threads: 1,
    }
}
