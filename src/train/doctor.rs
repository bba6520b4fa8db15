//! The run doctor: what cheap signals say about a run, in plain sentences, each with what to do.

use super::config::RunConfig;
use super::evaluation::Evaluation;
use super::metrics::{History, Point};

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The moving average is still made of the initial weights.
    EmaHoldsStart,
    /// The loss is that of a network that predicts nothing.
    NothingLearned,
    /// The loss is far above that of a network that predicts nothing.
    Diverging,
    /// The loss hardly falls, which is normal.
    Plateau,
    /// The pictures use little of the range from black to white.
    DataRange,
    /// Single gradients are far larger than the others.
    GradientSpikes,
    /// Weights get no gradient.
    DeadLayers,
    /// x_T is not pure noise.
    PriorGap,
    /// Training images are predicted better than others.
    Memorising,
}

/// One sentence, and what to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What was found.
    pub finding: Finding,
    /// Whether something is wrong; otherwise it is only good to know.
    pub alarming: bool,
    /// The sentence.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// What the doctor looks at.
#[derive(Clone, Copy, Debug)]
pub struct Signals<'a> {
    /// The settings.
    pub run: &'a RunConfig,
    /// The curves.
    pub history: &'a History,
    /// Least and largest byte of the pictures, 0 black.
    pub range: (u8, u8),
    /// L_T of the data, bits per dimension.
    pub prior_bits: f64,
    /// Loss of a network that says nothing but 0: 1 if it predicts ε.
    pub blank: f32,
    /// Held-out images that are measured.
    pub held_out: usize,
    /// Weights that have had no gradient for a while, by their paths.
    pub silent: &'a [String],
}

/// Share of the initial weights in the average past which its samples are bad.
const EMA_SHARE: f32 = 0.1;
/// The share that is as good as nothing.
const EMA_GONE: f32 = 0.01;
/// Loss past which nothing is learned, of that of predicting nothing.
const UNLEARNED: f32 = 0.9;
/// Loss past which a run is falling apart, of the same.
const APART: f32 = 2.0;
/// Steps that a run is given to begin to learn.
const PATIENCE: u64 = 200;
/// Steps before which no plateau is spoken of.
const PLATEAU_FROM: u64 = 2000;
/// A fall of the loss over a fifth of the run that is called a plateau.
const FLAT: f32 = 0.03;
/// Byte values that pictures should span.
const SPAN: u8 = 64;
/// Newest steps that are searched for spikes.
const SPIKE_STEPS: usize = 500;
/// Times the median that make a spike.
const SPIKE: f32 = 10.0;
/// L_T that counts, bits per dimension; the paper's is 1e-5.
const PRIOR: f64 = 0.01;
/// Held-out images from which their loss says something.
const ENOUGH: usize = 16;
/// Loss on held-out images over that on training images past which a network memorises.
const MEMORISED: f32 = 1.2;

/// All that is to be said about a run, what is alarming first.
pub fn examine(signals: &Signals<'_>) -> Vec<Verdict> {
    let findings = [
        diverging(signals),
        nothing_learned(signals),
        data_range(signals),
        prior_gap(signals),
        dead_layers(signals),
        gradient_spikes(signals),
        memorising(signals),
        ema(signals),
        plateau(signals),
    ];
    findings.into_iter().flatten().collect()
}

fn verdict(finding: Finding, what: String, advice: impl Into<String>) -> Option<Verdict> {
    Some(Verdict { finding, alarming: finding != Finding::Plateau, what, advice: advice.into() })
}

fn step(s: &Signals<'_>) -> u64 {
    s.history.last().map_or(0, |s| s.step)
}

fn diverging(s: &Signals<'_>) -> Option<Verdict> {
    let loss = s.history.mean_loss(16).filter(|loss| *loss > APART * s.blank)?;
    let what = format!("The loss is {loss:.3}, worse than that of predicting nothing at all, which is {:.2}", s.blank);
    let rate = s.run.learning_rate;
    verdict(Finding::Diverging, what, format!("Lower the learning rate, now {rate:e}, or go back to an older save"))
}

