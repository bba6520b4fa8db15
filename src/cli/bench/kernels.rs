//! Each convolution of a network by itself: its speed, and its error against sums in f64.

use super::report::{Report, median, round, smallest};
use crate::diffusion::noise::{Purpose, normal};
use crate::engine::{Error, Result};
use crate::kernels::Window;
use crate::kernels::trial::{Operand, Trial, doubles_itself};
use crate::model::Config;
use crate::model::compute::Compute;
use candle_core::Tensor;
use serde_json::json;
use std::time::Instant;

/// Images that one thread takes forward and backward at a time in training with batches of 64.
pub(super) const MICRO_BATCH: usize = 16;
/// Images in the check against f64.
pub(super) const CHECKED: usize = 2;
/// Seconds that one measurement takes at least.
const SPAN: f64 = 0.01;

/// A convolution of the network, or a linear map of each pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    ci: usize,
    co: usize,
    h: usize,
    w: usize,
    /// `None` for 1x1.
    window: Option<Window>,
}

/// Largest and typical error over the reference's root mean square.
#[derive(Clone, Copy, Debug)]
pub(super) struct Errors {
    pub max: f64,
    pub rms: f64,
}

/// In 10⁹ a second: of a convolution GFLOP/s, counted as direct.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speed {
    pub median: f64,
    pub best: f64,
}

/// y, ∂L/∂x, ∂L/∂w.
const RESULTS: [&str; 3] = ["y", "dX", "dW"];
/// These, the last two in one call, and y of a single image.
const SPEEDS: [&str; 5] = ["y", "dX", "dW", "dX+dW", "y1"];

impl Shape {
    /// (stride, rows of zeros above, side of the kernel).
    fn window(self) -> (usize, usize, usize) {
        match self.window {
            None => (1, 0, 1),
            Some(Window::Same | Window::Doubled) => (1, 1, 3),
            Some(Window::HalfSymmetric) => (2, 1, 3),
            Some(Window::HalfRightBottom) => (2, 0, 3),
        }
    }

    /// Height and width of the output.
    fn out(self) -> [usize; 2] {
        let side = |len: usize| match self.window {
            None | Some(Window::Same) => len,
            Some(Window::HalfSymmetric) => len.div_ceil(2),
            Some(Window::HalfRightBottom) => len / 2,
            Some(Window::Doubled) => 2 * len,
        };
        [side(self.h), side(self.w)]
    }

    /// Of a direct convolution of one image; each of the three results takes as many.
    fn flops(self) -> f64 {
        let [ho, wo] = self.out();
        2.0 * (ho * wo * self.co * self.ci * self.window().2.pow(2)) as f64
    }

    fn name(self) -> String {
        let Self { ci, co, h, w, .. } = self;
        let (stride, _, side) = self.window();
        let stride = match self.window {
            Some(Window::Doubled) => " x2",
            _ if stride == 2 => " /2",
            _ => "",
        };
        format!("{side}x{side} {ci}->{co} {h}x{w}{stride}")
    }

    /// x, w and ∂L/∂y for `n` images: N(0, 1), the weights N(0, 1 / fan-in).
    fn operands(self, n: usize) -> [Operand; 3] {
        let (side, [ho, wo]) = (self.window().2, self.out());
        let random = |i: u64, shape: [usize; 4], scale: f32| -> Operand {
            let mut data = normal(3, Purpose::Init, [i, 0], shape.iter().product());
            data.iter_mut().for_each(|v| *v *= scale);
            (data, shape)
        };
        let scale = ((self.ci * side * side) as f32).sqrt().recip();
        [
            random(0, [n, self.h, self.w, self.ci], 1.0),
            random(1, [self.co, self.ci, side, side], scale),
            random(2, [n, ho, wo, self.co], 1.0),
        ]
    }
}

