//! OpenEXR pictures: half floats in linear light, for compositing.

use std::io::{BufReader, Read, Seek, Write};
use std::path::Path;

use exr::prelude::{
    AttributeValue, Blocks, Compression, Encoding, Image, LineOrder, SpecificChannels, Text, WritableImage,
    f16,
};

use super::error::MediaError;
use super::picture::Picture;
use super::recipe::RECIPE_KEY;

/// Writes a picture: channels R, G and B as half floats in linear light, ZIP of 16 lines, with the
/// chromaticities of sRGB (which are those of Rec. 709) and the document that made it.
///
/// Pictures inside Kinora are tagged sRGB, so each code becomes light by the curve of IEC 61966-2-1: 0 is 0.0,
/// 255 is 1.0. A half keeps 11 bits, so that every code comes back from its own half.
///
/// # Errors
/// The disk refuses.
pub(super) fn encode(
    path: &Path,
    writer: impl Write + Seek,
    picture: &Picture,
    fps: (u32, u32),
    recipe: Option<&str>,
) -> Result<(), MediaError> {
    let table = light();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let rgb = picture.rgb();
    let of = |at: usize| {
        let code = rgb.get(at).copied().unwrap_or_default();
        table.get(usize::from(code)).copied().unwrap_or_default()
    };
    let channels = SpecificChannels::rgb(|at: exr::math::Vec2<usize>| {
        let first = (at.y() * width + at.x()) * 3;
        (of(first), of(first + 1), of(first + 2))
    });
    let encoding = Encoding {
        compression: Compression::ZIP16,
        blocks: Blocks::ScanLines,
        line_order: LineOrder::Increasing,
    };
    let mut image = Image::from_encoded_channels((width, height), encoding, channels);
    let point = |x: f32, y: f32| exr::math::Vec2(x, y);
    image.attributes.chromaticities = Some(exr::meta::attribute::Chromaticities {
        red: point(0.64, 0.33),
        green: point(0.30, 0.60),
        blue: point(0.15, 0.06),
        white: point(0.3127, 0.3290),
    });
    let attributes = &mut image.layer_data.attributes;
    if let (Ok(rate), base) = (i32::try_from(fps.0), fps.1) {
        attributes.frames_per_second = Some((rate, base));
    }
    if let Some(recipe) = recipe {
        let text = Text::from_slice_unchecked(recipe.as_bytes());
        attributes.other.insert(Text::from(RECIPE_KEY), AttributeValue::Text(text));
    }
    image.write().non_parallel().to_buffered(writer).map_err(|error| match error {
        exr::error::Error::Io(source) => MediaError::write(path, source),
        other => {
            MediaError::Encode { path: path.to_path_buf(), step: "writing an EXR", reason: other.to_string() }
        }
    })
}

/// The document kept in an EXR's header; `None` when it has none or its header is damaged.
pub(super) fn recipe<R: Read>(file: R) -> Option<Option<String>> {
    let meta = exr::meta::MetaData::read_from_buffered(BufReader::new(file), false).ok()?;
    let key = Text::from(RECIPE_KEY);
    let kept = meta.headers.first()?.own_attributes.other.get(&key);
    Some(match kept {
        Some(AttributeValue::Text(text)) => String::from_utf8(text.as_slice().to_vec()).ok(),
        _ => None,
    })
}

/// The light of each sRGB code.
fn light() -> [f16; 256] {
    std::array::from_fn(|code| {
        let v = code as f64 / 255.0;
        let linear = if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) };
        f16::from_f64(linear)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_light_and_come_back() {
        let table = light();
        assert_eq!((table[0].to_f32(), table[255].to_f32()), (0.0, 1.0));
        // A fifth of the light is code 124 by the curve.
        assert!((table[124].to_f64() - 0.2016).abs() < 5e-4, "{}", table[124]);
        for (code, light) in table.iter().enumerate() {
            let v = light.to_f64();
            let back = if v <= 0.003_130_8 { v * 12.92 } else { 1.055 * v.powf(1.0 / 2.4) - 0.055 };
            assert_eq!((back * 255.0).round() as usize, code);
        }
    }
}
