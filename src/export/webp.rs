//! Animated WebP: libwebp encodes the frames, without loss; what travels inside is Exif.

use super::film::fail;
use crate::error::Result;
use image::RgbImage;
use webp_animation::{AnimParams, ColorMode, Encoder, EncoderOptions, EncodingConfig, EncodingType};

/// Pixels a side at most (RFC 9649, section 2.7).
const LONGEST_SIDE: u32 = 16_384 - 1;
/// The flag of the extended header that says that there is Exif.
const HAS_EXIF: u8 = 1 << 3;
/// ImageDescription, as ASCII.
const DESCRIPTION: [u8; 4] = [0x0e, 0x01, 2, 0];

/// A film being encoded, in memory.
pub struct Webp {
    encoder: Encoder,
    size: [u32; 2],
    delay_ms: i32,
    frames: i32,
}

impl Webp {
    /// A looping film of frames of `size` pixels, each shown for `delay_ms`.
    ///
    /// # Errors
    /// If a side is past 16,383 pixels.
    pub fn new(size: [u32; 2], delay_ms: i32) -> Result<Self> {
        if size.iter().any(|side| *side > LONGEST_SIDE) {
            let hint = "choose a smaller scale or fewer pictures";
            return Err(fail("a WebP has at most 16,383 pixels a side", hint));
        }
        let lossless = EncodingConfig { encoding_type: EncodingType::Lossless, ..EncodingConfig::default() };
        let options = EncoderOptions {
            anim_params: AnimParams { loop_count: 0 },
            color_mode: ColorMode::Rgb,
            encoding_config: Some(lossless),
            // whole frames: decoders other than libwebp round where one is blended over the last
            kmax: 1,
            ..EncoderOptions::default()
        };
        let encoder = Encoder::new_with_options(size.into(), options).map_err(|e| fail(&e.to_string(), ""))?;
        Ok(Self { encoder, size, delay_ms, frames: 0 })
    }

    /// Adds a frame of that size.
    ///
    /// # Errors
    /// If libwebp refuses it.
    pub fn add(&mut self, picture: &RgbImage) -> Result<()> {
        let at = self.frames.saturating_mul(self.delay_ms);
        self.frames += 1;
        self.encoder.add_frame(picture, at).map_err(|e| fail(&e.to_string(), ""))
    }

    /// The whole file, with `comment` inside.
    ///
    /// # Errors
    /// If libwebp cannot put it together, or it would be past 4 GiB.
    pub fn finish(self, comment: &str) -> Result<Vec<u8>> {
        let data =
            self.encoder.finalize(self.frames.saturating_mul(self.delay_ms)).map_err(|e| fail(&e.to_string(), ""))?;
        with_exif(&data, self.size, comment).ok_or_else(|| fail("a WebP has at most 4 GiB", "choose a smaller scale"))
    }
}

/// `file` with `text` as its Exif description: an extended header at its beginning, a chunk at its end.
fn with_exif(file: &[u8], [width, height]: [u32; 2], text: &str) -> Option<Vec<u8>> {
    let mut out = file.get(..12)?.to_vec();
    let rest = if file.get(12..16)? == b"VP8X" {
        out.extend_from_slice(file.get(12..30)?);
        file.get(30..)?
    } else {
        // a film of one frame comes as a still picture
        out.extend(b"VP8X\x0a\0\0\0\0\0\0\0");
        out.extend((width - 1).to_le_bytes().into_iter().take(3).chain((height - 1).to_le_bytes().into_iter().take(3)));
        file.get(12..)?
    };
    out[20] |= HAS_EXIF;
    out.extend_from_slice(rest);
    let exif = exif(text)?;
    out.extend(b"EXIF");
    out.extend(u32::try_from(exif.len()).ok()?.to_le_bytes());
    out.extend_from_slice(&exif);
    out.extend(std::iter::repeat_n(0, exif.len() % 2));
    let size = u32::try_from(out.len() - 8).ok()?;
    out[4..8].copy_from_slice(&size.to_le_bytes());
    Some(out)
}

/// A TIFF structure of one entry, little-endian.
fn exif(text: &str) -> Option<Vec<u8>> {
    let mut out = b"II*\0\x08\0\0\0\x01\0".to_vec();
    out.extend(DESCRIPTION);
    out.extend(u32::try_from(text.len() + 1).ok()?.to_le_bytes());
    // after this entry and the offset of the next directory, of which there is none
    out.extend(26_u32.to_le_bytes());
    out.extend(0_u32.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.push(0);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageDecoder as _, codecs::webp::WebPDecoder};
    use std::io::Cursor;

    #[test]
    fn other_decoders_read_the_description_and_both_kinds_of_file() {
        for (frames, text) in [(1, "odd"), (2, "even"), (3, "{\"ddpm-film\":1}")] {
            let mut webp = Webp::new([5, 3], 40).unwrap();
            for i in 0..frames {
                webp.add(&RgbImage::from_pixel(5, 3, image::Rgb([i * 60, 7, 200]))).unwrap();
            }
            let bytes = webp.finish(text).unwrap();
            assert_eq!(bytes.len() % 2, 0);
            let mut decoder = WebPDecoder::new(Cursor::new(&bytes)).unwrap();
            assert_eq!((decoder.dimensions(), decoder.has_animation()), ((5, 3), frames > 1));
            let exif = decoder.exif_metadata().unwrap().unwrap();
            assert!(exif.starts_with(b"II*\0") && exif.ends_with(format!("{text}\0").as_bytes()));
        }
    }

    #[test]
    fn a_side_that_webp_cannot_count_is_refused() {
        assert!(Webp::new([16_384, 2], 40).is_err_and(|e| e.to_string().contains("16,383")));
    }
}
