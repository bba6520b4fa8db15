//! What travels inside an exported file: all that makes the film again, and whose weights it needs.

use super::{
    BetaSchedule, Fork, ForwardRequest, ForwardSource, Predictor, SampleRequest, SamplerKind, ScheduleConfig, Variance,
    Which,
};
use crate::diffusion::reel::MOST_BRANCHES;
use crate::error::{Error, Result};
use crate::model::Params;
use serde_json::{Value, json};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// How every recipe begins, in whatever file it lies.
const MARKER: &str = "{\"ddpm-film\":";
/// A recipe is looked for in so much of a file, and in so much of its end.
const LOOK: u64 = 64 << 20;
const LOOK_AT_END: u64 = 2 * LONGEST as u64;
/// Bytes that a recipe may have.
const LONGEST: usize = 1 << 20;

/// A film of both processes: what was asked for, and of which model. A branch is the last of the films that leave each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Short name of the model.
    pub model: String,
    /// [`weights_hash`] of its EMA weights.
    pub hash: String,
    /// Training steps behind it, where known.
    pub step: Option<u64>,
    /// The reverse film.
    pub sample: SampleRequest,
    /// How a branch of it leaves it, and the next leaves that.
    pub forks: Vec<Fork>,
    /// The forward film.
    pub forward: ForwardRequest,
}

/// FNV-1a over the bits of all weights in order, as sixteen hexadecimal digits.
///
/// # Errors
/// If the device does not give them back.
pub fn weights_hash(params: &Params) -> Result<String> {
    let hash = params
        .to_flat()?
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, v| (hash ^ u64::from(v.to_bits())).wrapping_mul(0x0000_0100_0000_01b3));
    Ok(format!("{hash:016x}"))
}

impl Recipe {
    /// The recipe as one line of JSON in ASCII.
    pub fn to_text(&self) -> String {
        let s = &self.sample;
        let (sampler, variance, eta) = rule(s.sampler);
        let forks: Vec<Value> = self.forks.iter().map(fork).collect();
        let source = match &self.forward.source {
            ForwardSource::Data => json!("data"),
            ForwardSource::Photo(i) => json!({ "photo": i }),
            ForwardSource::File(path) => json!({ "file": path.to_string_lossy() }),
            ForwardSource::Drawn(bytes) => json!({ "drawn": to_hex(bytes) }),
        };
        // as words, for a parser of JSON numbers may round the last digit
        let schedule = self.forward.schedule.map(|c| {
            let betas = [c.beta_start, c.beta_end].map(|beta| beta.to_string());
            json!({ "name": c.kind.name(), "steps": c.steps, "betas": betas })
        });
        let value = json!({
            "ddpm-film": 1, "model": self.model, "weights": self.hash, "step": self.step, "predictor": name(s.predictor),
            "seed": s.seed, "first": s.first, "n": s.n, "sampler": sampler, "variance": variance, "eta": eta,
            "steps": s.steps, "clip": s.clip, "source": source, "schedule": schedule,
            "from": s.from.as_ref().map(|(_, doses)| doses), "forks": forks,
        });
        // what is not ASCII is escaped, so that every format can hold it
        let text = value.to_string();
        text.chars().fold(String::new(), |mut out, c| {
            if c.is_ascii() {
                out.push(c);
            } else {
                let mut units = [0; 2];
                out.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
            }
            out
        })
    }

