//! H.264 by libx264.

use ffmpeg_next::format::Pixel;

use super::super::EncodeSpec;
use super::super::stream::FamilyPlan;

pub(in super::super) fn plan(spec: &EncodeSpec) -> FamilyPlan {
    let mut options = vec![
        ("preset", spec.quality.pick("veryfast", "medium", "slow").into()),
        ("crf", spec.quality.pick("26", "18", "13").into()),
        ("profile", "high".into()),
    ];
    options.extend(repeatable());
    FamilyPlan { encoder: "libx264", format: Pixel::YUV420P, options, tag: None, threads: 4 }
}

/// libx264's AVX-512 code for macroblock trees (core 164) reads memory that was never written, at most
/// widths: the same frames then give other bytes in another process. Its AVX2 code does not, and is 5 %
/// slower.
fn repeatable() -> Option<(&'static str, String)> {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx2") {
        return Some(("x264-params", "asm=avx2".into()));
    }
    None
}
