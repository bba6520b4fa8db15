//! Frames that a film left out for want of memory, asked for again when the playhead comes to them.

use super::state::AppState;
use crate::engine::{Command, JobId, Quantity};

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
    /// What has to be computed again for the playhead: one request at a time, and none twice in a row.
    pub fn recall_missing(&mut self, quantity: Quantity) -> Option<Command> {
        let doses = self.playback.doses();
        let reverse = self.reverse.film.as_ref().and_then(|(job, film)| Some((*job, film.missing(doses, quantity)?)));
        let forward = || {
            let (job, film) = self.forward.film.as_ref()?;
            Some((*job, film.missing(self.forward_doses(doses), Quantity::State)?))
        };
        // the forward film is there at once: it goes first
        let wanted = forward().or(reverse)?;
        if self.recall.job.is_some() || self.recall.asked == Some(wanted) {
            return None;
        }
        let job = self.new_job();
        self.recall = Recall { asked: Some(wanted), job: Some(job) };
        let (film, doses) = wanted;
        Some(Command::Recall { job, film, doses })
    }
}
