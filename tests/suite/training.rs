//! Training: ten steps against PyTorch, and the same bytes whatever the threads, the pauses and the resumes.

use crate::golden::gpu;
use candle_core::{DType, Device, Tensor};
use ddpm_film::checkpoint;
use ddpm_film::data::{Dataset, Source};
use ddpm_film::diffusion::Images;
use ddpm_film::diffusion::noise::Purpose;
use ddpm_film::diffusion::process::{noise_images, q_sample};
use ddpm_film::diffusion::schedule::Schedule;
use ddpm_film::kernels::Path;
use ddpm_film::model::compute::Compute;
use ddpm_film::model::{Config, Denoiser as _, Network, Params};
use ddpm_film::train::changes::Changes;
use ddpm_film::train::config::{Plan, RunConfig};
use ddpm_film::train::doctor::Finding;
use ddpm_film::train::timesteps::bin;
use ddpm_film::train::trainer::Trainer;
use std::collections::HashMap;
use std::sync::Arc;

fn compute(threads: usize, path: Path) -> Arc<Compute> {
    Arc::new(Compute::new(Device::Cpu, threads, || ()).unwrap().with_path(path))
}

fn ten_steps_agree(path: Path) {
    ten_steps_agree_on(compute(2, path));
}

fn ten_steps_agree_on(compute: Arc<Compute>) {
    let (trainer, golden) = ten_losses_agree(compute, 1e-4);
    for (prefix, params) in [("final", trainer.raw()), ("ema", trainer.ema())] {
        for (name, ours) in params.iter() {
            // the true gradient of a key bias is zero, so Adam follows rounding noise
            if name.ends_with("to_k.bias") {
                continue;
            }
            for (a, b) in values(ours).iter().zip(values(&golden[&format!("{prefix}.{name}")])) {
                assert!((a - b).abs() <= 1e-4, "{prefix}.{name}: {a} against {b}");
            }
        }
    }
}

