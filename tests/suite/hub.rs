//! Models of the Hugging Face hub, from a small server that speaks as the hub does.

use candle_core::Device;
use ddpm_film::checkpoint::hub::{Hub, name_of};
use ddpm_film::checkpoint::load;
use ddpm_film::error::Kind;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const NAME: &str = "someone/tiny";
const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// A hub with one model. Its thread ends with the test process.
struct Server {
    endpoint: String,
    /// Every request line, with where its range begins.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `breaks_off` of the bytes of weights are sent, all of them where it is `None`.
    fn start(files: &[(&str, Vec<u8>)], breaks_off: Option<usize>) -> Self {
        let files: BTreeMap<String, Vec<u8>> = files.iter().map(|(n, b)| ((*n).to_owned(), b.clone())).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&asked);
        let serve = move || {
            for stream in listener.incoming() {
                // one that goes away in the middle is no failure of the server
                answer(stream.unwrap(), &files, breaks_off, &note).unwrap_or_default();
            }
        };
        std::thread::Builder::new().name("hub".into()).spawn(serve).unwrap();
        Self { endpoint, asked }
    }

    fn requests(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    breaks_off: Option<usize>,
    note: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let Some(line) = lines.next().transpose()? else { return Ok(()) };
    let mut range = None;
    for header in lines.map_while(Result::ok).take_while(|l| !l.is_empty()) {
        range = header.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned).or(range);
    }
    let path = line.split(' ').nth(1).unwrap_or_default();
    note.lock().unwrap().push(format!("{path} {}", range.clone().unwrap_or_default()));
    let revision = if path.contains(COMMIT) { COMMIT } else { "main" };
    if path == format!("/api/models/{NAME}/revision/{revision}") {
        let siblings: Vec<_> = files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        return stream.write_all((head + &body).as_bytes());
    }
    let file = path.strip_prefix(&format!("/{NAME}/resolve/{revision}/")).and_then(|name| files.get(name));
    let (Some(bytes), Some(range)) = (file, range) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let (first, last) = range.split_once('-').unwrap_or_default();
    let first: usize = first.parse().unwrap_or(0);
    let end = last.parse::<usize>().map_or(bytes.len(), |last| last + 1).min(bytes.len());
    // an empty file says that it is huge
    let total = if bytes.is_empty() { 200 << 20 } else { bytes.len() };
    let body = &bytes[first..end];
    // broken off with and without a length: with one the connection ends too early, without one it just ends
    let sent = breaks_off.filter(|_| path.ends_with(WEIGHTS) && body.len() > 1).unwrap_or(body.len()).min(body.len());
    let length = if sent == body.len() { format!("Content-Length: {sent}\r\n") } else { String::new() };
    let etag = path.replace('/', "");
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\n{length}\
         Content-Range: bytes {first}-{end}/{total}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    for part in body[..sent].chunks(4096) {
        stream.write_all(part)?;
    }
    Ok(())
}

/// The files of a golden model, in a folder of the repository.
fn tiny(folder: &str) -> Vec<(String, Vec<u8>)> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/unet_gray");
    let read = |name: &str| (format!("{folder}{name}"), std::fs::read(golden.join(name)).unwrap());
    vec![read("config.json"), read(WEIGHTS), (format!("{folder}README.md"), b"a model".to_vec())]
}

fn serve(files: &[(String, Vec<u8>)], breaks_off: Option<usize>) -> Server {
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
    Server::start(&files, breaks_off)
}

#[test]
fn a_model_is_fetched_once_and_then_opens_without_the_network() {
    for folder in ["", "unet/"] {
        let tmp = tempfile::tempdir().unwrap();
        let server = serve(&tiny(folder), None);
        let hub = Hub::at(server.endpoint.clone(), tmp.path().into());
        let mut heard = (0, 0);
        let at = hub.fetch(NAME, &mut |done, total| {
            heard = (done, total);
            true
        });
        let at = at.unwrap();
        let size = tiny("")[1].1.len() as u64;
        assert_eq!(heard, (size, size));
        assert_eq!(at, tmp.path().join(format!("models--someone--tiny/snapshots/{COMMIT}")));
        assert_eq!(name_of(&at).as_deref(), Some(NAME));
        assert!(load(&at, &Device::Cpu).unwrap().training.is_none());
        assert!(server.requests().iter().all(|line| !line.contains("README")), "{:?}", server.requests());

        let offline = Hub::at("http://127.0.0.1:9".into(), tmp.path().into());
        assert_eq!(offline.fetch(NAME, &mut |_, _| true).unwrap(), at);
        let said = offline.fetch("someone/else", &mut |_, _| true).unwrap_err().to_string();
        assert!(said.starts_with("cannot fetch hf:someone/else: the hub cannot be reached"), "{said}");
        assert!(said.contains("check the network") && !said.contains('\n'), "{said}");
    }
}

