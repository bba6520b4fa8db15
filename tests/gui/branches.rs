//! Branches of the film: left at the playhead, listed, chosen, compared, undone and made again.

use crate::support::{Gui, STEPS, bare, begin, film, model, painted, provenance, schedule, tell, with_films};
use crate::training::{closes, running};
use ddpm_film::diffusion::noise::Purpose;
use ddpm_film::diffusion::process;
use ddpm_film::engine::{
    Command, DeviceChoice, Engine, Event, ForkRequest, ForwardSource, Frame, JobId, ModelInfo, Options, Origin,
    Outcome, Predictor, Provenance, Quantity, SampleRequest, SamplerKind, Variance, Which,
};
use ddpm_film::ui::actions::View;
use ddpm_film::ui::state::{AppState, Phase};
use egui::accesskit::Role;
use egui::{Key, Modifiers};
use egui_kittest::kittest::Queryable as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn seek(gui: &mut Gui, doses: usize) {
    gui.state_mut().state.playback.seek(doses);
    gui.run();
}

/// Leaves the film at t = 20 by the key for it, with a branch that is made.
fn branched(gui: &mut Gui) -> (JobId, ForkRequest) {
    seek(gui, 20);
    gui.key_press(Key::F);
    gui.run();
    let (job, fork) = forked(gui);
    make(gui, job, 20, 0, 0.25);
    (job, fork)
}

/// The one branch that was asked for since the last look.
fn forked(gui: &mut Gui) -> (JobId, ForkRequest) {
    let forks = gui.state_mut().take_commands().into_iter().filter_map(|command| match command {
        Command::Fork(job, fork) => Some((job, fork)),
        _ => None,
    });
    let forks: Vec<_> = forks.collect();
    let [fork] = &forks[..] else { panic!("{forks:?}") };
    fork.clone()
}

/// The state of the film, brighter by `by`.
fn brighter(doses: usize, by: f32) -> Arc<Frame> {
    let mut x = process::noise_images(7, Purpose::Start, 0, doses as u64, 4, [1, 8, 8]);
    x.data.iter_mut().for_each(|v| *v += by);
    let kind = SamplerKind::Ddpm { variance: Variance::FixedSmall };
    Arc::new(match doses {
        0 => Frame::state(0, &x),
        _ => Frame::predicted(doses, &x, &x, &x, kind.coefficients(&schedule(), doses - 1)),
    })
}

/// Lets a branch that leaves at `begins` come to `last`.
fn make(gui: &mut Gui, job: JobId, begins: usize, last: usize, by: f32) {
    begin(gui, job, film(4, begins));
    for doses in (last..=begins).rev() {
        tell(gui, Event::Frame(job, brighter(doses, by)));
    }
    if last == 0 {
        tell(gui, Event::Finished(job, Outcome::Done));
    }
    gui.run();
}