fn values(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// After the steps of the reference: what was trained, and the reference.
fn ten_losses_agree(compute: Arc<Compute>, tolerance: f32) -> (Trainer, HashMap<String, Tensor>) {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/unet_gray");
    let golden: HashMap<String, Tensor> =
        candle_core::safetensors::load(dir.join("train.safetensors"), &Device::Cpu).unwrap();
    let start = checkpoint::load(&dir, compute.device()).unwrap();
    let run = RunConfig {
        learning_rate: 2e-4,
        warmup: 0,
        grad_clip: 1.0,
        ema_decay: 0.995,
        ema_warmup: false,
        batch: 4,
        ..RunConfig::default()
    };
    let plan = Plan { model: start.config, ..run.validate().unwrap() };
    let mut trainer = Trainer::from_params(plan, compute, start.ema).unwrap();
    let images = |name: String| Images::new(4, [1, 16, 16], values(&golden[&name]));
    for i in 0..10 {
        let t: Vec<usize> = values(&golden[&format!("t.{i}")]).into_iter().map(|t| t as usize).collect();
        let stats = trainer.step_on(&images(format!("x0.{i}")), &t, &images(format!("eps.{i}"))).unwrap();
        let (loss, norm) = (values(&golden["losses"])[i], values(&golden["grad_norms"])[i]);
        assert!((stats.loss - loss).abs() <= tolerance, "step {i}: loss {} against {loss}", stats.loss);
        assert!((stats.grad_norm / norm - 1.0).abs() < 1e-3, "step {i}: norm {} against {norm}", stats.grad_norm);
    }
    (trainer, golden)
}

#[test]
fn ten_steps_agree_with_pytorch_on_exact_kernels() {
    ten_steps_agree(Path::Exact);
}

#[test]
fn ten_losses_agree_with_pytorch_on_fast_kernels() {
    ten_losses_agree(compute(2, Path::Fast), 1e-3);
}

#[test]
fn ten_steps_agree_with_pytorch_on_candle() {
    ten_steps_agree(Path::Candle);
}

#[test]
fn ten_steps_agree_with_pytorch_on_a_gpu() {
    if let Some(device) = gpu() {
        ten_steps_agree_on(Arc::new(Compute::new(device, 1, || ()).unwrap()));
    }
}

fn small_run(steps: u64) -> RunConfig {
    RunConfig {
        preset: "digits16".into(),
        steps,
        batch: 33,
        seed: 3,
        learning_rate: 1e-3,
        warmup: 2,
        ..RunConfig::default()
    }
}

fn bytes(trainer: &Trainer) -> Vec<u32> {
    let both = [trainer.raw().to_flat().unwrap(), trainer.ema().to_flat().unwrap()];
    both.concat().iter().map(|v| v.to_bits()).collect()
}

#[test]
fn threads_pauses_and_resumes_change_no_bit() {
    let with_dropout = |steps| {
        let plan = small_run(steps).validate().unwrap();
        Plan { model: Config { dropout: 0.1, ..plan.model }, ..plan }
    };
    let plan = with_dropout(6);
    let data = Dataset::load(&Source::Mnist, [1, 16, 16], &|_, _| true).unwrap();
    let whole = |threads| {
        let mut trainer = Trainer::new(plan.clone(), compute(threads, Path::Fast)).unwrap();
        while !trainer.is_done() {
            trainer.step(&data).unwrap();
        }
        trainer
    };
    let reference = whole(1);
    for threads in [2, 3] {
        assert!(bytes(&whole(threads)) == bytes(&reference), "{threads} threads give other bytes");
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("run");
    let mut first = Trainer::new(with_dropout(3), compute(2, Path::Fast)).unwrap();
    while !first.is_done() {
        first.step(&data).unwrap();
    }
    checkpoint::save(&dir, &first.checkpoint().unwrap()).unwrap();
    let saved = checkpoint::load(&dir, &Device::Cpu).unwrap();
    let mut resumed = Trainer::resume(plan.clone(), compute(1, Path::Fast), &saved).unwrap();
    assert_eq!(resumed.steps_done(), 3);
    while !resumed.is_done() {
        resumed.step(&data).unwrap();
    }
    assert!(bytes(&resumed) == bytes(&reference), "a resumed run ends with other bytes");
    assert_eq!(resumed.history(), reference.history());

    let other = RunConfig { grad_clip: 0.5, ..small_run(6) };
    let other = Plan { model: plan.model, ..other.validate().unwrap() };
    let refused = Trainer::resume(other, compute(1, Path::Fast), &saved).err().unwrap();
    assert!(refused.to_string().contains("settings"), "{refused}");
}

#[test]
fn a_run_on_fast_kernels_follows_one_on_exact_kernels() {
    let plan = RunConfig { batch: 8, ..small_run(30) }.validate().unwrap();
    let data = Dataset::load(&Source::Mnist, [1, 16, 16], &|_, _| true).unwrap();
    let run = |path| {
        let mut trainer = Trainer::new(plan.clone(), compute(2, path)).unwrap();
        let losses: Vec<f32> = (0..30).map(|_| trainer.step(&data).unwrap().loss).collect();
        (losses, bytes(&trainer))
    };
    let ((fast, fast_bytes), (exact, exact_bytes)) = (run(Path::Fast), run(Path::Exact));
    assert!(fast_bytes != exact_bytes, "both ran on the same kernels");
    // another seed moves the loss by 5 %
    for (step, (fast, exact)) in fast.iter().zip(&exact).enumerate() {
        assert!((fast / exact - 1.0).abs() < 1e-3, "step {step}: loss {fast} against {exact}");
    }
    assert!(exact[25..].iter().sum::<f32>() < 0.5 * exact[..5].iter().sum::<f32>(), "nothing was learned: {exact:?}");
}

#[test]
#[ignore = "takes minutes: cargo test --release --test suite within_noise -- --ignored --nocapture"]
fn runs_on_fast_and_exact_kernels_end_within_noise_of_each_other() {
    let data = Dataset::load(&Source::Mnist, [1, 16, 16], &|_, _| true).unwrap();
    let run = |path, seed| {
        let plan = RunConfig { batch: 32, seed, ..small_run(1000) }.validate().unwrap();
        let mut trainer = Trainer::new(plan, compute(2, path)).unwrap();
        while !trainer.is_done() {
            trainer.step(&data).unwrap();
        }
        let last: Vec<f64> = trainer.history().recent().rev().take(300).map(|step| f64::from(step.loss)).collect();
        trainer.evaluate(&data, &data).unwrap();
        (last.iter().sum::<f64>() / 300.0, f64::from(trainer.history().evaluations()[0].train))
    };
    let (fast, exact, others) = (run(Path::Fast, 3), run(Path::Exact, 3), [4, 5, 6].map(|seed| run(Path::Fast, seed)));
    eprintln!("mean loss of 300 steps, loss on fixed images: fast {fast:?}, exact {exact:?}, other seeds {others:?}");
    let noise = |of: fn(&(f64, f64)) -> f64| {
        let all = [&others[..], &[fast]].concat();
        all.iter().map(of).fold(f64::MIN, f64::max) - all.iter().map(of).fold(f64::MAX, f64::min)
    };
    assert!((fast.0 - exact.0).abs() < noise(|run| run.0) && (fast.1 - exact.1).abs() < noise(|run| run.1));
}

#[test]
fn a_run_whose_settings_change_on_the_way_resumes_to_the_same_bytes() {
    let data = Dataset::load(&Source::Mnist, [1, 16, 16], &|_, _| true).unwrap();
    let of_v = RunConfig {
        beta_schedule: "squaredcos_cap_v2".into(),
        prediction_type: "v_prediction".into(),
        batch: 4,
        ..small_run(6)
    };
    let plan = || of_v.validate().unwrap();
    let slower = Changes { learning_rate: Some(1e-4), ema_decay: Some(0.5), preview_every: Some(7) };
    let quicker = Changes { learning_rate: Some(2e-3), ..Changes::default() };
    let steps = |trainer: &mut Trainer, n| {
        for _ in 0..n {
            trainer.step(&data).unwrap();
        }
    };
    let mut whole = Trainer::new(plan(), compute(1, Path::Fast)).unwrap();
    steps(&mut whole, 2);
    whole.change(&slower).unwrap();
    steps(&mut whole, 2);
    whole.change(&quicker).unwrap();
    steps(&mut whole, 2);
    assert_eq!(whole.history().last().unwrap().learning_rate, 2e-3);

    let dir = tempfile::tempdir().unwrap();
    let again = |trainer: &Trainer| {
        checkpoint::save(dir.path(), &trainer.checkpoint().unwrap()).unwrap();
        let saved = checkpoint::load(dir.path(), &Device::Cpu).unwrap();
        Trainer::resume(plan(), compute(2, Path::Fast), &saved).unwrap()
    };
    let mut first = Trainer::new(plan(), compute(1, Path::Fast)).unwrap();
    steps(&mut first, 2);
    let mut second = again(&first);
    second.change(&slower).unwrap();
    steps(&mut second, 1);
    let mut third = again(&second);
    assert_eq!(third.plan().run.ema_decay, 0.5);
    steps(&mut third, 1);
    third.change(&quicker).unwrap();
    steps(&mut third, 2);
    assert!(bytes(&third) == bytes(&whole), "a resumed run ends with other bytes");
    assert_eq!(third.history(), whole.history());
    let after: Vec<u64> = third.history().changes().iter().map(|c| c.after).collect();
    assert_eq!(after, [2, 2, 2, 4]);

    let before = bytes(&third);
    let nonsense = Changes { learning_rate: Some(f64::NAN), ..quicker };
    assert!(third.change(&nonsense).unwrap_err().to_string().contains("learning rate"));
    assert!(bytes(&third) == before && third.plan().run.learning_rate == 2e-3);
}

#[test]
fn a_loss_that_is_not_a_number_stops_and_changes_nothing() {
    let mut trainer = Trainer::new(small_run(3).validate().unwrap(), compute(1, Path::Fast)).unwrap();
    let before = bytes(&trainer);
    let mut x = Images::zeros(2, [1, 16, 16]);
    x.data[5] = f32::NAN;
    let e = trainer.step_on(&x, &[1, 2], &Images::zeros(2, [1, 16, 16])).unwrap_err();
    assert!(e.to_string().contains("NaN"), "{e}");
    assert!(e.to_string().contains("step 1") && e.to_string().contains("timestep 1"), "{e}");
    assert!(bytes(&trainer) == before && trainer.steps_done() == 0);
}

#[test]
fn after_a_loss_that_is_not_a_number_the_run_is_back_at_a_good_state_and_goes_on_from_there() {
    let data = Dataset::load(&Source::Mnist, [1, 16, 16], &|_, _| true).unwrap();
    let mut trainer = Trainer::new(small_run(3).validate().unwrap(), compute(2, Path::Fast)).unwrap();
    let first = bytes(&trainer);
    let steps = |trainer: &mut Trainer| (0..3).map(|_| trainer.step(&data).unwrap()).collect::<Vec<_>>();
    let stats = steps(&mut trainer);
    let third = bytes(&trainer);
    trainer.change(&Changes { learning_rate: Some(0.5), ..Changes::default() }).unwrap();
    let mut x = Images::zeros(40, [1, 16, 16]);
    *x.data.last_mut().unwrap() = f32::INFINITY;
    let e = trainer.step_on(&x, &[7; 40], &Images::zeros(40, [1, 16, 16])).unwrap_err().to_string();
    assert!(e.contains("back at step 0") && e.contains("below 0.5"), "{e}");
    assert!(bytes(&trainer) == first && trainer.steps_done() == 0 && trainer.history().last().is_none());
    assert_eq!((steps(&mut trainer), trainer.history().changes().len()), (stats, 0));
    assert!(bytes(&trainer) == third);
}

#[test]
fn the_losses_of_a_step_are_filed_by_their_timestep() {
    let mut trainer = Trainer::new(small_run(3).validate().unwrap(), compute(2, Path::Fast)).unwrap();
    let shape = [1, 16, 16];
    let (x, noise) =
        (noise_images(1, Purpose::Pick, 0, 0, 40, shape), noise_images(1, Purpose::Forward, 0, 0, 40, shape));
    let t: Vec<usize> = (0..40).map(|i| if i == 3 { 0 } else { 25 * i }).collect();
    let stats = trainer.step_on(&x, &t, &noise).unwrap();
    // a new network predicts no noise at all
    let squares = |i: usize| noise.one(i).iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 256.0;
    let by_t = trainer.history().timesteps();
    for i in (4..40).step_by(5) {
        let mean = by_t.simple()[bin(t[i], 1000)].get().unwrap();
        assert!((f64::from(mean) - squares(i)).abs() < 1e-5, "{i}: {mean}");
    }
    assert!((f64::from(stats.loss) - (0..40).map(squares).sum::<f64>() / 40.0).abs() < 1e-5);
    assert_eq!((by_t.decoder().n, by_t.columns().len()), (2, 1), "t = 0 came twice");
    assert!(stats.update_ratio > 0.0 && stats.ema_decay > 0.1);
    assert!(trainer.history().ema_initial().unwrap() < 1.0);
}

#[test]
fn a_run_on_v_learns_v_and_measures_noise() {
    let start = RunConfig { warmup: 0, ..small_run(3) };
    let rate = start.learning_rate as f32;
    let shape = [1, 16, 16];
    let (x_start, noise) = (Images::new(4, shape, vec![-1.0; 1024]), Images::new(4, shape, vec![-0.5; 1024]));
    let bias = |trainer: &Trainer| trainer.raw().get("conv_out.bias").unwrap().to_vec1::<f32>().unwrap()[0];
    let t = [900, 920, 940, 960];
    for (name, moved) in [("v_prediction", rate), ("epsilon", -rate)] {
        let run = RunConfig { prediction_type: name.into(), ..start.clone() };
        let mut trainer = Trainer::new(run.validate().unwrap(), compute(2, Path::Fast)).unwrap();
        // a new network says next to 0, which is √(1-ᾱ) x_t told as noise if it is v
        let eps = trainer.network(&trainer.ema()).unwrap().predict(&noise, &[960.0; 4]).unwrap();
        let root = (1.0 - trainer.schedule().alphas_cumprod[960]).sqrt() as f32;
        let expected = if name == "epsilon" { 0.0 } else { root * -0.5 };
        assert!(eps.data.iter().all(|v| (v - expected).abs() < 2e-5), "{name}: {}", eps.data[0]);
        let stats = trainer.step_on(&x_start, &t, &noise).unwrap();
        // so that Adam's first step moves its bias by the rate, towards the mean of v or ε
        assert!((bias(&trainer) - moved).abs() < 1e-3 * rate, "{name}: {}", bias(&trainer));
        let error = |t: usize| {
            let ac = trainer.schedule().alphas_cumprod[t];
            let v = ac.sqrt() * -0.5 + (1.0 - ac).sqrt();
            if name == "epsilon" { 0.25 } else { ac * v * v }
        };
        let expected = t.map(error).iter().sum::<f64>() / 4.0;
        assert!((f64::from(stats.loss) / expected - 1.0).abs() < 1e-4, "{name}: loss {} of {expected}", stats.loss);
        let checkpoint = trainer.checkpoint().unwrap();
        assert_eq!(checkpoint.schedule.prediction_type().unwrap().name(), name);
    }
}

/// Each shipped model predicts the noise in digits it was trained on about as well as its card says, the last number.
#[test]
fn shipped_models_predict_noise() {
    for (name, shape, card) in [("digits16", [1, 16, 16], 0.0543), ("mnist28", [1, 28, 28], 0.0356)] {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints").join(name);
        let model = checkpoint::load(&dir, &Device::Cpu).unwrap();
        let data = Dataset::load(&Source::Mnist, shape, &|_, _| true).unwrap();
        let schedule = Arc::new(Schedule::new(&model.schedule.schedule().unwrap()).unwrap());
        let x_start = data.batch(9, 0, 64, false);
        let noise = noise_images(9, Purpose::Forward, 0, 0, 64, shape);
        let t: Vec<usize> = (0..64).map(|i| 8 + i * 1000 / 64).collect();
        let x_t = q_sample(&schedule, &x_start, &t, &noise);
        let prediction_type = model.schedule.prediction_type().unwrap();
        let network = Network::new((&model.config, &model.ema), Path::Fast, prediction_type, schedule).unwrap();
        let times: Vec<f32> = t.iter().map(|&t| t as f32).collect();
        let eps = compute(2, Path::Fast).predict(&network, &x_t, &times).unwrap();
        let squares = eps.data.iter().zip(&noise.data).map(|(a, b)| f64::from(a - b).powi(2));
        let loss = squares.sum::<f64>() / noise.data.len() as f64;
        assert!((0.8..1.2).contains(&(loss / card)), "{name}: loss {loss:.4}, on the card {card}");
    }
}

/// Real digits, as anyone would train on them.
#[test]
fn the_doctor_finds_nothing_wrong_with_a_healthy_run_and_dead_layers_in_a_dead_one() {
    let data = Dataset::load(&Source::Mnist, [1, 16, 16], &|_, _| true).unwrap();
    let run = RunConfig { batch: 8, warmup: 20, ..small_run(260) };
    let mut trainer = Trainer::new(run.validate().unwrap(), compute(2, Path::Fast)).unwrap();
    trainer.bind(&data).unwrap();
    for _ in 0..260 {
        trainer.step(&data).unwrap();
        let alarming: Vec<_> = trainer.examine().into_iter().filter(|v| v.alarming).collect();
        assert!(alarming.is_empty(), "step {}: {alarming:?}", trainer.steps_done());
    }
    // SiLU of so low a bias is 0, and so is its slope, whatever comes in
    let plan = RunConfig { batch: 1, ..small_run(101) }.validate().unwrap();
    let params = Params::init(&plan.model, 3, &Device::Cpu).unwrap();
    let tensors: Vec<Tensor> = params
        .iter()
        .map(|(name, t)| match name {
            "mid_block.resnets.0.norm2.bias" => (t.ones_like().unwrap() * -1e4).unwrap(),
            _ => t.clone(),
        })
        .collect();
    let params = params.with_tensors(tensors.into_iter());
    let mut trainer = Trainer::from_params(plan, compute(2, Path::Fast), params).unwrap();
    for _ in 0..101 {
        trainer.step(&data).unwrap();
    }
    let verdicts = trainer.examine();
    let dead = verdicts.iter().find(|v| v.finding == Finding::DeadLayers).unwrap();
    assert!(dead.what.starts_with("mid_block.resnets.0.norm1.weight and 8 more"), "{dead:?}");
}

#[test]
fn a_run_keeps_the_held_out_images_that_it_began_with() {
    let held_out = Arc::new(Dataset::test_set(&Source::Mnist, [1, 16, 16], &|_, _| true).unwrap().unwrap());
    let begun = |found: Option<&Arc<Dataset>>| {
        let mut trainer = Trainer::new(small_run(1).validate().unwrap(), compute(1, Path::Fast)).unwrap();
        assert_eq!(trainer.bind_held_out(found.cloned()).unwrap().is_some(), found.is_some());
        trainer
    };
    assert!(begun(None).bind_held_out(Some(Arc::clone(&held_out))).unwrap().is_none(), "others are left alone");
    let mut trainer = begun(Some(&held_out));
    assert!(trainer.bind_held_out(Some(Arc::clone(&held_out))).unwrap().is_some());
    let e = trainer.bind_held_out(None).unwrap_err().to_string();
    assert!(e.contains("its held-out images were 10000 images") && e.contains("what is found now is none"), "{e}");
}

#[test]
fn held_out_images_are_measured_without_changing_a_byte() {
    let plan = || small_run(2).validate().unwrap();
    let data = Dataset::load(&Source::Mnist, [1, 16, 16], &|_, _| true).unwrap();
    let held_out = Dataset::test_set(&Source::Mnist, [1, 16, 16], &|_, _| true).unwrap().unwrap();
    assert_eq!((held_out.name.as_str(), held_out.len()), ("mnist-test", 10_000));
    let run = |threads, measured: bool| {
        let mut trainer = Trainer::new(plan(), compute(threads, Path::Fast)).unwrap();
        for _ in 0..2 {
            trainer.step(&data).unwrap();
            if measured {
                trainer.evaluate(&data, &held_out).unwrap();
            }
        }
        trainer
    };
    let (plain, measured) = (run(2, false), run(2, true));
    assert!(bytes(&plain) == bytes(&measured));
    let evaluations = measured.history().evaluations();
    assert_eq!(evaluations, run(1, true).history().evaluations(), "the number of threads changes them");
    assert_eq!(evaluations.iter().map(|e| e.step).collect::<Vec<_>>(), [1, 2]);
    // after two steps the network still predicts next to nothing
    assert!(evaluations.iter().all(|e| (0.5..1.5).contains(&e.train) && (e.train - e.held_out).abs() < 0.05));
    assert!(!measured.evaluation_due());
}
