//! The noise view.

use crate::support::{Gui, STEPS, known, provenance, tell, with_films};
use ddpm_film::diffusion::Images;
use ddpm_film::engine::{
    Command, CompareRequest, Comparison, Error, Event, JobId, Known, Outcome, Prediction, Predictor, Provenance,
};
use egui::Key;
use egui_kittest::kittest::Queryable as _;
use std::sync::Arc;

fn asked(gui: &mut Gui) -> Vec<(JobId, CompareRequest)> {
    let commands = gui.state_mut().take_commands();
    commands
        .into_iter()
        .map(|command| match command {
            Command::Compare(job, request) => (job, request),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn answer(gui: &mut Gui, job: JobId, doses: usize) {
    let images = Images::zeros(1, [1, 8, 8]);
    let predicted = |oracle: Option<Known>, loss: f64| Prediction {
        by: Provenance { oracle, ..provenance() },
        eps: images.clone(),
        error: images.clone(),
        xstart: images.clone(),
        loss,
    };
    let comparison = Comparison {
        doses,
        alpha_bar: 0.25,
        source: "MNIST".into(),
        x_start: images.clone(),
        noise: images.clone(),
        x_t: images.clone(),
        predicted: predicted(None, 0.0213),
        oracle: predicted(Some(known()), 0.0107),
    };
    tell(gui, Event::Compared(job, Arc::new(comparison)));
    tell(gui, Event::Finished(job, Outcome::Done));
    gui.run();
}

#[test]
fn it_asks_one_question_at_a_time_and_the_newest_next() {
    let mut gui = with_films(1280.0, 720.0);
    gui.state_mut().take_commands();
    gui.key_press(Key::F5);
    gui.run();
    gui.get_by_label("Computing");
    let first = asked(&mut gui);
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!((first[0].1.doses, first[0].1.picture, first[0].1.seed), (STEPS, 0, 3));
    for _ in 0..5 {
        gui.key_press(Key::ArrowRight);
        gui.run();
    }
    assert!(asked(&mut gui).is_empty(), "the worker has not answered yet");
    answer(&mut gui, first[0].0, STEPS);
    gui.get_by_label("loss 0.0213");
    gui.get_by_label("loss 0.0107");
    gui.get_by_label("MODEL · step 40,000 EMA");
    gui.get_by_label("ORACLE · exact oracle of mnist, 60,000 images");
    gui.get_by_label("DATA · MNIST");
    gui.get_by_label("DATA: the noise mixed in");
    gui.get_by_label("ORACLE: the picture that follows");
    let second = asked(&mut gui);
    assert_eq!((second.len(), second[0].1.doses), (1, STEPS - 5));
    answer(&mut gui, second[0].0, STEPS - 5);
    gui.run();
    assert!(asked(&mut gui).is_empty(), "all is answered");
}

#[test]
fn another_picture_is_another_question_and_an_oracle_stands_beside_a_network() {
    let mut gui = with_films(1280.0, 720.0);
    gui.state_mut().state.settings.predictor = Predictor::Oracle;
    gui.state_mut().take_commands();
    gui.get_by_label("Noise").click();
    gui.run();
    let first = asked(&mut gui);
    assert_eq!(first[0].1.predictor, Predictor::Ema);
    answer(&mut gui, first[0].0, STEPS);
    gui.get_by_label("3").click();
    gui.run();
    let second = asked(&mut gui);
    assert_eq!(second[0].1.picture, 2);
    // at the end there is no noise to predict
    gui.key_press(Key::End);
    gui.run();
    gui.get_by_label("No noise");
    assert!(asked(&mut gui).is_empty());
}

#[test]
fn a_failure_is_said_once_and_not_asked_again_and_again() {
    let mut gui = with_films(1280.0, 720.0);
    gui.state_mut().take_commands();
    gui.key_press(Key::F5);
    gui.run();
    let (job, _) = asked(&mut gui)[0];
    tell(&mut gui, Event::Finished(job, Outcome::Failed(Error::new("cannot read the data set", "it is gone", ""))));
    gui.run();
    gui.get_by_label("cannot read the data set");
    assert!(asked(&mut gui).is_empty());
    gui.key_press(Key::ArrowRight);
    gui.run();
    assert_eq!(asked(&mut gui).len(), 1);
}
