//! A model is fetched, stopped, gone on with and checked, against a small server on this machine.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kinora_pipeline::store::hub::{HubOptions, sha256_of};
use kinora_pipeline::store::model_store::ModelStore;
use kinora_pipeline::store::registry::Registry;
use serde_json::json;

use super::support::{Desk, SMALL};
use crate::gui::layout::Pane;
use crate::gui::tasks::models::ModelsState;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Bytes the server sends at once, slowly.
const PIECE: usize = 1000;

/// Serves one file of one repository until it is dropped.
struct Server {
    endpoint: String,
    /// Pieces it sends before it waits to be let on.
    allowed: Arc<AtomicUsize>,
    /// Bytes of the file it sent.
    sent: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Server {
    fn start(content: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let server = Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            allowed: Arc::new(AtomicUsize::new(4)),
            sent: Arc::default(),
            stop: Arc::default(),
        };
        let (allowed, sent, stop) = (server.allowed.clone(), server.sent.clone(), server.stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => drop(answer(&stream, &content, &allowed, &sent, &stop)),
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn answer(
    mut stream: &TcpStream,
    content: &[u8],
    allowed: &AtomicUsize,
    sent: &AtomicUsize,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let (mut range, mut length) = (None, 0);
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        let header = header.trim().to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length: ") {
            length = value.parse().unwrap_or(0);
        }
        if let Some((from, to)) = header.strip_prefix("range: bytes=").and_then(|r| r.split_once('-')) {
            range = Some((from.parse::<usize>().unwrap(), to.parse::<usize>().unwrap()));
        }
    }
    std::io::copy(&mut std::io::Read::take(&mut reader, length), &mut std::io::sink())?;
    let (from, to) = range.unwrap_or((0, content.len() - 1));
    let file = line.contains("/resolve/");
    let body: Vec<u8> = if line.contains("/revision/") {
        json!({ "id": "own/er", "sha": COMMIT }).to_string().into_bytes()
    } else if file {
        content[from..=to].to_vec()
    } else {
        let entry = json!({ "type": "file", "oid": "1", "size": content.len(), "path": "weights.bin" });
        json!([entry]).to_string().into_bytes()
    };
    let status = if body.len() == content.len() || !file { "200 OK" } else { "206 Partial Content" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         ETag: \"x\"\r\nX-Repo-Commit: {COMMIT}\r\n\r\n",
        body.len()
    )?;
    if line.starts_with("HEAD") {
        return Ok(());
    }
    if file {
        while allowed.load(Ordering::SeqCst) == 0 && !stop.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(2));
        }
        allowed.fetch_sub(1, Ordering::SeqCst);
        sent.fetch_add(body.len(), Ordering::SeqCst);
    }
    stream.write_all(&body)?;
    stream.flush()
}

#[test]
fn a_model_is_fetched_stopped_gone_on_with_and_checked() {
    let mut desk = Desk::new();
    let content: Vec<u8> = (0..10 * PIECE as u32).map(|i| (i * 7 % 251) as u8).collect();
    let server = Server::start(content.clone());
    desk.put("known.bin", &content);
    let digest = sha256_of(&desk.path("known.bin")).unwrap();
    let entry = json!({
        "id": "tiny", "title": "Tiny", "repo": "own/er", "revision": "main", "licence": "MIT", "needs": [],
        "files": [{ "path": "weights.bin", "bytes": content.len(), "sha256": digest }],
    });
    let registry = Registry::parse(&json!({ "kinora_models": 1, "models": [entry] }).to_string()).unwrap();
    let (root, endpoint) = (desk.path("models"), server.endpoint.clone());
    let open = move |offline| {
        let options = HubOptions {
            endpoint: endpoint.clone(),
            token: None,
            offline,
            chunk_bytes: PIECE as u64,
            first_wait: Duration::from_millis(10),
        };
        Ok(ModelStore::with_registry(&root, options, registry.clone()))
    };
    desk.state_mut().models = ModelsState::over(Box::new(open), Arc::new(|| {}));
    desk.open(SMALL);
    desk.state_mut().show_pane = Some(Pane::Models);
    desk.steps(3);
    desk.wait("the models are listed", |state| state.models.is_listed());
    assert!(desk.has("Tiny") && desk.has("Not here") && desk.has("MIT"));

    // With the network switched off nothing is asked for.
    desk.click("Never use the network");
    desk.click("Fetch tiny");
    desk.steps(5);
    assert_eq!(server.sent.load(Ordering::SeqCst), 0);
    desk.click("Never use the network");

    // The server stops after four tenths; so does the person.
    desk.click("Fetch tiny");
    let begun = std::time::Instant::now();
    while server.sent.load(Ordering::SeqCst) < 4 * PIECE {
        desk.steps(1);
        std::thread::sleep(Duration::from_millis(5));
        assert!(begun.elapsed().as_secs() < 60, "nothing arrives: {:?}", desk.said());
    }
    desk.steps(3);
    assert!(desk.has("Fetching tiny"), "how far it is can be seen");
    desk.click("Stop fetching tiny");
    server.allowed.store(1, Ordering::SeqCst);
    desk.wait("it stopped", |state| {
        state.toasts.log().iter().any(|(_, text)| text.contains("goes on where it stopped"))
    });
    desk.steps(10);
    assert!(desk.has("Incomplete"));

    let before = server.sent.load(Ordering::SeqCst);
    server.allowed.store(100, Ordering::SeqCst);
    desk.click("Go on tiny");
    desk.wait("it is here", |state| {
        state.toasts.log().iter().any(|(_, text)| text.starts_with("tiny is in"))
    });
    let again = server.sent.load(Ordering::SeqCst) - before;
    assert!(again <= content.len() - 4 * PIECE, "{again} bytes were fetched once more");
    desk.steps(10);
    assert!(desk.has("Installed"));

    desk.click("Check tiny");
    desk.wait("it was checked", |state| {
        state.toasts.log().iter().any(|(_, text)| text.contains("is sound: 1 files"))
    });
    // A byte that is wrong is found.
    let stored = walk(&desk.path("models")).into_iter().find(|path| path.ends_with("weights.bin")).unwrap();
    let mut bytes = std::fs::read(&stored).unwrap();
    bytes[77] ^= 1;
    std::fs::write(&stored, bytes).unwrap();
    desk.click("Check tiny");
    desk.wait("the damage is said", |state| {
        state.toasts.log().iter().any(|(_, text)| text.contains("tiny is damaged: weights.bin"))
    });
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { vec![entry.path()] })
        .collect()
}