#[test]
fn a_key_leaves_the_film_at_the_playhead_and_the_branch_is_shown_with_what_it_left() {
    let mut gui = with_films(1280.0, 720.0);
    seek(&mut gui, 20);
    gui.key_press(Key::F);
    gui.run();
    assert_eq!(gui.state().view, View::Branches);
    let root = gui.state().state.reverse.job.unwrap();
    let (job, fork) = forked(&mut gui);
    assert_eq!((fork.parent, fork.doses, fork.repeat, fork.predictor), (root, 20, None, Predictor::Ema));
    gui.get_by_label("new noise from t = 20: t = 20: waits for its turn");
    gui.get_by_label("The film: t = 50 → 0");
    // until it comes, the picture is that of the film, and says so
    gui.get_by_label("new noise from t = 20: x_t at t = 21");
    assert_eq!(gui.query_all_by_label("MODEL · step 40,000 EMA").count(), 2);
    make(&mut gui, job, 20, 10, 0.25);
    gui.get_by_label("new noise from t = 20: t = 20 → 10, computing");
    make(&mut gui, job, 20, 0, 0.25);
    gui.get_by_label("new noise from t = 20: t = 20 → 0");
    // the film view shows it, at noisier states what it left
    gui.key_press(Key::F2);
    seek(&mut gui, 5);
    gui.get_by_label("Reverse process, x_t at t = 5");
    gui.get_by_label("MODEL · step 40,000 EMA · DDPM, t = 20 → 0");
    let value = |gui: &Gui, doses: usize| {
        let (_, film) = gui.state().state.shown().film.as_ref().unwrap();
        film.value(film.at(doses).unwrap(), Quantity::State, 3).unwrap()
    };
    let of = |frame: Arc<Frame>| frame.pictures(4, [1, 8, 8]).unwrap().data[3];
    assert_eq!((value(&gui, 20), value(&gui, 21)), (of(brighter(20, 0.25)), of(brighter(21, 0.0))));
    seek(&mut gui, 30);
    gui.get_by_label("MODEL · step 40,000 EMA · DDPM 50");
    gui.key_press_modifiers(Modifiers::COMMAND, Key::B);
    gui.run();
    gui.get_by_label("The film: t = 50 → 0").click();
    gui.run();
    assert_eq!(value(&gui, 5), of(brighter(5, 0.0)));
    // a branch of the branch
    gui.get_by_label("new noise from t = 20: t = 20 → 0").click();
    seek(&mut gui, 10);
    gui.get_by_label("DDIM").click();
    gui.run();
    gui.get_by_label("1").click();
    gui.get_by_label("Same noise").click();
    gui.run();
    gui.get_by_label("Fork at t = 10").click();
    gui.run();
    let (_, twig) = forked(&mut gui);
    assert_eq!((twig.parent, twig.doses, twig.seed), (job, 10, fork.seed));
    assert_eq!(twig.sampler, SamplerKind::Ddim { eta: 1.0 });
    gui.get_by_label("DDIM η = 1 from t = 10: t = 10: waits for its turn");
}

#[test]
fn in_a_small_window_a_badge_still_says_which_weights_drew() {
    let mut gui = with_films(880.0, 560.0);
    branched(&mut gui);
    let badges = painted(&gui).into_iter().filter(|(_, shape)| match shape {
        egui::Shape::Text(text) => !text.galley.elided && text.galley.text() == "MODEL · 40,000 EMA",
        _ => false,
    });
    assert_eq!(badges.count(), 2);
}

#[test]
fn two_films_stand_beside_their_difference_at_the_playhead() {
    let mut gui = with_films(1280.0, 720.0);
    gui.key_press_modifiers(Modifiers::COMMAND, Key::B);
    gui.run();
    gui.get_by_label("What if it went on differently?");
    seek(&mut gui, 20);
    gui.get_by_label("Fork at t = 20").click();
    gui.run();
    let (job, _) = forked(&mut gui);
    make(&mut gui, job, 20, 10, 0.25);
    seek(&mut gui, 15);
    gui.get_by_label("The film: x_t at t = 15");
    gui.get_by_label("new noise from t = 20: x_t at t = 15");
    gui.get_by_label("Difference, root mean square 0.250");
    gui.key_press(Key::P);
    gui.run();
    gui.get_by_label("The film: predicted x_0 at t = 15");
    gui.key_press(Key::X);
    // before it left they are one film
    seek(&mut gui, 30);
    gui.get_by_label("Difference, root mean square 0.000");
    // it has not come so far: pictures of other states have no difference
    seek(&mut gui, 5);
    gui.get_by_label("new noise from t = 20: x_t at t = 10");
    assert!(gui.query_by_label_contains("Difference, ").is_none());
    make(&mut gui, job, 20, 0, 0.5);
    gui.get_by_label("Difference, root mean square 0.500");
    // another one at the left
    seek(&mut gui, 8);
    gui.key_press(Key::F);
    gui.run();
    let (twig, _) = forked(&mut gui);
    make(&mut gui, twig, 8, 0, -0.25);
    seek(&mut gui, 0);
    gui.get_by_label("Difference, root mean square 0.750");
    gui.get_by_label("new noise from t = 20 ⏷").click();
    gui.run();
    gui.get_by_role_and_label(Role::Button, "The film").click();
    gui.run();
    gui.get_by_label("Difference, root mean square 0.250");
}

