//! Models of the Hugging Face hub, fetched into the cache that all its programs share; what is there needs no network.

use super::{CONFIG, Files, SCHEDULERS, WEIGHTS, most_weights, read_config};
use crate::error::{Error, Kind, Result};
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::api::{Progress, RepoInfo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// The paper's own CIFAR-10 network.
pub const CIFAR10: &str = "google/ddpm-cifar10-32";
/// How long a model that is there waits for the hub's word on its schedule.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
/// What stands before the name of a model of the hub where a folder could stand, too.
const PREFIX: &str = "hf:";
const UNET: &str = "unet/";

/// The owner/name in "hf:owner/name".
pub fn name_in(path: &Path) -> Option<&str> {
    path.to_str()?.strip_prefix(PREFIX)
}

/// The owner/name of a folder in the cache.
pub fn name_of(folder: &Path) -> Option<String> {
    let snapshots = folder.parent().filter(|parent| parent.ends_with("snapshots"))?;
    let model = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
    Some(model.replacen("--", "/", 1))
}

/// A hub and the cache of what was fetched from it.
pub struct Hub {
    cache: Cache,
    endpoint: Option<String>,
}

impl Hub {
    /// As the environment says: `HF_HOME`, else `~/.cache/huggingface`, and `HF_ENDPOINT`, else huggingface.co.
    ///
    /// # Errors
    /// If there is no home folder.
    pub fn from_env() -> Result<Self> {
        if std::env::var_os("HF_HOME").is_none() && std::env::home_dir().is_none() {
            let why = "there is no home folder for the cache";
            return Err(Error::new("cannot fetch a model", why, "set HF_HOME to a folder"));
        }
        Ok(Self { cache: Cache::from_env(), endpoint: std::env::var("HF_ENDPOINT").ok() })
    }

    /// Another address than huggingface.co, with a cache of its own.
    pub fn at(endpoint: String, cache: PathBuf) -> Self {
        Self { cache: Cache::new(cache), endpoint: Some(endpoint) }
    }

    /// The folder of the model `owner/name`, from the cache or else from the hub: settings, weights as safetensors and
    /// the noise schedule, of the model itself or of the `unet` in a pipeline. `progress` hears (done, total) bytes and
    /// stops the download by answering false; it goes on from there the next time.
    ///
    /// # Errors
    /// The name is none, the hub has no such model or cannot be reached, it is a model that this program cannot run
    /// (which is found out before its weights are fetched), or the download broke off.
    pub fn fetch(&self, name: &str, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<PathBuf> {
        let part = |s: &str| {
            let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !s.is_empty() && s.chars().all(word) && !s.starts_with('.') && !s.contains("..")
        };
        if !name.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name)) {
            let why = format!("\"{name}\" is no name of a model");
            return Err(Error::usage(
                "cannot fetch the model",
                why,
                format!("write {PREFIX}owner/name, as {PREFIX}{CIFAR10}"),
            ));
        }
        let cache = self.cache.model(name.to_owned());
        let repo = |revision: &str| {
            let mut api = ApiBuilder::from_cache(self.cache.clone()).with_progress(false);
            if let Some(endpoint) = &self.endpoint {
                api = api.with_endpoint(endpoint.clone());
            }
            let api = api.build().map_err(|e| failed(name, &e))?;
            Ok::<_, Error>(Arc::new(api.repo(Repo::with_revision(
                name.to_owned(),
                RepoType::Model,
                revision.to_owned(),
            ))))
        };
        if let Some(folder) = cached(&cache) {
            if SCHEDULERS.iter().all(|path| cache.get(path).is_none()) {
                // another program fetched it without its schedule; of the very version that is there
                let repo = repo(&folder.file_name().unwrap_or_default().to_string_lossy())?;
                Fetch { name, repo, progress }.schedule()?;
            }
            return Ok(folder);
        }
        Fetch { name, repo: repo("main")?, progress }.all()?;
        cached(&cache).ok_or_else(|| cannot(name, "it was changed on the hub meanwhile", "try again"))
    }
}

/// The folder of a model that is in the cache with its settings and weights.
fn cached(cache: &CacheRepo) -> Option<PathBuf> {
    ["", UNET].iter().find_map(|unet| {
        cache.get(&format!("{unet}{WEIGHTS}"))?;
        let config = cache.get(&format!("{unet}{CONFIG}"))?;
        config.ancestors().nth(Path::new(unet).components().count() + 1).map(Path::to_owned)
    })
}

fn lists(info: &RepoInfo, path: &str) -> bool {
    info.siblings.iter().any(|file| file.rfilename == path)
}

fn cannot(name: &str, why: impl Into<String>, hint: &str) -> Error {
    Error::new(format!("cannot fetch {PREFIX}{name}"), why, hint)
}

