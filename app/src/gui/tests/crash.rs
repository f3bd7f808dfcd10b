//! A real process, really killed.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use eframe::egui::vec2;

use super::support::{Desk, SMALL};
use crate::gui::layout::Pane;
use crate::gui::model::changes;
use crate::gui::model::queue::Phase;

const FOLDER: &str = "KINORA_TEST_CRASH";
const ALONE: &str = "KINORA_TEST_ALONE";

/// The process that is killed: edits a document, begins a long render, says so, and hangs.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn victim() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let mut desk = Desk::over(std::path::Path::new(&folder), vec2(1200.0, 800.0));
    desk.open(&SMALL.replace("\"steps\": 1", "\"steps\": 400"));
    desk.state_mut().edit(|project| changes::set_prompt(project, "shot", 0, "drift left"));
    desk.state_mut().close_gesture();
    desk.state_mut().edit(|project| changes::set_magnitude(project, "shot", 0, 0.25));
    desk.state_mut().animate();
    desk.wait("it renders", |state| {
        state.runner.look(|_, live| live.is_some_and(|live| live.doing.starts_with("Imagining")))
    });
    desk.state_mut().edit(|project| changes::rename(project, "shot", "Second"));
    desk.state_mut().animate();
    desk.steps(2);
    println!("ready");
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

#[test]
fn a_killed_window_loses_neither_edits_nor_jobs() {
    let root = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "gui::tests::crash::victim", "--ignored", "--nocapture"])
        .env(FOLDER, root.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).any(|line| line.contains("ready"));
    assert!(ready, "the victim got as far as rendering");
    // SIGKILL: nothing in it gets to say good-bye.
    child.kill().unwrap();
    child.wait().unwrap();

    let mut desk = Desk::over(root.path(), vec2(1200.0, 800.0));
    assert!(desk.has("Unsaved work was found"));
    desk.click("Recover shot.kinora.json");
    let region = desk.state().item().unwrap().regions()[0].clone();
    assert_eq!((region.prompt.as_str(), region.magnitude), ("drift left", 0.25.into()));
    let job = desk
        .state()
        .runner
        .look(|queue, _| queue.jobs().iter().find(|job| job.title == "Shot").cloned().unwrap());
    assert_eq!(job.phase, Phase::Interrupted, "the render is known and can go on");
    desk.state_mut().show_pane = Some(Pane::Jobs);
    desk.steps(3);
    assert!(desk.has("Interrupted") && desk.has("Go on with Shot"));
    // What waited behind it begins by itself.
    assert!(desk.said().iter().any(|said| said == "going on with 1 job that waited"), "{:?}", desk.said());
    desk.wait("the second one runs", |state| {
        state.runner.look(|_, live| live.is_some_and(|live| live.title == "Second"))
    });
    assert!(desk.has("Running") && desk.has("Stop Second"));
}

/// A document that names what only the network has.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn reader() {
    let Some(folder) = std::env::var_os(ALONE) else { return };
    let mut desk = Desk::over(std::path::Path::new(&folder), vec2(1200.0, 800.0));
    let text = SMALL
        .replace("\"frames\": 3", "\"model\": \"hub:kinora/none\", \"frames\": 3")
        .replace("\"path\": \"rocket.jpg\"", "\"path\": \"http://example.org/rocket.jpg\"");
    desk.open(&text);
    desk.steps(30);
    let close = if desk.has("Later") { "Later" } else { "Close" };
    desk.click(close);
    desk.open(&SMALL.replace("\"frames\": 3", "\"model\": \"animatediff-v3\", \"frames\": 3"));
    for _ in 0..40 {
        desk.steps(2);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // Looking at what is installed and planning a render are reading too.
    desk.state_mut().show_pane = Some(crate::gui::layout::Pane::Models);
    desk.steps(2);
    desk.wait("the models are listed", |state| state.models.is_listed());
    println!("read");
}

#[test]
fn opening_a_document_never_uses_the_network() {
    use std::net::TcpListener;
    let root = tempfile::tempdir().unwrap();
    // Whoever wanted to reach anything would have to go through here.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let names = ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "gui::tests::crash::reader", "--ignored", "--nocapture"])
        .env(ALONE, root.path())
        .envs(names.map(|name| (name, proxy.as_str())))
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("read"), "{said}");
    assert!(listener.accept().is_err(), "something was asked for");
}
