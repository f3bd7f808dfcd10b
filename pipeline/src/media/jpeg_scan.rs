//! Tells a whole JPEG from one cut short, which decoders paper over with grey.

/// Whether the stream reaches its end-of-image marker after at least one scan.
///
/// Walks the marker segments (ITU-T T.81 annex B), so that the end marker of an embedded
/// thumbnail does not count.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    let mut in_scan = false;
    let mut seen_scan = false;
    while let (Some(&first), Some(&second)) = (bytes.get(at), bytes.get(at + 1)) {
        if first != 0xFF {
            at += 1;
            continue;
        }
        match second {
            0xFF => at += 1,
            // Stuffed byte, restart markers and TEM carry no length.
            0x00 | 0x01 | 0xD0..=0xD8 => at += 2,
            0xD9 => return seen_scan,
            _ => {
                let (Some(&high), Some(&low)) = (bytes.get(at + 2), bytes.get(at + 3)) else {
                    return false;
                };
                let length = usize::from(u16::from_be_bytes([high, low]));
                if in_scan && length < 2 {
                    at += 2;
                    continue;
                }
                if second == 0xDA {
                    in_scan = true;
                    seen_scan = true;
                }
                at += 2 + length.max(2);
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    const WHOLE: &[u8] = &[
        0xFF, 0xD8, 0xFF, 0xE1, 0, 6, 0xFF, 0xD9, 1, 2, 0xFF, 0xDA, 0, 3, 9, 0x12, 0xFF, 0, 0x34, 0xFF, 0xD0,
        0x56, 0xFF, 0xD9,
    ];

    #[test]
    fn every_prefix_is_cut_and_the_thumbnail_end_does_not_count() {
        assert!(is_whole(WHOLE));
        for cut in 0..WHOLE.len() {
            assert!(!is_whole(&WHOLE[..cut]), "cut at {cut}");
        }
    }
}
