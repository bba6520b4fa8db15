//! TEMPORARY stand-in.
use crate::diffusion::Images;
use crate::diffusion::noise::{Purpose, stream};
use crate::error::Result;
use std::path::PathBuf;
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Mnist,
    Path(PathBuf),
}
#[allow(missing_docs)]
impl Source {
    pub fn parse(s: &str) -> Self {
        if s == "mnist" { Self::Mnist } else { Self::Path(s.into()) }
    }
}
#[allow(missing_docs)]
pub struct Dataset {
    pub name: String,
    pub shape: [usize; 3],
    pub pixels: Vec<u8>,
    pub skipped: Vec<(PathBuf, String)>,
}
#[allow(missing_docs)]
impl Dataset {
    pub fn load(_s: &Source, shape: [usize; 3], _p: &dyn Fn(usize, usize) -> bool) -> Result<Self> {
        use std::io::Read as _;
        let mut b = Vec::new();
        flate2::read::GzDecoder::new(&include_bytes!("../../assets/mnist/train-images-idx3-ubyte.gz")[..])
            .read_to_end(&mut b)
            .unwrap();
        let pixels = if shape == [1, 28, 28] {
            b[16..].to_vec()
        } else {
            b[16..16 + 60000 * 3].repeat(shape.iter().product::<usize>() / 3)
        };
        Ok(Self { name: "MNIST".into(), shape, pixels, skipped: vec![] })
    }
    pub fn len(&self) -> usize {
        60000
    }
    pub fn images(&self, idx: &[usize]) -> Images {
        let l: usize = self.shape.iter().product();
        Images::new(
            idx.len(),
            self.shape,
            idx.iter().flat_map(|&i| self.pixels[i * l..][..l].iter().map(|&v| f32::from(v) / 127.5 - 1.0)).collect(),
        )
    }
    pub fn batch(&self, seed: u64, step: u64, n: usize) -> Images {
        let mut s = stream(seed, Purpose::Shuffle, [step, 1]);
        let idx: Vec<usize> = (0..n).map(|_| s.below(60000)).collect();
        self.images(&idx)
    }
}
#[allow(missing_docs)]
pub fn photos() -> &'static [(&'static str, &'static [u8])] {
    &[]
}
#[allow(missing_docs)]
pub fn decode_picture(_n: &str, _b: &[u8], shape: [usize; 3]) -> Result<Images> {
    Ok(Images::zeros(1, shape))
}
#[allow(missing_docs)]
pub fn load_picture(_n: &std::path::Path, shape: [usize; 3]) -> Result<Images> {
    Ok(Images::zeros(1, shape))
}
