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

/// How pictures are laid out on a texture: column by column, each picture thinned to every `stride`-th pixel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sheet {
    columns: usize,
    /// Pictures in a column.
    rows: usize,
    stride: usize,
    /// Width and height of a thinned picture.
    cell: [usize; 2],
}

impl Sheet {
    /// For `count` pictures of `size` pixels on a texture of at most `side` pixels a side and [`MOST_PIXELS`].
    fn new(size: [usize; 2], count: usize, side: usize) -> Self {
        let (count, side) = (count.max(1), side.max(1));
        let fit = |stride: usize| {
            let cell = size.map(|v| v.max(1).div_ceil(stride));
            let rows = (side / cell[1]).min(count);
            let columns = count.div_ceil(rows.max(1));
            let fits = rows > 0 && columns * cell[0] <= side && columns * rows * cell[0] * cell[1] <= MOST_PIXELS;
            (fits || cell == [1, 1]).then_some(Self { columns, rows: rows.max(1), stride, cell })
        };
        (1..).find_map(fit).unwrap_or_default()
    }

    /// Column and row of picture `i`.
    fn place(&self, i: usize) -> [usize; 2] {
        [i / self.rows, i % self.rows]
    }

    /// Width and height of the texture.
    fn size(&self) -> [usize; 2] {
        [self.columns * self.cell[0], self.rows * self.cell[1]]
    }
}

/// Pixels of a texture: 64 MiB.
const MOST_PIXELS: usize = 1 << 24;

/// Some pictures in one texture.
#[derive(Default)]
pub struct Atlas {
    texture: Option<TextureHandle>,
    size: [usize; 2],
    channels: usize,
    count: usize,
    sheet: Sheet,
}

impl Atlas {
    /// Shows these pictures, the first `take` of each batch, in order.
    pub fn set<'a>(&mut self, ui: &Ui, batches: impl Iterator<Item = (&'a Images, usize, Map)>) {
        let pictures: Vec<_> =
            batches.flat_map(|(images, n, map)| (0..n.min(images.n)).map(move |i| (images, i, map))).collect();
        let Some((first, ..)) = pictures.first().filter(|(images, ..)| images.len_one() > 0) else {
            (self.texture, self.count) = (None, 0);
            return;
        };
        (self.size, self.channels, self.count) = ([first.w, first.h], first.c, pictures.len());
        self.sheet = Sheet::new(self.size, self.count, ui.input(|i| i.max_texture_side));
        let Sheet { stride, cell: [w, h], .. } = self.sheet;
        let size = self.sheet.size();
        let mut pixels = vec![Color32::default(); size[0] * size[1]];
        for (i, (images, n, map)) in pictures.into_iter().enumerate() {
            let (values, len) = (images.one(n), images.w * images.h);
            let [column, row] = self.sheet.place(i);
            for y in 0..h.min(images.h.div_ceil(stride)) {
                let line = &mut pixels[(row * h + y) * size[0] + column * w..][..w.min(images.w.div_ceil(stride))];
                for (x, out) in line.iter_mut().enumerate() {
                    *out = pixel(values, images.c, len, y * stride * images.w + x * stride, map);
                }
            }
        }
        let image = ColorImage::new(size, pixels);
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
            let [column, row] = self.sheet.place(i).map(|v| v as f32);
            let step = vec2(1.0 / self.sheet.columns as f32, 1.0 / self.sheet.rows as f32);
            let part = Rect::from_min_size(pos2(column * step.x, row * step.y), step);
            ui.painter().image(texture.id(), rect, part, style::UNTINTED);
        }
    }
}

/// Paints the colours of noise and of differences, the highest value at the right, or at the top of a bar that stands.
pub fn scale(ui: &Ui, bar: Rect) {
    let stands = bar.height() > bar.width();
    let length = bar.width().max(bar.height()).max(1.0) as usize;
    for i in 0..length {
        let value = style::NOISE_RANGE * (2.0 * (i as f32 + 0.5) / length as f32 - 1.0);
        // slices overlap, so that no zoom leaves gaps
        let slice = if stands {
            Rect::from_min_size(pos2(bar.left(), bar.bottom() - i as f32 - 1.5), vec2(bar.width(), 1.5))
        } else {
            Rect::from_min_size(pos2(bar.left() + i as f32, bar.top()), vec2(1.5, bar.height()))
        };
        ui.painter().rect_filled(slice, 0.0, style::diverging(value));
    }
}

