//! Scaling to the model's size: the largest centred box of the target's proportions, through a Catmull-Rom filter that
//! widens when it shrinks a picture, so that nothing aliases.

/// For each output position along one axis: the first input position it reads, and the weights from there on.
struct Axis(Vec<(usize, Vec<f32>)>);

/// The filter weights for one pair of sizes, made once and used for many pictures.
pub(super) struct Resizer {
    source: [usize; 2],
    target: [usize; 2],
    rows: Axis,
    columns: Axis,
}

impl Resizer {
    /// From pictures of `source` to pictures of `target`, both [height, width] and not 0.
    pub fn new(source: [usize; 2], target: [usize; 2]) -> Self {
        let [h, w] = source.map(|v| v as f64);
        let [target_h, target_w] = target.map(|v| v as f64);
        let pixels = (h / target_h).min(w / target_w); // source pixels per target pixel
        let axis = |len: f64, out: f64| Axis::new(len, (len - out * pixels) / 2.0, pixels, out as usize);
        Self { source, target, rows: axis(h, target_h), columns: axis(w, target_w) }
    }

    /// Scales one channel, whose pixels are every `stride`-th byte of `source`, into `out` of target height × width.
    pub fn channel(&self, source: &[u8], stride: usize, out: &mut [u8]) {
        let width = self.source[1];
        if self.source == self.target {
            out.iter_mut().zip(source.iter().step_by(stride)).for_each(|(out, v)| *out = *v);
            return;
        }
        let out_width = self.target[1];
        let used = self.rows.span();
        let mut narrowed = vec![0.0; used.len() * out_width];
        let mut line = vec![0.0; width];
        for (row, narrow) in used.clone().zip(narrowed.chunks_exact_mut(out_width)) {
            let pixels = &source[row * width * stride..];
            if stride == 1 {
                line.iter_mut().zip(pixels).for_each(|(value, &v)| *value = f32::from(v));
            } else {
                line.iter_mut().zip(pixels.iter().step_by(stride)).for_each(|(value, &v)| *value = f32::from(v));
            }
            for (out, (first, weights)) in narrow.iter_mut().zip(&self.columns.0) {
                *out = dot(weights, &line[*first..]);
            }
        }
        let mut sums = vec![0.0; out_width];
        for (out, (first, weights)) in out.chunks_exact_mut(out_width).zip(&self.rows.0) {
            sums.fill(0.5);
            for (weight, narrow) in
                weights.iter().zip(narrowed[(first - used.start) * out_width..].chunks_exact(out_width))
            {
                sums.iter_mut().zip(narrow).for_each(|(sum, v)| *sum += weight * v);
            }
            out.iter_mut().zip(&sums).for_each(|(out, sum)| *out = *sum as u8);
        }
    }
}

impl Axis {
    /// `out` positions over the part of an axis of `len` pixels that begins at `start`, `pixels` of them each.
    fn new(len: f64, start: f64, pixels: f64, out: usize) -> Self {
        let scale = pixels.max(1.0);
        let taps = |i: usize| {
            let centre = start + (i as f64 + 0.5) * pixels;
            let first = (centre - 2.0 * scale).round().max(0.0);
            let end = (centre + 2.0 * scale).round().min(len);
            let weights = (first as usize..end as usize).map(|j| catmull_rom((j as f64 + 0.5 - centre) / scale));
            let sum: f64 = weights.clone().sum();
            (first as usize, weights.map(|weight| (weight / sum) as f32).collect())
        };
        Self((0..out).map(taps).collect())
    }

    /// The input positions that are read at all.
    fn span(&self) -> std::ops::Range<usize> {
        let first = self.0.first().map_or(0, |tap| tap.0);
        first..self.0.last().map_or(first, |(last, weights)| last + weights.len())
    }
}

/// Σ a·b over the shorter of the two, in eight sums that the compiler keeps in one register.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let b = &b[..a.len().min(b.len())];
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a8.iter().zip(b8) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// The Catmull-Rom kernel: the cubic convolution with a = -1/2, zero from 2 on.
fn catmull_rom(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        (1.5 * x - 2.5) * x * x + 1.0
    } else if x < 2.0 {
        ((2.5 - 0.5 * x) * x - 4.0) * x + 2.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Image.fromarray(source).resize((w, h), Image.BICUBIC, box)` of Pillow 13, box as in `Resizer::new`.
    #[test]
    fn agrees_with_pillow_both_ways() {
        let source: Vec<u8> = (0..6 * 9).map(|i| (64 + (i * i * 37 + i * 11) % 100) as u8).collect();
        for (target, expected) in [([3, 3], PILLOW_SMALLER.as_slice()), ([7, 8], PILLOW_LARGER.as_slice())] {
            let mut out = vec![0; target[0] * target[1]];
            Resizer::new([6, 9], target).channel(&source, 1, &mut out);
            let worst = out.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst <= Some(1), "{out:?}\n{expected:?}");
        }
    }

    #[test]
    fn flat_stays_flat_and_the_crop_is_centred() {
        let mut out = [0; 4];
        Resizer::new([5, 31], [2, 2]).channel(&[200; 5 * 31], 1, &mut out);
        assert_eq!(out, [200; 4]);
        let stripes: Vec<u8> = (0..40 * 80).map(|i| if (20..60).contains(&(i % 80)) { 255 } else { 0 }).collect();
        let mut out = [0; 16];
        Resizer::new([40, 80], [4, 4]).channel(&stripes, 1, &mut out);
        assert!(out.iter().all(|&v| v > 230), "{out:?}");
    }

    const PILLOW_SMALLER: [u8; 9] = [127, 122, 136, 100, 117, 110, 116, 117, 121];
    const PILLOW_LARGER: [u8; 56] = [
        113, 131, 134, 108, 115, 154, 162, 155, 77, 155, 135, 145, 121, 96, 157, 123, 114, 109, 114, 127, 105, 94, 141,
        74, 106, 87, 97, 128, 123, 104, 127, 82, 89, 104, 83, 121, 134, 104, 110, 129, 134, 116, 86, 94, 112, 111, 108,
        141, 163, 118, 134, 145, 128, 127, 159, 82,
    ];
}
