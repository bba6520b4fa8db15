//! One training run: Algorithm 1 of Ho et al. 2020, the same bytes for any number of threads.

use super::adam::{self, Slot, Update};
use super::changes::{self, Changes};
use super::config::{Plan, RunConfig};
use super::divergence::Culprit;
use super::doctor::{self, Signals, Verdict};
use super::evaluation::{self, Evaluation};
use super::good::Good;
use super::metrics::{History, StepStats, finite};
use super::timesteps::Sample;
use crate::checkpoint::{Checkpoint, ScheduleSettings, Training};
use crate::data::{Dataset, Source};
use crate::diffusion::Images;
use crate::diffusion::bound;
use crate::diffusion::noise::{Purpose, stream};
use crate::diffusion::process;
use crate::diffusion::sampler::Variance;
use crate::diffusion::schedule::Schedule;
use crate::error::{Error, Kind, Result};
use crate::kernels;
use crate::model::compute::Compute;
use crate::model::{Dropout, Network, Params, UNet};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

/// Images that one thread takes forward and backward at a time: work for four threads, but not so few images that reading
/// the weights costs more than the arithmetic. A batch is always cut alike, and gradients are summed in the same order, so
/// the number of threads changes no bit. A GPU takes the batch whole.
fn micro_batch(batch: usize, on: &Device) -> usize {
    if on.is_cpu() { batch.div_ceil(4).clamp(4, 16) } else { batch }
}

/// Steps between two states that a run can go back to.
const GOOD_EVERY: u64 = 100;
/// Past so many times the loss of a network that predicts nothing, in the mean of the last steps, a run is lost.
const LOST: f32 = 2.0;
/// Steps without a gradient after which a weight counts as dead.
const SILENT: u64 = 100;
/// Share of the gradient's squared norm that is no gradient at all; rounding makes more.
const NO_GRADIENT: f64 = 1e-24;

/// A run under way. It knows no channels or clocks, and no files but that of a large network's last good state.
pub struct Trainer {
    plan: Plan,
    compute: Arc<Compute>,
    schedule: Arc<Schedule>,
    /// Names and order of all tensors.
    template: Params,
    slots: Vec<Slot>,
    state: State,
    /// Weights and all of some steps ago, when all was well.
    good: Option<Good>,
    /// Steps in a row that each weight has had no gradient.
    silent: Vec<u64>,
    /// Least and largest byte of the data, and the mean square of its pixels.
    range: ((u8, u8), f64),
    /// Held-out images at the last evaluation.
    held_out: usize,
    /// Whether weights have moved to no numbers, and the last good state could not be read back.
    lost: bool,
}

/// A run at one moment, to be saved while it goes on.
pub struct Snapshot {
    plan: Plan,
    ema: Params,
    raw: Params,
    adam: (Params, Params),
    state: State,
}

impl Snapshot {
    /// As it is saved.
    ///
    /// # Errors
    /// If the state cannot be written as JSON.
    pub fn checkpoint(self) -> Result<Checkpoint> {
        let state = serde_json::to_value(&self.state)
            .map_err(|e| Error::new("cannot save the run", e.to_string(), "report this"))?;
        Ok(Checkpoint {
            config: self.plan.model,
            schedule: ScheduleSettings::new(self.plan.schedule, self.plan.prediction_type, Variance::FixedSmall, true),
            ema: self.ema,
            training: Some(Training { raw: self.raw, adam: Some(self.adam), state }),
        })
    }
}

/// What a checkpoint keeps beside the tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// The settings.
    pub run: RunConfig,
    /// Steps done.
    pub step: u64,
    /// [`Dataset::fingerprint`] of what it learns from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// That of the images that it holds out, or [`NONE`]; older versions looked for them anew at each start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<String>,
    /// The curves.
    pub history: History,
}

/// What stands for the held-out images of a run that has none.
const NONE: &str = "none";

impl State {
    /// The images that it learns from.
    pub fn source(&self) -> Source {
        let source = self.run.source();
        if self.held_out.is_some() { source } else { source.decided() }
    }
}

