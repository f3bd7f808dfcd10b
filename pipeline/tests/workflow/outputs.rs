//! Where files are read and written: never outside, never over what is there.

use kinora_pipeline::store::atomic::{AtomicError, write_file};
use kinora_pipeline::workflow::{ErrorClass, ProblemKind, RunContext, RunError, RunOptions, SystemClock};

use super::support::{Bench, Watch, with};
use super::{LOAD, SAVE, shown};

#[test]
fn paths_stay_inside() {
    let bench = Bench::new();
    std::fs::write(bench.dir.path().join("secret.png"), b"x").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("../secret.png", bench.shots().join("link.png")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("..", bench.shots().join("up")).unwrap();
    let load = |path: &str| {
        let path = serde_json::to_string(path).unwrap();
        with(&format!("\"photo\": {{ \"op\": \"image.load\", \"path\": {path} }},\n{SAVE}"))
    };
    let save = |path: &str| {
        let path = serde_json::to_string(path).unwrap();
        with(&format!(
            "{LOAD},\n\"file\": {{ \"op\": \"image.save\", \"image\": \"@photo\", \"path\": {path} }}"
        ))
    };
    for (text, says) in [
        (load("/etc/passwd"), "is absolute"),
        (load("../secret.png"), "climbs out with .."),
        (load("a/../../secret.png"), "climbs out with .."),
        (load("C:\\secret.png"), "colon"),
        (load("http://example.com/a.png"), "colon"),
        (load("a\0.png"), "NUL"),
        (load("nothing.png"), "there is no \"nothing.png\""),
        (load("link.png"), "symbolic link"),
        (load("up/secret.png"), "symbolic link"),
        (load("."), "empty or . part"),
        (save("/tmp/out.png"), "is absolute"),
        (save("../out.png"), "climbs out with .."),
        (save("link.png"), "symbolic link"),
        (save("up/out.png"), "symbolic link"),
        (save("nul.png"), "device"),
        (save("photo.png/out.png"), "a file, expected a folder"),
    ] {
        let error = bench.plan(&text).unwrap_err();
        assert_eq!(error.kind(), ProblemKind::Path, "{}", shown(&error));
        assert!(error.first().field().ends_with(".path"), "{}", shown(&error));
        assert!(shown(&error).contains(says), "{says}: {}", shown(&error));
    }
    assert!(!bench.dir.path().join("out.png").exists());
}

#[test]
fn a_document_that_writes_nothing_or_twice_is_refused() {
    let bench = Bench::new();
    let error = bench.plan(&with(LOAD)).unwrap_err();
    assert_eq!(error.kind(), ProblemKind::NoOutput);
    let second = SAVE.replace("file", "other");
    let error = bench.plan(&with(&format!("{LOAD}, {SAVE}, {second}"))).unwrap_err();
    assert!(shown(&error).contains("the path \"file\" writes to as well"), "{}", shown(&error));
}

#[test]
fn an_existing_output_is_kept_without_force() {
    let bench = Bench::new();
    let text = with(&format!("{LOAD}, {SAVE}"));
    let place = bench.shots().join("out.png");
    std::fs::write(&place, b"precious").unwrap();
    let error = bench.plan(&text).unwrap_err();
    assert_eq!((error.kind(), error.class()), (ProblemKind::Exists, ErrorClass::BadInput));
    assert!(shown(&error).contains("--force"), "{}", shown(&error));
    assert_eq!(std::fs::read(&place).unwrap(), b"precious");
    let options = RunOptions { force: true, ..bench.options() };
    bench.run(&text, &options, &Watch::new(None)).unwrap();
    assert_ne!(std::fs::read(&place).unwrap(), b"precious");
}

#[test]
fn an_output_that_appears_while_rendering_is_kept() {
    let bench = Bench::new();
    let text = with(&format!("{LOAD}, {SAVE}"));
    let plan = bench.plan(&text).unwrap();
    std::fs::write(bench.shots().join("out.png"), b"precious").unwrap();
    let watch = Watch::new(None);
    let error = kinora_pipeline::workflow::run(
        &plan,
        &mut RunContext { progress: &watch, clock: &SystemClock::default() },
    )
    .unwrap_err();
    assert_eq!(error.class(), ErrorClass::BadInput, "{error}");
    assert!(error.to_string().starts_with("file (image.save): "), "{error}");
    assert_eq!(std::fs::read(bench.shots().join("out.png")).unwrap(), b"precious");
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_written_is_an_io_failure() {
    let bench = Bench::new();
    let text = with(&format!("{LOAD}, {SAVE}"));
    // /proc refuses new files even to root.
    let options = RunOptions { out: Some("/proc/self".into()), ..bench.options() };
    let error = bench.run(&text, &options, &Watch::new(None)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Io, "{error}");
    let options = RunOptions { out: Some(bench.shots().join("photo.png/below")), ..bench.options() };
    let error = bench.run(&text, &options, &Watch::new(None)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Io, "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    // Without the right to mount, the sorting of the error is still checked below.
    let dir = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(dir.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if mounted {
        let error = write_file(&dir.path().join("big.bin"), &vec![1; 1 << 20], false).unwrap_err();
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        let unmounted = std::process::Command::new("umount").arg(dir.path()).status().unwrap();
        assert!(matches!(error, AtomicError::Full { .. }), "{error}");
        assert_eq!(left, 0, "the half-written temporary is gone");
        assert!(unmounted.success());
    }
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    let error = RunError::from(AtomicError::from_io("write", dir.path(), full));
    assert_eq!(error.class(), ErrorClass::Io);
    assert!(error.to_string().contains("no space left"), "{error}");
}