fn failed(name: &str, e: &ApiError) -> Error {
    let text = e.to_string();
    let status = text.split("http status: ").nth(1).and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
    match (status, e) {
        // without a token the hub does not say whether a model is private or not there
        (Some(401 | 403 | 404), _) => cannot(name, "the hub has no such model, or it is not public", "check the name"),
        (Some(status), _) => cannot(name, format!("the hub answers with status {status}"), "try again later"),
        (None, ApiError::LockAcquisition(_)) => {
            cannot(name, "another program is fetching it", "try again when that is done")
        }
        (None, ApiError::RequestError(_)) => {
            let why = format!("the hub cannot be reached: {text}");
            cannot(name, why, "check the network; what was fetched before opens without it")
        }
        (None, _) => cannot(name, text, "try again; it goes on where it broke off"),
    }
}

struct Fetch<'a> {
    name: &'a str,
    repo: Arc<ApiRepo>,
    progress: &'a mut dyn FnMut(u64, u64) -> bool,
}

/// How far the download of a file is.
struct Download<'a> {
    progress: &'a mut dyn FnMut(u64, u64) -> bool,
    done: u64,
    total: u64,
    /// The most that such a file may hold.
    most: u64,
}

/// Why a download was left.
enum Left {
    Cancelled,
    TooLarge(u64),
}

impl Progress for &mut Download<'_> {
    fn init(&mut self, size: usize, _: &str) {
        (self.done, self.total) = (0, size as u64);
        if self.total > self.most {
            resume_unwind(Box::new(Left::TooLarge(self.total)));
        }
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        if !(self.progress)(self.done, self.total) {
            // the crate knows no other way to end a download; its lock goes, and the part that is there stays
            resume_unwind(Box::new(Left::Cancelled));
        }
    }

    fn finish(&mut self) {}
}

impl Fetch<'_> {
    fn all(&mut self) -> Result<()> {
        let name = self.name;
        let info = self.repo.info().map_err(|e| failed(name, &e))?;
        let has = |path: &str| lists(&info, path);
        let unet = if has(&format!("{UNET}{CONFIG}")) { UNET } else { "" };
        if !has(&format!("{unet}{CONFIG}")) {
            return Err(cannot(name, "it has no config.json", "choose a UNet2DModel or a DDPM pipeline of diffusers"));
        }
        let config = self.file(&format!("{unet}{CONFIG}"), 1 << 20)?;
        let folder = config.ancestors().nth(Path::new(unet).components().count() + 1).unwrap_or(&config);
        let (_, config) = read_config(&Files::folder(folder)?)?;
        let weights = format!("{unet}{WEIGHTS}");
        if !has(&weights) {
            let why = format!("it has no {WEIGHTS}, and pickled .bin weights can run any code");
            return Err(cannot(name, why, "open it in diffusers and save it again with save_pretrained"));
        }
        if let Some(schedule) = SCHEDULERS.iter().find(|path| has(path)) {
            self.file(schedule, 1 << 20)?;
        }
        self.file(&weights, most_weights(&config)).map(drop)
    }

    /// Its schedule alone, if it has one and the hub answers in time: a model that is there does not wait for it.
    fn schedule(&mut self) -> Result<()> {
        let repo = Arc::clone(&self.repo);
        let ask = thread::Builder::new().name("ddpm-hub".into()).spawn(move || repo.info().ok());
        let Ok(answer) = ask else { return Ok(()) };
        let asked = Instant::now();
        while !answer.is_finished() {
            if asked.elapsed() > PATIENCE {
                return Ok(());
            }
            if !(self.progress)(0, 0) {
                return Err(Error::cancelled());
            }
            thread::sleep(POLL);
        }
        let Ok(Some(info)) = answer.join() else { return Ok(()) };
        match SCHEDULERS.iter().find(|path| lists(&info, path)).map(|path| self.file(path, 1 << 20)) {
            Some(Err(e)) if e.kind == Kind::Cancelled => Err(e),
            _ => Ok(()),
        }
    }

    /// Fetches a file that is not in the cache, whole or not at all.
    fn file(&mut self, path: &str, most: u64) -> Result<PathBuf> {
        let name = self.name;
        let mut download = Download { progress: &mut *self.progress, done: 0, total: 0, most };
        if !(download.progress)(0, 0) {
            return Err(Error::cancelled());
        }
        let repo = &self.repo;
        let fetched = catch_unwind(AssertUnwindSafe(|| repo.download_with_progress(path, &mut download)));
        let file = match fetched {
            Ok(file) => file.map_err(|e| failed(name, &e))?,
            Err(left) => {
                return Err(match left.downcast_ref() {
                    Some(Left::Cancelled) => Error::cancelled(),
                    Some(Left::TooLarge(bytes)) => {
                        let why = format!("{path} holds {bytes} bytes, far more than such a file needs");
                        cannot(name, why, "choose another model")
                    }
                    None => cannot(name, "the hub's answer is not understood", "try again later"),
                });
            }
        };
        if download.done == download.total {
            return Ok(file);
        }
        // an end that came too early: out of the cache again
        let whole = fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
        [&file, &whole].into_iter().for_each(|path| fs::remove_file(path).unwrap_or_default());
        let why = format!("{path} broke off after {} of {} bytes", download.done, download.total);
        Err(cannot(name, why, "try again"))
    }
}