/// Grids of pictures side by side as one image, for the clipboard: `scale` screen pixels to a pixel, one between pictures.
pub fn contact(sides: &[(Images, Map)], scale: usize) -> Option<ColorImage> {
    let (first, _) = sides.first()?;
    let columns = (first.n as f64).sqrt().ceil().max(1.0) as usize;
    let step = [first.w * scale + 1, first.h * scale + 1];
    let width = columns * step[0] + 1;
    let size = [sides.len() * width, first.n.div_ceil(columns) * step[1] + 1];
    let mut image = ColorImage::filled(size, style::MID_GREY);
    for (side, (images, map)) in sides.iter().enumerate() {
        for n in 0..images.n {
            let corner = [side * width + 1 + n % columns * step[0], 1 + n / columns * step[1]];
            for i in 0..images.w * images.h * scale * scale {
                let (x, y) = (i % (images.w * scale), i / (images.w * scale));
                let from = y / scale * images.w + x / scale;
                let place = (corner[1] + y) * size[0] + corner[0] + x;
                if let Some(target) = image.pixels.get_mut(place) {
                    *target = pixel(images.one(n), images.c, images.w * images.h, from, *map);
                }
            }
        }
    }
    Some(image)
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
    fn any_pictures_fit_on_a_texture_and_each_has_its_place() {
        for (size, count, side) in [
            ([28, 28], 30, 2048),
            ([256, 256], 16, 2048),
            ([256, 256], 90, 8192),
            ([1024, 1024], 60, 16384),
            ([4096, 16], 4, 2048),
            ([5000, 5000], 256, 2048),
            ([3, 2], 5000, 64),
            ([1, 1], 1, 1),
        ] {
            let sheet = Sheet::new(size, count, side);
            assert!(sheet.columns * sheet.rows >= count, "{size:?} {count}: {sheet:?}");
            let fits = sheet.size().iter().all(|v| *v <= side) && sheet.size().iter().product::<usize>() <= MOST_PIXELS;
            assert!(fits || sheet.cell == [1, 1], "{size:?} {count}: {sheet:?}");
            assert!((0..count).all(|i| sheet.place(i)[0] < sheet.columns && sheet.place(i)[1] < sheet.rows));
        }
        assert_eq!(Sheet::new([28, 28], 30, 2048), Sheet { columns: 1, rows: 30, stride: 1, cell: [28, 28] });
        assert_eq!(Sheet::new([256, 256], 16, 2048), Sheet { columns: 2, rows: 8, stride: 1, cell: [256, 256] });
        assert_eq!(Sheet::new([4096, 16], 4, 2048).stride, 2);
    }

    #[test]
    fn large_pictures_become_a_texture_that_the_graphics_card_takes() {
        let context = egui::Context::default();
        let mut atlas = Atlas::default();
        let images = Images::new(16, [1, 256, 256], (0..16 * 65536).map(|i| (i / 65536) as f32 / 8.0 - 1.0).collect());
        let output = context.run_ui(egui::RawInput { max_texture_side: Some(1024), ..Default::default() }, |ui| {
            atlas.set(ui, std::iter::once((&images, 16, Map::Picture)));
        });
        let id = atlas.texture.as_ref().unwrap().id();
        let image = output.textures_delta.set.iter().find(|(set, _)| **set == id).unwrap().1[0].image.clone();
        let egui::ImageData::Color(image) = image;
        assert_eq!((image.size, atlas.count()), ([1024, 1024], 16));
        // pictures stand column by column
        for i in 0..16 {
            let at = [i / 4 * 256 + 255, i % 4 * 256];
            assert_eq!(image[(at[0], at[1])], style::grey(i as f32 / 8.0 - 1.0), "{i}");
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
    fn the_clipboard_gets_both_sides() {
        let side = |v| (Images::new(4, [1, 2, 3], vec![v; 24]), Map::Picture);
        let image = contact(&[side(-1.0), side(1.0)], 2).unwrap();
        assert_eq!(image.size, [2 * (2 * 7 + 1), 2 * 5 + 1]);
        let count = |level| image.pixels.iter().filter(|p| p.r() == level).count();
        assert_eq!((count(0), count(255)), (4 * 24, 4 * 24));
        assert!(contact(&[], 2).is_none());
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
