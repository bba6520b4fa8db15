//! Films as files, one frame at a time, each the very frame of its timestep: what a film left out for want of memory is
//! computed again before it is written.

use super::film::FilmJob;
use super::outbox::Outbox;
use super::recipe::Recipe;
use super::{Event, JobId, Provenance};
use crate::diffusion::Images;
use crate::diffusion::reel::{Again, ForwardReel};
use crate::diffusion::terms::moments;
use crate::diffusion::trajectory::{Quantity, Trajectory};
use crate::error::{Error, Result};
use crate::export::files::{cannot_write, save_atomically};
use crate::export::{self, Container, FilmFrame, FilmOptions, Movie};
use crate::model::compute::Compute;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

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

/// Who made a reverse film, as its caption says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// The exact oracle.
    Oracle,
    /// A network.
    Model {
        /// Training steps behind it, where known.
        step: Option<u64>,
        /// [`Provenance::weights`].
        weights: &'static str,
    },
}

impl Maker {
    /// That of a film.
    pub fn of(by: &Provenance) -> Self {
        match by.oracle {
            Some(_) => Self::Oracle,
            None => Self::Model { step: by.step, weights: by.weights() },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Oracle => "ORACLE",
            Self::Model { .. } => "MODEL",
        }
    }

    fn weights(self) -> String {
        let Self::Model { step, weights } = self else { return String::new() };
        let step = step.map_or_else(String::new, |step| format!("STEP {step} "));
        (step + &weights.to_uppercase()).trim_end().to_owned()
    }
}

/// A film that the exported one has left on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// The job that made it.
    pub job: JobId,
    /// The state in which it was left: the noisier ones are its own.
    pub doses: usize,
    /// Who made it.
    pub by: Maker,
}

/// An export.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// Where to.
    pub path: PathBuf,
    /// As what.
    pub format: Format,
    /// The forward film and the job that made it, if it is to be seen.
    pub forward: Option<(JobId, Trajectory)>,
    /// The reverse film and the job that made it, if it is to be seen.
    pub reverse: Option<(JobId, Trajectory)>,
    /// What that has left, if it is a branch: the film that it leaves first.
    pub left: Vec<Left>,
    /// What of the reverse film.
    pub quantity: Quantity,
    /// The states, in doses, in the order in which they are shown.
    pub moments: Vec<usize>,
    /// Screen pixels per pixel of the model, each way.
    pub scale: usize,
    /// Time that a frame stays.
    pub delay_ms: u32,
    /// Whether t, and data or who made them, stand over the pictures.
    pub captions: bool,
    /// Who made the reverse film.
    pub by: Maker,
    /// What travels inside.
    pub recipe: Recipe,
}

/// What it takes to compute frames again.
#[derive(Default)]
struct Sources {
    /// The reverse film and what it has left, once they are over.
    reverse: Vec<Rc<FilmJob>>,
    /// The forward film.
    forward: Option<(JobId, Rc<ForwardReel>)>,
}

/// An export under way.
pub(super) struct ExportJob {
    job: JobId,
    request: ExportRequest,
    /// Of the films in the request, as long as they were to be had.
    sources: Sources,
    /// Frames of the reverse film on their way.
    again: Option<Again>,
    output: Output,
    done: usize,
}

/// What has been made so far.
enum Output {
    Nothing,
    Movie(Movie),
    Strip(Vec<FilmFrame>),
    Csv(String),
}

impl ExportJob {
    pub(super) fn new(job: JobId, mut request: ExportRequest) -> Self {
        if request.format == Format::Grid {
            let before = request.moments.len().saturating_sub(1);
            request.moments.drain(..before);
        }
        Self { job, request, sources: Sources::default(), again: None, output: Output::Nothing, done: 0 }
    }

    pub(super) fn job(&self) -> JobId {
        self.job
    }

    /// Keeps what it needs of the worker's films, so that newer ones may take their place.
    pub(super) fn keep(&mut self, reverse: &[Rc<FilmJob>], forward: Option<&(JobId, Rc<ForwardReel>)>) {
        let job = |film: &Option<(JobId, Trajectory)>| film.as_ref().map(|(job, _)| *job);
        let wanted: Vec<JobId> =
            job(&self.request.reverse).into_iter().chain(self.request.left.iter().map(|left| left.job)).collect();
        let held = &mut self.sources.reverse;
        for made in reverse.iter().filter(|made| wanted.contains(&made.job())) {
            if !held.iter().any(|one| Rc::ptr_eq(one, made)) {
                held.push(Rc::clone(made));
            }
        }
        if let Some((made, reel)) = forward
            && job(&self.request.forward) == Some(*made)
        {
            self.sources.forward = Some((*made, Rc::clone(reel)));
        }
    }