/// "batch was 64 and is now 32, seed …"; the network where no setting differs.
fn differences(before: &RunConfig, now: &RunConfig) -> String {
    let fields = |run| serde_json::to_value(run).ok().and_then(|v| v.as_object().cloned()).unwrap_or_default();
    let (before, now) = (fields(before), fields(now));
    let differ = before.iter().filter_map(|(name, old)| {
        let new = now.get(name).filter(|new| *new != old)?;
        Some(format!("{name} was {old} and is now {new}"))
    });
    let words: Vec<String> = differ.collect();
    if words.is_empty() { "the network of the preset has changed".to_owned() } else { words.join(", ") }
}

impl Trainer {
    /// A run from its first step.
    ///
    /// # Errors
    /// If the schedule or the device refuses.
    pub fn new(plan: Plan, compute: Arc<Compute>) -> Result<Self> {
        let params = Params::init(&plan.model, plan.run.seed, compute.device())?;
        Self::from_params(plan, compute, params)
    }

    /// A run that starts from these weights.
    ///
    /// # Errors
    /// If the schedule or the device refuses.
    pub fn from_params(plan: Plan, compute: Arc<Compute>, params: Params) -> Result<Self> {
        let slots = params.tensors().map(|p| Slot::new(p.clone())).collect::<candle_core::Result<_>>()?;
        Ok(Self {
            schedule: Arc::new(Schedule::new(&plan.schedule)?),
            template: params,
            slots,
            state: State { run: plan.run.clone(), step: 0, data: None, held_out: None, history: History::default() },
            plan,
            compute,
            good: None,
            silent: Vec::new(),
            range: ((0, 255), 1.0),
            held_out: 0,
            lost: false,
        })
    }

    /// A run as a checkpoint left it; `plan.run` may ask for more steps than before, and name another place of the same
    /// data. What may change on the way is as the run last had it: see [`Trainer::change`].
    ///
    /// # Errors
    /// If the checkpoint holds no optimiser state, or settings that decide the run's bytes differ.
    pub fn resume(plan: Plan, compute: Arc<Compute>, checkpoint: &Checkpoint) -> Result<Self> {
        let refuse = |why: String, hint: &str| Error::new("cannot resume this run", why, hint);
        let training = checkpoint.training.as_ref();
        let (Some(training), Some((m, v))) = (training, training.and_then(|t| t.adam.as_ref())) else {
            return Err(refuse("the checkpoint has no optimiser state".into(), "start a new run instead"));
        };
        let mut state: State = serde_json::from_value(training.state.clone())
            .map_err(|e| refuse(format!("its state.json is not understood: {e}"), "start a new run instead"))?;
        let RunConfig { steps, learning_rate, ema_decay, preview_every, .. } = state.run;
        let mut now = RunConfig { steps, learning_rate, ema_decay, preview_every, ..plan.run.clone() };
        if state.held_out.is_none() {
            state.run.hold_out &= now.hold_out;
        }
        if state.data.is_some() {
            // the data are known by their content, so they may have moved
            now.data.clone_from(&state.run.data);
        }
        if now != state.run || plan.model != checkpoint.config {
            let why = format!("its settings differ from those asked for: {}", differences(&state.run, &now));
            return Err(refuse(
                why,
                "resume with the settings it was started with; only steps, learning rate, EMA decay and the steps between \
                 samples may change",
            ));
        }
        if plan.run.steps < state.step {
            let why = format!("it has done {} steps, and {} were asked for", state.step, plan.run.steps);
            return Err(Error::usage("cannot resume this run", why, "ask for more steps"));
        }
        let run = RunConfig { learning_rate, ema_decay, preview_every, ..plan.run };
        state.run = run.clone();
        let plan = Plan { run, ..plan };
        let mut trainer = Self::from_params(plan, compute, training.raw.clone())?;
        let tensors = m.tensors().zip(v.tensors()).zip(checkpoint.ema.tensors());
        for (slot, ((m, v), ema)) in trainer.slots.iter_mut().zip(tensors) {
            (slot.m, slot.v, slot.ema) = (m.clone(), v.clone(), ema.clone());
        }
        trainer.state = state;
        Ok(trainer)
    }

