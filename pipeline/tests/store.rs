//! The model store against a small HTTP server on this machine that behaves, breaks and lies as hubs do.
// Test helpers outside #[test] functions may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "store/server.rs"]
mod server;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kinora_pipeline::progress::{Event, NullProgress, Progress};
use kinora_pipeline::store::hub::{HubError, HubOptions};
use kinora_pipeline::store::model_store::{LOCK_FILE, ModelStore, ModelStoreError, Presence};
use kinora_pipeline::store::registry::Registry;
use server::{COMMIT, Files, Mood, Server, TOKEN};

fn weights() -> Vec<u8> {
    (0..4321u32).map(|i| (i * 7 % 251) as u8).collect()
}

fn repository() -> Files {
    [
        ("config.json", b"{}".to_vec()),
        ("unet/weights.safetensors", weights()),
        ("old/weights.ckpt", b"pickle".to_vec()),
    ]
    .into()
}

fn registry(sha256: Option<&str>, bytes: Option<u64>) -> Registry {
    let entry = serde_json::json!({
        "id": "tiny", "title": "Tiny", "repo": "own/er", "revision": "main", "licence": "MIT", "needs": [],
        "files": [
            {"path": "config.json", "bytes": null, "sha256": null},
            {"path": "unet/weights.safetensors", "bytes": bytes, "sha256": sha256},
        ],
    });
    Registry::parse(&serde_json::json!({"kinora_models": 1, "models": [entry]}).to_string()).unwrap()
}

fn store(root: &Path, server: &Server) -> ModelStore {
    ModelStore::with_registry(root, server.options(), registry(None, None))
}

fn hub_error(result: Result<impl std::fmt::Debug, ModelStoreError>) -> HubError {
    match result {
        Err(ModelStoreError::Hub(error)) => {
            assert!(!format!("{error} {error:?}").contains(TOKEN), "the token is in {error:?}");
            error
        }
        other => panic!("expected an error of the hub, found {other:?}"),
    }
}

#[derive(Default)]
struct Watch {
    steps: Mutex<Vec<(usize, usize)>>,
    wrote: AtomicUsize,
    cancel_after: Option<usize>,
}

impl Progress for Watch {
    fn event(&self, event: Event) {
        match event {
            Event::Step { stage: "download", done, total, .. } => {
                self.steps.lock().unwrap().push((done, total))
            }
            Event::Wrote { .. } => drop(self.wrote.fetch_add(1, Ordering::SeqCst)),
            _ => {}
        }
    }

    fn cancelled(&self) -> bool {
        self.cancel_after.is_some_and(|n| self.steps.lock().unwrap().len() >= n)
    }
}