#[test]
fn a_fork_a_name_and_a_deletion_are_undone_and_made_again() {
    let mut gui = with_films(1280.0, 720.0);
    let (job, fork) = branched(&mut gui);
    let field = gui.get_by_role_and_label(Role::TextInput, "Name");
    field.focus();
    gui.run();
    gui.key_press_modifiers(Modifiers::COMMAND, Key::A);
    gui.run();
    gui.get_by_role_and_label(Role::TextInput, "Name").type_text("mine");
    gui.run();
    // while a name is typed its own field undoes
    gui.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    gui.run();
    assert_eq!(gui.state().state.branches.len(), 1);
    gui.key_press_modifiers(Modifiers::COMMAND, Key::A);
    gui.run();
    gui.get_by_role_and_label(Role::TextInput, "Name").type_text("mine");
    gui.run();
    gui.key_press(Key::Enter);
    gui.run();
    gui.get_by_label("mine: t = 20 → 0");
    gui.get_by_label("Delete").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    assert!(matches!(&commands[..], [Command::Forget(gone)] if *gone == [job]), "{commands:?}");
    assert!(gui.query_by_label_contains("mine").is_none());
    gui.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    gui.run();
    let (again, same) = forked(&mut gui);
    assert!(same == fork && again != job);
    gui.get_by_label("mine: t = 20: waits for its turn");
    gui.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    gui.run();
    gui.get_by_label("new noise from t = 20: t = 20: waits for its turn");
    gui.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    gui.run();
    assert!(gui.state().state.branches.is_empty());
    for _ in 0..2 {
        gui.key_press_modifiers(Modifiers::COMMAND | Modifiers::SHIFT, Key::Z);
        gui.run();
    }
    gui.get_by_label("mine: t = 20: waits for its turn");
    gui.get_by_label("Redo").click();
    gui.run();
    assert!(gui.state().state.branches.is_empty(), "the deletion, too");
}

/// What was asked of the reverse film since the last look, and of its branches.
fn asked(gui: &mut Gui) -> (Option<(JobId, SampleRequest)>, Vec<ForkRequest>) {
    let (mut film, mut forks) = (None, Vec::new());
    for command in gui.state_mut().take_commands() {
        match command {
            Command::Sample(job, request) => film = Some((job, request)),
            Command::Fork(_, fork) => forks.push(fork),
            _ => {}
        }
    }
    (film, forks)
}

/// Lets the reverse film that was asked for come whole.
fn come(gui: &mut Gui) -> (JobId, SampleRequest) {
    come_by(gui, provenance())
}

fn come_by(gui: &mut Gui, by: Provenance) -> (JobId, SampleRequest) {
    let (job, request) = asked(gui).0.expect("a film was asked for");
    tell(gui, Event::SampleStarted(job, Box::new(film(4, STEPS)), by));
    (0..=STEPS).rev().for_each(|doses| tell(gui, Event::Frame(job, brighter(doses, 0.0))));
    tell(gui, Event::Finished(job, Outcome::Done));
    gui.run();
    (job, request)
}

