//! Data of one's own: CIFAR batches, several places at once, classes, mirrored pictures.

use ddpm_film::checkpoint;
use ddpm_film::data::{Dataset, Source};
use ddpm_film::engine::{Changes, Command, DeviceChoice, Engine, Event, Options, Outcome, TrainRequest};
use ddpm_film::error::{Kind, Result};
use ddpm_film::model::compute::Compute;
use ddpm_film::train::config::RunConfig;
use ddpm_film::train::trainer::Trainer;
use image::{GrayImage, Luma};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn load(place: &str, shape: [usize; 3]) -> Result<Dataset> {
    Dataset::load(&Source::parse(place), shape, &|_, _| true)
}

fn cpu(threads: usize) -> Compute {
    Compute::new(candle_core::Device::Cpu, threads, || {}).unwrap()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A record: its labels, then a plane each of `rgb`, whose first pixel is 0.
fn record(labels: &[u8], rgb: [u8; 3]) -> Vec<u8> {
    let plane = |v| std::iter::once(0).chain(std::iter::repeat_n(v, 1023));
    labels.iter().copied().chain(rgb.into_iter().flat_map(plane)).collect()
}

fn grey(path: &Path, value: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    GrayImage::from_pixel(4, 4, Luma([value])).save(path).unwrap();
}

fn skipped(data: &Dataset) -> Vec<(&str, &str)> {
    let name = |path: &'_ Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    data.skipped.iter().map(|(path, why)| (&*name(path).leak(), why.as_str())).collect()
}

#[test]
fn cifar_10_is_read_batch_by_batch_from_its_usual_folder() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("cifar-10-batches-bin");
    fs::create_dir(&folder).unwrap();
    for i in 1..=5_u8 {
        let records = [record(&[i], [10 * i, 20 * i, 30 * i]), record(&[9], [i, i, i])].concat();
        fs::write(folder.join(format!("data_batch_{i}.bin")), records).unwrap();
    }
    fs::write(folder.join("test_batch.bin"), record(&[0], [200; 3])).unwrap();
    for path in [dir.path(), &folder] {
        let data = load(&text(path), [3, 32, 32]).unwrap();
        assert_eq!((data.n, data.flip, data.skipped.len()), (10, true, 0));
        assert_eq!(data.labels, [1, 9, 2, 9, 3, 9, 4, 9, 5, 9]);
        assert_eq!(data.image(2), &record(&[], [20, 40, 60])[..]);
        assert_eq!((data.classes.len(), data.classes[9].as_str()), (10, "9"));
        assert_eq!(
            (data.found.sizes, data.found.modes),
            ([([32; 2], 10)].into(), [("CIFAR-10, RGB".into(), 10)].into())
        );
    }
    let names = "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n";
    fs::write(folder.join("batches.meta.txt"), names).unwrap();
    let test = load(&text(&folder.join("test_batch.bin")), [1, 16, 16]).unwrap();
    assert_eq!((test.n, test.labels[0], test.classes[0].as_str()), (1, 0, "airplane"));
    assert!(test.pixels.iter().skip(40).all(|&v| v == 200), "{:?}", test.pixels);
    // one that begins as IDX files do: label 0, red 0 and 8
    let mut black = record(&[0], [0; 3]);
    black[2] = 8;
    fs::write(folder.join("test_batch.bin"), &black).unwrap();
    assert_eq!(load(&text(&folder.join("test_batch.bin")), [3, 32, 32]).unwrap().image(0), &black[1..]);
}

#[test]
fn cifar_100_has_its_fine_labels() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("cifar-100-binary");
    fs::create_dir(&folder).unwrap();
    // 3073 records of 3074 bytes could as well be CIFAR-10, and only the name tells
    let records: Vec<u8> = (0..3073).flat_map(|i| record(&[19, (i % 100) as u8], [7; 3])).collect();
    fs::write(folder.join("train.bin"), records).unwrap();
    let data = load(&text(dir.path()), [3, 32, 32]).unwrap();
    assert_eq!((data.n, data.classes.len(), data.labels[199]), (3073, 100, 99));
    assert_eq!(data.found.modes, [("CIFAR-100, RGB".into(), 3073)].into());
}

