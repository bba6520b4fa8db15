//! Every operation, its value and all its gradients, against candle's own ops in f64, and some against finite differences.

use super::threads::Team;
use super::*;
use crate::diffusion::noise::{Purpose, normal};
use candle_core::{DType, Device, Var};

/// Standard normal numbers times `scale` plus `offset`, for input number `i` of a case.
fn random(shape: &[usize], i: usize, scale: f32, offset: f32) -> Tensor {
    let len = shape.iter().product();
    let data: Vec<f32> = normal(7, Purpose::Init, [i as u64, len as u64], len);
    Tensor::from_vec(data.iter().map(|v| v * scale + offset).collect(), shape, &Device::Cpu).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference over the reference's root mean square, and that of the differences over the same.
fn errors(got: &Tensor, want: &Tensor) -> (f64, f64) {
    assert_eq!(got.dims(), want.dims());
    let (got, want) = (values(got), values(want));
    let rms = |x: &mut dyn Iterator<Item = f64>| (x.map(|v| v * v).sum::<f64>() / want.len() as f64).sqrt();
    let size = rms(&mut want.iter().map(|&v| f64::from(v))).max(1e-6);
    let differences: Vec<f64> = got.iter().zip(&want).map(|(g, w)| f64::from(*g) - f64::from(*w)).collect();
    assert!(differences.iter().all(|d| d.is_finite()), "not finite");
    let max = differences.iter().fold(0.0, |m: f64, d| m.max(d.abs()));
    (max / size, rms(&mut differences.into_iter()) / size)
}

/// An operation on tensors, NCHW outside.
type Operation<'a> = &'a dyn Fn(&[Tensor], Path) -> Result<Tensor>;

/// The value of `f` and the gradients of Σ f·(random numbers) for all inputs; by candle's ops they are computed in f64.
fn evaluate(inputs: &[Tensor], path: Path, f: Operation) -> Vec<Tensor> {
    let dtype = if path == Path::Candle { DType::F64 } else { DType::F32 };
    let inputs: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap()).collect();
    let tensors: Vec<Tensor> = inputs.iter().map(|x| x.as_tensor().clone()).collect();
    let y = f(&tensors, path).unwrap();
    let loss = (&y * random(y.dims(), 99, 1.0, 0.0).to_dtype(dtype).unwrap()).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    let gradients = inputs.iter().map(|x| gradients.get(x).expect("a gradient for every input").clone());
    std::iter::once(y).chain(gradients).map(|x| x.to_dtype(DType::F32).unwrap()).collect()
}

/// The same as a network is trained: without candle's graph on our kernels.
fn evaluate_as_trained(inputs: &[Tensor], path: Path, f: Operation) -> Vec<Tensor> {
    let inputs: Vec<Tensor> = inputs.iter().map(|x| tracked(path, x).unwrap()).collect();
    let loss = |y: &Tensor| Ok((y.clone(), random(y.dims(), 99, 1.0, 0.0)));
    let (y, gradients) = super::gradients(path, &inputs, || f(&inputs, path), loss).unwrap();
    [vec![y], gradients].concat()
}

/// Compares the value and all gradients on `path`, by candle's graph and as trained, with candle's, within `max` and `rms`
/// of the reference's size.
fn compare(name: &str, inputs: &[Tensor], path: Path, (max, rms): (f64, f64), f: Operation) {
    let want = evaluate(inputs, Path::Candle, f);
    let ways = [("by candle's graph", evaluate(inputs, path, f)), ("as trained", evaluate_as_trained(inputs, path, f))];
    for (way, got) in ways {
        assert_eq!(got.len(), want.len());
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let (worst, typical) = errors(got, want);
            let what = if i == 0 { "value".to_owned() } else { format!("gradient {i}") };
            let good = worst <= max && typical <= rms;
            assert!(good, "{name} {path:?} {way}, {what}: max {worst:.2e}, rms {typical:.2e}");
        }
    }
}

const DIRECT: (f64, f64) = (3e-5, 5e-6);
const WINOGRAD: (f64, f64) = (3e-4, 1e-5);

