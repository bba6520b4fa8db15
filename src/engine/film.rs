//! Films: the reverse process, one network call at a time, and the forward process, in one go.

use super::denoiser::{Opening, Predicting};
use super::fork::ForkRequest;
use super::outbox::Outbox;
use super::worker::Model;
use super::{Event, ForwardRequest, ForwardSource, JobId, Predictor, Provenance, SampleRequest};
use crate::data;
use crate::diffusion::noise::{Purpose, stream};
use crate::diffusion::reel::{Again, BRANCH_BYTES, FORWARD_BYTES, ForwardReel, REVERSE_BYTES, ReverseReel};
use crate::diffusion::sampler::Sampler;
use crate::diffusion::schedule::{Schedule, Spacing};
use crate::diffusion::trajectory::{Frame, Trajectory};
use crate::diffusion::{Images, process};
use crate::error::{Error, Result};
use crate::model::Config;
use crate::model::compute::Compute;
use std::sync::Arc;

/// Pictures that one film may show.
const MOST_PICTURES: usize = 256;
/// Share of a picture's amplitude past which a state is not taken for static.
const MOST_LEFT: f64 = 0.2;
/// The most that one feature map of all pictures of a film may take.
const MOST_MAP_BYTES: u64 = 4 << 30;

pub(super) fn check_count(n: usize) -> Result<()> {
    if (1..=MOST_PICTURES).contains(&n) {
        return Ok(());
    }
    let why = format!("{n} pictures were asked for");
    Err(Error::usage("cannot make a film", why, format!("ask for 1 to {MOST_PICTURES}")))
}

/// Refuses a film whose feature maps are absurdly large before anything of that size is asked of the machine.
pub(super) fn check_memory(n: usize, config: &Config) -> Result<()> {
    let bytes = config.largest_map().saturating_mul(n as u64);
    if bytes <= MOST_MAP_BYTES {
        return Ok(());
    }
    let [_, h, w] = config.image_shape();
    let why = format!("a feature map of {n} pictures of {w}x{h} takes {} GiB", bytes >> 30);
    Err(Error::usage("cannot make a film", why, "ask for fewer pictures"))
}

/// Says so where that many steps begin with static at a t where much of a picture should be left, and another number does not.
fn begins_late(full: &Schedule, steps: usize) -> Option<String> {
    let first = |k: usize| full.spaced(k, Spacing::Leading).ok()?.timesteps.last().copied();
    let left = |t: usize| full.alphas_cumprod[t].sqrt();
    let (all, t) = (full.steps(), first(steps)?);
    if left(t) <= MOST_LEFT {
        return None;
    }
    let fits = |k: &usize| all.is_multiple_of(*k) && first(*k).is_some_and(|t| left(t) <= MOST_LEFT);
    let better = (1..=all).filter(fits).min_by_key(|k| k.abs_diff(steps))?;
    let share = (100.0 * left(t)).round();
    let what = format!("the film begins with static at t = {t} ({steps} of {all} steps)");
    Some(format!("{what}, where {share} % of a picture's amplitude should be left; choose {better} steps"))
}

/// A reverse film under way, or over with frames that may be asked for again.
pub(super) struct FilmJob {
    job: JobId,
    request: SampleRequest,
    model: Model,
    denoiser: Arc<Predicting>,
    sampler: Sampler,
    calls: usize,
    reel: ReverseReel,
    /// The picture it was brought back from, in words.
    from: Option<String>,
}

/// Frames of a reverse film on their way to be computed again.
pub(super) struct Recall {
    pub job: JobId,
    /// The film they belong to.
    pub film: JobId,
    again: Again,
}

