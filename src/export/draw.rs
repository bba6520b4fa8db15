//! Pictures laid out on a canvas of bytes.

use crate::diffusion::Images;
use image::{Rgb, RgbImage};

/// Shows between pictures; equally far from black and white.
pub(super) const MID_GREY: Rgb<u8> = Rgb([128; 3]);

/// [-1, 1] to 0..=255, clipped; NCHW as it came.
pub fn to_u8(images: &Images) -> Vec<u8> {
    images.data.iter().map(|&v| byte(v)).collect()
}

fn byte(v: f32) -> u8 {
    ((v + 1.0) * 127.5).round() as u8 // `as` clips, and makes 0 of NaN
}

/// All pictures in rows of `columns`, each pixel `scale` × `scale` large, `gap` pixels of mid-grey between them.
/// `columns` and `scale` of 0 count as 1.
pub fn grid(images: &Images, columns: usize, scale: usize, gap: usize) -> RgbImage {
    let (columns, scale) = (columns.clamp(1, images.n.max(1)), scale.max(1));
    let step = [images.w, images.h].map(|len| len * scale + gap);
    let cells = [columns, images.n.div_ceil(columns)];
    let [width, height] = [0, 1].map(|axis| (cells[axis] * step[axis]).saturating_sub(gap) as u32);
    let mut canvas = RgbImage::from_pixel(width, height, MID_GREY);
    for i in 0..images.n {
        let at = [i % columns * step[0], i / columns * step[1]].map(|v| v as u32);
        paste(&mut canvas, images, i, scale, at);
    }
    canvas
}

/// Picture `i` with its top left corner at (`x`, `y`) of the canvas, where it must fit.
pub(super) fn paste(canvas: &mut RgbImage, images: &Images, i: usize, scale: usize, [x, y]: [u32; 2]) {
    let (plane, scale, picture) = (images.h * images.w, scale as u32, images.one(i));
    for dy in 0..images.h as u32 * scale {
        for dx in 0..images.w as u32 * scale {
            let at = (dy / scale) as usize * images.w + (dx / scale) as usize;
            let channel = |k: usize| byte(picture[k.min(images.c - 1) * plane + at]);
            canvas.put_pixel(x + dx, y + dy, Rgb([channel(0), channel(1), channel(2)]));
        }
    }
}