/// Channels in, channels out, height, width.
const SHAPES: [(usize, usize, usize, usize); 16] = [
    (1, 32, 28, 28),
    (32, 1, 14, 14),
    (3, 16, 9, 11),
    (16, 3, 7, 7),
    (8, 8, 7, 7),
    (16, 16, 14, 14),
    (24, 40, 5, 6),
    (32, 32, 28, 28),
    (64, 32, 14, 14),
    (64, 64, 7, 7),
    (48, 16, 1, 3),
    (16, 32, 4, 4),
    (16, 16, 2, 9),
    (128, 144, 6, 5),
    (24, 8, 5, 5),
    (208, 208, 6, 5),
];

fn conv_case(path: Path, tolerance: (f64, f64), window: Window, shape: (usize, usize, usize, usize), offset: f32) {
    conv_of_images(3, path, tolerance, window, shape, offset);
}

fn conv_of_images(
    n: usize,
    path: Path,
    tolerance: (f64, f64),
    window: Window,
    shape: (usize, usize, usize, usize),
    offset: f32,
) {
    let (ci, co, h, w) = shape;
    let inputs = [
        random(&[n, ci, h, w], 0, 1.0, offset),
        random(&[co, ci, 3, 3], 1, (9.0 * ci as f32).sqrt().recip(), 0.0),
        random(&[co], 2, 1.0, 0.0),
        random(&[n, co], 3, 1.0, 0.0),
    ];
    compare(&format!("conv3x3 {window:?} {shape:?}"), &inputs, path, tolerance, &|x, path| {
        let conv = Conv3x3::new(x[1].clone(), x[2].clone(), window);
        let map = Map::from_nchw(&x[0], path)?;
        conv.forward(&map)?.add(&conv.forward_with_bias(&map, &x[3])?)?.to_nchw()
    });
}

#[test]
fn conv3x3_exact() {
    for shape in SHAPES {
        conv_case(Path::Exact, DIRECT, Window::Same, shape, 0.0);
    }
}

#[test]
fn conv3x3_fast() {
    for shape in SHAPES {
        conv_case(Path::Fast, WINOGRAD, Window::Same, shape, 0.0);
        conv_case(Path::Fast, WINOGRAD, Window::Same, shape, 3.0);
    }
}

/// Tiles of every size at the border, and maps without full ones.
#[test]
fn conv3x3_with_any_remainder() {
    for (h, w) in (1..=9).flat_map(|h| (1..=9).map(move |w| (h, w))) {
        conv_case(Path::Fast, WINOGRAD, Window::Same, (32, 16, h, w), 1.0);
        conv_case(Path::Fast, WINOGRAD, Window::Doubled, (16, 32, h, w), 1.0);
    }
}

/// Blocks of tiles that end among those of any size.
#[test]
fn conv3x3_of_many_images() {
    for (ci, co, h, w) in [(32, 32, 14, 14), (64, 16, 7, 7), (16, 48, 9, 6), (16, 32, 3, 3), (128, 16, 5, 12)] {
        conv_of_images(20, Path::Fast, WINOGRAD, Window::Same, (ci, co, h, w), 1.0);
        conv_of_images(20, Path::Fast, WINOGRAD, Window::Doubled, (ci, co, h, w), 1.0);
    }
}

