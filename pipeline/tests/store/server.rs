//! A small HTTP server on this machine that behaves, breaks and lies as hubs do.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kinora_pipeline::store::hub::{HubOptions, Token};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub(crate) const TOKEN: &str = "hf_very_secret";

/// How the server treats the next requests for file contents.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mood {
    /// Send only so many bytes of a range, then hang up; counted down over `cuts` requests.
    pub(crate) cut_after: Option<usize>,
    pub(crate) cuts: usize,
    /// Answer everything with this status.
    pub(crate) status: Option<(u16, usize)>,
    pub(crate) retry_after: Option<u64>,
    pub(crate) ignore_ranges: bool,
    pub(crate) flip_a_byte: bool,
    pub(crate) redirect_to: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Asked {
    method: String,
    pub(crate) path: String,
    pub(crate) range: Option<(usize, usize)>,
    pub(crate) authorization: Option<String>,
}

/// Serves one repository `own/er` and stops when dropped.
pub(crate) struct Server {
    endpoint: String,
    mood: Arc<Mutex<Mood>>,
    pub(crate) log: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

pub(crate) type Files = BTreeMap<&'static str, Vec<u8>>;

impl Server {
    pub(crate) fn start(files: Files) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let mood = Arc::new(Mutex::new(Mood::default()));
        let log = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (m, l, s) = (mood.clone(), log.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            // A test that hangs must not keep a server: two minutes are far beyond any of them.
            let began = Instant::now();
            while !s.load(Ordering::SeqCst) && began.elapsed() < Duration::from_secs(120) {
                match listener.accept() {
                    Ok((stream, _)) => drop(answer(stream, &files, &m, &l)),
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Self { endpoint, mood, log, stop, thread: Some(thread) }
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(crate) fn contents_asked(&self) -> Vec<Asked> {
        let is_content = |asked: &&Asked| asked.method == "GET" && asked.path.contains("/resolve/");
        self.log.lock().unwrap().iter().filter(is_content).cloned().collect()
    }

    pub(crate) fn options(&self) -> HubOptions {
        HubOptions {
            endpoint: self.endpoint.clone(),
            token: Some(Token::new(TOKEN)),
            chunk_bytes: 1000,
            first_wait: Duration::from_millis(10),
            ..HubOptions::default()
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn answer(
    stream: TcpStream,
    files: &Files,
    mood: &Mutex<Mood>,
    log: &Mutex<Vec<Asked>>,
) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
    let mut asked = Asked { method, path, range: None, authorization: None };
    let mut body_bytes = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        let (name, value) = header.trim().split_once(':').unwrap_or((header.trim(), ""));
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => body_bytes = value.parse().unwrap_or(0),
            "authorization" => asked.authorization = Some(value.to_owned()),
            "range" => {
                let (from, to) = value.trim_start_matches("bytes=").split_once('-').unwrap();
                asked.range = Some((from.parse().unwrap(), to.parse().unwrap()));
            }
            _ => {}
        }
    }
    let mut body = vec![0; body_bytes];
    reader.read_exact(&mut body)?;
    log.lock().unwrap().push(asked.clone());
    respond(stream, &asked, files, &mut mood.lock().unwrap())
}

fn respond(mut stream: TcpStream, asked: &Asked, files: &Files, mood: &mut Mood) -> std::io::Result<()> {
    let mut send = |status: &str, headers: &str, body: &[u8], shown: usize| {
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        )?;
        if asked.method != "HEAD" {
            stream.write_all(&body[..shown])?;
        }
        stream.flush()
    };
    if let Some((status, times)) = &mut mood.status
        && *times > 0
    {
        *times -= 1;
        let wait = mood.retry_after.map(|s| format!("Retry-After: {s}\r\n")).unwrap_or_default();
        let body = format!("{{\"error\":\"no, {TOKEN}\"}}");
        return send(&format!("{status} No"), &wait, body.as_bytes(), body.len());
    }
    let entries = || {
        let entry = |(path, bytes): (&&str, &Vec<u8>)| serde_json::json!({"type": "file", "oid": format!("{:040x}", bytes.len()), "size": bytes.len(), "path": path});
        serde_json::Value::Array(files.iter().map(entry).collect()).to_string().into_bytes()
    };
    let json = "Content-Type: application/json\r\n";
    if asked.path.starts_with("/api/models/own/er/revision/") {
        let info = serde_json::json!({"id": "own/er", "sha": COMMIT}).to_string().into_bytes();
        return send("200 OK", json, &info, info.len());
    }
    if asked.path.starts_with("/api/models/own/er/paths-info/")
        || asked.path.starts_with("/api/models/own/er/tree/")
    {
        let list = entries();
        return send("200 OK", json, &list, list.len());
    }
    let prefix = format!("/own/er/resolve/{COMMIT}/");
    let Some(content) = asked.path.strip_prefix(&prefix).and_then(|name| files.get(name)) else {
        return send("404 Not Found", "", b"", 0);
    };
    if let Some(elsewhere) = &mood.redirect_to {
        return send("302 Found", &format!("Location: {elsewhere}\r\n"), b"", 0);
    }
    let (from, to) = asked.range.filter(|_| !mood.ignore_ranges).unwrap_or((0, content.len() - 1));
    let mut part = content[from..=to].to_vec();
    if mood.flip_a_byte {
        part[0] ^= 1;
    }
    let shown = match mood.cut_after {
        Some(limit) if mood.cuts > 0 && asked.method == "GET" => {
            mood.cuts -= 1;
            limit.min(part.len())
        }
        _ => part.len(),
    };
    let status = if part.len() == content.len() { "200 OK" } else { "206 Partial Content" };
    send(status, &format!("ETag: \"x\"\r\nX-Repo-Commit: {COMMIT}\r\n"), &part, shown)
}