    fn from_value(value: &Value) -> Option<Self> {
        if value["ddpm-film"] != 1 {
            return None;
        }
        let number = |name: &str| value[name].as_u64();
        let n = usize::try_from(number("n")?).ok()?;
        let seed = number("seed")?;
        let (predictor, sampler) = (predictor(value)?, sampler(value)?);
        let forks = match &value["forks"] {
            Value::Null => Vec::new(),
            forks => {
                let forks = forks.as_array().filter(|forks| forks.len() <= MOST_BRANCHES)?;
                forks.iter().map(read_fork).collect::<Option<_>>()?
            }
        };
        let source = match (&value["source"], &value["source"]["photo"], &value["source"]["file"]) {
            (Value::String(data), ..) if data == "data" => ForwardSource::Data,
            (_, Value::Number(i), _) => ForwardSource::Photo(usize::try_from(i.as_u64()?).ok()?),
            (.., Value::String(path)) => ForwardSource::File(path.into()),
            _ => ForwardSource::Drawn(from_hex(value["source"]["drawn"].as_str()?)?),
        };
        let from = match &value["from"] {
            Value::Null => None,
            doses => Some((source.clone(), usize::try_from(doses.as_u64()?).ok()?)),
        };
        let steps = match &value["steps"] {
            Value::Null => None,
            steps => Some(usize::try_from(steps.as_u64()?).ok()?),
        };
        let schedule = match &value["schedule"] {
            Value::Null => None,
            s => {
                let beta = |i: usize| s["betas"][i].as_str()?.parse().ok();
                Some(ScheduleConfig {
                    kind: BetaSchedule::from_name(s["name"].as_str()?)?,
                    steps: usize::try_from(s["steps"].as_u64()?).ok()?,
                    beta_start: beta(0)?,
                    beta_end: beta(1)?,
                })
            }
        };
        let which = Which::Loaded;
        Some(Self {
            model: value["model"].as_str()?.to_owned(),
            hash: value["weights"].as_str()?.to_owned(),
            step: number("step"),
            sample: SampleRequest {
                which,
                predictor,
                seed,
                first: number("first")?,
                n,
                sampler,
                steps,
                clip: value["clip"].as_bool()?,
                from,
                every_frame: true,
            },
            forks,
            forward: ForwardRequest { which, schedule, seed, n, source },
        })
    }

    /// The recipe inside a file that this program exported; `None` in any other.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let unreadable =
            |e: std::io::Error| Error::new("cannot open the file", e.to_string(), "check its name and rights").at(path);
        // a device or a pipe might never end
        if !path.metadata().map_err(unreadable)?.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let mut file = std::fs::File::open(path).map_err(unreadable)?;
        let read = file.by_ref().take(LOOK).read_to_end(&mut bytes).map_err(unreadable)?;
        let found = Self::find(&bytes);
        if found.is_some() || (read as u64) < LOOK {
            return Ok(found);
        }
        // a WebP has it at its end
        bytes.clear();
        file.seek(SeekFrom::End(-(LOOK_AT_END as i64))).map_err(unreadable)?;
        file.take(LOOK_AT_END).read_to_end(&mut bytes).map_err(unreadable)?;
        Ok(Self::find(&bytes))
    }

    fn find(bytes: &[u8]) -> Option<Self> {
        let at = bytes.windows(MARKER.len()).position(|part| part == MARKER.as_bytes())?;
        // a GIF cuts a comment into blocks that each begin with their length
        let text = match at.checked_sub(3).map(|start| &bytes[start..at]) {
            Some([0x21, 0xfe, _]) => {
                let (mut text, mut next) = (Vec::new(), at - 1);
                while let Some(&len) = bytes.get(next).filter(|len| **len > 0 && text.len() < LONGEST) {
                    text.extend_from_slice(bytes.get(next + 1..next + 1 + usize::from(len))?);
                    next += 1 + usize::from(len);
                }
                text
            }
            _ => bytes[at..].iter().take(LONGEST).copied().collect(),
        };
        // what follows in the file is not its business
        let value = serde_json::Deserializer::from_slice(&text).into_iter::<Value>().next()?.ok()?;
        Self::from_value(&value)
    }
}

/// Name, σ² and η.
fn rule(sampler: SamplerKind) -> (&'static str, &'static str, f64) {
    match sampler {
        SamplerKind::Ddpm { variance: Variance::FixedSmall } => ("ddpm", "fixed_small", 0.0),
        SamplerKind::Ddpm { variance: Variance::FixedLarge } => ("ddpm", "fixed_large", 0.0),
        SamplerKind::Ddim { eta } => ("ddim", "", eta),
    }
}

fn sampler(value: &Value) -> Option<SamplerKind> {
    Some(match (value["sampler"].as_str()?, value["variance"].as_str()?) {
        ("ddpm", "fixed_small") => SamplerKind::Ddpm { variance: Variance::FixedSmall },
        ("ddpm", "fixed_large") => SamplerKind::Ddpm { variance: Variance::FixedLarge },
        ("ddim", _) => SamplerKind::Ddim { eta: value["eta"].as_f64()? },
        _ => return None,
    })
}

fn name(predictor: Predictor) -> &'static str {
    match predictor {
        Predictor::Ema => "ema",
        Predictor::Raw => "raw",
        Predictor::Oracle => "oracle",
    }
}

fn predictor(value: &Value) -> Option<Predictor> {
    let all = [Predictor::Ema, Predictor::Raw, Predictor::Oracle];
    all.into_iter().find(|predictor| value["predictor"] == name(*predictor))
}