impl FilmJob {
    pub(super) fn start(request: SampleRequest, model: &Model, with: &mut Opening<'_>) -> Result<Self> {
        check_count(request.n)?;
        check_memory(request.n, &model.checkpoint.config)?;
        let full = &model.info.schedule;
        let steps = request.steps.unwrap_or(full.steps());
        let schedule = full.spaced(steps, Spacing::Leading)?;
        let shape = model.info.shape;
        let noise = process::noise_images(request.seed, Purpose::Start, request.first, 0, request.n, shape);
        let mut sampler = Sampler::new(schedule, request.sampler, request.clip, noise)?;
        let mut from = None;
        // of a request in parts once
        if request.from.is_none() && request.first == 0 {
            begins_late(full, steps).into_iter().for_each(|words| with.out.send(Event::Warning(words)));
        }
        if let Some((source, doses)) = &request.from {
            let (x_start, words) = pictures(source, request.seed, request.first, request.n, model, with)?;
            // the noisiest state of this sampler that is not noisier than asked
            let left = sampler.states().iter().filter(|state| **state > 0 && *state <= doses).count();
            if left == 0 {
                let why = format!("at t = {doses} no step of this sampler is left");
                return Err(Error::usage("cannot bring the picture back", why, "start at a larger t"));
            }
            let start = sampler.at(left, x_start);
            let t = vec![start.doses() - 1; request.n];
            sampler = sampler.at(left, process::q_sample(full, start.x(), &t, sampler.x()));
            from = Some(format!("{words} at t = {}", start.doses()));
        }
        let denoiser = Arc::new(Predicting::open(request.predictor, model, with)?);
        Ok(Self::begin(request, model, denoiser, sampler, from, REVERSE_BYTES, with))
    }

    /// Tells of the film that goes on as `sampler`; its first state is there to look at before the first network call.
    fn begin(
        request: SampleRequest,
        model: &Model,
        denoiser: Arc<Predicting>,
        sampler: Sampler,
        from: Option<String>,
        bytes: usize,
        with: &Opening<'_>,
    ) -> Self {
        let (reel, film) = ReverseReel::new(&sampler, &model.info.schedule, request.seed, request.first, bytes);
        let (name, calls) = (request.sampler.name(), sampler.steps_left());
        let provenance =
            Provenance { from: from.clone(), ..denoiser.provenance(request.predictor, model, name, calls) };
        let (job, out) = (with.job, with.out);
        out.send(Event::SampleStarted(job, Box::new(film), provenance));
        if request.every_frame {
            out.send(Event::Frame(job, Arc::new(Frame::state(sampler.doses(), sampler.x()))));
        }
        Self { job, request, model: model.clone(), denoiser, sampler, calls: 0, reel, from }
    }

    /// The film that goes on as `sampler`, a state of this one, with noise and prediction of its own.
    pub(super) fn branch(
        &self,
        request: &ForkRequest,
        sampler: Sampler,
        denoiser: Arc<Predicting>,
        with: &Opening<'_>,
    ) -> Self {
        let ForkRequest { predictor, sampler: rule, clip, seed, .. } = *request;
        let n = sampler.x().n;
        let request = SampleRequest { predictor, sampler: rule, clip, seed, n, ..self.request.clone() };
        Self::begin(request, &self.model, denoiser, sampler, self.from.clone(), BRANCH_BYTES, with)
    }

    /// Begins to compute the state at `doses` again in full precision.
    pub(super) fn state(&self, doses: usize) -> Option<Again> {
        self.reel.state(doses)
    }

    pub(super) fn pictures(&self) -> usize {
        self.request.n
    }

    pub(super) fn predictor(&self) -> Predictor {
        self.request.predictor
    }

    pub(super) fn denoiser(&self) -> &Arc<Predicting> {
        &self.denoiser
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    pub(super) fn job(&self) -> JobId {
        self.job
    }

    /// One network call and one step; true when the film is done.
    pub(super) fn advance(&mut self, compute: &Compute, out: &Outbox) -> Result<bool> {
        let Some(t) = self.sampler.wants() else { return Ok(true) };
        let eps = self.denoiser.predict(compute, self.sampler.x(), t)?;
        let frame = self.reel.step(&mut self.sampler, &eps);
        self.calls += 1;
        if let Some(frame) = frame.filter(|_| self.request.every_frame) {
            out.send(Event::Frame(self.job, Arc::new(frame)));
        }
        let total = (self.calls + self.sampler.steps_left()) as u64;
        out.send_or_skip(Event::Progress { job: self.job, done: self.calls as u64, total });
        let done = self.sampler.wants().is_none();
        if done {
            if self.request.every_frame {
                out.send(Event::Frame(self.job, Arc::new(Frame::state(0, self.sampler.x()))));
            }
            out.send(Event::Sampled(self.job, Arc::new(self.sampler.x().clone())));
        }
        Ok(done)
    }
}

impl FilmJob {
    /// Begins to compute the frame at `doses` again; `None` if it cannot be missing.
    pub(super) fn again(&self, job: JobId, doses: usize) -> Option<Recall> {
        Some(Recall { job, film: self.job, again: self.reel.again(doses)? })
    }

