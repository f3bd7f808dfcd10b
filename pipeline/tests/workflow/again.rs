//! What runs again and what does not, what survives being stopped, and what a receipt proves.

use std::sync::atomic::Ordering;

use kinora_pipeline::store::cache::Cache;
use kinora_pipeline::workflow::{
    ErrorClass, Job, JobState, Receipt, RunContext, RunOptions, SystemClock, receipt_path, verify,
};

use super::support::{Bench, SHOT, Watch};

#[test]
fn unchanged_nodes_never_run_again() {
    let bench = Bench::new();
    let options = bench.options();
    let again = RunOptions { force: true, ..options.clone() };
    let counts = &bench.engines.counts;
    let first = bench.run(SHOT, &options, &Watch::new(None)).unwrap();
    assert_eq!(counts.renders.load(Ordering::SeqCst), 1);

    // Another run, as another process would: only the output is written again.
    let watch = Watch::new(None);
    let second = bench.run(SHOT, &again, &watch).unwrap();
    assert_eq!((counts.renders.load(Ordering::SeqCst), counts.clicks.load(Ordering::SeqCst)), (1, 1));
    assert_eq!(watch.cached(), [("shot".into(), true), ("file".into(), false)]);
    assert_eq!(first.outputs["file"].blake3, second.outputs["file"].blake3);

    // A changed parameter runs what depends on it and nothing before it.
    let watch = Watch::new(None);
    bench.run(&SHOT.replace("0.5, \"frames\"", "0.9, \"frames\""), &again, &watch).unwrap();
    assert_eq!((counts.renders.load(Ordering::SeqCst), counts.clicks.load(Ordering::SeqCst)), (2, 1));
    assert!(watch.cached().contains(&("thing".into(), true)));

    // A changed picture runs everything.
    let photo = kinora_pipeline::media::Picture::new(32, 24, vec![9; 32 * 24 * 3]).unwrap();
    kinora_pipeline::media::write_png(&bench.shots().join("photo.png"), &photo, true).unwrap();
    bench.run(SHOT, &again, &Watch::new(None)).unwrap();
    assert_eq!((counts.renders.load(Ordering::SeqCst), counts.clicks.load(Ordering::SeqCst)), (3, 2));
}

#[test]
fn a_damaged_cache_is_made_again() {
    let bench = Bench::new();
    let options = RunOptions { force: true, ..bench.options() };
    let first = bench.run(SHOT, &options, &Watch::new(None)).unwrap();
    fn damage(folder: &std::path::Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                damage(&path);
            } else if path.extension().is_some_and(|end| end == "png" || end == "f32") {
                std::fs::write(&path, b"garbage").unwrap();
            }
        }
    }
    damage(&bench.dir.path().join("cache/v1"));
    let second = bench.run(SHOT, &options, &Watch::new(None)).unwrap();
    assert_eq!(first.outputs["file"].blake3, second.outputs["file"].blake3);
    assert_eq!(bench.engines.counts.renders.load(Ordering::SeqCst), 2);
}

#[test]
fn a_cancelled_job_resumes_to_the_same_frames() {
    let whole = Bench::new();
    let expected = whole.run(SHOT, &whole.options(), &Watch::new(None)).unwrap();

    for stop_after in 1..=3 {
        let bench = Bench::new();
        let error = bench.run(SHOT, &bench.options(), &Watch::new(Some(stop_after))).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Interrupted);
        assert!(!bench.shots().join("out/frames").exists());
        let cache = Cache::open(&bench.dir.path().join("cache")).unwrap();
        let jobs = Job::list(&cache);
        assert_eq!((jobs.len(), jobs[0].state), (1, JobState::Interrupted));

        let options = RunOptions { resume: true, ..bench.options() };
        let report = bench.run(SHOT, &options, &Watch::new(None)).unwrap();
        assert_eq!(bench.engines.counts.steps.load(Ordering::SeqCst), 4, "no step is done twice");
        assert_eq!(report.outputs["file"].pixels, expected.outputs["file"].pixels);
        assert_eq!(report.outputs["file"].blake3, expected.outputs["file"].blake3);
        assert_eq!(Job::list(&cache)[0].state, JobState::Done);

        // Resuming what is done proves it and renders nothing.
        let report = bench.run(SHOT, &options, &Watch::new(None)).unwrap();
        assert_eq!(report.outputs["file"].pixels, expected.outputs["file"].pixels);
        assert!(report.nodes.iter().all(|node| node.cached));
    }
}

#[test]
fn without_resume_an_interrupted_job_begins_anew() {
    let bench = Bench::new();
    bench.run(SHOT, &bench.options(), &Watch::new(Some(2))).unwrap_err();
    bench.run(SHOT, &bench.options(), &Watch::new(None)).unwrap();
    assert_eq!(bench.engines.counts.steps.load(Ordering::SeqCst), 2 + 4);
}

#[test]
fn a_changed_output_is_not_taken_for_ours() {
    let bench = Bench::new();
    let report = bench.run(SHOT, &bench.options(), &Watch::new(None)).unwrap();
    let frame = std::fs::read_dir(&report.outputs["file"].path).unwrap().next().unwrap().unwrap().path();
    std::fs::write(frame, b"edited by hand").unwrap();
    let options = RunOptions { resume: true, ..bench.options() };
    let error = bench.run(SHOT, &options, &Watch::new(None)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::BadInput, "{error}");
}

#[test]
fn a_second_process_at_the_same_job_is_told_to_wait() {
    let bench = Bench::new();
    let plan = bench.plan(SHOT).unwrap();
    let folder = bench.dir.path().join("cache/jobs").join(plan.job());
    std::fs::create_dir_all(&folder).unwrap();
    let lock = std::fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let error = bench.run(SHOT, &bench.options(), &Watch::new(None)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Temporary, "{error}");
    drop(lock);
    bench.run(SHOT, &bench.options(), &Watch::new(None)).unwrap();
}

#[test]
fn a_receipt_is_verified_and_a_difference_is_named() {
    let bench = Bench::new();
    let report = bench.run(SHOT, &bench.options(), &Watch::new(None)).unwrap();
    let place = receipt_path(&report.outputs["file"].path);
    let receipt = Receipt::read(&place).unwrap();
    assert_eq!(receipt.output.frames, 4);
    assert_eq!(receipt.nodes.len(), 4);
    assert_eq!(receipt.nodes.iter().find(|n| n.node == "shot").unwrap().model.as_deref(), Some("shifter-1"));
    let text = std::fs::read_to_string(&place).unwrap();
    assert!(!text.contains(bench.dir.path().to_str().unwrap()), "no machine paths in a receipt");

    let check = || {
        let watch = Watch::new(None);
        verify(&place, &bench.options(), &mut RunContext { progress: &watch, clock: &SystemClock::default() })
    };
    let found = check().unwrap();
    assert!(
        found.holds() && found.encoded.same() && found.surroundings.iter().all(|c| c.same()),
        "{found:?}"
    );

    let photo = kinora_pipeline::media::Picture::new(32, 24, vec![9; 32 * 24 * 3]).unwrap();
    kinora_pipeline::media::write_png(&bench.shots().join("photo.png"), &photo, true).unwrap();
    let found = check().unwrap();
    assert!(!found.holds() && found.file.same() && !found.pixels.same());
    let changed: Vec<_> = found.surroundings.iter().filter(|c| !c.same()).map(|c| c.what.as_str()).collect();
    assert_eq!(changed, ["input of photo"]);

    std::fs::write(&place, text.replace("\"receipt\": 1", "\"receipt\": 9")).unwrap();
    assert!(check().unwrap_err().to_string().contains("update Kinora"));
}
