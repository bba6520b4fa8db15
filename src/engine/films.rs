//! The newest reverse film and its branches: which is computed next, and which frames are computed again.

use super::denoiser::{Opening, Predicting};
use super::film::{FilmJob, Recall};
use super::fork::{ForkJob, ForkRequest, cannot};
use super::outbox::Outbox;
use super::reading::Place;
use super::{JobId, Predictor};
use crate::diffusion::reel::MOST_BRANCHES;
use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// A film, its branches, and the work on them.
#[derive(Default)]
pub(super) struct Films {
    /// The one under way.
    current: Option<FilmJob>,
    /// Those that are over: frames and states of them may be asked for again.
    over: Vec<Rc<FilmJob>>,
    /// Branches that wait for their turn.
    waiting: VecDeque<(JobId, ForkRequest)>,
    /// The branch on its way to the state where it begins.
    fork: Option<ForkJob>,
    /// Frames that were asked for again.
    recall: Option<Recall>,
}

impl Films {
    /// The job that the next unit is for; `None` if nothing is to be done.
    pub(super) fn next(&self) -> Option<JobId> {
        let recall = self.recall.as_ref().map(|r| r.job);
        let current = || self.current.as_ref().map(FilmJob::job);
        let fork = || self.fork.as_ref().map(|f| f.job);
        recall.or_else(current).or_else(fork).or_else(|| self.waiting.front().map(|(job, _)| *job))
    }

    fn all(&self) -> impl Iterator<Item = &FilmJob> {
        self.current.iter().chain(self.over.iter().map(Rc::as_ref))
    }

    fn find(&self, job: JobId) -> Option<&FilmJob> {
        self.all().find(|film| film.job() == job)
    }

    /// The data of the model that makes them.
    pub(super) fn data(&self) -> Option<Place> {
        self.all().next().map(|film| (film.model().data.clone(), film.model().info.shape))
    }

    /// What predicts for a branch: the very network of a film that follows the same prediction, or else a new one.
    fn predicting(&self, predictor: Predictor, parent: &FilmJob, with: &mut Opening<'_>) -> Result<Arc<Predicting>> {
        match self.all().find(|film| film.predictor() == predictor) {
            Some(film) => Ok(Arc::clone(film.denoiser())),
            None => Ok(Arc::new(Predicting::open(predictor, parent.model(), with)?)),
        }
    }

    /// Those that are over.
    pub(super) fn over(&self) -> &[Rc<FilmJob>] {
        &self.over
    }

    /// Stops all that is under way; the films stay as far as they have come.
    pub(super) fn stop(&mut self, out: &Outbox) {
        let recall = self.recall.take().map(|r| r.job);
        let fork = self.fork.take().map(|f| f.job);
        let current = self.current.take().map(|film| {
            let job = film.job();
            self.over.push(Rc::new(film));
            job
        });
        let waiting = self.waiting.drain(..).map(|(job, _)| job);
        for job in [recall, current, fork].into_iter().flatten().chain(waiting) {
            out.finished(job, Err(Error::cancelled()));
        }
    }

    /// The film that takes the place of all others.
    pub(super) fn begin(&mut self, film: FilmJob) {
        *self = Self { current: Some(film), ..Self::default() };
    }

    /// A branch to compute when what is before it is done.
    pub(super) fn branch(&mut self, job: JobId, request: ForkRequest) -> Result<()> {
        let films = self.over.len() + usize::from(self.current.is_some());
        let branches = films.saturating_sub(1) + self.waiting.len() + usize::from(self.fork.is_some());
        if branches >= MOST_BRANCHES {
            let why = format!("{MOST_BRANCHES} branches are held");
            return Err(cannot(why, "delete one first"));
        }
        self.waiting.push_back((job, request));
        Ok(())
    }

    /// Drops these branches, and those that wait to leave them.
    pub(super) fn forget(&mut self, jobs: &[JobId], out: &Outbox) {
        let mut ends = jobs.to_vec();
        let next = self.fork.iter().map(|fork| (fork.job, &fork.request));
        for (job, request) in next.chain(self.waiting.iter().map(|(job, request)| (*job, request))) {
            if ends.contains(&request.parent) {
                ends.push(job);
            }
        }
        ends.iter().for_each(|job| self.end(*job, out));
        self.over.retain(|film| !jobs.contains(&film.job()));
    }

    /// Stops a job; a film stays as far as it has come.
    pub(super) fn end(&mut self, job: JobId, out: &Outbox) {
        if let Some(film) = self.current.take_if(|f| f.job() == job) {
            self.over.push(Rc::new(film));
        } else if self.fork.take_if(|f| f.job == job).is_none() {
            let before = self.waiting.len();
            self.waiting.retain(|(waiting, _)| *waiting != job);
            if self.waiting.len() == before {
                return;
            }
        }
        out.finished(job, Err(Error::cancelled()));
    }

    /// Begins to compute missing frames of a film again.
    pub(super) fn recall(&mut self, job: JobId, film: JobId, doses: usize, out: &Outbox) {
        if let Some(old) = self.recall.take() {
            out.finished(old.job, Err(Error::cancelled()));
        }
        match self.find(film).and_then(|film| film.again(job, doses)) {
            Some(recall) => self.recall = Some(recall),
            None => out.finished(job, Ok(())),
        }
    }

    /// One unit of the next job.
    pub(super) fn advance(&mut self, with: &mut Opening<'_>) -> Result<()> {
        let (compute, out) = (with.compute, with.out);
        if let Some(mut recall) = self.recall.take() {
            if self.find(recall.film).map_or(Ok(true), |film| film.recall(&mut recall, compute, out))? {
                out.finished(recall.job, Ok(()));
            } else {
                self.recall = Some(recall);
            }
        } else if let Some(mut film) = self.current.take() {
            if film.advance(compute, out)? {
                out.finished(film.job(), Ok(()));
                self.over.push(Rc::new(film));
            } else {
                self.current = Some(film);
            }
        } else if let Some(mut fork) = self.fork.take() {
            let parent = self.find(fork.request.parent).ok_or_else(Error::cancelled)?;
            if fork.advance(parent, compute)? {
                let predicting = self.predicting(fork.request.predictor, parent, with)?;
                self.current = Some(fork.film(parent, predicting, with)?);
            } else {
                self.fork = Some(fork);
            }
        } else if let Some((job, request)) = self.waiting.pop_front() {
            let parent = self.find(request.parent);
            self.fork = Some(ForkJob::start(job, request, parent)?);
        }
        Ok(())
    }
}