/// One way, output i of a tile for a kernel that is 1 at j and inputs that are 1 at k is 1 if k is input i + j, else 0;
/// and the transposed matrices are the transposes.
fn one_way<const IN: usize, const OUT: usize, const N: usize>(points: [usize; N], inputs: &[usize])
where
    transforms::InputT: transforms::Transform<IN, N>,
    transforms::Input: transforms::Transform<N, IN>,
    transforms::OutputT: transforms::Transform<N, OUT>,
    transforms::Output: transforms::Transform<OUT, N>,
{
    use transforms::{Input, InputT, Output, OutputT, Transform, Weight};
    /// The columns of a matrix.
    fn columns<M: Transform<FROM, TO>, const FROM: usize, const TO: usize>() -> [[f32; TO]; FROM] {
        use simd::{Fused, Simd};
        std::array::from_fn(|i| {
            // SAFETY: one number at a time needs no special instructions, and `number` has room for it.
            unsafe {
                M::apply::<Fused>(std::array::from_fn(|j| Fused::splat(f32::from(u8::from(i == j))))).map(|x| {
                    let mut number = 0.0;
                    x.store(&raw mut number);
                    number
                })
            }
        })
    }
    let (into, back) = (columns::<InputT, IN, N>(), columns::<Input, N, IN>());
    let (out, gradient) = (columns::<OutputT, N, OUT>(), columns::<Output, OUT, N>());
    let kernels = columns::<Weight, 3, 6>();
    for p in 0..N {
        assert!((0..IN).all(|k| into[k][p] == back[p][k]) && (0..OUT).all(|i| out[p][i] == gradient[i][p]));
    }
    for (i, j, k) in (0..OUT).flat_map(|i| (0..3).flat_map(move |j| (0..IN).map(move |k| (i, j, k)))) {
        let y: f32 = (0..N).map(|p| out[p][i] * kernels[j][points[p]] * into[k][p]).sum();
        let want = f32::from(u8::from(inputs[i + j] == k));
        assert!((y - want).abs() < 1e-6, "{OUT} outputs: y[{i}] = {y} of g[{j}] and d[{k}]");
    }
}

#[test]
fn tiles_of_all_sizes_share_kernels() {
    one_way::<6, 4, 6>([0, 1, 2, 3, 4, 5], &[0, 1, 2, 3, 4, 5]);
    one_way::<5, 3, 5>([0, 1, 2, 3, 5], &[0, 1, 2, 3, 4]);
    one_way::<4, 2, 4>([0, 1, 2, 5], &[0, 1, 2, 3]);
    one_way::<4, 4, 5>([0, 1, 3, 4, 5], &[0, 1, 1, 2, 2, 3]);
    one_way::<3, 2, 3>([0, 1, 5], &[0, 1, 1, 2]);
}

#[test]
fn conv3x3_stride_2() {
    for window in [Window::HalfSymmetric, Window::HalfRightBottom] {
        // square: candle's gradient takes the padding below for that on the right as well
        for shape in SHAPES.into_iter().filter(|s| s.2 == s.3) {
            conv_case(Path::Fast, DIRECT, window, shape, 0.0);
        }
    }
}

#[test]
fn conv3x3_of_doubled_pixels() {
    for shape in SHAPES {
        conv_case(Path::Exact, DIRECT, Window::Doubled, shape, 0.0);
        conv_case(Path::Fast, WINOGRAD, Window::Doubled, shape, 3.0);
    }
}

#[test]
fn conv1x1() {
    for (ci, co, h, w) in SHAPES {
        let inputs = [random(&[2, ci, h, w], 0, 1.0, 0.0), random(&[co, ci], 1, 0.2, 0.0), random(&[co], 2, 1.0, 0.0)];
        compare(&format!("conv1x1 {ci} {co}"), &inputs, Path::Fast, DIRECT, &|x, path| {
            Conv1x1::new(x[1].clone(), x[2].clone()).forward(&Map::from_nchw(&x[0], path)?)?.to_nchw()
        });
    }
}

#[test]
fn silu_of_vectors() {
    for (n, c) in [(1, 32), (16, 128), (5, 3)] {
        let x = [random(&[n, c], 0, 4.0, 0.0)];
        compare(&format!("silu {n} {c}"), &x, Path::Fast, DIRECT, &|x, path| match path {
            Path::Candle => x[0].silu(),
            Path::Fast | Path::Exact => silu(&x[0]),
        });
    }
}

#[test]
fn linear() {
    for (n, ci, co) in [(1, 32, 128), (16, 128, 64), (5, 7, 3)] {
        let [x, w, b] = [random(&[n, ci], 0, 1.0, 0.0), random(&[co, ci], 1, 0.2, 0.0), random(&[co], 2, 1.0, 0.0)];
        compare(&format!("linear {n} {ci} {co}"), &[x, w, b], Path::Fast, DIRECT, &|x, path| match path {
            Path::Candle => x[0].matmul(&x[1].t()?)?.broadcast_add(&x[2]),
            _ => Linear::new(x[1].clone(), x[2].clone()).forward(&x[0]),
        });
    }
}

