//! What a file says of its colours, and how they are stored to match.
//!
//! Pictures inside Kinora are sRGB: the primaries of BT.709, values by the curve of IEC 61966-2-1.
//! Nothing here changes a colour; it chooses the matrix and range that luma and chroma are stored by, and
//! the tags by which players find the way back.

use super::Codec;

/// How colours are stored and tagged.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Colour {
    /// BT.709 in limited range (16–235), as video of high definition is.
    Bt709,
    /// BT.709 in full range (0–255): finer steps, for players that heed the tag.
    Bt709Full,
    /// BT.601's matrix in limited range, as video of standard definition is; for players that take it for
    /// granted in small pictures. The primaries stay those of BT.709, and are tagged so.
    Bt601,
    /// The curve of sRGB. RGB families store it in full range; the others by BT.709's matrix in limited
    /// range, with the transfer tagged as IEC 61966-2-1.
    Srgb,
}

impl Codec {
    /// The ways the family stores colours; the first is the usual one.
    pub fn colours(self) -> &'static [Colour] {
        match self {
            Self::H264 | Self::H265 | Self::Vp9 | Self::Av1 => {
                &[Colour::Bt709, Colour::Bt709Full, Colour::Bt601, Colour::Srgb]
            }
            // Its frames have no code for the curve of sRGB, and its range is always limited.
            Self::ProRes => &[Colour::Bt709, Colour::Bt601],
            Self::Ffv1 | Self::Gif | Self::WebpAnimation | Self::PngSequence | Self::ExrSequence => {
                &[Colour::Srgb]
            }
        }
    }
}

impl Colour {
    /// Its name in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bt709 => "bt709",
            Self::Bt709Full => "bt709-full",
            Self::Bt601 => "bt601",
            Self::Srgb => "srgb",
        }
    }
}

#[cfg(feature = "video")]
pub(super) use tags::Tags;

#[cfg(feature = "video")]
mod tags {
    use ffmpeg_next::color::{Primaries, Range, Space, TransferCharacteristic};
    use ffmpeg_next::frame::Video;

    use super::Colour;
    use crate::media::ff::Matrix;

    /// What FFmpeg is told.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Tags {
        pub(in super::super) space: Space,
        pub(in super::super) range: Range,
        pub(in super::super) transfer: TransferCharacteristic,
        pub(in super::super) primaries: Primaries,
        /// The matrix that makes luma and chroma.
        pub(in super::super) matrix: Matrix,
    }

    impl Tags {
        /// Those of a way to store colours, for a family that stores RGB or one that does not.
        pub(in super::super) fn of(colour: Colour, rgb: bool) -> Self {
            let (space, range, transfer, matrix) = match colour {
                _ if rgb => (Space::RGB, Range::JPEG, TransferCharacteristic::IEC61966_2_1, Matrix::Bt709),
                Colour::Bt709 => (Space::BT709, Range::MPEG, TransferCharacteristic::BT709, Matrix::Bt709),
                Colour::Bt709Full => {
                    (Space::BT709, Range::JPEG, TransferCharacteristic::BT709, Matrix::Bt709)
                }
                // Its curve has a code of its own for what is the same curve; ProRes knows only the other.
                Colour::Bt601 => {
                    (Space::SMPTE170M, Range::MPEG, TransferCharacteristic::BT709, Matrix::Bt601)
                }
                Colour::Srgb => {
                    (Space::BT709, Range::MPEG, TransferCharacteristic::IEC61966_2_1, Matrix::Bt709)
                }
            };
            Self { space, range, transfer, primaries: Primaries::BT709, matrix }
        }

        /// Whether values go from end to end.
        pub(in super::super) fn full_range(&self) -> bool {
            self.range == Range::JPEG
        }

        /// Puts them on a frame.
        pub(in super::super) fn put(&self, frame: &mut Video) {
            frame.set_color_space(self.space);
            frame.set_color_range(self.range);
            // ProRes takes these from each frame, not from the encoder's settings.
            frame.set_color_primaries(self.primaries);
            frame.set_color_transfer_characteristic(self.transfer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_documents() {
        for colour in [Colour::Bt709, Colour::Bt709Full, Colour::Bt601, Colour::Srgb] {
            assert_eq!(serde_json::to_value(colour).unwrap(), colour.name());
        }
    }
}