fn nothing_learned(s: &Signals<'_>) -> Option<Verdict> {
    let loss = s.history.mean_loss(100).filter(|loss| (UNLEARNED..=APART).contains(&(loss / s.blank)))?;
    if step(s) < PATIENCE.max(s.run.warmup / 2) {
        return None;
    }
    let what =
        format!("The loss is {loss:.3}, and predicting nothing at all gives {:.2}: nothing is learned yet", s.blank);
    let advice = if step(s) < s.run.warmup {
        format!("The learning rate still rises until step {}: wait, or give a shorter warm-up", s.run.warmup)
    } else {
        format!("Try another learning rate, now {:e}, and look at the data", s.run.learning_rate)
    };
    verdict(Finding::NothingLearned, what, advice)
}

fn data_range(s: &Signals<'_>) -> Option<Verdict> {
    let (low, high) = s.range;
    if high - low >= SPAN {
        return None;
    }
    let what = format!("The pictures use the values {low} to {high} of 0 to 255: hardly any contrast");
    verdict(Finding::DataRange, what, "Scale them to the whole range from black, 0, to white, 255")
}

fn prior_gap(s: &Signals<'_>) -> Option<Verdict> {
    if s.prior_bits <= PRIOR {
        return None;
    }
    let what = format!(
        "The noisiest state still shows the picture: the prior gap is {:.3} bits/dim, not about 0.00001",
        s.prior_bits
    );
    verdict(Finding::PriorGap, what, "Take another noise schedule (F7 shows them)")
}

