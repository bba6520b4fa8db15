//! TEMPORARY stand-in.
use crate::diffusion::Images;
use crate::error::Result;
use std::path::Path;
#[allow(missing_docs)]
pub struct FilmFrame {
    pub t: usize,
    pub forward: Images,
    pub reverse: Images,
}
#[allow(missing_docs)]
#[derive(Default)]
pub struct FilmOptions {
    pub columns: usize,
    pub steps: usize,
    pub provenance: String,
}
#[allow(missing_docs)]
pub fn check_target(_p: &Path) -> Result<()> {
    Ok(())
}
#[allow(missing_docs)]
pub fn grid(i: &Images, cols: usize, s: usize, g: usize) -> image::RgbImage {
    let rows = i.n.div_ceil(cols);
    let (cw, ch) = (i.w * s + g, i.h * s + g);
    image::RgbImage::from_fn((cols * cw) as u32, (rows * ch) as u32, |x, y| {
        let (x, y) = (x as usize, y as usize);
        let k = y / ch * cols + x / cw;
        let (px, py) = (x % cw / s, y % ch / s);
        if k >= i.n || px >= i.w || py >= i.h {
            return image::Rgb([128; 3]);
        }
        let v = i.one(k)[py * i.w + px];
        image::Rgb([((v.clamp(-1.0, 1.0) + 1.0) * 127.5) as u8; 3])
    })
}
#[allow(missing_docs)]
pub fn write_png(p: &Path, i: &image::RgbImage, _t: &[(&str, &str)]) -> Result<()> {
    i.save(p).unwrap();
    Ok(())
}
#[allow(missing_docs)]
pub fn write_npz(_p: &Path, _i: &Images) -> Result<()> {
    Ok(())
}
#[allow(missing_docs)]
pub fn write_film_gif(_p: &Path, _f: &[FilmFrame], _o: &FilmOptions) -> Result<()> {
    Ok(())
}
#[allow(missing_docs)]
pub fn write_film_strip(_p: &Path, _f: &[FilmFrame], _o: &FilmOptions) -> Result<()> {
    Ok(())
}
#[allow(missing_docs)]
pub fn save_atomically(p: &Path, f: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>) -> Result<()> {
    f(&mut std::fs::File::create(p).unwrap()).unwrap();
    Ok(())
}