#[test]
fn a_model_is_fetched_listed_verified_and_removed() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(repository()));
    let store = store(folder.path(), &server);
    assert_eq!(store.list().unwrap()[0].presence, Presence::Absent);
    assert!(matches!(store.resolve("tiny"), Err(ModelStoreError::Absent { .. })));

    let watch = Watch::default();
    let files = store.pull("tiny", &watch).unwrap();
    assert_eq!(std::fs::read(files.path("unet/weights.safetensors").unwrap()).unwrap(), weights());
    assert_eq!(watch.wrote.load(Ordering::SeqCst), 2);
    assert!(watch.steps.lock().unwrap().len() >= 6);
    assert!(files.path("../tiny/config.json").is_err() && files.path("absent").is_err());
    let asked = server.contents_asked();
    assert_eq!(asked.len(), 1 + 5, "one file of one range, one of five");
    assert!(asked.iter().all(|a| a.authorization.as_deref() == Some("Bearer hf_very_secret")));
    assert!(asked.iter().all(|a| a.path.contains(COMMIT)));

    assert_eq!(store.list().unwrap()[0].presence, Presence::Present);
    assert!(store.verify("tiny").unwrap().damaged.is_empty());
    store.pull("tiny", &NullProgress).unwrap();
    assert_eq!(server.contents_asked().len(), 6, "nothing is fetched twice");

    let path = files.path("unet/weights.safetensors").unwrap();
    let mut bytes = weights();
    bytes[99] ^= 4;
    std::fs::write(&path, &bytes).unwrap();
    let report = store.verify("tiny").unwrap();
    assert_eq!((report.sound.len(), report.damaged.len()), (1, 1));
    assert!(report.damaged[0].1.contains("SHA-256"), "{report:?}");
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(store.resolve("tiny"), Err(ModelStoreError::Incomplete { .. })));
    assert_eq!(store.list().unwrap()[0].presence, Presence::Partial);
    store.pull("tiny", &NullProgress).unwrap();
    assert!(store.verify("tiny").unwrap().damaged.is_empty());

    assert!(store.remove("tiny").unwrap() > 4321);
    assert!(matches!(store.remove("tiny"), Err(ModelStoreError::Absent { .. })));
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(repository()));
    let store = store(folder.path(), &server);
    // The first file and two ranges of the second arrive, then every connection breaks.
    let watch = Watch { cancel_after: Some(5), ..Watch::default() };
    assert!(matches!(hub_error(store.pull("tiny", &watch)), HubError::Cancelled));
    let before = server.contents_asked().len();
    server.set(Mood { cut_after: Some(300), cuts: usize::MAX, ..Mood::default() });
    let error = hub_error(store.pull("tiny", &NullProgress));
    assert!(matches!(error, HubError::Cut { done: 2000, total: 4321, .. }), "{error:?}");

    server.set(Mood::default());
    let asked = server.contents_asked().len();
    let files = store.pull("tiny", &NullProgress).unwrap();
    assert_eq!(std::fs::read(files.path("unet/weights.safetensors").unwrap()).unwrap(), weights());
    let resumed = &server.contents_asked()[asked..];
    assert_eq!(resumed[0].range, Some((2000, 2999)));
    assert_eq!(resumed.len(), 3);
    assert!(before >= 3);
    let left: Vec<_> = std::fs::read_dir(files.root.join("unet")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "no partial file is left: {left:?}");
}

#[test]
fn a_connection_that_breaks_once_is_tried_again() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(repository()));
    server.set(Mood { cut_after: Some(1), cuts: 2, ..Mood::default() });
    store(folder.path(), &server).pull("tiny", &NullProgress).unwrap();
    server.set(Mood { status: Some((503, 2)), ..Mood::default() });
    let other = tempfile::tempdir().unwrap();
    store(other.path(), &server).pull("tiny", &NullProgress).unwrap();
}

#[test]
fn wrong_contents_are_never_put_in_place() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(repository()));
    let right = registry(Some("00"), None);
    let wrong = ModelStore::with_registry(folder.path(), server.options(), right);
    assert!(matches!(hub_error(wrong.pull("tiny", &NullProgress)), HubError::Digest { .. }));
    assert!(!folder.path().join("tiny/unet/weights.safetensors").exists());
    assert_eq!(std::fs::read_dir(folder.path().join("tiny/unet")).unwrap().count(), 0);

    // The first download recorded the digest: a repository that changes under the same commit is found out.
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), &server);
    let files = store.pull("tiny", &NullProgress).unwrap();
    std::fs::remove_file(files.path("unet/weights.safetensors").unwrap()).unwrap();
    server.set(Mood { flip_a_byte: true, ..Mood::default() });
    assert!(matches!(hub_error(store.pull("tiny", &NullProgress)), HubError::Digest { .. }));
    assert!(files.path("unet/weights.safetensors").is_err());
}

#[test]
fn wrong_lengths_are_refused() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(repository()));
    server.set(Mood { ignore_ranges: true, ..Mood::default() });
    let error = hub_error(store(folder.path(), &server).pull("tiny", &NullProgress));
    assert!(matches!(error, HubError::Length { expected: 1000, found: 4321, .. }), "{error:?}");

    server.set(Mood::default());
    let sized = ModelStore::with_registry(folder.path(), server.options(), registry(None, Some(5)));
    let error = hub_error(sized.pull("tiny", &NullProgress));
    assert!(matches!(error, HubError::Size { expected: 5, found: 4321, .. }), "{error:?}");
}

