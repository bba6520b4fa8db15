//! Films as files, one frame at a time.

use super::recipe::Recipe;
use super::worker::Outbox;
use super::{Event, JobId};
use crate::diffusion::Images;
use crate::diffusion::terms::moments;
use crate::diffusion::trajectory::{Quantity, Trajectory};
use crate::error::{Error, Result};
use crate::export::files::{cannot_write, save_atomically};
use crate::export::{self, Container, FilmFrame, FilmOptions, Movie};
use std::fmt::Write as _;
use std::path::PathBuf;

/// What a film is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A moving picture.
    Movie(Container),
    /// A PNG with time from left to right.
    Strip,
    /// A PNG of the last moment.
    Grid,
    /// A table of the numbers.
    Csv,
}

/// An export.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// Where to.
    pub path: PathBuf,
    /// As what.
    pub format: Format,
    /// The forward film, if it is to be seen.
    pub forward: Option<Trajectory>,
    /// The reverse film, if it is to be seen.
    pub reverse: Option<Trajectory>,
    /// What of the reverse film.
    pub quantity: Quantity,
    /// The states, in doses, in the order in which they are shown.
    pub moments: Vec<usize>,
    /// Screen pixels per pixel of the model, each way.
    pub scale: usize,
    /// Time that a frame stays.
    pub delay_ms: u32,
    /// Whether t, and data or model, stand over the pictures.
    pub captions: bool,
    /// Whether an oracle, and no model, made the reverse film.
    pub oracle: bool,
    /// What travels inside.
    pub recipe: Recipe,
}

/// An export under way.
pub(super) struct ExportJob {
    job: JobId,
    request: ExportRequest,
    movie: Option<Movie>,
    done: usize,
}

impl ExportJob {
    pub(super) fn new(job: JobId, request: ExportRequest) -> Self {
        Self { job, request, movie: None, done: 0 }
    }

    pub(super) fn job(&self) -> JobId {
        self.job
    }

    /// Writes the next frame of a movie, or all of anything else; true when the file is whole.
    pub(super) fn advance(&mut self, out: &Outbox) -> Result<bool> {
        let r = &self.request;
        let text = r.recipe.to_text();
        let total = r.moments.len();
        let Format::Movie(container) = r.format else {
            match r.format {
                Format::Csv => r.table(&text)?,
                Format::Strip => {
                    let frames = r.moments.iter().map(|doses| r.frame(*doses)).collect::<Result<Vec<_>>>()?;
                    export::write_film_strip(&r.path, &frames, r.scale, &[("Comment", &text)])?;
                }
                Format::Grid | Format::Movie(_) => {
                    let last = r.moments.last().ok_or_else(nothing)?;
                    let picture = export::render(&r.frame(*last)?, &r.options(&text))?;
                    export::write_png(&r.path, &picture, &[("Comment", &text)])?;
                }
            }
            return Ok(true);
        };
        let doses = *r.moments.get(self.done).ok_or_else(nothing)?;
        let picture = export::render(&r.frame(doses)?, &r.options(&text))?;
        let movie = match &mut self.movie {
            Some(movie) => movie,
            none => {
                let size = picture.dimensions().into();
                none.insert(Movie::create(&r.path, container, size, total, r.delay_ms, &text)?)
            }
        };
        movie.add(&picture)?;
        self.done += 1;
        out.send_or_skip(Event::Progress { job: self.job, done: self.done as u64, total: total as u64 });
        if self.done < total {
            return Ok(false);
        }
        self.movie.take().map_or(Ok(()), Movie::finish)?;
        Ok(true)
    }
}

fn nothing() -> Error {
    Error::new("cannot export the film", "there is nothing to show", "wait until the film has begun")
}

impl ExportRequest {
    /// The films that are to be seen, with the quantity and the caption of each.
    fn sides(&self) -> impl Iterator<Item = (&Trajectory, Quantity, &'static str)> {
        let maker = if self.oracle { "ORACLE" } else { "MODEL" };
        let forward = self.forward.as_ref().map(|film| (film, Quantity::State, "DATA"));
        forward.into_iter().chain(self.reverse.as_ref().map(|film| (film, self.quantity, maker)))
    }

    fn options(&self, text: &str) -> FilmOptions {
        let film = self.sides().next();
        FilmOptions {
            timesteps: film.map_or(1, |(film, ..)| film.steps()),
            columns: film.map_or(1, |(film, ..)| (film.n() as f64).sqrt().ceil() as usize),
            scale: self.scale,
            delay_ms: self.delay_ms,
            captions: if self.captions { self.sides().map(|(.., name)| name.to_owned()).collect() } else { Vec::new() },
            comment: text.to_owned(),
        }
    }

    fn frame(&self, doses: usize) -> Result<FilmFrame> {
        let sides = self.sides().map(|(film, quantity, _)| {
            let frame = film.at(doses).ok_or_else(nothing)?;
            let images =
                film.view(frame, quantity).or_else(|| film.view(frame, Quantity::State)).ok_or_else(nothing)?;
            Ok(if quantity == Quantity::PredictedNoise { shrunk(images) } else { images })
        });
        Ok(FilmFrame { t: doses, sides: sides.collect::<Result<_>>()? })
    }

    /// The numbers of every moment, one line each, under the recipe as a comment.
    fn table(&self, text: &str) -> Result<()> {
        let mut table = format!("# {text}\nt,beta,alphas_cumprod,snr");
        let mut columns = Vec::new();
        for (film, quantity, name) in self.sides() {
            let name = name.to_lowercase();
            // writing to a string cannot fail
            write!(table, ",{name}_mean,{name}_sd").unwrap_or_default();
            columns.push((film, quantity));
        }
        table.push_str(",c_x_t,c_xstart,c_eps,sigma\n");
        let (first, _) = columns.first().ok_or_else(nothing)?;
        let schedule = first.schedule();
        for &doses in &self.moments {
            let beta = doses.checked_sub(1).and_then(|t| schedule.betas.get(t)).copied().unwrap_or_default();
            let snr = schedule.snr(doses);
            write!(table, "{doses},{beta},{},{snr}", schedule.alpha_bar(doses)).unwrap_or_default();
            for (film, quantity) in &columns {
                let images = film.at(doses).and_then(|frame| film.view(frame, *quantity));
                let [mean, sd] = images.map_or([f64::NAN; 2], |images| moments(&images));
                write!(table, ",{mean},{sd}").unwrap_or_default();
            }
            let step = self.reverse.as_ref().and_then(|film| film.at(doses)?.step());
            match step {
                Some(c) => writeln!(table, ",{},{},{},{}", c.x_t, c.xstart, c.eps, c.noise).unwrap_or_default(),
                None => table.push_str(",,,,\n"),
            }
        }
        save_atomically(&self.path, |file| file.write_all(table.as_bytes()).map_err(|e| cannot_write(&e)))
    }
}

/// Noise from ±3 to the range of pictures.
fn shrunk(images: Images) -> Images {
    Images { data: images.data.iter().map(|v| v / 3.0).collect(), ..images }
}