fn fork(fork: &Fork) -> Value {
    let (sampler, variance, eta) = rule(fork.sampler);
    json!({
        "t": fork.doses, "predictor": name(fork.predictor), "seed": fork.seed, "sampler": sampler, "variance": variance,
        "eta": eta, "clip": fork.clip,
    })
}

fn read_fork(value: &Value) -> Option<Fork> {
    Some(Fork {
        doses: usize::try_from(value["t"].as_u64()?).ok()?,
        predictor: predictor(value)?,
        sampler: sampler(value)?,
        clip: value["clip"].as_bool()?,
        seed: value["seed"].as_u64()?,
    })
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Arc<[u8]>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            model: "größe \"28\"".into(),
            hash: "0123456789abcdef".into(),
            step: Some(6000),
            sample: SampleRequest {
                which: Which::Loaded,
                predictor: Predictor::Raw,
                seed: u64::MAX,
                first: 0,
                n: 9,
                sampler: SamplerKind::Ddim { eta: 0.25 },
                steps: Some(50),
                clip: false,
                from: None,
                every_frame: true,
            },
            forks: Vec::new(),
            forward: ForwardRequest {
                which: Which::Loaded,
                schedule: Some(ScheduleConfig { steps: 77, beta_start: 0.1 + 0.2, ..Default::default() }),
                seed: u64::MAX,
                n: 9,
                source: ForwardSource::File("/tmp/a very long name/🐈".repeat(20).into()),
            },
        }
    }

    #[test]
    fn a_recipe_survives_every_way_of_being_stored() {
        let drawing = ForwardSource::Drawn((0..=255).collect());
        for (sampler, source, steps, from) in [
            (SamplerKind::Ddim { eta: 0.25 }, recipe().forward.source, Some(50), Some(700)),
            (SamplerKind::Ddim { eta: 0.0 }, drawing, Some(50), Some(1)),
            (SamplerKind::Ddpm { variance: Variance::FixedSmall }, ForwardSource::Data, None, None),
            (SamplerKind::Ddpm { variance: Variance::FixedLarge }, ForwardSource::Photo(1), Some(1), None),
        ] {
            let mut recipe = recipe();
            (recipe.sample.sampler, recipe.sample.steps, recipe.forward.source) = (sampler, steps, source);
            recipe.sample.from = from.map(|doses| (recipe.forward.source.clone(), doses));
            let fork = Fork { doses: 40, predictor: Predictor::Oracle, sampler, clip: true, seed: u64::MAX };
            recipe.forks = from.map_or_else(Vec::new, |_| vec![fork, Fork { clip: false, doses: 7, ..fork }]);
            let text = recipe.to_text();
            assert!(text.starts_with(MARKER) && text.is_ascii());
            let mut plain = b"some header\0".to_vec();
            plain.extend_from_slice(text.as_bytes());
            plain.extend_from_slice(b"\xff\xfe{ more } bytes");
            assert_eq!(Recipe::find(&plain).as_ref(), Some(&recipe));
            let mut gif = b"GIF89a".to_vec();
            gif.extend([0x21, 0xfe]);
            for block in text.as_bytes().chunks(255) {
                gif.push(block.len() as u8);
                gif.extend_from_slice(block);
            }
            gif.extend([0, 0x3b]);
            assert_eq!(Recipe::find(&gif).as_ref(), Some(&recipe));
        }
    }

    #[test]
    fn a_recipe_at_the_end_of_a_long_file_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.webp");
        let mut file = std::fs::File::create(&path).unwrap();
        file.seek(SeekFrom::Start(LOOK + 10 * LOOK_AT_END)).unwrap();
        std::io::Write::write_all(&mut file, recipe().to_text().as_bytes()).unwrap();
        assert_eq!(Recipe::read(&path).unwrap(), Some(recipe()));
        file.set_len(LOOK).unwrap();
        assert_eq!(Recipe::read(&path).unwrap(), None);
    }

    #[test]
    fn other_and_damaged_files_hold_no_recipe() {
        let text = recipe().to_text();
        for bytes in [&b""[..], b"{\"ddpm-film\":", b"{\"ddpm-film\":2}", b"{\"ddpm-film\":1}", &text.as_bytes()[..60]]
        {
            assert_eq!(Recipe::find(bytes), None);
        }
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Recipe::read(folder.path()).unwrap(), None);
        assert!(Recipe::read(&folder.path().join("none.gif")).is_err());
    }
}