fn dead_layers(s: &Signals<'_>) -> Option<Verdict> {
    let first = s.silent.first()?;
    let others = match s.silent.len() {
        1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    let what = format!("{first}{others} get no gradient: they do not learn");
    verdict(Finding::DeadLayers, what, "Start again with a lower learning rate or another seed")
}

fn gradient_spikes(s: &Signals<'_>) -> Option<Verdict> {
    let norms = s.history.recent().rev().take(SPIKE_STEPS).filter(|s2| s2.step > s.run.warmup);
    let norms: Vec<f32> = norms.map(|s| s.grad_norm).collect();
    if norms.len() < 100 {
        return None;
    }
    let mut sorted = norms.clone();
    sorted.sort_by(f32::total_cmp);
    let median = sorted[sorted.len() / 2];
    let spikes = norms.iter().filter(|norm| **norm > SPIKE * median).count();
    let largest = sorted[sorted.len() - 1];
    if spikes == 0 || median <= 0.0 {
        return None;
    }
    let (times, n) = (largest / median, norms.len());
    let what = format!("Of the last {n} gradients {spikes} are spikes, up to {times:.0} times the usual norm");
    let advice = format!(
        "Clipping at {} takes their force; if the loss jumps with them, lower the learning rate",
        s.run.grad_clip
    );
    verdict(Finding::GradientSpikes, what, advice)
}

fn memorising(s: &Signals<'_>) -> Option<Verdict> {
    let newest: Vec<&Evaluation> = s.history.evaluations().iter().rev().take(3).collect();
    if newest.len() < 3 || s.held_out < ENOUGH {
        return None;
    }
    let mean = |f: fn(&Evaluation) -> f32| newest.iter().map(|e| f(e)).sum::<f32>() / newest.len() as f32;
    let (train, held_out) = (mean(|e| e.train), mean(|e| e.held_out));
    if held_out <= MEMORISED * train {
        return None;
    }
    let what = format!(
        "The loss on held-out images is {held_out:.4}, {:.0} % above that on training images: it memorises",
        100.0 * (held_out / train - 1.0)
    );
    verdict(Finding::Memorising, what, "Take more images, a smaller network, or an earlier save of this run")
}

fn ema(s: &Signals<'_>) -> Option<Verdict> {
    let share = s.history.ema_initial().filter(|share| *share > EMA_SHARE)?;
    let decay = s.history.last()?.ema_decay;
    let left = (EMA_GONE / share).ln() / decay.ln();
    // the decay of the first steps rises so fast that there is nothing to say
    if step(s) < 50 || !left.is_finite() {
        return None;
    }
    let what =
        format!("The EMA still holds {:.1} % of the initial weights, so its samples look like noise", 100.0 * share);
    let advice = format!("Wait until step {}, or lower the EMA decay", step(s) + left.ceil() as u64);
    verdict(Finding::EmaHoldsStart, what, advice)
}

fn plateau(s: &Signals<'_>) -> Option<Verdict> {
    let whole = s.history.whole();
    if step(s) < PLATEAU_FROM || whole.len() < 10 {
        return None;
    }
    let fifth = whole.len() / 5;
    let mean = |points: &[Point]| points.iter().map(|p| p.loss).sum::<f32>() / points.len() as f32;
    let (now, before) =
        (mean(&whole[whole.len() - fifth..]), mean(&whole[whole.len() - 2 * fifth..whole.len() - fifth]));
    let fall = 1.0 - now / before;
    if !(-FLAT..FLAT).contains(&fall) || now > UNLEARNED * s.blank {
        return None;
    }
    let what = format!("The loss stays near {now:.4}. This is normal for diffusion: samples still improve");
    verdict(Finding::Plateau, what, "Judge by the samples, and by the loss at each timestep")
}

#[cfg(test)]
mod tests {
    use super::super::metrics::StepStats;
    use super::*;

    fn stats(step: u64) -> StepStats {
        let loss = 0.02 + 1.0 / step as f32 + 0.004 * (step % 7) as f32;
        StepStats { step, loss, grad_norm: 0.2, learning_rate: 2e-4, update_ratio: 1e-3, ema_decay: 0.9 }
    }

    fn history(steps: u64, edit: impl Fn(&mut StepStats)) -> History {
        let mut history = History::default();
        for step in 1..=steps {
            let mut stats = stats(step);
            edit(&mut stats);
            history.push(stats);
        }
        history
    }

    fn signals<'a>(run: &'a RunConfig, history: &'a History) -> Signals<'a> {
        Signals { run, history, range: (0, 255), prior_bits: 1e-5, blank: 1.0, held_out: 128, silent: &[] }
    }

    /// The one verdict, if there is one.
    fn only(signals: &Signals<'_>) -> Option<Verdict> {
        let mut all = examine(signals);
        assert!(all.len() <= 1, "{all:?}");
        for v in &all {
            assert!(v.what.starts_with(char::is_uppercase) || v.finding == Finding::DeadLayers, "{}", v.what);
            assert!(!v.advice.is_empty() && !v.what.ends_with('.') && !v.advice.ends_with('.'), "{v:?}");
        }
        all.pop()
    }

    #[test]
    fn a_healthy_run_gets_nothing_alarming_at_any_step() {
        let run = RunConfig { warmup: 100, ..RunConfig::default() };
        for steps in [0, 1, 2, 20, 199, 200, 1000, 5000, 20_000] {
            let history = history(steps, |_| ());
            let verdict = only(&signals(&run, &history));
            assert!(verdict.is_none_or(|v| v.finding == Finding::Plateau && !v.alarming && steps >= 2000), "{steps}");
        }
    }

    #[test]
    fn an_average_of_the_start_is_told_with_its_share_and_its_end() {
        let run = RunConfig::default();
        let history = history(8000, |s| s.ema_decay = 0.9999);
        let v = examine(&signals(&run, &history));
        let v = v.iter().find(|v| v.finding == Finding::EmaHoldsStart).unwrap();
        // 0.9999^8000 = 0.449, and below 1 % after 46,050 steps
        assert!(v.what.contains("44.9 %") && v.alarming, "{}", v.what);
        let step: u64 = v.advice.split_whitespace().find_map(|word| word.trim_end_matches(',').parse().ok()).unwrap();
        assert!((45_500..46_600).contains(&step), "{}", v.advice);
    }

    #[test]
    fn a_loss_near_one_means_that_nothing_is_learned() {
        let run = RunConfig::default();
        let flat = |steps| history(steps, |s| s.loss = 0.99);
        assert_eq!(only(&signals(&run, &flat(150))), None, "it has just begun");
        let v = only(&signals(&run, &flat(300))).unwrap();
        assert!(v.finding == Finding::NothingLearned && v.advice.contains("step 500"), "{v:?}");
        let v = only(&signals(&run, &flat(3000))).unwrap();
        assert!(v.finding == Finding::NothingLearned && v.advice.contains("2e-4"), "{v:?}");
    }

    #[test]
    fn a_loss_far_above_one_means_that_the_run_falls_apart() {
        let run = RunConfig::default();
        let history = history(1000, |s| s.loss = if s.step > 900 { 40.0 } else { 0.1 });
        let v = only(&signals(&run, &history)).unwrap();
        assert!(v.finding == Finding::Diverging && v.alarming && v.what.contains("40.000"), "{v:?}");
    }

    #[test]
    fn pictures_of_zeros_and_ones_are_found() {
        let (run, history) = (RunConfig::default(), History::default());
        let v = only(&Signals { range: (0, 1), ..signals(&run, &history) }).unwrap();
        assert!(v.finding == Finding::DataRange && v.what.contains("0 to 1 of 0 to 255"), "{v:?}");
    }

    #[test]
    fn a_schedule_that_leaves_the_picture_in_the_noise_is_found() {
        let (run, history) = (RunConfig::default(), History::default());
        let v = only(&Signals { prior_bits: 0.34, ..signals(&run, &history) }).unwrap();
        assert!(v.finding == Finding::PriorGap && v.what.contains("0.340"), "{v:?}");
    }

    #[test]
    fn layers_without_gradient_are_named() {
        let (run, history) = (RunConfig::default(), History::default());
        let silent = ["conv_in.weight".to_owned(), "conv_in.bias".to_owned()];
        let v = only(&Signals { silent: &silent, ..signals(&run, &history) }).unwrap();
        assert!(v.finding == Finding::DeadLayers && v.what.starts_with("conv_in.weight and 1 more"), "{v:?}");
    }

    #[test]
    fn gradients_far_above_the_others_are_counted() {
        let run = RunConfig::default();
        let spiky = |size: f32| history(1500, move |s| s.grad_norm = if s.step % 400 == 0 { size } else { 0.2 });
        assert_eq!(only(&signals(&run, &spiky(1.0))), None);
        let v = only(&signals(&run, &spiky(9.0))).unwrap();
        assert!(v.finding == Finding::GradientSpikes && v.what.starts_with("Of the last 500 gradients 1 are"), "{v:?}");
        assert!(v.what.contains("45 times"), "{v:?}");
    }

    #[test]
    fn a_gap_between_training_and_held_out_images_is_memorising() {
        let run = RunConfig::default();
        for (held_out, found) in [(0.022, false), (0.03, true)] {
            let mut history = history(1000, |_| ());
            (1..=5).for_each(|i| history.push_evaluation(Evaluation { step: 200 * i, train: 0.02, held_out }));
            let v = only(&signals(&run, &history));
            assert_eq!(v.is_some_and(|v| v.finding == Finding::Memorising && v.what.contains("50 %")), found);
        }
    }

    #[test]
    fn a_plateau_is_called_normal() {
        let run = RunConfig::default();
        let v = only(&signals(&run, &history(6000, |s| s.loss = 0.03 + 0.001 * (s.step % 5) as f32))).unwrap();
        assert!(v.finding == Finding::Plateau && !v.alarming && v.what.contains("normal"), "{v:?}");
    }
}
