//! The line of jobs, without a window.

use super::*;
use serde_json::json;

fn add(queue: &mut Queue, title: &str) -> u64 {
    queue.add(Order {
        title,
        purpose: Purpose::Take { shot: "shot".into() },
        document: json!({ "n": title }),
        folder: Path::new("/p"),
        out: None,
        force: false,
    })
}

fn titles(queue: &Queue) -> Vec<(String, Phase)> {
    queue.jobs().iter().map(|job| (job.title.clone(), job.phase)).collect()
}

#[test]
fn jobs_run_in_order_and_the_line_can_be_changed() {
    let mut queue = Queue::default();
    let [a, b, c] = ["a", "b", "c"].map(|title| add(&mut queue, title));
    queue.shift(c, true);
    queue.shift(a, true);
    assert_eq!(queue.begin().unwrap().id, a);
    assert!(queue.begin().is_none(), "one at a time");
    queue.shift(c, true);
    assert_eq!(queue.jobs()[1].id, c, "nothing overtakes what runs");
    queue.end(a, Ending::Failed("no".into()), 1.0, vec!["hm".into()]);
    queue.set_paused(true);
    assert!(queue.begin().is_none());
    queue.set_paused(false);
    queue.stop(b);
    assert_eq!(queue.begin().unwrap().id, c);
    queue.stop(c);
    assert_eq!(queue.job(c).unwrap().phase, Phase::Running, "what runs is stopped where it runs");
    queue.end(c, Ending::Done(vec!["/p/x.mp4".into()]), 2.0, vec![]);
    queue.retry(a);
    let expected = [("a", Phase::Waiting), ("c", Phase::Done), ("b", Phase::Stopped)];
    assert_eq!(titles(&queue), expected.map(|(t, p)| (t.to_owned(), p)));
    queue.clear_done();
    queue.remove(b);
    assert_eq!(queue.jobs().len(), 1);
}

#[test]
fn a_killed_window_leaves_its_jobs_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = Queue::open(dir.path());
    let a = add(&mut queue, "a");
    add(&mut queue, "b");
    queue.begin().unwrap();
    let mut other = Queue::open(dir.path());
    assert!(other.jobs().is_empty(), "the queue has an owner");
    add(&mut other, "of the other window");
    drop(queue);
    let mut queue = Queue::open(dir.path());
    assert_eq!(titles(&queue), [("a".to_owned(), Phase::Interrupted), ("b".to_owned(), Phase::Waiting)]);
    queue.retry(a);
    assert!(add(&mut queue, "c") > a);
    assert_eq!(queue.take_fault(), None);
}

#[test]
fn a_damaged_list_is_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("queue.json"), "{ \"kinora_queue\": 1, \"jobs\": [").unwrap();
    let mut queue = Queue::open(dir.path());
    assert!(queue.take_fault().unwrap().contains("queue.damaged.json"));
    add(&mut queue, "a");
    drop(queue);
    assert_eq!(Queue::open(dir.path()).jobs().len(), 1);
    std::fs::write(dir.path().join("queue.json"), r#"{"kinora_queue":9,"next":0,"paused":false,"jobs":[]}"#)
        .unwrap();
    assert!(Queue::open(dir.path()).take_fault().unwrap().contains("version 9"));
}

#[test]
fn finished_jobs_are_forgotten_in_time() {
    let mut queue = Queue::default();
    for n in 0..60 {
        let id = add(&mut queue, &n.to_string());
        queue.begin().unwrap();
        queue.end(id, Ending::Done(vec![]), 0.0, vec![]);
    }
    assert_eq!((queue.jobs().len(), queue.jobs()[0].title.as_str()), (MAX_FINISHED, "59"));
}