#[test]
fn damaged_cifar_batches_are_named_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let good = record(&[3], [5; 3]);
    let path = dir.path().join("data_batch_1.bin");
    for (bytes, expected) in [
        (Vec::new(), "it has 0 bytes, and CIFAR batches have a multiple of 3073 (CIFAR-10) or 3074 (CIFAR-100)"),
        (good[..3072].to_vec(), "it has 3072 bytes"),
        ([&good[..], &good[..100]].concat(), "it has 3173 bytes"),
        (record(&[10], [5; 3]), "image 0 has the label 10, and CIFAR-10 has 0 to 9"),
        ([record(&[0, 99], [5; 3]), record(&[0, 100], [5; 3])].concat(), "image 1 has the label 100"),
    ] {
        fs::write(&path, bytes).unwrap();
        for place in [dir.path(), &path] {
            let e = load(&text(place), [3, 32, 32]).unwrap_err();
            assert!(e.to_string().contains(expected) && e.to_string().ends_with("data_batch_1.bin)"), "{e}");
        }
    }
    // beside one that is whole they are left out
    fs::write(dir.path().join("data_batch_3.bin"), &good).unwrap();
    let data = load(&text(dir.path()), [3, 32, 32]).unwrap();
    assert_eq!((data.n, &data.labels), (1, &vec![3]));
    let skipped = skipped(&data);
    assert!(skipped[0].0 == "data_batch_1.bin" && skipped[0].1.contains("label 100"), "{skipped:?}");
    let missing =
        ["data_batch_2.bin", "data_batch_4.bin", "data_batch_5.bin"].map(|name| (name, "the file is missing"));
    assert_eq!(skipped[1..], missing);

    let python = tempfile::tempdir().unwrap();
    fs::write(python.path().join("data_batch_1"), b"\x80\x02}q\x01").unwrap();
    for place in [python.path().to_owned(), python.path().join("data_batch_1")] {
        let e = load(&text(&place), [3, 32, 32]).unwrap_err().to_string();
        assert!(e.contains("version for Python") && e.contains("binary version"), "{e}");
    }
}

#[test]
fn folders_are_classes_whatever_alphabet_their_names_have() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("звери");
    for (name, v) in [("猫/a.png", 1), ("猫/deep/b.png", 2), ("Größe ﷽/c.png", 3), ("top.png", 4), ("a/猫/d.png", 5)]
    {
        grey(&root.join(name), v);
    }
    let data = load(&text(&root), [1, 1, 1]).unwrap();
    let class = |i: usize| (data.pixels[i], data.classes[data.labels[i] as usize].as_str());
    let seen: Vec<_> = (0..data.n).map(class).collect();
    assert_eq!(seen, [(3, "Größe ﷽"), (5, "a"), (4, "звери"), (1, "猫"), (2, "猫")]);
}

#[test]
fn several_places_are_one_data_set_and_a_file_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    for (name, v) in [("one/cat/a.png", 1), ("one/dog/b.png", 2), ("two/dog/c.png", 3), ("two/e.png", 4)] {
        grey(&dir.path().join(name), v);
    }
    let [one, two, dog] = ["one", "two", "one/dog"].map(|name| text(&dir.path().join(name)));
    let both = load(&Source::join([two.as_str(), &one]), [1, 1, 1]).unwrap();
    assert_eq!((both.name.as_str(), &both.pixels), ("two + one", &vec![3, 4, 1, 2]));
    assert_eq!((both.classes, both.labels), (["dog", "two", "cat"].map(str::to_owned).to_vec(), vec![0, 1, 2, 0]));

    #[cfg(unix)]
    std::os::unix::fs::symlink(dir.path().join("one/cat/a.png"), dir.path().join("two/a-again.png")).unwrap();
    let again = [one.as_str(), &dog, &format!("{dog}/../dog/b.png"), &two, &one].join("; ");
    let data = load(&again, [1, 1, 1]).unwrap();
    assert_eq!(data.pixels, [1, 2, 3, 4]);
    let whys: Vec<_> = skipped(&data).into_iter().map(|(name, why)| (name, &why[..12])).collect();
    let expected =
        [("dog", "one of its p"), ("b.png", "one of its p"), ("two", "one of its p"), ("one", "2 of its pic")];
    assert_eq!(whys, expected);

    let mixed = load(&format!("mnist;{one}"), [1, 28, 28]).unwrap();
    assert_eq!((mixed.n, mixed.classes.len(), mixed.flip, mixed.labels[60_001]), (60_002, 12, false, 11));
    assert_eq!(mixed.name, "mnist + one");
    assert_eq!(load("mnist; mnist", [1, 4, 4]).unwrap().n, 60_000);
    let e = load(&format!("mnist; {one}; /nowhere/at/all"), [1, 8, 8]).unwrap_err().to_string();
    assert!(e.contains("/nowhere/at/all"), "{e}");
}