/// Measures all convolutions of the network, the dearest first.
pub(super) fn run(config: &Config, compute: &Compute, samples: usize, report: &Report<'_>) -> Result<()> {
    if !compute.device().is_cpu() {
        return Err(Error::usage("cannot measure the kernels", "they run on the CPU only", "use --device cpu"));
    }
    for (shape, count) in shapes(config) {
        let errors = errors(shape, compute)?;
        let speeds = speeds(shape, compute, samples)?;
        let mut values = json!({ "shape": shape.name(), "count": count, "batch": MICRO_BATCH * compute.threads() });
        let mut text = format!("{count:>2} x {:<22} GFLOP/s median/best", shape.name());
        for (name, speed) in SPEEDS.iter().zip(speeds) {
            values["gflops"][name] = json!({ "median": round(speed.median, 2), "best": round(speed.best, 2) });
            text += &format!("  {name} {:>3.0}/{:<3.0}", speed.median, speed.best);
        }
        text += "  error rms/max";
        for (name, e) in RESULTS.iter().zip(errors) {
            values["errors"][name] = json!({ "rms": e.rms, "max": e.max });
            text += &format!("  {name} {:.0e}/{:.0e}", e.rms, e.max);
        }
        report.line("kernel", values, &text)?;
    }
    Ok(())
}

/// The distinct shapes of a network and how often each occurs, most work first.
fn shapes(config: &Config) -> Vec<(Shape, usize)> {
    let [_, h, w] = config.image_shape();
    let half = if config.downsample_padding == 0 { Window::HalfRightBottom } else { Window::HalfSymmetric };
    let mut found: Vec<(Shape, usize)> = Vec::new();
    for (path, dims) in config.parameters() {
        // vectors have no weight of two axes; t's linear layers work on one vector per image
        if dims.len() < 2 || path.contains("time_emb") {
            continue;
        }
        let mut scale = 1 << level(&path, config.block_out_channels.len() - 1);
        let window = match dims.get(2) {
            Some(3) if path.contains("downsamplers") => Some(half),
            Some(3) if path.contains("upsamplers") && doubles_itself(dims[1], dims[0]) => {
                scale *= 2;
                Some(Window::Doubled)
            }
            Some(3) => Some(Window::Same),
            _ => None,
        };
        let shape = Shape { ci: dims[1], co: dims[0], h: h / scale, w: w / scale, window };
        count(&mut found, shape);
    }
    found.sort_by(|(a, m), (b, n)| (b.flops() * *n as f64).total_cmp(&(a.flops() * *m as f64)));
    found
}

/// Notes one more of these.
pub(super) fn count<T: PartialEq>(found: &mut Vec<(T, usize)>, item: T) {
    match found.iter_mut().find(|(known, _)| *known == item) {
        Some((_, n)) => *n += 1,
        None => found.push((item, 1)),
    }
}

/// How often the map that a layer reads was halved.
pub(super) fn level(path: &str, last: usize) -> usize {
    let number = |prefix: &str| -> Option<usize> { path.strip_prefix(prefix)?.split('.').next()?.parse().ok() };
    match (number("down_blocks."), number("up_blocks.")) {
        (Some(i), _) => i,
        // the layer after the doubling already reads the larger map
        (_, Some(i)) => last - i - usize::from(path.contains("upsamplers")),
        _ if path.starts_with("mid_block") => last,
        _ => 0,
    }
}

/// [`SPEEDS`]: each thread with a micro-batch of its own as in training, the single image on all threads as in sampling.
fn speeds(shape: Shape, compute: &Compute, samples: usize) -> Result<Vec<Speed>> {
    let trial = |n| -> Result<Trial> {
        let [x, w, dy] = shape.operands(n);
        Ok(Trial::new(x, w, dy, shape.window, compute.path())?)
    };
    let lanes = compute.threads();
    let trials = (0..lanes).map(|_| trial(MICRO_BATCH)).collect::<Result<Vec<_>>>()?;
    type Kernel = fn(&Trial) -> candle_core::Result<()>;
    let kernels: [(Kernel, f64); 4] = [
        (|t| t.forward().map(drop), 1.0),
        (|t| t.backward(true, false).map(drop), 1.0),
        (|t| t.backward(false, true).map(drop), 1.0),
        (|t| t.backward(true, true).map(drop), 2.0),
    ];
    let mut speeds = Vec::new();
    for (kernel, results) in kernels {
        let work = shape.flops() * (MICRO_BATCH * lanes) as f64 * results;
        speeds.push(speed_on_each(compute, work, samples, |lane| kernel(&trials[lane]))?);
    }
    let one = trial(1)?;
    speeds.push(speed_shared(compute, shape.flops(), samples, || one.forward().map(drop))?);
    Ok(speeds)
}