#[test]
fn refusals_of_the_hub_say_what_to_do() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(repository()));
    let store = store(folder.path(), &server);
    let answer = |status: u16| {
        server.set(Mood { status: Some((status, usize::MAX)), ..Mood::default() });
        hub_error(store.pull("tiny", &NullProgress))
    };
    assert!(matches!(answer(401), HubError::Unauthorized { .. }));
    assert!(matches!(answer(403), HubError::Forbidden { .. }));
    assert!(matches!(answer(404), HubError::NotFound { .. }));
    assert!(matches!(answer(429), HubError::RateLimited { wait: None }));
    assert!(matches!(answer(500), HubError::Other { .. }));
    server.set(Mood::default());
    let missing = hub_error(store.pull("hub:own/other", &NullProgress));
    assert!(matches!(missing, HubError::NotFound { .. }), "{missing:?}");
}

#[test]
fn slow_down_is_obeyed_for_as_long_as_the_hub_asks() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(repository()));
    server.set(Mood { status: Some((429, 1)), retry_after: Some(1), ..Mood::default() });
    let began = Instant::now();
    store(folder.path(), &server).pull("tiny", &NullProgress).unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));

    let folder = tempfile::tempdir().unwrap();
    server.set(Mood { status: Some((429, usize::MAX)), retry_after: Some(3600), ..Mood::default() });
    let began = Instant::now();
    let error = hub_error(store(folder.path(), &server).pull("tiny", &NullProgress));
    assert!(matches!(error, HubError::RateLimited { wait: Some(w) } if w.as_secs() == 3600), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "an hour is not waited for");
}

#[test]
fn redirects_to_other_hosts_are_not_followed() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(repository()));
    server.set(Mood { redirect_to: Some("http://example.invalid/x".to_owned()), ..Mood::default() });
    let error = hub_error(store(folder.path(), &server).pull("tiny", &NullProgress));
    assert!(error.to_string().contains("not allowed"), "{error}");
}

#[test]
fn offline_nothing_is_asked_and_what_is_here_works() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(repository()));
    store(folder.path(), &server).pull("tiny", &NullProgress).unwrap();
    let asked = server.log.lock().unwrap().len();
    let options = HubOptions { offline: true, ..server.options() };
    let offline = ModelStore::with_registry(folder.path(), options, registry(None, None));
    offline.pull("tiny", &NullProgress).unwrap();
    offline.resolve("tiny").unwrap();
    offline.verify("tiny").unwrap();
    let refused = hub_error(offline.pull("hub:own/er", &NullProgress));
    assert!(matches!(refused, HubError::Offline { .. }));
    assert!(refused.to_string().contains("KINORA_OFFLINE"));
    assert_eq!(server.log.lock().unwrap().len(), asked);
}

#[test]
fn a_repository_named_by_the_user_comes_without_pickles() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(repository()));
    let store = store(folder.path(), &server);
    let files = store.pull("hub:own/er@main", &NullProgress).unwrap();
    assert_eq!(
        files.digests.keys().map(String::as_str).collect::<Vec<_>>(),
        ["config.json", "unet/weights.safetensors"]
    );
    assert!(files.path("old/weights.ckpt").is_err());
    let listed = store.list().unwrap();
    assert_eq!((listed.len(), listed[1].id.as_str()), (2, "hub:own/er@main"));
    assert_eq!(listed[1].presence, Presence::Present);
}

#[test]
fn local_folders_are_models_and_are_never_deleted() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    let store = ModelStore::new(&folder.path().join("models"), HubOptions::default()).unwrap();
    let id = folder.path().to_str().unwrap();
    let files = store.resolve(id).unwrap();
    assert!(files.path("config.json").is_ok());
    assert!(store.remove(id).is_err());
    assert!(folder.path().join("config.json").exists());
    assert!(store.resolve("./no/such/folder").is_err());
}

#[test]
fn a_record_that_was_tampered_with_is_refused() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(repository()));
    let store = store(folder.path(), &server);
    let files = store.pull("tiny", &NullProgress).unwrap();
    let lock = files.root.join(LOCK_FILE);
    let text = std::fs::read_to_string(&lock).unwrap();
    assert!(!text.contains(TOKEN));
    for bad in ["", "{}", &text.replace("unet/", "../../"), &text[..text.len() / 2]] {
        std::fs::write(&lock, bad).unwrap();
        assert!(matches!(store.resolve("tiny"), Err(ModelStoreError::Lock { .. })), "{bad}");
        assert!(matches!(store.pull("tiny", &NullProgress), Err(ModelStoreError::Lock { .. })), "{bad}");
    }
}