/// Pictures of data that a model never saw are not passed off as those it learned from.
#[test]
fn data_that_have_changed_since_the_training_are_told() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    for (name, v) in [("pics/a.png", 1), ("pics/b.png", 2)] {
        grey(&dir.join(name), v);
    }
    let train = ["train", "--preset", "digits16", "--data", "pics", "--steps", "1", "--batch", "2", "--out", "run"];
    crate::cli::works(dir, &train);
    let film = || {
        let args = ["film", "--model", "run", "--sampler", "ddim", "--steps", "1", "--n", "1", "--out", "film.png"];
        let out = crate::cli::program(dir, &args);
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.success(), "{said}");
        said
    };
    let said = film();
    assert!(!said.contains("learned from"), "{said}");
    grey(&dir.join("pics/b.png"), 3);
    let said = film();
    assert!(said.contains("run learned from 2 images of 1x16x16, CRC-32") && said.contains("not of what"), "{said}");
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_are_named_and_loops_end() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    grey(&dir.path().join("deep/a.png"), 1);
    symlink(dir.path(), dir.path().join("deep/up")).unwrap();
    symlink(dir.path().join("self.png"), dir.path().join("self.png")).unwrap();
    symlink("gone", dir.path().join("dangling.png")).unwrap();
    symlink(dir.path().join("deep/a.png"), dir.path().join("linked.png")).unwrap();
    let data = load(&text(dir.path()), [1, 1, 1]).unwrap();
    assert_eq!(data.pixels, [1, 1]);
    let names: Vec<_> = skipped(&data).iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["dangling.png", "self.png"]);
    assert!(data.skipped[0].1.contains("No such file") && data.skipped[1].1.contains("symbolic links"), "{data:?}");
    symlink(dir.path().join("loop"), dir.path().join("loop")).unwrap();
    let e = load(&text(&dir.path().join("loop")), [1, 1, 1]).unwrap_err().to_string();
    assert!(e.contains("symbolic links") && e.ends_with("loop)"), "{e}");
}

#[test]
fn the_number_of_threads_changes_neither_order_nor_bytes() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..500_u32 {
        // names that do not sort as numbers, sizes that take unlike time
        let side = 1 + i * 37 % 97;
        let picture = GrayImage::from_fn(side, side, |x, y| Luma([(i + x * y) as u8]));
        picture.save(dir.path().join(format!("{}.png", i * 7919 % 500))).unwrap();
    }
    fs::write(dir.path().join("77.png"), b"damaged").unwrap();
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| load(&text(dir.path()), [1, 8, 8]).unwrap())
    };
    let (one, seven) = (with(1), with(7));
    assert_eq!((one.n, one.skipped.len()), (499, 1));
    assert_eq!((one.fingerprint(), one.found, one.skipped), (seven.fingerprint(), seven.found, seven.skipped));
    assert_eq!(one.pixels, seven.pixels);
}

