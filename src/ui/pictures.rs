//! Pictures on the screen: one texture per grid, updated in place, each picture at a whole-number scale.

use super::style;
use crate::diffusion::Images;
use egui::{Color32, ColorImage, Pos2, Rect, TextureHandle, TextureOptions, Ui, Vec2, pos2, vec2};

/// How values become colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// Black to white, or red, green and blue.
    Picture,
    /// Around zero.
    Noise,
    /// Small differences around zero.
    Error,
}

/// Pixel `i` of a picture of `len` pixels in `c` planes.
fn pixel(values: &[f32], c: usize, len: usize, i: usize, map: Map) -> Color32 {
    let at = |plane: usize| values.get(plane * len + i).copied().unwrap_or_default();
    match (map, c) {
        (Map::Picture, 3) => style::rgb([at(0), at(1), at(2)]),
        (Map::Picture, _) => style::grey(at(0)),
        // a colour picture's noise is in three planes; its colours are the noise of each, around mid-grey
        (Map::Noise, 3) => style::rgb([at(0), at(1), at(2)].map(|v| v / style::NOISE_RANGE)),
        (Map::Noise, _) => style::diverging(at(0)),
        (Map::Error, 3) => style::rgb([at(0), at(1), at(2)].map(|v| v / style::ERROR_RANGE)),
        (Map::Error, _) => style::diverging(at(0) * style::NOISE_RANGE / style::ERROR_RANGE),
    }
}

/// Some pictures, one under the other in one texture.
#[derive(Default)]
pub struct Atlas {
    texture: Option<TextureHandle>,
    size: [usize; 2],
    channels: usize,
    count: usize,
}

impl Atlas {
    /// Shows these pictures, the first `take` of each batch, in order.
    pub fn set<'a>(&mut self, ui: &Ui, batches: impl Iterator<Item = (&'a Images, usize, Map)>) {
        let mut pixels = Vec::new();
        (self.size, self.count) = ([0, 0], 0);
        for (images, take, map) in batches {
            self.size = [images.w, images.h];
            self.channels = images.c;
            let len = images.w * images.h;
            for n in 0..take.min(images.n) {
                let values = images.one(n);
                pixels.extend((0..len).map(|i| pixel(values, images.c, len, i, map)));
                self.count += 1;
            }
        }
        let [w, h] = self.size;
        if w == 0 || h == 0 || pixels.len() != w * h * self.count {
            (self.texture, self.count) = (None, 0);
            return;
        }
        let image = ColorImage::new([w, h * self.count], pixels);
        match &mut self.texture {
            Some(texture) => texture.set(image, TextureOptions::NEAREST),
            None => self.texture = Some(ui.ctx().load_texture("pictures", image, TextureOptions::NEAREST)),
        }
    }

    /// Whether the pictures have no colours.
    pub fn is_grey(&self) -> bool {
        self.channels == 1
    }

    /// Number of pictures.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Width and height of a picture in its own pixels.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Paints picture `i` into `rect`.
    pub fn paint(&self, ui: &Ui, i: usize, rect: Rect) {
        if let Some(texture) = self.texture.as_ref().filter(|_| i < self.count) {
            let (top, bottom) = (i as f32 / self.count as f32, (i + 1) as f32 / self.count as f32);
            ui.painter().image(
                texture.id(),
                rect,
                Rect::from_min_max(pos2(0.0, top), pos2(1.0, bottom)),
                style::UNTINTED,
            );
        }
    }
}

/// Where the pictures of a square grid stand.
#[derive(Clone, Debug, PartialEq)]
pub struct GridLayout {
    /// All of it, with the gap around.
    pub outer: Rect,
    /// Each picture.
    pub cells: Vec<Rect>,
}

/// Fits `n` pictures of `size` pixels into the middle of `area`: screen pixels per pixel are a whole number where at
/// least one fits, gaps are one screen pixel.
pub fn layout(area: Rect, n: usize, size: [usize; 2], pixels_per_point: f32) -> GridLayout {
    let columns = (n as f32).sqrt().ceil().max(1.0);
    let rows = (n as f32 / columns).ceil().max(1.0);
    let [w, h] = size.map(|v| v.max(1) as f32);
    let available = (area.size() * pixels_per_point - vec2(columns + 1.0, rows + 1.0)).max(Vec2::ZERO);
    let exact = (available.x / (columns * w)).min(available.y / (rows * h));
    let scale = if exact >= 1.0 { exact.floor() } else { exact };
    let cell = vec2(w, h) * scale;
    let total = vec2(columns * (cell.x + 1.0) + 1.0, rows * (cell.y + 1.0) + 1.0);
    let corner = (area.center().to_vec2() * pixels_per_point - total / 2.0).round();
    let point = |v: Vec2| -> Pos2 { ((corner + v) / pixels_per_point).to_pos2() };
    let cells = (0..n)
        .map(|i| {
            let (x, y) = ((i as f32 % columns).floor(), (i as f32 / columns).floor());
            let min = vec2(1.0 + x * (cell.x + 1.0), 1.0 + y * (cell.y + 1.0));
            Rect::from_min_max(point(min), point(min + cell))
        })
        .collect();
    GridLayout { outer: Rect::from_min_max(point(Vec2::ZERO), point(total)), cells }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_have_a_whole_number_scale_and_one_pixel_gaps() {
        for (n, ppp) in [(1, 1.0), (4, 1.0), (9, 1.25), (16, 2.0)] {
            let area = Rect::from_min_size(pos2(13.3, 7.7), vec2(500.0, 410.0));
            let grid = layout(area, n, [28, 28], ppp);
            assert!(area.expand(1.0).contains_rect(grid.outer), "{n}");
            let scale = grid.cells[0].width() * ppp / 28.0;
            assert!(scale >= 1.0 && (scale - scale.round()).abs() < 1e-3, "scale {scale}");
            for cell in &grid.cells {
                let x = cell.left() * ppp;
                assert!((x - x.round()).abs() < 1e-2, "on the screen's pixels: {x}");
            }
            if n > 1 {
                let gap = (grid.cells[1].left() - grid.cells[0].right()) * ppp;
                assert!((gap - 1.0).abs() < 1e-2, "gap {gap}");
            }
        }
    }

    #[test]
    fn no_room_is_no_panic() {
        for size in [Vec2::ZERO, vec2(-5.0, 3.0), vec2(10.0, 10.0)] {
            let grid = layout(Rect::from_min_size(Pos2::ZERO, size), 16, [32, 32], 1.0);
            assert_eq!(grid.cells.len(), 16);
            assert!(grid.cells.iter().all(|c| c.width() <= 3.0 && c.is_finite()));
        }
        layout(Rect::ZERO, 0, [0, 0], 1.0);
    }

    #[test]
    fn colour_noise_is_centred_on_mid_grey() {
        assert_eq!(pixel(&[0.0; 3], 3, 1, 0, Map::Noise), Color32::from_rgb(128, 128, 128));
        assert_eq!(pixel(&[0.0], 1, 1, 0, Map::Noise), style::diverging(0.0));
        assert_eq!(pixel(&[-0.5], 1, 1, 0, Map::Error), style::diverging(-3.0));
        assert_eq!(pixel(&[0.5; 3], 3, 1, 0, Map::Error), Color32::from_rgb(255, 255, 255));
        assert_eq!(pixel(&[1.0, -1.0, 1.0], 3, 1, 0, Map::Picture), Color32::from_rgb(255, 0, 255));
    }
}