    /// One network call; true when all frames of the recall are there.
    pub(super) fn recall(&self, recall: &mut Recall, compute: &Compute, out: &Outbox) -> Result<bool> {
        self.one_more(&mut recall.again, compute, |frame| out.send(Event::Frame(self.job, Arc::new(frame))))?;
        Ok(recall.again.is_over())
    }

    /// Begins to compute the frame at `doses` again; `None` if it cannot be missing.
    pub(super) fn begin_again(&self, doses: usize) -> Option<Again> {
        self.reel.again(doses)
    }

    /// One network call of a part that is computed again; `take` is given the frames that come of it.
    pub(super) fn one_more(&self, again: &mut Again, compute: &Compute, mut take: impl FnMut(Frame)) -> Result<()> {
        if let Some((x, t)) = again.wants() {
            let eps = self.denoiser.predict(compute, x, t)?;
            again.step(&eps).into_iter().for_each(&mut take);
        }
        again.picture().into_iter().for_each(take);
        Ok(())
    }
}

/// The forward film that was asked for, what it takes to compute its frames again, and where its pictures come from.
pub(super) fn forward_film(
    request: &ForwardRequest,
    model: &Model,
    with: &mut Opening<'_>,
) -> Result<(ForwardReel, Trajectory, String)> {
    check_count(request.n)?;
    check_memory(request.n, &model.checkpoint.config)?;
    let (x_start, words) = pictures(&request.source, request.seed, 0, request.n, model, with)?;
    let schedule = match &request.schedule {
        Some(config) => Arc::new(Schedule::new(config)?),
        None => Arc::clone(&model.info.schedule),
    };
    let (reel, film) = ForwardReel::record(schedule, &x_start, request.seed, FORWARD_BYTES);
    Ok((reel, film, words))
}

/// The pictures `first..first + n` that forward films of this seed start from, and where they come from, in words.
pub(super) fn pictures(
    source: &ForwardSource,
    seed: u64,
    first: u64,
    n: usize,
    model: &Model,
    with: &mut Opening<'_>,
) -> Result<(Images, String)> {
    let shape = model.info.shape;
    let repeat = |one: Images| Images::new(n, shape, one.data.repeat(n));
    Ok(match source {
        ForwardSource::Data => {
            let data = with.data_of(model)?;
            let pick = |i| stream(seed, Purpose::Pick, [i, 0]).below(data.len());
            let picked: Vec<usize> = (first..first + n as u64).map(pick).collect();
            (data.images(&picked), data.name.clone())
        }
        ForwardSource::Photo(i) => {
            let (name, bytes) = data::photos()
                .get(*i)
                .ok_or_else(|| Error::usage("cannot show the photo", format!("there is no photo {i}"), ""))?;
            (repeat(data::decode_picture(name, bytes, shape)?), (*name).to_owned())
        }
        ForwardSource::File(path) => {
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            (repeat(data::load_picture(path, shape)?), name)
        }
        ForwardSource::Drawn(bytes) => {
            if bytes.len() != shape.iter().product::<usize>() {
                let why = format!("it has {} values, the model's pictures {shape:?}", bytes.len());
                return Err(Error::usage("cannot use the drawing", why, "draw again"));
            }
            let values = bytes.iter().map(|b| f32::from(*b) / 127.5 - 1.0).collect();
            (repeat(Images::new(1, shape, values)), "your drawing".to_owned())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::schedule::{BetaSchedule, ScheduleConfig};

    #[test]
    fn static_where_a_picture_should_be_left_is_said() {
        let of = |kind, steps| Schedule::new(&ScheduleConfig { kind, steps, ..Default::default() }).unwrap();
        let cosine = of(BetaSchedule::Cosine, 1000);
        let said = begins_late(&cosine, 600).unwrap();
        assert!(
            said.contains("at t = 599 (600 of 1000 steps), where 58 % of") && said.ends_with("choose 500 steps"),
            "{said}"
        );
        assert!(begins_late(&cosine, 2).unwrap().ends_with("choose 8 steps"));
        for steps in [1000, 999, 500, 250, 50, 20, 10] {
            assert_eq!(begins_late(&cosine, steps), None, "{steps}");
        }
        // one whose end is no static has no better number
        assert_eq!(begins_late(&of(BetaSchedule::Linear, 10), 7), None);
    }
}
