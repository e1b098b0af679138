//! The frames of a `TFRecord` file: length (8 bytes), its checksum (4), message, its checksum (4), little-endian.

/// A message in its frame.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut frame = length.to_vec();
    frame.extend(masked(&length).to_le_bytes());
    frame.extend(message);
    frame.extend(masked(message).to_le_bytes());
    frame
}

/// CRC-32C, rotated and shifted so that a checksum of data which holds checksums is as good as any other.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: the checksums of RFC 3720, appendix B.4, masked by the formula of TensorFlow's `crc32c.h`.
    #[test]
    fn checksums_are_those_of_the_rfc() {
        let rising: Vec<u8> = (0..32).collect();
        let falling: Vec<u8> = (0..32).rev().collect();
        let cases: [(&[u8], u32); 4] = [
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&rising, 0x46dd_794e),
            (&falling, 0x113f_db5c),
        ];
        for (bytes, crc) in cases {
            // Rotated by 15 bits to the right, which is 17 to the left.
            let formula = crc.rotate_left(17).wrapping_add(0xa282_ead8);
            assert_eq!(masked(bytes), formula, "{bytes:?}");
        }
    }

    /// Oracle: how every event file begins that TensorFlow writes, whose first message has 24 bytes.
    #[test]
    fn a_frame_begins_as_tensorflows() {
        let frame = framed(&[7; 24]);
        assert_eq!(frame[..12], *b"\x18\0\0\0\0\0\0\0\xa3\x7fK\"");
        assert_eq!(frame[12..36], [7; 24]);
        assert_eq!(frame.len(), 12 + 24 + 4);
    }
}
