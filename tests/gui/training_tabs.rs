//! The upper part of the training view.

use crate::support::{Gui, painted, tell};
use crate::training::{metrics, running};
use ddpm_film::engine::timesteps::Sample;
use ddpm_film::engine::{Evaluation, Event, Finding, Floor, History, Metrics, StepStats, TrainingState, Verdict};
use egui_kittest::kittest::Queryable as _;
use std::sync::Arc;

/// Level dashes in sight, of which only the line of an oracle that is the same everywhere is made.
fn dashes(gui: &Gui) -> usize {
    let is_dash = |(clip, shape): &(egui::Rect, egui::Shape)| match shape {
        egui::Shape::LineSegment { points: [a, b], .. } => {
            clip.contains(*a) && clip.contains(*b) && a.y == b.y && (a.x - b.x).abs() < 8.0
        }
        _ => false,
    };
    painted(gui).iter().filter(|shape| is_dash(shape)).count()
}

#[test]
fn the_upper_part_shows_loss_timesteps_signals_and_the_doctor() {
    let (mut gui, job) = running();
    let mut history = History::default();
    for step in 1..=300 {
        let stats =
            StepStats { step, loss: 0.1, grad_norm: 0.5, learning_rate: 2e-4, update_ratio: 1e-3, ema_decay: 0.999 };
        history.push(stats);
        let samples = [(7 * step) % 50, (11 * step) % 50].map(|t| Sample { t: t as usize, simple: 0.1, bits: 0.01 });
        history.push_samples(step, &samples, 50);
    }
    (1..=3).for_each(|i| history.push_evaluation(Evaluation { step: 100 * i, train: 0.1, held_out: 0.2 }));
    let verdict = Verdict {
        finding: Finding::Memorising,
        alarming: true,
        what: "It memorises".into(),
        advice: "Take more images".into(),
    };
    let floor = Floor { images: 60_000, simple: vec![Some(0.02); 64], bits: vec![Some(1e-6); 64], pictures: 8 };
    let told = Metrics {
        history: Arc::new(history),
        floor: Arc::new(floor),
        verdicts: [verdict].into(),
        ..Metrics::clone(&metrics(300, TrainingState::Running))
    };
    tell(&mut gui, Event::Metrics(job, Arc::new(told)));
    gui.run();
    gui.get_by_label("By timestep").click();
    gui.run();
    assert!(gui.query_all_by_label_contains("60,000 training images, 8 pictures a bin").next().is_some());
    assert!(gui.query_all_by_label_contains("bits/dim on training images").next().is_some());
    assert!(dashes(&gui) > 20, "the oracle's line");
    gui.get_by_label("Lvlb").click();
    gui.run();
    assert_eq!(dashes(&gui), 0, "the oracle is further down than the axis");
    gui.get_by_label("Signals").click();
    gui.run();
    assert!(gui.query_all_by_label_contains("EMA horizon 1,000 steps, initial weights in it 74.1 %").next().is_some());
    gui.get_by_label("Doctor (1)").click();
    gui.run();
    gui.get_by_label("It memorises");
    gui.get_by_label("Take more images");
    tell(&mut gui, Event::Metrics(job, metrics(300, TrainingState::Running)));
    gui.run();
    gui.get_by_label("Nothing is wrong with this run");
}