#[test]
fn group_norm() {
    for (c, groups, h, w) in
        [(32, 8, 28, 28), (64, 8, 7, 7), (96, 8, 14, 14), (8, 8, 7, 7), (24, 3, 5, 3), (3, 1, 9, 2)]
    {
        let inputs = [random(&[2, c, h, w], 0, 2.0, 1.5), random(&[c], 1, 1.0, 0.0), random(&[c], 2, 1.0, 0.0)];
        for silu in [false, true] {
            let name = format!("group norm {c} channels, {groups} groups, SiLU {silu}");
            compare(&name, &inputs, Path::Fast, DIRECT, &|x, path| {
                let norm = GroupNorm::new(x[1].clone(), x[2].clone(), groups, 1e-6);
                let x = Map::from_nchw(&x[0], path)?;
                if silu { norm.forward_silu(&x) } else { norm.forward(&x) }?.to_nchw()
            });
        }
    }
}

#[test]
fn attention_and_layout() {
    let small = [(64, 1, 7, 7), (64, 8, 4, 4), (16, 2, 5, 3), (24, 3, 7, 7), (3, 1, 2, 1)];
    // in pieces, and with weights that are computed again for the gradients
    let large = [(128, 2, 16, 16), (32, 2, 17, 17), (64, 1, 32, 32)];
    for (c, heads, h, w) in small.into_iter().chain(large) {
        let inputs: Vec<Tensor> = (0..3).map(|i| random(&[2, c, h, w], i, 1.5, 0.3)).collect();
        compare(&format!("attention {c} {heads}"), &inputs, Path::Fast, DIRECT, &|x, path| {
            let [q, k, v] = [0, 1, 2].map(|i| Map::from_nchw(&x[i], path).unwrap());
            self_attention::among_pixels(&q, &k, &v, heads)?.to_nchw()
        });
        let mask = random(&[2, 2 * c + 5, h, w], 4, 1.0, 0.0);
        compare(&format!("layout {c}"), &inputs[..2], Path::Fast, DIRECT, &|x, path| {
            let (a, b) = (Map::from_nchw(&x[0], path)?, Map::from_nchw(&x[1], path)?);
            let extra = Map::from_nchw(&random(&[2, 5, h, w], 5, 1.0, 0.0).to_dtype(x[0].dtype())?, path)?;
            let all = a.add(&b)?.scale(0.7)?.concat(&extra)?.concat(&b)?;
            assert_eq!(all.dims()?, (2, 2 * c + 5, h, w));
            all.mask(&mask.to_dtype(x[0].dtype())?)?.to_nchw()
        });
    }
}

/// The maps to q, k, v and out, and the number of heads, as [`SelfAttention`] has them; `w` are seven weights and biases
/// without k's bias.
fn self_attention_of(w: &[Tensor], heads: usize) -> SelfAttention {
    let k_bias = random(&[w[0].dims()[0]], 20, 1.0, 0.0).to_dtype(w[0].dtype()).unwrap();
    let map = |weight: usize, bias: &Tensor| Conv1x1::new(w[weight].clone(), bias.clone());
    SelfAttention::new([map(0, &w[1]), map(2, &k_bias), map(3, &w[4]), map(5, &w[6])], heads)
}

/// One head that is folded, one among too few pixels for that in training, two heads, and fewer channels inside.
#[test]
fn self_attention_with_fewer_maps() {
    for (c, inner, heads, h, w) in
        [(64, 64, 1, 7, 7), (24, 24, 1, 4, 5), (64, 64, 1, 3, 3), (32, 32, 2, 5, 5), (24, 16, 1, 6, 6)]
    {
        let weight = |out: usize, input: usize, i| random(&[out, input], i, (input as f32).sqrt().recip(), 0.0);
        let bias = |out: usize, i| random(&[out], i, 1.0, 0.0);
        let inputs = [
            random(&[2, c, h, w], 0, 1.0, 0.2),
            weight(inner, c, 1),
            bias(inner, 2),
            weight(inner, c, 3),
            weight(inner, c, 4),
            bias(inner, 5),
            weight(c, inner, 6),
            bias(c, 7),
        ];
        let run = |x: &[Tensor], path| {
            let map = Map::from_nchw(&x[0], path)?;
            self_attention_of(&x[1..], heads).forward_plus(&map, &map.scale(0.5)?)?.to_nchw()
        };
        compare(&format!("self-attention {c} {inner} {heads} {h}x{w}"), &inputs, Path::Fast, DIRECT, &run);
        let (worst, typical) = errors(&run(&inputs, Path::Fast).unwrap(), &run(&inputs, Path::Candle).unwrap());
        assert!(worst <= DIRECT.0 && typical <= DIRECT.1, "{c} as sampled: max {worst:.2e}, rms {typical:.2e}");
    }
}