#[test]
fn a_run_that_mirrors_resumes_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..40_u32 {
        let picture = GrayImage::from_fn(16, 16, |x, _| Luma([(i * 5 + x * 11) as u8]));
        picture.save(dir.path().join(format!("{i}.png"))).unwrap();
    }
    let data = load(&text(dir.path()), [1, 16, 16]).unwrap();
    let config = RunConfig { preset: "digits16".into(), batch: 8, steps: 6, ..RunConfig::default() };
    let trainer = |flip, threads| {
        let config = RunConfig { flip, ..config.clone() };
        Trainer::new(config.validate().unwrap(), Arc::new(cpu(threads))).unwrap()
    };
    let losses = |trainer: &mut Trainer, n| -> Vec<u32> {
        (0..n).map(|_| trainer.step(&data).unwrap().loss.to_bits()).collect()
    };
    let whole = losses(&mut trainer(Some(true), 2), 6);
    // pictures are mirrored unless it is said otherwise
    assert_eq!(losses(&mut trainer(None, 1), 6), whole);
    assert_ne!(losses(&mut trainer(Some(false), 2), 6), whole);
    let mut first = trainer(Some(true), 1);
    assert_eq!(losses(&mut first, 3), whole[..3]);
    let checkpoint = first.checkpoint().unwrap();
    let compute = || Arc::new(cpu(2));
    let mut second = Trainer::resume(first.plan().clone(), compute(), &checkpoint).unwrap();
    assert_eq!(losses(&mut second, 3), whole[3..]);
    let other = RunConfig { flip: Some(false), ..first.plan().run.clone() };
    let e = Trainer::resume(other.validate().unwrap(), compute(), &checkpoint).err().unwrap().to_string();
    assert!(e.contains("flip was true and is now false"), "{e}");
    assert_eq!(e.lines().count(), 1);
}

/// Trains up to that step and saves; how many images it learned from, in words.
fn trained(config: &RunConfig, out: &Path, steps: u64, resume: bool) -> (Outcome, String) {
    let engine = Engine::start(Options { device: DeviceChoice::Cpu, threads: 2, model: None }, || ()).unwrap();
    let request = TrainRequest {
        config: RunConfig { steps, ..config.clone() },
        out: Some(out.to_owned()),
        resume: resume.then(Changes::default),
        save_every: None,
        preview_share: None,
    };
    engine.send(Command::Train(1, Box::new(request))).unwrap();
    let outcome = loop {
        if let Some(Event::Finished(1, outcome)) = engine.wait(Duration::from_secs(60)).unwrap() {
            break outcome;
        }
    };
    let state = checkpoint::read_state(out).unwrap();
    (outcome, state["data"].as_str().unwrap().split(" of ").next().unwrap().to_owned())
}

#[test]
fn a_few_images_are_held_out_where_no_test_set_is_and_runs_of_older_versions_hold_none_out() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("train");
    (0..50).for_each(|i| grey(&own.join(format!("{i:02}.png")), i));
    let source = RunConfig { data: text(&own), ..RunConfig::default() }.source();
    let read = || Dataset::load(&source, [1, 1, 1], &|_, _| true).unwrap();
    let data = read();
    assert_eq!((data.n, &data.held_out.as_ref().unwrap().pixels), (48, &vec![24, 49]));
    assert!(!data.pixels.contains(&24) && data.pixels.contains(&23), "it would be trained on");

    let config =
        RunConfig { preset: "digits16".into(), data: text(&own), batch: 4, preview_every: 0, ..RunConfig::default() };
    let [new, old] = ["new", "old"].map(|name| dir.path().join(name));
    let images = |n: &str| (Outcome::Done, format!("{n} images"));
    assert_eq!(trained(&config, &new, 1, false), images("48"));
    assert_eq!(trained(&config, &new, 2, true), images("48"));
    assert_eq!(trained(&RunConfig { hold_out: false, ..config.clone() }, &old, 1, false), images("50"));
    let mut saved = checkpoint::load(&old, &candle_core::Device::Cpu).unwrap();
    let state = &mut saved.training.as_mut().unwrap().state;
    state["run"].as_object_mut().unwrap().remove("hold_out").unwrap();
    checkpoint::save(&old, &saved).unwrap();
    assert_eq!(trained(&config, &old, 2, true), images("50"));

    assert_eq!(source.decided(), source);
    grey(&dir.path().join("test/a.png"), 7);
    assert_eq!(source.decided(), Source::parse(&text(&own)), "there is a test set now");
    assert_eq!(Dataset::test_set(&source, [1, 1, 1], &|_, _| true).unwrap().unwrap().pixels, [7]);
}