/// Of `work` in one call of `f` on each thread, with the thread's number.
pub(super) fn speed_on_each(
    compute: &Compute,
    work: f64,
    samples: usize,
    f: impl Fn(usize) -> candle_core::Result<()> + Sync,
) -> Result<Speed> {
    speed(work, samples, |times| {
        let repeat = |lane: usize| (0..times).try_for_each(|_| f(lane));
        Ok(compute.map(compute.threads(), repeat).into_iter().collect::<candle_core::Result<()>>()?)
    })
}

/// Of `work` in one call of `f`, which all threads share.
pub(super) fn speed_shared(
    compute: &Compute,
    work: f64,
    samples: usize,
    f: impl Fn() -> candle_core::Result<()>,
) -> Result<Speed> {
    speed(work, samples, |times| Ok(compute.run(|| (0..times).try_for_each(|_| f()))?))
}

/// Of `work` in each of the calls that `repeat` makes.
fn speed(work: f64, samples: usize, repeat: impl Fn(usize) -> Result<()>) -> Result<Speed> {
    let timed = |times: usize| -> Result<f64> {
        let start = Instant::now();
        repeat(times)?;
        Ok(start.elapsed().as_secs_f64() / times as f64)
    };
    repeat(1)?;
    let times = (SPAN / timed(1)?.max(1e-9)).ceil().clamp(1.0, 1e5) as usize;
    let seconds = (0..samples).map(|_| timed(times)).collect::<Result<Vec<_>>>()?;
    Ok(Speed { median: work / median(&seconds) / 1e9, best: work / smallest(&seconds) / 1e9 })
}

/// Errors of y, dX and dW against [`reference`].
fn errors(shape: Shape, compute: &Compute) -> Result<[Errors; 3]> {
    let [x, w, dy] = shape.operands(CHECKED);
    let wide = |operand: &Operand| operand.0.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let (wide_x, wide_w, wide_dy) = (wide(&x), wide(&w), wide(&dy));
    let trial = Trial::new(x, w, dy, shape.window, compute.path())?;
    let (y, gradients) =
        compute.run(|| -> candle_core::Result<_> { Ok((trial.forward()?, trial.backward(true, true)?)) })?;
    let [dx, dw] =
        gradients.map(|g| g.ok_or_else(|| Error::new("cannot measure the kernels", "a gradient is missing", "")));
    let lanes = compute.threads();
    let parts =
        compute.map(lanes, |lane| reference(shape, (lane..shape.co).step_by(lanes), &wide_x, &wide_w, &wide_dy));
    let want = parts.into_iter().reduce(|mut sums, part| {
        sums.iter_mut().zip(part).for_each(|(sum, part)| sum.iter_mut().zip(part).for_each(|(to, v)| *to += v));
        sums
    });
    let want = want.unwrap_or_default();
    let [want_y, want_dx, want_dw] = &want;
    Ok([compare(&y, want_y)?, compare(&dx?, want_dx)?, compare(&dw?, want_dw)?])
}

pub(super) fn compare(got: &Tensor, want: &[f64]) -> Result<Errors> {
    let got: Vec<f32> = got.flatten_all()?.to_vec1()?;
    let mean_square = |sum: f64| (sum / want.len() as f64).sqrt();
    let size = mean_square(want.iter().map(|v| v * v).sum());
    let differences = || got.iter().zip(want).map(|(got, want)| (f64::from(*got) - want).abs());
    let rms = mean_square(differences().map(|d| d * d).sum());
    Ok(Errors { max: differences().fold(0.0, f64::max) / size, rms: rms / size })
}

