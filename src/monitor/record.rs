//! The frame of a TFRecord file: length (u64), its check sum, the bytes, their check sum; all little-endian. The check
//! sums are CRC-32C, "masked" so that those of bytes that hold check sums themselves stay good ones (TensorFlow,
//! `lib/io/record_writer.h`, `lib/hash/crc32c.h`).

fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Adds a record.
pub(super) fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = (bytes.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(bytes);
    out.extend(masked(bytes).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_sums_are_those_of_the_standard() {
        // RFC 3720, B.4: 32 bytes of zeroes, of ones, and counting up
        let counting: Vec<u8> = (0..32).collect();
        for (bytes, crc) in
            [(&[0_u8; 32][..], 0x8a91_36aa_u32), (&[0xff; 32][..], 0x62a8_ab43), (&counting[..], 0x46dd_794e)]
        {
            assert_eq!(crc32c::crc32c(bytes), crc);
        }
    }
}