/// It adds the same to all scores of a pixel.
#[test]
fn the_bias_of_keys_has_no_gradient() {
    let c = 16;
    let w: Vec<Tensor> = (0..8).map(|i| random(&[c, c][..2 - i % 2], i, 0.3, 0.0)).collect();
    let x = random(&[2, c, 5, 5], 9, 1.0, 0.0);
    let output = || {
        let map = |i: usize| Conv1x1::new(w[i].clone(), w[i + 1].clone());
        let map_of_x = Map::from_nchw(&x, Path::Fast)?;
        SelfAttention::new([map(0), map(2), map(4), map(6)], 1).forward_plus(&map_of_x, &map_of_x)?.to_nchw()
    };
    let (_, all) = super::gradients(Path::Fast, &w, output, |y| Ok(((), y.clone()))).unwrap();
    let nothing: Vec<bool> = all.iter().map(|g| values(g).iter().all(|v| *v == 0.0)).collect();
    assert_eq!(nothing, [false, false, false, true, false, false, false, false]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let of = |shape: [usize; 4]| (vec![1.0; shape.iter().product()], shape);
    let (x, weight, grad) = (of([1, 8, 8, 16]), of([16, 16, 3, 3]), of([1, 1, 1, 16]));
    let trial = trial::Trial::new(x, weight, grad, Some(Window::Same), Path::Fast).unwrap();
    assert!(trial.backward(true, true).unwrap_err().to_string().contains("does not fit"));
    let map = Map::from_nchw(&random(&[1, 4, 3, 3], 0, 1.0, 0.0), Path::Fast).unwrap();
    assert!(map.mask(&random(&[1, 4, 3, 2], 1, 1.0, 0.0)).is_err());
}

/// Scores that overflow must not become a picture.
#[test]
fn attention_of_no_numbers_is_no_number() {
    for (bad, pixels) in [(1e20, 16), (f32::NAN, 5), (f32::NEG_INFINITY, 33)] {
        let x = |i| Map::from_nchw(&random(&[1, 16, 1, pixels], i, 1.0, 0.0), Path::Fast).unwrap();
        let huge = Map::from_nchw(&random(&[1, 16, 1, pixels], 0, bad, 0.0), Path::Fast).unwrap();
        let y = values(&self_attention::among_pixels(&huge, &huge, &x(1), 2).unwrap().to_nchw().unwrap());
        assert!(y.iter().all(|v| v.is_nan()), "{bad} in {pixels} pixels");
        let y = values(&self_attention::among_pixels(&x(2), &x(3), &x(1), 2).unwrap().to_nchw().unwrap());
        assert!(y.iter().all(|v| v.is_finite()));
    }
}

/// Channels that lie apart, and maps that several layers read, or one layer twice.
#[test]
fn concatenations() {
    for channels in [&[16, 8][..], &[7, 17], &[17, 7], &[32, 16, 8], &[5], &[12, 12]] {
        let c: usize = channels.iter().sum();
        let groups = if c.is_multiple_of(8) { 8 } else { 1 };
        let mut inputs = vec![
            random(&[c], 20, 1.0, 0.0),
            random(&[c], 21, 1.0, 0.0),
            random(&[c, c], 22, 0.2, 0.0),
            random(&[c], 23, 1.0, 0.0),
        ];
        inputs.extend(channels.iter().enumerate().map(|(i, c)| random(&[2, *c, 5, 6], i, 1.5, 0.3)));
        for twice in [false, true] {
            compare(&format!("{channels:?}, twice {twice}"), &inputs, Path::Fast, DIRECT, &|x, path| {
                let maps = x[4..].iter().map(|x| Map::from_nchw(x, path)).collect::<Result<Vec<_>>>()?;
                let (first, rest) = maps.split_first().unwrap();
                let x_in = rest.iter().try_fold(first.clone(), |all, map| all.concat(map))?;
                let conv = Conv1x1::new(x[2].clone(), x[3].clone());
                let y = conv.forward(&GroupNorm::new(x[0].clone(), x[1].clone(), groups, 1e-6).forward_silu(&x_in)?)?;
                // what is read twice, what is added to itself, and what is beside itself
                let y = conv.forward_plus(&x_in, if twice { &x_in } else { &y })?.concat(&y)?.concat(&y)?;
                Map::from_nchw(&y.to_nchw()?, path)?.to_nchw()
            });
        }
    }
}

/// (f(x + h d) − f(x − h d)) / 2h along random directions d, against the gradient.
fn finite_differences(inputs: &[Tensor], f: Operation) {
    let gradients = evaluate(inputs, Path::Fast, f);
    let loss = |inputs: &[Tensor]| -> f64 {
        let y = f(inputs, Path::Fast).unwrap();
        let weights = random(y.dims(), 99, 1.0, 0.0);
        values(&y).iter().zip(values(&weights)).map(|(a, b)| f64::from(*a) * f64::from(b)).sum()
    };
    for (i, gradient) in gradients.iter().skip(1).enumerate() {
        let direction = random(gradient.dims(), 50 + i, 1.0, 0.0);
        let step = 3e-3;
        let moved = |h: f64| {
            let mut inputs = inputs.to_vec();
            inputs[i] = (&inputs[i] + (&direction * h).unwrap()).unwrap();
            loss(&inputs)
        };
        let slope = (moved(step) - moved(-step)) / (2.0 * step);
        let want: f64 =
            values(gradient).iter().zip(values(&direction)).map(|(a, b)| f64::from(*a) * f64::from(b)).sum();
        let size = values(gradient).iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        assert!((slope - want).abs() < 3e-3 * size, "input {i}: {slope} but gradient {want} (size {size})");
    }
}

#[test]
fn gradients_are_slopes() {
    let norm = [random(&[2, 16, 5, 5], 0, 1.0, 0.5), random(&[16], 1, 1.0, 0.0), random(&[16], 2, 1.0, 0.0)];
    finite_differences(&norm, &|x, path| {
        let norm = GroupNorm::new(x[1].clone(), x[2].clone(), 4, 1e-6);
        norm.forward_silu(&Map::from_nchw(&x[0], path)?)?.to_nchw()
    });
    let maps: Vec<Tensor> = (0..3).map(|i| random(&[1, 16, 4, 4], i, 1.0, 0.0)).collect();
    finite_differences(&maps, &|x, path| {
        let [q, k, v] = [0, 1, 2].map(|i| Map::from_nchw(&x[i], path).unwrap());
        self_attention::among_pixels(&q, &k, &v, 2)?.to_nchw()
    });
}

/// All operations in a row, with 64 channels and odd sizes.
fn everything(x: &Tensor, path: Path) -> Result<Tensor> {
    let w = |shape: &[usize], i| random(shape, i, 0.06, 0.0);
    let x = Map::from_nchw(x, path)?;
    let h = Conv3x3::new(w(&[64, 1, 3, 3], 1), w(&[64], 2), Window::Same).forward(&x)?;
    let h = GroupNorm::new(w(&[64], 3), w(&[64], 4), 8, 1e-6).forward_silu(&h)?;
    let h = Conv3x3::new(w(&[64, 64, 3, 3], 5), w(&[64], 6), Window::Same).forward(&h)?;
    let h = Conv3x3::new(w(&[64, 64, 3, 3], 7), w(&[64], 8), Window::HalfRightBottom).forward(&h)?;
    let h = h.add(&Conv3x3::new(w(&[64, 64, 3, 3], 7), w(&[64], 8), Window::Same).forward(&h)?)?;
    let h = h.add(&self_attention::among_pixels(&h, &h, &h, 2)?)?;
    let folded: Vec<Tensor> =
        (0..7).map(|i| w(if [0, 2, 3, 5].contains(&i) { &[64, 64] } else { &[64] }, 30 + i)).collect();
    let h = self_attention_of(&folded, 1).forward_plus(&h, &h)?;
    let h = Conv1x1::new(w(&[32, 64], 9), w(&[32], 10)).forward(&h)?;
    let both = GroupNorm::new(w(&[64], 14), w(&[64], 15), 8, 1e-6).forward(&h.concat(&h.scale(0.5)?)?)?;
    let h = Conv1x1::new(w(&[32, 64], 16), w(&[32], 17)).forward_plus(&both, &h)?;
    let h = Conv3x3::new(w(&[32, 32, 3, 3], 12), w(&[32], 13), Window::Doubled).forward(&h)?;
    let h = h.concat(&h)?;
    Conv3x3::new(w(&[1, 64, 3, 3], 11), w(&[1], 12), Window::Same).forward(&h)?.to_nchw()
}

#[test]
fn threads_change_no_bit() {
    // the last has so few tiles that threads share output channels instead
    for shape in [[1, 1, 28, 26], [5, 1, 28, 26], [9, 1, 13, 15], [1, 1, 8, 6]] {
        let x = random(&shape, 0, 1.0, 0.0);
        for path in [Path::Fast, Path::Exact] {
            let run = |threads| {
                let y = Team::new(threads, || ()).unwrap().lead(|| everything(&x, path).unwrap());
                values(&y).iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            };
            let one = run(1);
            assert_eq!(one, run(2));
            assert_eq!(one, run(3));
        }
    }
}

/// Runs `f` on one thread with no better instructions than `level`.
fn limited<R>(level: simd::Level, f: impl FnOnce() -> R) -> R {
    simd::LIMIT.set(Some(level));
    let result = f();
    simd::LIMIT.set(None);
    result
}

/// What lesser processors than this one have.
fn lesser_levels() -> impl Iterator<Item = simd::Level> {
    let levels = [
        simd::Level::Portable,
        #[cfg(target_arch = "x86_64")]
        simd::Level::Avx2,
    ];
    levels.into_iter().filter(|level| *level < simd::level())
}

/// The versions for lesser processors than this one pass the same tests.
#[test]
fn lesser_processors() {
    for level in lesser_levels() {
        limited(level, || {
            group_norm();
            attention_and_layout();
            self_attention_with_fewer_maps();
            conv1x1();
            conv3x3_stride_2();
            concatenations();
            silu_of_vectors();
            linear();
            for shape in SHAPES {
                conv_case(Path::Exact, DIRECT, Window::Same, shape, 0.0);
                conv_case(Path::Fast, WINOGRAD, Window::Same, shape, 0.0);
                conv_case(Path::Fast, WINOGRAD, Window::Doubled, shape, 0.0);
            }
        });
    }
}

/// Wider vectors change no bit.
#[test]
#[cfg(target_arch = "x86_64")]
fn avx512_gives_the_bytes_of_avx2() {
    if simd::level() < simd::Level::Avx512 {
        eprintln!("SKIPPED: this processor has no AVX-512");
        return;
    }
    let x = random(&[2, 1, 28, 26], 0, 1.0, 0.0);
    for path in [Path::Fast, Path::Exact] {
        let run = |level| {
            let x = std::slice::from_ref(&x);
            let f = |x: &[Tensor], path| everything(&x[0], path);
            limited(level, || [evaluate(x, path, &f), evaluate_as_trained(x, path, &f)].concat())
                .iter()
                .flat_map(values)
                .map(f32::to_bits)
                .collect::<Vec<_>>()
        };
        assert_eq!(run(simd::Level::Avx512), run(simd::Level::Avx2));
    }
}

/// Algorithm 1 of Kingma & Ba 2015 and the moving average, written out in f64.
#[test]
fn adam_follows_its_algorithm() {
    let len = 40_003;
    let mut inputs: Vec<Tensor> = (0..5).map(|i| random(&[len], i, 1.0, 0.0)).collect();
    inputs[3] = (inputs[3].sqr().unwrap() + 0.01).unwrap();
    let (step, alpha, eps) = (3, 0.01, 1e-8);
    let [beta1, beta2] = [0.9f32, 0.999].map(f64::from);
    let numbers = optimizer::Adam {
        grad_scale: 0.5,
        beta1: beta1 as f32,
        beta2: beta2 as f32,
        eps: eps as f32,
        rate: (alpha / (1.0 - f64::powi(beta1, step))) as f32,
        root: (1.0 / (1.0 - f64::powi(beta2, step)).sqrt()) as f32,
        ema_decay: 0.75,
    };
    let [g, p, m, v, ema] = [0, 1, 2, 3, 4].map(|i: usize| values(&inputs[i]));
    let mut want = [(); 4].map(|()| Vec::new());
    for [g, p, m, v, ema] in (0..len).map(|i| [g[i] * 0.5, p[i], m[i], v[i], ema[i]].map(f64::from)) {
        let (m, v) = (beta1 * m + (1.0 - beta1) * g, beta2 * v + (1.0 - beta2) * g * g);
        let (m_hat, v_hat) = (m / (1.0 - f64::powi(beta1, step)), v / (1.0 - f64::powi(beta2, step)));
        let p = p - alpha * m_hat / (v_hat.sqrt() + eps);
        for (to, value) in want.iter_mut().zip([p, m, v, 0.75 * ema + 0.25 * p]) {
            to.push(value as f32);
        }
    }
    let state = || [&inputs[1], &inputs[2], &inputs[3], &inputs[4]];
    let bits = |got: &[Tensor; 4]| got.iter().flat_map(values).map(f32::to_bits).collect::<Vec<_>>();
    let on_one_thread = |level| {
        let (got, [weights, moved]) = limited(level, || optimizer::adam(&inputs[0], state(), &numbers).unwrap());
        let (old, new) = (values(&inputs[1]), values(&got[0]));
        let square = |x: f32| f64::from(x) * f64::from(x);
        let differences = old.iter().zip(&new).map(|(old, new)| square(new - old));
        assert!((weights / new.iter().map(|x| square(*x)).sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((moved / differences.sum::<f64>() - 1.0).abs() < 1e-12);
        for (got, want) in got.iter().zip(&want) {
            let (worst, _) = errors(got, &Tensor::new(&want[..], &Device::Cpu).unwrap());
            assert!(worst < 2e-6, "{level:?}: {worst:.2e}");
        }
        (got, [weights, moved])
    };
    lesser_levels().for_each(|level| drop(on_one_thread(level)));
    let (got, [weights, moved]) = on_one_thread(simd::level());
    let (shared, squares) =
        Team::new(3, || ()).unwrap().lead(|| optimizer::adam(&inputs[0], state(), &numbers).unwrap());
    assert_eq!((bits(&got), [weights, moved]), (bits(&shared), squares));
    // a number's place decides whether it is left over by the vectors, never its value
    let moved: Vec<Tensor> = inputs.iter().map(|x| x.narrow(0, 3, len - 3).unwrap().copy().unwrap()).collect();
    let (moved, _) = optimizer::adam(&moved[0], [&moved[1], &moved[2], &moved[3], &moved[4]], &numbers).unwrap();
    assert_eq!(bits(&got.map(|x| x.narrow(0, 3, len - 3).unwrap())), bits(&moved));
}

#[test]
fn exp_is_accurate() {
    use simd::Simd as _;
    let exp = |x: f32| {
        let mut y = 0.0;
        // SAFETY: one number at a time needs no special instructions, and `y` has room for it.
        unsafe { pixels::exp(simd::Plain::<1, false>::splat(x)).store(&raw mut y) };
        y
    };
    for i in -86_900..=86_900 {
        let x = i as f32 * 1e-3;
        let want = f64::from(x).exp();
        assert!((f64::from(exp(x)) / want - 1.0).abs() < 4e-7, "exp({x})");
    }
    assert!(exp(-1e9) < 1e-37 && exp(1e9) > 1e37);
}