    /// Brings the export one frame further, or one network call nearer to the next; true when the file is whole.
    pub(super) fn advance(&mut self, compute: &Compute, out: &Outbox) -> Result<bool> {
        let total = self.request.moments.len();
        let doses = *self.request.moments.get(self.done).ok_or_else(nothing)?;
        if !self.complete(doses, compute)? {
            return Ok(false);
        }
        self.write(doses)?;
        self.done += 1;
        out.send_or_skip(Event::Progress { job: self.job, done: self.done as u64, total: total as u64 });
        if self.done < total {
            return Ok(false);
        }
        self.finish()?;
        Ok(true)
    }

    /// Brings the frames at `doses` back if they were left out; false while a network call is still to come.
    fn complete(&mut self, doses: usize, compute: &Compute) -> Result<bool> {
        let r = &mut self.request;
        if let Some((_, film)) = &mut r.forward
            && let Some(state) = film.missing(doses, Quantity::State)
        {
            let (_, reel) = self.sources.forward.as_ref().ok_or_else(replaced)?;
            reel.again(state).into_iter().for_each(|frame| film.insert(frame));
            if film.missing(doses, Quantity::State).is_some() {
                return Err(replaced());
            }
        }
        let Some((job, film)) = &mut r.reverse else { return Ok(true) };
        let job = *job;
        if film.reached().is_none_or(|reached| film.state(doses) < reached) {
            return Err(Error::new(
                "cannot export the film",
                format!("it has not come to t = {doses} yet"),
                "wait until it is computed, or export the part that is there",
            ));
        }
        let Some(state) = film.missing(doses, r.quantity) else {
            self.again = None;
            return Ok(true);
        };
        let maker = |state: usize| maker(&r.left, state).map_or(job, |left| left.job);
        let made = self.sources.reverse.iter().find(|made| made.job() == maker(state)).ok_or_else(replaced)?;
        let again = match &mut self.again {
            Some(again) => again,
            none => none.insert(made.begin_again(state).ok_or_else(replaced)?),
        };
        made.one_more(again, compute, |frame| {
            // a film that was left went on by itself
            if maker(frame.doses) == made.job() {
                film.insert(Arc::new(frame));
            }
        })?;
        if again.is_over() {
            self.again = None;
            if film.missing(doses, r.quantity) == Some(state) {
                return Err(replaced());
            }
        }
        Ok(false)
    }