/// What a run holds, but for its curves for other programs.
fn bytes(run: &Path) -> Vec<Vec<u8>> {
    let files = ["film/raw.safetensors", "film/adam.safetensors", "film/state.json", "film/checksums.json"];
    files.iter().map(|file| fs::read(run.join(file)).unwrap()).collect()
}

#[test]
fn a_run_that_goes_on_holds_out_what_it_began_with_whatever_comes_and_goes_beside_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("train");
    (0..50).for_each(|i| grey(&own.join(format!("{i:02}.png")), i));
    let config =
        RunConfig { preset: "digits16".into(), data: text(&own), batch: 4, preview_every: 0, ..RunConfig::default() };
    let [whole, rest, older, tested] = ["whole", "rest", "older", "tested"].map(|name| dir.path().join(name));
    let trained = |out: &Path, steps, resume| trained(&config, out, steps, resume);
    let images = |n: &str| (Outcome::Done, format!("{n} images"));
    assert_eq!(trained(&whole, 3, false), images("48"));
    assert_eq!(trained(&rest, 1, false), images("48"));
    assert_eq!(trained(&older, 1, false), images("48"));
    let mut saved = checkpoint::load(&older, &candle_core::Device::Cpu).unwrap();
    saved.training.as_mut().unwrap().state.as_object_mut().unwrap().remove("held_out").unwrap();
    checkpoint::save(&older, &saved).unwrap();

    let test = dir.path().join("test");
    grey(&test.join("a.png"), 7);
    assert_eq!(trained(&rest, 3, true), images("48"));
    assert_eq!(bytes(&rest), bytes(&whole));
    let refused = |out: &Path, words: &str| {
        let (Outcome::Failed(e), _) = trained(out, 3, true) else { panic!("it went on with other images") };
        assert!(e.to_string().contains(words) && !e.to_string().contains('\n'), "{e}");
    };
    // which decided anew at each start
    refused(&older, "its data were 48 images");

    assert_eq!(trained(&tested, 1, false), images("50"));
    fs::rename(&test, dir.path().join("elsewhere")).unwrap();
    refused(&tested, "its held-out images were 1 images of 1x16x16");
    refused(&tested, "and what is found now is none; put its test images back");
    fs::rename(dir.path().join("elsewhere"), &test).unwrap();
    assert_eq!(trained(&tested, 3, true), images("50"));
}

/// A `state.json` from before there was a setting for it.
#[test]
fn runs_from_before_still_load() {
    let old = r#"{"preset":"mnist28","data":"pictures","seed":1,"steps":5}"#;
    let run: RunConfig = serde_json::from_str(old).unwrap();
    assert_eq!((run.data.as_str(), run.flip, run.hold_out), ("pictures", None, false));
    assert_eq!(Source::parse(&run.data), Source::Path("pictures".into()));
}

#[test]
fn a_cancel_is_heard_between_places() {
    let dir = tempfile::tempdir().unwrap();
    grey(&dir.path().join("a.png"), 1);
    let places = Source::parse(&format!("{}; mnist", dir.path().display()));
    let seen = std::cell::RefCell::new(Vec::new());
    let stop = |done, total| {
        seen.borrow_mut().push((done, total));
        done < 20_000
    };
    assert_eq!(Dataset::load(&places, [1, 28, 28], &stop).unwrap_err().kind, Kind::Cancelled);
    let seen = seen.into_inner();
    assert!(seen.windows(2).all(|s| s[0].0 <= s[1].0) && seen.last().unwrap().1 == 60_001, "{seen:?}");
}