    /// Other settings from the next step on; the curves remember when.
    ///
    /// # Errors
    /// Those of [`Changes::applied`]: then nothing was changed.
    pub fn change(&mut self, changes: &Changes) -> Result<()> {
        let run = changes.applied(&self.plan.run)?;
        changes::note(&mut self.state.history.changes, self.state.step, &self.plan.run, &run);
        self.state.run = run.clone();
        self.plan.run = run;
        Ok(())
    }

    /// Notes what a new run learns from.
    ///
    /// # Errors
    /// A resumed run learned from other data.
    pub fn bind(&mut self, data: &Dataset) -> Result<()> {
        let now = data.fingerprint();
        self.range = data.range();
        match self.state.data.replace(now.clone()) {
            Some(before) if before != now => {
                let why = format!("its data were {before}, and those of {} are {now}", data.name);
                let hint = "resume with the data it was started with, or start a new run in another folder";
                Err(Error::new("cannot resume this run", why, hint))
            }
            _ => Ok(()),
        }
    }

    /// Notes the images that a new run holds out, of those that were found. One that goes on gets those that it began with, which
    /// may be none.
    ///
    /// # Errors
    /// What a resumed run held out is not what was found.
    pub fn bind_held_out(&mut self, found: Option<Arc<Dataset>>) -> Result<Option<Arc<Dataset>>> {
        let now = found.as_ref().map_or_else(|| NONE.to_owned(), |images| images.fingerprint());
        let before = self.state.held_out.get_or_insert_with(|| now.clone());
        if *before == now {
            return Ok(found);
        }
        if *before == NONE {
            return Ok(None);
        }
        let why = format!("its held-out images were {before}, and what is found now is {now}");
        let hint = "put its test images back beside its data, or start a new run in another folder";
        Err(Error::new("cannot resume this run", why, hint))
    }

    /// The settings.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The noise schedule.
    pub fn schedule(&self) -> &Arc<Schedule> {
        &self.schedule
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.state.step
    }

    /// Whether nothing is left of it to save.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether all steps are done.
    pub fn is_done(&self) -> bool {
        self.state.step >= self.plan.run.steps
    }

    /// The curves.
    pub fn history(&self) -> &History {
        &self.state.history
    }

    /// The moving average of the weights.
    pub fn ema(&self) -> Params {
        self.params(|slot| &slot.ema)
    }

    /// The weights as the optimiser left them.
    pub fn raw(&self) -> Params {
        self.params(|slot| &slot.param)
    }

    /// The network with one of these copies of the weights.
    ///
    /// # Errors
    /// If they are not of this network.
    pub fn network(&self, params: &Params) -> Result<Network> {
        let (prediction_type, schedule) = (self.plan.prediction_type, Arc::clone(&self.schedule));
        Network::new((&self.plan.model, params), self.compute.path(), prediction_type, schedule)
    }

    fn params(&self, tensor: impl Fn(&Slot) -> &Tensor) -> Params {
        self.template.with_tensors(self.slots.iter().map(|s| tensor(s).clone()))
    }

