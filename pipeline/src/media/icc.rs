//! Embedded colour profiles to sRGB, on RGBA rows of 16-bit values.

use moxcms::{ColorProfile, DataColorSpace, Layout, TransformOptions};

/// Converts `rgba` (16-bit, four values a pixel) from the profile's space to sRGB in place.
///
/// Returns a reason when the profile was left aside: it cannot be parsed, or describes inks or
/// another space the decoder has already converted away from.
pub(super) fn to_srgb(rgba: &mut [u16], profile: &[u8]) -> Result<(), String> {
    let source = ColorProfile::new_from_slice(profile)
        .map_err(|error| format!("its colour profile cannot be read ({error})"))?;
    let (layout, channels) = match source.color_space {
        DataColorSpace::Rgb => (Layout::Rgba, 4),
        DataColorSpace::Gray => (Layout::GrayAlpha, 2),
        other => return Err(format!("its colour profile is for {other:?} data")),
    };
    let srgb = ColorProfile::new_srgb();
    let transform = source
        .create_transform_16bit(layout, &srgb, Layout::Rgba, TransformOptions::default())
        .map_err(|error| format!("its colour profile cannot be applied ({error})"))?;
    // A bounded strip at a time: the picture itself is the largest buffer.
    let mut input = Vec::new();
    for strip in rgba.chunks_mut(4 * 16384) {
        input.clear();
        for pixel in strip.chunks_exact(4) {
            if channels == 4 {
                input.extend_from_slice(pixel);
            } else if let [value, _, _, alpha] = pixel {
                input.extend([*value, *alpha]);
            }
        }
        transform
            .transform(&input, strip)
            .map_err(|error| format!("its colour profile cannot be applied ({error})"))?;
    }
    Ok(())
}