#[test]
fn the_schedule_that_another_program_did_not_want_is_fetched_alone() {
    for schedule in ["scheduler/scheduler_config.json", "scheduler_config.json"] {
        let tmp = tempfile::tempdir().unwrap();
        let hub = |server: &Server| Hub::at(server.endpoint.clone(), tmp.path().into());
        hub(&serve(&tiny(""), None)).fetch(NAME, &mut |_, _| true).unwrap();
        let cosine = (schedule.to_owned(), br#"{"beta_schedule": "squaredcos_cap_v2"}"#.to_vec());
        let server = serve(&[tiny(""), vec![cosine]].concat(), None);
        for _ in 0..2 {
            let at = hub(&server).fetch(NAME, &mut |_, _| true).unwrap();
            assert_eq!(load(&at, &Device::Cpu).unwrap().schedule.beta_schedule, "squaredcos_cap_v2");
        }
        let asked = server.requests();
        assert!(asked.iter().filter(|line| line.contains("revision")).count() == 1, "{asked:?}");
        assert!(asked.iter().all(|line| line.contains(COMMIT)), "of another version: {asked:?}");
        assert!(!asked.iter().any(|line| line.contains(WEIGHTS)), "{asked:?}");
    }
}

/// It is wholly there but for its schedule.
#[test]
fn a_hub_that_never_answers_keeps_nobody_from_a_model_that_is_there() {
    let tmp = tempfile::tempdir().unwrap();
    Hub::at(serve(&tiny(""), None).endpoint.clone(), tmp.path().into()).fetch(NAME, &mut |_, _| true).unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hub = Hub::at(format!("http://{}", silent.local_addr().unwrap()), tmp.path().into());
    let begun = std::time::Instant::now();
    hub.fetch(NAME, &mut |_, _| true).unwrap();
    assert!(begun.elapsed().as_secs() < 15, "{:?}", begun.elapsed());
    let cancelled = hub.fetch(NAME, &mut |_, _| false).unwrap_err();
    assert_eq!(cancelled.kind, ddpm_film::error::Kind::Cancelled);
}

#[test]
fn a_download_that_is_stopped_goes_on_where_it_was() {
    let tmp = tempfile::tempdir().unwrap();
    let server = serve(&tiny(""), None);
    let hub = Hub::at(server.endpoint.clone(), tmp.path().into());
    let stopped = hub.fetch(NAME, &mut |done, _| done < 20_000).unwrap_err();
    assert_eq!(stopped.kind, Kind::Cancelled);
    let snapshot = tmp.path().join(format!("models--someone--tiny/snapshots/{COMMIT}"));
    assert!(!snapshot.join(WEIGHTS).exists());
    let at = hub.fetch(NAME, &mut |_, _| true).unwrap();
    load(&at, &Device::Cpu).unwrap();
    let last = server.requests().pop().unwrap();
    let first: u64 = last.split(' ').nth(1).unwrap().trim_end_matches('-').parse().unwrap();
    assert!(last.contains(WEIGHTS) && first > 0, "{last}");
}

#[test]
fn a_download_that_breaks_off_leaves_nothing_that_is_not_whole() {
    let tmp = tempfile::tempdir().unwrap();
    let server = serve(&tiny(""), Some(9_000));
    let hub = Hub::at(server.endpoint.clone(), tmp.path().into());
    let said = hub.fetch(NAME, &mut |_, _| true).unwrap_err().to_string();
    assert!(said.starts_with("cannot fetch hf:someone/tiny: ") && said.contains("broke off after 9000 of"), "{said}");
    let whole = serve(&tiny(""), None);
    let hub = Hub::at(whole.endpoint.clone(), tmp.path().into());
    load(&hub.fetch(NAME, &mut |_, _| true).unwrap(), &Device::Cpu).unwrap();
}

#[test]
fn what_cannot_run_here_is_refused_before_its_weights_are_fetched() {
    let config = |text: &str| vec![("unet/config.json".to_owned(), text.as_bytes().to_vec())];
    let weights = || ("unet/diffusion_pytorch_model.safetensors".to_owned(), vec![0; 1 << 20]);
    let mut other = config("{\"_class_name\": \"UNet2DConditionModel\"}");
    other.push(weights());
    let mut huge = tiny("");
    huge[1].1 = Vec::new();
    let mut pickled = tiny("");
    pickled[1].0 = "diffusion_pytorch_model.bin".into();
    let cases = [
        (other, "UNet2DConditionModel"),
        (huge, "209715200 bytes, far more"),
        (pickled, "save it again with save_pretrained"),
        (vec![("README.md".into(), vec![])], "it has no config.json"),
    ];
    for (files, words) in cases {
        let tmp = tempfile::tempdir().unwrap();
        let server = serve(&files, None);
        let hub = Hub::at(server.endpoint.clone(), tmp.path().into());
        let mut most = 0;
        let refused = hub.fetch(NAME, &mut |done, _| {
            most = done.max(most);
            true
        });
        let said = refused.unwrap_err().to_string();
        assert!(said.contains(words) && !said.contains('\n') && most < 10_000, "{said} after {most} bytes");
    }
}

#[test]
fn the_command_line_takes_a_model_of_the_hub() {
    let tmp = tempfile::tempdir().unwrap();
    let server = serve(&tiny(""), None);
    let run = |name: &str, endpoint: &str| {
        Command::new(env!("CARGO_BIN_EXE_ddpm-film"))
            .current_dir(tmp.path())
            .args([
                "sample",
                "--n",
                "1",
                "--sampler",
                "ddim",
                "--steps",
                "2",
                "--out",
                "a.png",
                "--device",
                "cpu",
                "--model",
            ])
            .arg(name)
            .env("HF_HOME", tmp.path().join("home"))
            .env("HF_ENDPOINT", endpoint)
            .output()
            .unwrap()
    };
    for endpoint in [server.endpoint.as_str(), "http://127.0.0.1:9"] {
        let out = run("hf:someone/tiny", endpoint);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert!(tmp.path().join("a.png").is_file());
        std::fs::remove_file(tmp.path().join("a.png")).unwrap();
    }
    for (name, code, words) in [
        ("hf:someone/nothing", 1, "error: cannot fetch hf:someone/nothing: the hub has no such model"),
        ("hf:nothing", 2, "write hf:owner/name"),
        ("hf:../..", 2, "no name of a model"),
    ] {
        let out = run(name, &server.endpoint);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(code) && said.contains(words) && !said.contains("panicked"), "{said}");
    }
}