    /// All that a resumed run needs to end with the same bytes.
    ///
    /// # Errors
    /// If the weights are lost: what was saved before shall stay.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        if self.lost {
            return Err(Error::new(
                "the weights of this training are lost",
                "they came to what is no number, and its last good state could not be read back",
                "go on from its last save, or start again",
            ));
        }
        self.snapshot().checkpoint()
    }

    /// The state as it is now, taken in no time: tensors are shared, and a step makes new ones.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            plan: self.plan.clone(),
            ema: self.ema(),
            raw: self.raw(),
            adam: (self.params(|s| &s.m), self.params(|s| &s.v)),
            state: self.state.clone(),
        }
    }

    /// One optimiser step on the batch that (seed, step) addresses.
    ///
    /// # Errors
    /// As [`Trainer::step_on`].
    pub fn step(&mut self, data: &Dataset) -> Result<StepStats> {
        let (seed, step, n) = (self.plan.run.seed, self.state.step + 1, self.plan.run.batch);
        let x_start = data.batch(seed, step - 1, n, self.plan.run.flip.unwrap_or(data.flip));
        let mut times = stream(seed, Purpose::TrainTime, [step, 0]);
        let t: Vec<usize> = (0..n).map(|_| times.below(self.schedule.steps())).collect();
        let mut noise = Images::zeros(n, x_start.shape());
        stream(seed, Purpose::TrainNoise, [step, 0]).fill_normal(&mut noise.data);
        self.step_on(&x_start, &t, &noise)
    }

    /// One optimiser step on given images, timesteps and noise: descends ∇‖ε - ε_θ(√ᾱ x_0 + √(1-ᾱ) ε, t)‖², or that of
    /// v. What is measured is the error of the noise either way.
    ///
    /// # Errors
    /// If the loss, the gradient or a weight is not a number: then the run is back at its last good state.
    pub fn step_on(&mut self, x_start: &Images, t: &[usize], noise: &Images) -> Result<StepStats> {
        let step = self.state.step + 1;
        let run = &self.plan.run;
        let x_t = process::q_sample(&self.schedule, x_start, t, noise);
        let target = self.plan.prediction_type.target(&self.schedule, x_start, t, noise);
        let weights = self.slots.iter().map(|s| kernels::tracked(self.compute.path(), &s.param));
        let weights = weights.collect::<candle_core::Result<Vec<_>>>()?;
        let params = self.template.with_tensors(weights.iter().cloned());
        let net = UNet::new(&self.plan.model, &params, self.compute.path())?;
        let size = micro_batch(t.len(), self.compute.device());
        let micro_batches = t.len().div_ceil(size);
        let backward = |k: usize| -> Result<(Vec<Sample>, Vec<Tensor>)> {
            let rows = k * size..((k + 1) * size).min(t.len());
            let tensor = |images: &Images| {
                let (n, len, [c, h, w]) = (rows.len(), images.len_one(), images.shape());
                Tensor::from_slice(&images.data[rows.start * len..rows.end * len], (n, c, h, w), self.compute.device())
            };
            let times: Vec<f32> = t[rows.clone()].iter().map(|&t| t as f32).collect();
            let dropout = Dropout { seed: run.seed, step, micro_batch: k as u64 };
            let output = || net.forward(&tensor(&x_t)?, &times, Some(dropout));
            let loss = |out: &Tensor| {
                let (difference, count) = ((out - tensor(&target)?)?, target.data.len() as f64);
                let samples = self.measure(x_start, t, rows.clone(), &mut difference.flatten_all()?.to_vec1()?);
                Ok((samples, (difference * (2.0 / count))?))
            };
            Ok(kernels::gradients(self.compute.path(), &weights, output, loss)?)
        };
        let (mut samples, mut grads, mut squares) = (Vec::new(), Vec::<Tensor>::new(), Vec::new());
        // a few at a time, since each gradient is as large as the network
        for first in (0..micro_batches).step_by(2 * self.compute.threads()) {
            let count = (2 * self.compute.threads()).min(micro_batches - first);
            let mut parts = if first == 0 { vec![] } else { vec![std::mem::take(&mut grads)] };
            for result in self.compute.map(count, |k| backward(first + k)) {
                let (part_samples, part) = result?;
                samples.extend(part_samples);
                parts.push(part);
            }
            (grads, squares) = self.compute.run_here(|| adam::sum_gradients(parts))?;
        }
        let loss = samples.iter().map(|s| f64::from(s.simple)).sum::<f64>() / t.len() as f64;
        if !loss.is_finite() {
            let first = samples.iter().find(|s| !s.simple.is_finite()).map(|s| s.t);
            return Err(self.diverged(&Culprit::Loss(loss, first)));
        }
        let norm = squares.iter().sum::<f64>().sqrt();
        if !norm.is_finite() {
            return Err(self.diverged(&Culprit::Gradients(squares)));
        }
        self.silent.resize(squares.len(), 0);
        for (steps, square) in self.silent.iter_mut().zip(&squares) {
            *steps = if *square <= NO_GRADIENT * norm * norm { *steps + 1 } else { 0 };
        }
        let learning_rate = run.learning_rate_at(step);
        let update = Update {
            step,
            learning_rate,
            grad_scale: adam::clip_scale(norm, run.grad_clip),
            ema_decay: run.ema_decay_at(step),
        };
        let well = || self.state.history.mean_loss(16).is_none_or(|loss| loss < LOST * self.blank_loss());
        if self.good.is_none() || self.state.step.is_multiple_of(GOOD_EVERY) && well() {
            // first, since two may be more than the disk takes
            self.good = None;
            self.good = Some(Good::new(&self.slots, &self.state));
        }
        // each old weight goes as the new one comes, and what was prepared from them before that
        drop((net, params, weights));
        let slots = &mut self.slots;
        let moved = match self.compute.run_here(|| adam::update_all(slots, grads, &update)) {
            Ok(moved) => moved,
            Err(e) => {
                // some weights have moved and others have not
                return Err(match self.go_back() {
                    Ok(_) => e.into(),
                    Err(back) => self.lost(&e, &back),
                });
            }
        };
        if let Some(i) = moved.iter().position(|[weights, _]| !weights.is_finite()) {
            return Err(self.diverged(&Culprit::Weight(i)));
        }
        let [weights, moved] = moved.iter().fold([0.0; 2], |[a, b], [c, d]| [a + c, b + d]);
        let stats = StepStats {
            step,
            loss: loss as f32,
            grad_norm: finite(norm),
            learning_rate: learning_rate as f32,
            update_ratio: finite((moved / weights).sqrt()),
            ema_decay: update.ema_decay as f32,
        };
        self.state.step = step;
        self.state.history.push(stats);
        self.state.history.push_samples(step, &samples, self.schedule.steps());
        Ok(stats)
    }

    /// Whether the step that was just done is one after which [`Trainer::evaluate`] is due.
    pub fn evaluation_due(&self) -> bool {
        self.state.step.is_multiple_of(evaluation::every(self.plan.run.batch))
    }

    /// Notes the loss of the raw weights on fixed images that are trained on, and on such that are not.
    ///
    /// # Errors
    /// If the device fails.
    pub fn evaluate(&mut self, data: &Dataset, held_out: &Dataset) -> Result<()> {
        let network = self.network(&self.raw())?;
        let loss = |data| evaluation::loss(&network, &self.compute, &self.schedule, data);
        let evaluation = Evaluation { step: self.state.step, train: loss(data)?, held_out: loss(held_out)? };
        self.held_out = held_out.len();
        self.state.history.push_evaluation(evaluation);
        Ok(())
    }

    /// The loss of a network that predicts nothing.
    fn blank_loss(&self) -> f32 {
        self.plan.prediction_type.blank_loss(&self.schedule, self.range.1) as f32
    }

    /// What is to be said about the run.
    pub fn examine(&self) -> Vec<Verdict> {
        let (range, mean_square) = self.range;
        // attention does not change with the bias of its keys, so that never has a gradient
        let silent = self.template.iter().zip(&self.silent);
        let silent = silent.filter(|((name, _), steps)| **steps >= SILENT && !name.ends_with("to_k.bias"));
        doctor::examine(&Signals {
            run: &self.plan.run,
            history: &self.state.history,
            range,
            prior_bits: process::prior_bits_per_dim(self.schedule.alpha_bar(self.schedule.steps()), mean_square),
            blank: self.blank_loss(),
            held_out: self.held_out,
            silent: &silent.map(|((name, _), _)| name.to_owned()).collect::<Vec<_>>(),
        })
    }

    /// What the images `rows` of a batch measured: their share of `errors` is that of what the network predicts.
    fn measure(&self, x_start: &Images, t: &[usize], rows: Range<usize>, errors: &mut [f32]) -> Vec<Sample> {
        let images = rows.zip(errors.chunks_exact_mut(x_start.len_one()));
        let of = |(i, error): (usize, &mut [f32])| {
            let share = self.plan.prediction_type.share_of_error(&self.schedule, t[i]) as f32;
            error.iter_mut().for_each(|e| *e *= share);
            let squares: f64 = error.iter().map(|e| f64::from(*e).powi(2)).sum();
            let bits = bound::bits_per_dim(&self.schedule, t[i], x_start.one(i), error);
            Sample { t: t[i], simple: (squares / error.len() as f64) as f32, bits: finite(bits) }
        };
        images.map(of).collect()
    }

    /// To the last good state, if there is one; its step. Settings that were changed since stay as they are, but for a
    /// learning rate that was raised.
    fn go_back(&mut self) -> candle_core::Result<Option<u64>> {
        let Some(good) = self.good.take() else { return Ok(None) };
        (self.slots, self.state) = good.restore(&self.slots)?;
        let now = &mut self.plan.run;
        now.learning_rate = now.learning_rate.min(self.state.run.learning_rate);
        changes::note(&mut self.state.history.changes, self.state.step, &self.state.run, &self.plan.run);
        self.state.run = self.plan.run.clone();
        Ok(Some(self.state.step))
    }

    /// Goes back to the last good state; from the state of the step before, the same batch would most often fail again.
    fn diverged(&mut self, culprit: &Culprit) -> Error {
        let names: Vec<&str> = self.template.iter().map(|(name, _)| name).collect();
        let (why, rate) = (culprit.words(self.state.step + 1, &names), self.plan.run.learning_rate);
        let hint = match self.go_back() {
            Ok(Some(step)) => {
                format!("the run is back at step {step}, its last good state; go on with a learning rate below {rate}")
            }
            Err(e) if matches!(culprit, Culprit::Weight(_)) => return self.lost(&why, &e),
            Ok(None) | Err(_) => {
                "the run is as it was; go on from an older save, or with a lower learning rate".to_owned()
            }
        };
        Error { kind: Kind::Diverged, ..Error::new("training stopped", why, hint) }
    }

    /// Says so of the weights, and remembers it.
    fn lost(&mut self, why: &impl Display, back: &candle_core::Error) -> Error {
        self.lost = true;
        let why = format!("{why}, and its last good state cannot be read back: {back}");
        Error::new("training stopped", why, "go on from its last save, or start again")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;

    fn small() -> (Trainer, Dataset) {
        let plan = RunConfig { preset: "digits16".into(), batch: 4, ..RunConfig::default() }.validate().unwrap();
        let (source, shape) = plan.data_place();
        let data = Dataset::load(&source, shape, &|_, _| true).unwrap();
        let compute = Arc::new(Compute::new(Device::Cpu, 1, || ()).unwrap());
        (Trainer::new(plan, compute).unwrap(), data)
    }

    #[test]
    fn a_rate_that_was_lowered_since_the_last_good_state_stays_lowered() {
        let (mut run, data) = small();
        run.step(&data).unwrap();
        run.change(&Changes { learning_rate: Some(1e-5), ..Changes::default() }).unwrap();
        run.step(&data).unwrap();
        let e = run.diverged(&Culprit::Loss(f64::NAN, None));
        assert!(e.hint.contains("back at step 0") && e.hint.contains("below 0.00001"), "{e}");
        let change = run.history().changes().last().unwrap();
        assert_eq!((run.steps_done(), change.after, change.from, change.to), (0, 0, 2e-4, 1e-5));
        let saved = run.checkpoint().unwrap().training.unwrap().state;
        assert_eq!((&saved["run"]["learning_rate"], run.plan().run.learning_rate), (&1e-5.into(), 1e-5));
    }

    #[test]
    fn a_run_whose_last_good_state_is_gone_is_not_saved_once_its_weights_are_no_numbers() {
        let (mut run, data) = small();
        run.step(&data).unwrap();
        // before the weights have moved, nothing is lost
        run.good = Some(Good::unreadable(&run.state));
        let e = run.diverged(&Culprit::Loss(f64::NAN, None));
        assert!(e.kind == Kind::Diverged && run.checkpoint().is_ok(), "{e}");
        run.good = Some(Good::unreadable(&run.state));
        run.plan.run.learning_rate = f64::MAX;
        let e = run.step(&data).unwrap_err();
        assert!(e.kind == Kind::Failed && e.to_string().contains("cannot be read back"), "{e}");
        assert_eq!(run.steps_done(), 1);
        assert!(
            run.is_lost()
                && run.checkpoint().is_err_and(|e| e.to_string().contains("weights of this training are lost"))
        );
    }
}