#[test]
fn branches_go_with_their_film_and_undo_brings_both_back() {
    let mut gui = with_films(1280.0, 720.0);
    let (_, first) = branched(&mut gui);
    press(&mut gui, Modifiers::NONE, Key::R);
    let (_, other) = come(&mut gui);
    assert_ne!(other.seed, 3);
    gui.get_by_label("The branches went with their film");
    assert!(gui.state().state.branches.is_empty());
    // the film before, and once it has begun its branch; a picture that was drawn or opened since stays
    gui.state_mut().state.settings.source = ForwardSource::Photo(1);
    press(&mut gui, Modifiers::COMMAND, Key::Z);
    assert_eq!(gui.state().state.settings.source, ForwardSource::Photo(1));
    let (Some((job, former)), forks) = asked(&mut gui) else { panic!("the former film is asked for") };
    assert!(former.seed == 3 && forks.is_empty() && gui.state().state.settings.seed == 3);
    assert!(gui.query_by_label("The branches went with their film").is_none());
    begin(&mut gui, job, film(4, STEPS));
    let (_, forks) = asked(&mut gui);
    assert_eq!(forks, [ForkRequest { parent: job, ..first.clone() }]);
    press(&mut gui, Modifiers::NONE, Key::F2);
    press(&mut gui, Modifiers::COMMAND, Key::B);
    gui.get_by_label("new noise from t = 20: t = 20: waits for its turn");
    // and on again
    press(&mut gui, Modifiers::COMMAND | Modifiers::SHIFT, Key::Z);
    assert_eq!(come(&mut gui).1, other);
    assert!(gui.state().state.branches.is_empty() && gui.state().state.branches.history() == [true, false]);
    // another model takes them, too; they wait until theirs is there
    press(&mut gui, Modifiers::COMMAND, Key::Z);
    come(&mut gui);
    tell(&mut gui, Event::ModelChanged(ModelInfo { hash: "f00d".into(), ..ModelInfo::clone(&model()) }.into()));
    let (job, request) = asked(&mut gui).0.unwrap();
    assert_eq!(request.seed, 3);
    let by = Provenance { hash: "f00d".into(), ..provenance() };
    tell(&mut gui, Event::SampleStarted(job, Box::new(film(4, STEPS)), by));
    press(&mut gui, Modifiers::COMMAND, Key::Z);
    gui.get_by_label("This film needs the model tiny, step 40000");
    assert_eq!(asked(&mut gui), (None, Vec::new()));
    tell(&mut gui, Event::ModelChanged(model()));
    assert_eq!(come(&mut gui).1, former);
    assert_eq!(gui.state().state.branches.name(1), "new noise from t = 20");
}

#[test]
fn branches_that_could_never_be_made_again_are_asked_about() {
    let (mut gui, _) = running();
    press(&mut gui, Modifiers::NONE, Key::F2);
    press(&mut gui, Modifiers::NONE, Key::F4);
    gui.get_by_label("In training").click();
    gui.run_steps(3);
    come_by(&mut gui, Provenance { hash: "f00d".into(), ..provenance() });
    seek(&mut gui, 20);
    press(&mut gui, Modifiers::NONE, Key::F);
    forked(&mut gui);
    for (answer, lost) in [("Keep the branches", false), ("New film", true)] {
        gui.state_mut().state.settings.source = ForwardSource::Photo(1);
        press(&mut gui, Modifiers::NONE, Key::R);
        gui.get_by_label("A new film takes them for good: they are of the training as it was after 40,000 steps");
        assert!(asked(&mut gui).0.is_none());
        // one question at a time
        assert!(!closes(&mut gui));
        assert!(gui.query_by_label(answer).is_none());
        gui.get_by_label("Cancel").click();
        gui.run_steps(3);
        gui.get_by_label(answer).click();
        gui.run_steps(3);
        let (film, _) = asked(&mut gui);
        assert_eq!((film.is_some(), gui.state().state.settings.seed != 3), (lost, lost), "{answer}");
        assert_eq!(gui.state().state.branches.len(), 1, "until it begins");
        assert_eq!(gui.state().state.settings.source, ForwardSource::Photo(1));
    }
    // the film that takes them is on its way
    press(&mut gui, Modifiers::NONE, Key::R);
    come(&mut gui);
    let state = &gui.state().state;
    assert!(state.branches.is_empty() && state.branches.history() == [false, false] && state.banners.is_empty());
}

