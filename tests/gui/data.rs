//! The data view: reading, counts, a gallery of any length, batches with their mirrored pictures, files that were not read.

use crate::support::{Gui, bare, tell};
use ddpm_film::engine::{Command, Dataset, Error, Event, JobId, LookRequest, Outcome, Source};
use egui::accesskit::Role;
use egui::{Key, Modifiers};
use egui_kittest::kittest::{NodeT as _, Queryable as _};
use std::sync::Arc;

/// 100,000 pictures of two classes; picture i is of level i.
fn large() -> Dataset {
    let (n, shape) = (100_000, [1, 28, 28]);
    let found = ddpm_film::data::Found {
        sizes: (1..=9).map(|i| ([32, i], 1 << i)).chain([([640, 480], 98_978)]).collect(),
        modes: [("JPEG, RGB".to_owned(), 90_000), ("PNG, palette".to_owned(), 10_000)].into(),
    };
    Dataset {
        name: "pets".into(),
        shape,
        n,
        pixels: (0..n).flat_map(|i| [(i % 256) as u8; 784]).collect(),
        classes: vec!["cat".into(), "собака".into()],
        labels: (0..n as u32).map(|i| u32::from(i >= 99_990)).collect(),
        flip: true,
        found,
        skipped: (0..5000).map(|i| (format!("/home/pets/{i}.png").into(), "the file is cut short".into())).collect(),
        held_out: Some(Arc::new(few())),
    }
}

/// What is held out of them.
fn few() -> Dataset {
    Dataset {
        name: "pets, held out".into(),
        shape: [1, 28, 28],
        n: 2,
        pixels: vec![0; 2 * 784],
        classes: vec!["cat".into()],
        labels: vec![0; 2],
        flip: true,
        found: Default::default(),
        skipped: Vec::new(),
        held_out: None,
    }
}

fn asked(gui: &mut Gui) -> (JobId, LookRequest) {
    let commands = gui.state_mut().take_commands();
    let [Command::Look(job, request)] = commands.as_slice() else { panic!("{commands:?}") };
    (*job, request.clone())
}

fn opened(width: f32, height: f32) -> (Gui, JobId) {
    let mut gui = bare(width, height);
    gui.key_press_modifiers(Modifiers::COMMAND, Key::D);
    gui.run_steps(3);
    let (job, request) = asked(&mut gui);
    assert_eq!(request, LookRequest { data: Source::Mnist, shape: [1, 28, 28], again: false });
    (gui, job)
}

fn read(width: f32, height: f32) -> Gui {
    let (mut gui, job) = opened(width, height);
    tell(&mut gui, Event::Data(job, Arc::new(large())));
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    gui.run_steps(3);
    gui
}

#[test]
fn reading_shows_how_far_it_is_and_can_be_stopped() {
    let (mut gui, job) = opened(1280.0, 720.0);
    tell(&mut gui, Event::Progress { job, done: 0, total: 4096 });
    gui.run();
    gui.get_by_label("4,096 files found");
    tell(&mut gui, Event::Progress { job, done: 12_300, total: 100_000 });
    gui.run();
    gui.get_by_label("12,300 of 100,000");
    gui.get_by_label("Stop reading").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    assert!(matches!(commands.as_slice(), [Command::Cancel(stopped)] if *stopped == job), "{commands:?}");
    tell(&mut gui, Event::Finished(job, Outcome::Cancelled));
    gui.run();
    gui.get_by_label("Nothing read");
    gui.get_by_label("Read").click();
    gui.run();
    let (job, _) = asked(&mut gui);
    let e = Error::new("cannot read the data set", "there are no pictures in this folder", "").at("/tmp/empty");
    tell(&mut gui, Event::Finished(job, Outcome::Failed(e)));
    gui.run();
    gui.get_by_label("These data cannot be read");
    // in the view, and in the message over it
    assert_eq!(gui.get_all_by_label_contains("there are no pictures in this folder").count(), 2);
}

#[test]
fn a_long_gallery_looks_up_only_what_is_on_screen() {
    let mut gui = read(1280.0, 720.0);
    for label in
        ["100,000 pictures", "cat: 99,990", "собака: 10", "640 × 480: 98,978", "4 others: 30", "JPEG, RGB: 90,000"]
    {
        gui.get_by_label(label);
    }
    gui.get_by_label("2 more are held out: never trained on, they show whether it memorises");
    gui.get_by_label("Not read: 5,000");
    gui.get_by_label("0.png: the file is cut short");
    let range = |gui: &Gui| -> (usize, usize) {
        let node = gui.get_by_label_contains("Pictures ");
        let label = node.accesskit_node().label().unwrap().replace(',', "");
        let numbers: Vec<usize> = label.split(' ').filter_map(|word| word.parse().ok()).collect();
        (numbers[0], numbers[1])
    };
    let (first, last) = range(&gui);
    assert!(first == 1 && (50..300).contains(&last), "{first} to {last}");
    gui.get_by_label_contains("Pictures ").hover();
    gui.run_steps(2);
    let wheel = egui::Event::MouseWheel {
        source: egui::MouseWheelSource::Wheel,
        unit: egui::MouseWheelUnit::Point,
        delta: egui::vec2(0.0, -200_000.0),
        phase: egui::TouchPhase::Move,
        modifiers: Modifiers::NONE,
    };
    gui.event(wheel);
    gui.run_steps(60);
    let (first, last) = range(&gui);
    assert!(first > 10_000 && last - first < 300, "{first} to {last}");
    gui.get_by_label("собака: 10").click();
    gui.run_steps(4);
    gui.get_by_label("DATA · pets, the 10 of class собака");
    assert_eq!(range(&gui), (1, 10));
    gui.get_by_label("собака: 10").click();
    gui.run_steps(4);
    gui.get_by_label("DATA · pets, all 100,000");
}

#[test]
fn a_batch_is_shown_as_the_network_gets_it() {
    let mut gui = read(1280.0, 720.0);
    gui.get_by_label("A training batch").click();
    gui.run_steps(3);
    let mirrored = large().draw(0, 0, 64, true).iter().filter(|d| d.mirrored).count();
    gui.get_by_label(&format!("DATA · pets, step 1, {mirrored} of 64 mirrored, underlined"));
    assert!((10..55).contains(&mirrored));
    let mut run = gui.state().state.run.clone();
    run.config.flip = Some(false);
    gui.state_mut().state.run = run;
    gui.run_steps(3);
    gui.get_by_label("DATA · pets, step 1, 0 of 64 mirrored, underlined");
    // as it can be typed in the form
    gui.state_mut().state.run.config.batch = usize::MAX;
    gui.run_steps(3);
    gui.get_by_label("There is no such batch");
}

#[test]
fn other_data_are_read_when_their_path_is_entered() {
    let mut gui = read(1280.0, 720.0);
    gui.get_by_role_and_label(Role::TextInput, "Data").focus();
    gui.run_steps(2);
    gui.get_by_role_and_label(Role::TextInput, "Data").type_text("!");
    gui.run_steps(2);
    assert!(gui.state_mut().take_commands().is_empty(), "nothing is read while it is typed");
    gui.key_press(Key::Enter);
    gui.run_steps(3);
    let (_, request) = asked(&mut gui);
    assert_eq!((&request.data, request.again), (&gui.state().state.run.config.source(), true));
    assert!(request.data.to_string().contains('!'), "{request:?}");
}

#[test]
fn the_data_view_fits_any_window() {
    for (width, height) in [(2560.0, 1440.0), (880.0, 560.0), (640.0, 400.0), (1.0, 1.0)] {
        let mut gui = read(width, height);
        gui.run_steps(3);
    }
}