/// y, dX and dW by the definition, in f64: the part that some output channels have in them.
fn reference(shape: Shape, channels: impl Iterator<Item = usize>, x: &[f64], w: &[f64], dy: &[f64]) -> [Vec<f64>; 3] {
    let Shape { ci, co, h, w: width, .. } = shape;
    let ((stride, pad, side), [ho, wo]) = (shape.window(), shape.out());
    let (area, times) = (side * side, if shape.window == Some(Window::Doubled) { 2 } else { 1 });
    let (mut y, mut dx, mut dw) = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
    for o in channels {
        let rows = o * ci * area..(o + 1) * ci * area;
        // the input channel last, as in x
        let w: Vec<f64> = (0..area * ci).map(|i| w[rows.start + i % ci * area + i / ci]).collect();
        let mut gradient = vec![0.0; area * ci];
        for pixel in 0..dy.len() / co {
            let (n, row, column) = (pixel / (ho * wo), pixel / wo % ho, pixel % wo);
            let (mut sum, g) = (0.0, dy[pixel * co + o]);
            for k in 0..area {
                let i = (row * stride + k / side).wrapping_sub(pad);
                let j = (column * stride + k % side).wrapping_sub(pad);
                if i >= times * h || j >= times * width {
                    continue;
                }
                let at = ((n * h + i / times) * width + j / times) * ci;
                let (x, dx) = (&x[at..at + ci], &mut dx[at..at + ci]);
                let (w, dw) = (&w[k * ci..][..ci], &mut gradient[k * ci..][..ci]);
                for c in 0..ci {
                    sum += x[c] * w[c];
                    dx[c] += g * w[c];
                    dw[c] += g * x[c];
                }
            }
            y[pixel * co + o] = sum;
        }
        dw[rows].iter_mut().enumerate().for_each(|(i, v)| *v = gradient[i % area * ci + i / area]);
    }
    [y, dx, dw]
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn shapes_are_those_of_the_network() {
        let config = Config::preset("mnist28").unwrap();
        let shapes = shapes(&config);
        let count = |name: &str| shapes.iter().find(|(s, _)| s.name() == name).map_or(0, |(_, n)| *n);
        // KERNELS: the list of convolutions from diffusers
        for (name, n) in [
            ("3x3 32->32 28x28", 4),
            ("3x3 64->64 14x14", 3),
            ("3x3 64->64 14x14 x2", 1),
            ("3x3 96->32 28x28", 1),
            ("3x3 64->64 7x7", 8),
            ("3x3 128->64 7x7", 2),
            ("3x3 32->32 28x28 /2", 1),
            ("3x3 64->64 14x14 /2", 1),
            ("1x1 64->64 7x7", 16),
            ("1x1 96->32 28x28", 1),
        ] {
            assert_eq!(count(name), n, "{name}");
        }
        let all: f64 = shapes.iter().map(|(s, n)| s.flops() * *n as f64 / 2e6).sum();
        assert!((all - 188.8).abs() < 0.5, "{all} million multiplications");
    }

    #[test]
    fn every_kind_of_kernel_is_near_its_f64_reference() {
        let compute = Compute::new(Device::Cpu, 2, || ()).unwrap();
        let shape = |ci, co, h, w, window| Shape { ci, co, h, w, window };
        for (shape, max, rms) in [
            (shape(32, 32, 9, 8, Some(Window::Same)), 3e-4, 1e-5),
            (shape(256, 256, 8, 8, Some(Window::Same)), 3e-4, 1e-5),
            (shape(16, 48, 3, 5, Some(Window::Doubled)), 3e-4, 1e-5),
            (shape(1, 8, 6, 6, Some(Window::Same)), 3e-5, 5e-6),
            (shape(16, 1, 6, 6, Some(Window::Same)), 3e-5, 5e-6),
            (shape(8, 16, 6, 7, Some(Window::HalfSymmetric)), 3e-5, 5e-6),
            (shape(8, 16, 6, 8, Some(Window::HalfRightBottom)), 3e-5, 5e-6),
            (shape(12, 7, 5, 3, None), 3e-5, 5e-6),
        ] {
            for (what, e) in RESULTS.iter().zip(errors(shape, &compute).unwrap()) {
                assert!(e.max <= max && e.rms <= rms && e.rms > 0.0, "{} {what}: {e:?}", shape.name());
            }
            let speeds = speeds(shape, &compute, 1).unwrap();
            assert_eq!(speeds.len(), SPEEDS.len());
            assert!(speeds.iter().all(|s| s.median > 0.0 && s.best < 1e5), "{}: {speeds:?}", shape.name());
        }
    }
}