#[test]
fn branches_of_a_training_whose_weights_were_opened_are_made_again() {
    let (mut gui, _) = running();
    press(&mut gui, Modifiers::NONE, Key::F2);
    seek(&mut gui, 20);
    press(&mut gui, Modifiers::NONE, Key::F);
    let (_, fork) = forked(&mut gui);
    press(&mut gui, Modifiers::NONE, Key::F2);
    press(&mut gui, Modifiers::NONE, Key::F4);
    gui.get_by_label("In training").click();
    gui.run_steps(3);
    let by = Provenance { model: "tiny in training".into(), ..provenance() };
    come_by(&mut gui, by.clone());
    seek(&mut gui, 30);
    press(&mut gui, Modifiers::NONE, Key::F);
    let (_, of_training) = forked(&mut gui);
    // the opened model makes these again, too: nothing to ask
    press(&mut gui, Modifiers::NONE, Key::R);
    come_by(&mut gui, by);
    press(&mut gui, Modifiers::COMMAND, Key::Z);
    let (job, request) = come(&mut gui);
    assert_eq!((request.which, request.seed), (Which::Loaded, 3));
    assert_eq!(asked(&mut gui).1, [ForkRequest { parent: job, ..of_training }]);
    press(&mut gui, Modifiers::COMMAND, Key::Z);
    press(&mut gui, Modifiers::COMMAND, Key::Z);
    assert_eq!(asked(&mut gui).1, [ForkRequest { parent: job, ..fork }]);
}

#[test]
fn the_timeline_marks_where_branches_leave_and_leads_there() {
    let mut gui = with_films(1280.0, 720.0);
    for doses in [20, 30, 30] {
        press(&mut gui, Modifiers::COMMAND, Key::B);
        if let Some(film) = gui.query_by_label("The film: t = 50 → 0") {
            film.click();
        }
        seek(&mut gui, doses);
        press(&mut gui, Modifiers::NONE, Key::F);
        let (job, _) = forked(&mut gui);
        make(&mut gui, job, doses, 0, 0.25);
    }
    press(&mut gui, Modifiers::NONE, Key::F2);
    gui.get_by_label("Branch at t = 20: new noise from t = 20").click();
    gui.run();
    assert_eq!((gui.state().state.branches.chosen(), gui.state().state.playback.doses()), (1, 20));
    // one after the other where two leave
    for id in [2, 3, 2] {
        gui.get_by_label("Branch at t = 30: new noise from t = 30, new noise from t = 30 (2)").click();
        gui.run();
        assert_eq!((gui.state().state.branches.chosen(), gui.state().state.playback.doses()), (id, 30));
    }
}

#[test]
fn states_that_a_branch_or_what_it_left_does_not_hold_are_asked_of_their_own_jobs() {
    let mut gui = with_films(1280.0, 720.0);
    seek(&mut gui, 40);
    gui.key_press(Key::F);
    gui.run();
    let (job, _) = forked(&mut gui);
    begin(&mut gui, job, film(4, 40).with_states((0..=40).collect(), 10));
    (0..=40).rev().for_each(|doses| tell(&mut gui, Event::Frame(job, brighter(doses, 0.5))));
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    let recall = |gui: &mut Gui| {
        let asked = gui.state_mut().take_commands().into_iter().find_map(|command| match command {
            Command::Recall { job, film, doses } => Some((job, film, doses)),
            _ => None,
        });
        asked.expect("a state to compute again")
    };
    seek(&mut gui, 31);
    let (asked, of, 31) = recall(&mut gui) else { panic!() };
    assert_eq!(of, job);
    tell(&mut gui, Event::Frame(job, brighter(31, 0.5)));
    tell(&mut gui, Event::Finished(asked, Outcome::Done));
    gui.run();
    gui.get_by_label("Difference, root mean square 0.500");
    // at the left of the film, too
    gui.get_by_label("The film: t = 50 → 0").click();
    seek(&mut gui, 29);
    assert!(matches!(recall(&mut gui), (_, of, 29) if of == job));
}

/// Lets a real worker do what the window asks for.
fn work(gui: &mut Gui, engine: &Engine, until: impl Fn(&AppState) -> bool) {
    let begun = Instant::now();
    while !until(&gui.state().state) {
        assert!(begun.elapsed() < Duration::from_secs(120), "waited in vain");
        for command in gui.state_mut().take_commands() {
            engine.send(command).unwrap();
        }
        if let Some(event) = engine.wait(Duration::from_millis(50)).unwrap() {
            tell(gui, event);
        }
    }
}

