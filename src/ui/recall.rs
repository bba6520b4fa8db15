//! Frames that a film left out for want of memory, asked for again when the playhead comes to them.

use super::state::AppState;
use crate::engine::{Command, JobId, Quantity, Trajectory};

/// The newest request.
#[derive(Clone, Debug, Default)]
pub struct Recall {
    /// The film and the state that were asked for.
    asked: Option<(JobId, usize)>,
    /// Its job, until that is over.
    job: Option<JobId>,
}

impl Recall {
    /// Whether the job that is over was its own.
    pub fn finished(&mut self, job: JobId) -> bool {
        self.job.take_if(|own| *own == job).is_some()
    }
}

impl AppState {
    /// What has to be computed again for the playhead, with what is set beside the film if that is seen: one request at a
    /// time, and none twice in a row.
    pub fn recall_missing(&mut self, quantity: Quantity, beside: bool) -> Option<Command> {
        let doses = self.playback.doses();
        let branches = &self.branches;
        let of = |id, film: &Trajectory| {
            let state = film.missing(doses, quantity)?;
            let (job, _) = self.own(branches.maker(id, state)).film.as_ref()?;
            Some((*job, state))
        };
        let reverse = || self.shown().film.as_ref().and_then(|(_, film)| of(branches.chosen(), film));
        let compared = || {
            let id = branches.compared().filter(|_| beside)?;
            of(id, &branches.whole(id, &self.reverse)?)
        };
        let forward = || {
            let (job, film) = self.forward.film.as_ref()?;
            Some((*job, film.missing(self.forward_doses(doses), Quantity::State)?))
        };
        // the forward film is there at once: it goes first
        let Some(wanted) = forward().or_else(reverse).or_else(compared) else {
            // it may be left out again
            self.recall.asked = None;
            return None;
        };
        if self.recall.job.is_some() || self.recall.asked == Some(wanted) {
            return None;
        }
        let job = self.new_job();
        self.recall = Recall { asked: Some(wanted), job: Some(job) };
        let (film, doses) = wanted;
        Some(Command::Recall { job, film, doses })
    }
}
