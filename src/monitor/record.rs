//! The frame of a TFRecord file: length (u64), its check sum, the bytes, their check sum; all little-endian. The check
//! sums are CRC-32C, "masked" so that those of bytes that hold check sums themselves stay good ones (TensorFlow,
//! `lib/io/record_writer.h`, `lib/hash/crc32c.h`).

/// Bytes of a length and its check sum.
const LENGTH: usize = 12;
/// The most that a record may hold: far more than any event needs.
const MOST: u64 = 64 << 20;

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

/// What some bytes begin with.
pub(super) enum Head<'a> {
    /// A record, and the length of its frame.
    Whole(&'a [u8], usize),
    /// Part of a record; at least so many bytes are needed.
    Partial(usize),
    /// A frame of that length around bytes that are not as they were written.
    Spoiled(usize),
    /// No record; what follows cannot be found.
    Broken(&'static str),
}

/// Looks for a record at the beginning of `bytes`.
pub(super) fn head(bytes: &[u8]) -> Head<'_> {
    let (Some(length), Some(check)) = (bytes.first_chunk::<8>(), bytes.get(8..).and_then(<[u8]>::first_chunk::<4>))
    else {
        return Head::Partial(LENGTH);
    };
    if masked(length) != u32::from_le_bytes(*check) {
        return Head::Broken("the check sum of a length is wrong, so the rest cannot be read");
    }
    let length = u64::from_le_bytes(*length);
    if length > MOST {
        return Head::Broken("a record claims to be larger than 64 MiB, so the rest cannot be read");
    }
    let (end, all) = (LENGTH + length as usize, LENGTH + length as usize + 4);
    match (bytes.get(LENGTH..end), bytes.get(end..).and_then(<[u8]>::first_chunk::<4>)) {
        (Some(record), Some(check)) if masked(record) == u32::from_le_bytes(*check) => Head::Whole(record, all),
        (Some(_), Some(_)) => Head::Spoiled(all),
        _ => Head::Partial(all),
    }
}

#[cfg(test)]
mod tests {
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