fn press(gui: &mut Gui, modifiers: Modifiers, key: Key) {
    gui.key_press_modifiers(modifiers, key);
    gui.run_steps(3);
}

#[test]
fn a_branch_comes_back_bit_for_bit_by_undo_and_from_its_file() {
    let options = Options { device: DeviceChoice::Cpu, threads: 2, model: Some(Origin::Shipped) };
    let engine = Engine::start(options, || ()).unwrap();
    let mut gui = bare(1280.0, 720.0);
    gui.state_mut().state.settings.steps = Some(20);
    let whole = |state: &AppState| state.shown().phase == Phase::Done;
    let branch = |state: &AppState| state.branches.chosen() != 0 && whole(state);
    let end = |gui: &Gui| {
        let (job, film) = gui.state().state.shown().film.clone().unwrap();
        (job, film.at(0).unwrap().pictures(4, [1, 28, 28]).unwrap())
    };
    work(&mut gui, &engine, whole);
    let (_, first) = end(&gui);
    gui.state_mut().state.playback.seek(501);
    press(&mut gui, Modifiers::NONE, Key::F);
    work(&mut gui, &engine, branch);
    let (job, made) = end(&gui);
    assert_ne!(made, first);
    press(&mut gui, Modifiers::NONE, Key::Delete);
    assert_eq!(end(&gui).1, first);
    press(&mut gui, Modifiers::COMMAND, Key::Z);
    work(&mut gui, &engine, branch);
    let (again, same) = end(&gui);
    assert!(again != job && same == made);
    // into a file, and back from there after another film
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("branch.gif");
    press(&mut gui, Modifiers::COMMAND, Key::E);
    gui.get_by_label("Export").click();
    gui.run_steps(3);
    for command in gui.state_mut().take_commands() {
        let Command::Export(job, mut request) = command else { panic!("{command:?}") };
        request.path.clone_from(&path);
        engine.send(Command::Export(job, request)).unwrap();
    }
    work(&mut gui, &engine, |state| state.exporting.is_none());
    press(&mut gui, Modifiers::NONE, Key::Escape);
    press(&mut gui, Modifiers::NONE, Key::R);
    let another = |state: &AppState| state.settings.seed != 3 && state.branches.is_empty() && whole(state);
    work(&mut gui, &engine, another);
    assert!(![&first, &made].contains(&&end(&gui).1));
    // undo brings the former film and its branch back
    press(&mut gui, Modifiers::COMMAND, Key::Z);
    work(&mut gui, &engine, branch);
    assert_eq!(end(&gui).1, made);
    press(&mut gui, Modifiers::COMMAND | Modifiers::SHIFT, Key::Z);
    work(&mut gui, &engine, another);
    let job = gui.state_mut().state.new_job();
    engine.send(Command::ReadRecipe(job, path)).unwrap();
    work(&mut gui, &engine, branch);
    assert_eq!(end(&gui).1, made);
    press(&mut gui, Modifiers::COMMAND, Key::B);
    gui.get_by_label("new noise from t = 501: t = 501 → 0");
    gui.get_by_label("The film: t = 951 → 0").click();
    gui.run_steps(3);
    assert_eq!(end(&gui).1, first);
}

#[test]
fn branches_fit_any_window_and_a_presentation() {
    for (width, height) in [(1920.0, 1080.0), (880.0, 560.0), (640.0, 400.0), (1.0, 1.0)] {
        let mut gui = with_films(width, height);
        seek_steps(&mut gui, STEPS / 2);
        gui.key_press(Key::F);
        gui.run_steps(3);
        let (job, _) = forked(&mut gui);
        tell(&mut gui, Event::Frame(job, brighter(STEPS / 2, 0.0)));
        gui.run_steps(3);
        gui.key_press(Key::F10);
        gui.run_steps(3);
        assert!(gui.query_by_label("Undo").is_none());
    }
}

fn seek_steps(gui: &mut Gui, doses: usize) {
    gui.state_mut().state.playback.seek(doses);
    gui.run_steps(2);
}