    /// Takes in the frame at `doses`.
    fn write(&mut self, doses: usize) -> Result<()> {
        let r = &self.request;
        let text = r.recipe.to_text();
        match (r.format, &mut self.output) {
            (Format::Csv, Output::Csv(table)) => r.row(doses, table),
            (Format::Csv, output) => {
                let mut table = r.head(&text);
                r.row(doses, &mut table);
                *output = Output::Csv(table);
            }
            (Format::Strip, Output::Strip(frames)) => frames.push(r.frame(doses)?),
            (Format::Strip, output) => *output = Output::Strip(vec![r.frame(doses)?]),
            (Format::Grid, _) => {
                let picture = export::render(&r.frame(doses)?, &r.options(doses))?;
                export::write_png(&r.path, &picture, &[("Comment", &text)])?;
            }
            (Format::Movie(container), output) => {
                let picture = export::render(&r.frame(doses)?, &r.options(doses))?;
                if !matches!(output, Output::Movie(_)) {
                    let (size, frames) = (picture.dimensions().into(), r.moments.len());
                    *output = Output::Movie(Movie::create(&r.path, container, size, frames, r.delay_ms, &text)?);
                }
                if let Output::Movie(movie) = output {
                    movie.add(&picture)?;
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let r = &self.request;
        match std::mem::replace(&mut self.output, Output::Nothing) {
            Output::Nothing => Ok(()),
            Output::Movie(movie) => movie.finish(),
            Output::Strip(frames) => {
                export::write_film_strip(&r.path, &frames, r.scale, &[("Comment", &r.recipe.to_text())])
            }
            Output::Csv(table) => {
                save_atomically(&r.path, |file| file.write_all(table.as_bytes()).map_err(|e| cannot_write(&e)))
            }
        }
    }
}

/// What of the films that were left made that state.
fn maker(left: &[Left], state: usize) -> Option<&Left> {
    left.iter().rev().find(|left| state > left.doses)
}

fn replaced() -> Error {
    let why = "another film took its place before all its frames were written";
    Error::new("cannot export the film", why, "make it again with the same seed, then export it")
}

fn nothing() -> Error {
    Error::new("cannot export the film", "there is nothing to show", "wait until the film has begun")
}

impl ExportRequest {
    /// The films that are to be seen, with the quantity of each and who made it at `doses`, if it is not the data's.
    fn sides(&self, doses: usize) -> impl Iterator<Item = (&Trajectory, Quantity, Option<Maker>)> {
        let left = self.reverse.as_ref().and_then(|(_, film)| maker(&self.left, film.state(doses)));
        let by = left.map_or(self.by, |left| left.by);
        let forward = self.forward.as_ref().map(|(_, film)| (film, Quantity::State, None));
        forward.into_iter().chain(self.reverse.as_ref().map(|(_, film)| (film, self.quantity, Some(by))))
    }

    /// Each caption names the very state that is shown: a film of fewer steps stays in one for several timesteps.
    fn options(&self, doses: usize) -> FilmOptions {
        let film = self.sides(doses).next();
        let captions = self.sides(doses).map(|(film, _, by)| {
            let who = format!("{} t={}", by.map_or("DATA", Maker::name), film.state(doses));
            [who, by.map_or_else(String::new, Maker::weights)]
        });
        FilmOptions {
            timesteps: film.map_or(1, |(film, ..)| film.steps()),
            columns: film.map_or(1, |(film, ..)| (film.n() as f64).sqrt().ceil() as usize),
            scale: self.scale,
            captions: if self.captions { captions.collect() } else { Vec::new() },
        }
    }

    fn frame(&self, doses: usize) -> Result<FilmFrame> {
        let sides = self.sides(doses).map(|(film, quantity, _)| {
            let frame = film.at(doses).filter(|frame| frame.doses == film.state(doses)).ok_or_else(nothing)?;
            let images = film.view(frame, quantity).ok_or_else(nothing)?;
            Ok(if quantity == Quantity::PredictedNoise { shrunk(images) } else { images })
        });
        Ok(FilmFrame { t: doses, sides: sides.collect::<Result<_>>()? })
    }

    /// The first two lines of a table: the recipe as a comment, and the names of its columns.
    fn head(&self, text: &str) -> String {
        let mut table = format!("# {text}\nt,beta,alphas_cumprod,snr");
        if self.forward.is_some() {
            table += ",data_mean,data_sd";
        }
        if self.reverse.is_some() {
            table += ",reverse_mean,reverse_sd,reverse_by";
        }
        table + ",c_x_t,c_xstart,c_eps,sigma\n"
    }

    /// The numbers at `doses`; the schedule is that of the reverse film, if there is one.
    fn row(&self, doses: usize, table: &mut String) {
        let Some((_, film)) = self.reverse.as_ref().or(self.forward.as_ref()) else { return };
        let schedule = film.schedule();
        let beta = doses.checked_sub(1).and_then(|t| schedule.betas.get(t)).map_or_else(String::new, f64::to_string);
        let snr = schedule.snr(doses);
        // writing to a string cannot fail
        write!(table, "{doses},{beta},{},{snr}", schedule.alpha_bar(doses)).unwrap_or_default();
        for (film, quantity, by) in self.sides(doses) {
            let images = film.at(doses).and_then(|frame| film.view(frame, quantity));
            let [mean, sd] = images.map_or([f64::NAN; 2], |images| moments(&images));
            write!(table, ",{mean},{sd}").unwrap_or_default();
            if let Some(by) = by {
                write!(table, ",{}", [by.name(), &by.weights()].join(" ").trim_end().to_lowercase())
                    .unwrap_or_default();
            }
        }
        let step = self.reverse.as_ref().and_then(|(_, film)| film.at(doses)?.step());
        match step {
            Some(c) => writeln!(table, ",{},{},{},{}", c.x_t, c.xstart, c.eps, c.noise).unwrap_or_default(),
            None => table.push_str(",,,,\n"),
        }
    }
}

/// Noise from ±3 to the range of pictures.
fn shrunk(images: Images) -> Images {
    Images { data: images.data.iter().map(|v| v / 3.0).collect(), ..images }
}
