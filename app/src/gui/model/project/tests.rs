//! Projects on a real disk.

use super::super::journal::orphans;
use super::super::patch::place;
use super::*;

const TEXT: &str = r#"{
  "kinora": 1,
  "nodes": {
    "photo": { "op": "image.load", "path": "a.png", "ui": { "kept": [1, 2] } },
    "thing": { "op": "mask.click", "image": "@photo", "points": [{ "x": 0.5, "y": 0.5 }] },
    "shot": { "op": "animate.click", "image": "@photo", "mask": "@thing", "prompt": "grow" }
  },
  "ui": { "zoom": 2 }
}
"#;

struct Desk {
    dir: tempfile::TempDir,
    places: Places,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::below(&dir.path().join("home"));
        std::fs::write(dir.path().join("a.kinora.json"), TEXT).unwrap();
        Self { dir, places }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("a.kinora.json")
    }

    fn open(&self) -> Project {
        Project::open(&self.path(), &self.places).unwrap()
    }
}

fn prompt(project: &mut Project, text: &str) -> Result<(), EditError> {
    project.edit("Change prompt", None, |edit| Ok(edit.set(place!["nodes", "shot", "prompt"], text)?))
}

#[test]
fn edits_are_undone_saved_and_read_back() {
    let desk = Desk::new();
    let mut project = desk.open();
    assert!(!project.is_dirty() && project.name() == "a");
    prompt(&mut project, "drift left").unwrap();
    assert!(project.is_dirty());
    assert_eq!(project.scene().items[0].regions()[0].prompt, "drift left");
    assert_eq!(project.undo().unwrap().as_deref(), Some("Change prompt"));
    assert!(!project.is_dirty(), "undone back to what is on the disk");
    assert_eq!(project.redo().unwrap().as_deref(), Some("Change prompt"));
    project.save(false).unwrap();
    assert!(!project.is_dirty());
    let again = desk.open();
    assert_eq!(again.value(), project.value());
    assert_eq!(again.value()["ui"]["zoom"], 2, "what this window does not know survives");
    assert_eq!(again.value()["nodes"]["photo"]["ui"]["kept"][1], 2);
    let versions = project.versions();
    assert_eq!(std::fs::read_to_string(&versions[0].1).unwrap(), TEXT, "the replaced text is kept");
}

#[test]
fn an_edit_that_breaks_the_document_is_refused_whole() {
    let desk = Desk::new();
    let mut project = desk.open();
    let before = project.value().clone();
    let error = prompt(&mut project, " ").unwrap_err();
    assert!(error.to_string().contains("nodes.shot.prompt"), "{error}");
    let error =
        project.edit("Nothing", None, |edit| Ok(edit.set(place!["nodes", "gone", "x"], 1)?)).unwrap_err();
    assert!(matches!(error, EditError::Patch(_)), "{error}");
    assert_eq!((project.value(), project.undo_label(), project.revision()), (&before, None, 0));
    let error = project.note(|edit| Ok(edit.remove(place!["nodes", "shot"])?)).unwrap_err();
    assert!(matches!(error, EditError::Refused(_)), "{error}");
}

#[test]
fn notes_are_kept_and_undo_passes_them_by() {
    let desk = Desk::new();
    let mut project = desk.open();
    prompt(&mut project, "drift left").unwrap();
    project.note(|edit| Ok(edit.push(place!["ui", "takes"], "first")?)).unwrap();
    project.undo().unwrap();
    assert_eq!(project.value()["ui"]["takes"][0], "first");
    assert_eq!(project.value()["nodes"]["shot"]["prompt"], "grow");
}

#[test]
fn work_of_a_killed_window_comes_back_with_its_history() {
    let desk = Desk::new();
    let mut project = desk.open();
    prompt(&mut project, "drift left").unwrap();
    prompt(&mut project, "drift right").unwrap();
    let unsaved = project.value().clone();
    // As a killed process leaves it: nothing is cleaned up, the lock is gone.
    drop(project);
    assert_eq!(std::fs::read_to_string(desk.path()).unwrap(), TEXT, "the document itself is untouched");
    let orphan = orphans(&desk.places.journals()).pop().unwrap();
    assert_eq!(orphan.edits, 2);
    let mut project = Project::recover(orphan, &desk.places).unwrap();
    assert_eq!((project.value(), project.is_dirty()), (&unsaved, true));
    project.undo().unwrap();
    assert_eq!(project.value()["nodes"]["shot"]["prompt"], "drift left");
    drop(project);
    let orphan = orphans(&desk.places.journals()).pop().expect("a second crash loses nothing either");
    let mut project = Project::recover(orphan, &desk.places).unwrap();
    assert_eq!(project.value()["nodes"]["shot"]["prompt"], "drift left");
    project.save(false).unwrap();
    drop(project);
    assert!(orphans(&desk.places.journals()).is_empty(), "what is saved is not offered");
}

#[test]
fn a_file_changed_by_another_program_is_not_replaced_unasked() {
    let desk = Desk::new();
    let mut project = desk.open();
    prompt(&mut project, "drift left").unwrap();
    let theirs = TEXT.replace("grow", "shrink");
    std::fs::write(desk.path(), &theirs).unwrap();
    assert!(matches!(project.save(false), Err(SaveError::ChangedOnDisk { .. })));
    assert_eq!(std::fs::read_to_string(desk.path()).unwrap(), theirs);
    project.save(true).unwrap();
    assert_eq!(std::fs::read_to_string(&project.versions()[0].1).unwrap(), theirs, "and theirs is kept");
    project.restore(&project.versions()[0].1.clone()).unwrap();
    assert_eq!(project.value()["nodes"]["shot"]["prompt"], "shrink");
    project.undo().unwrap();
    assert_eq!(project.value()["nodes"]["shot"]["prompt"], "drift left");
}

#[test]
fn at_most_twenty_versions_are_kept() {
    let desk = Desk::new();
    let mut project = desk.open();
    for n in 0..25 {
        prompt(&mut project, &format!("drift {n}")).unwrap();
        project.save(false).unwrap();
    }
    assert_eq!(project.versions().len(), MAX_VERSIONS);
}

#[test]
fn hostile_files_are_refused_with_their_reason() {
    let desk = Desk::new();
    let path = desk.path();
    let says = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Project::open(&path, &desk.places).unwrap_err().to_string()
    };
    assert!(says(b"{ \"kinora\": 1, ").contains("line 1"));
    assert!(says(b"\xff\xfe\x00").contains("UTF-8"));
    assert!(says(b"{ \"kinora\": 2, \"nodes\": {} }").contains("newer Kinora"));
    assert!(says("[".repeat(200_000).as_bytes()).contains("127 deep"));
    let deep = r#"{ "kinora": 1, "nodes": { "a": { "op": "shell.run", "path": "/bin/sh" } } }"#;
    assert!(says(deep.as_bytes()).contains("a known op"));
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(MAX_BYTES as u64 + 1).unwrap();
    assert!(matches!(Project::open(&path, &desk.places), Err(OpenError::TooLong { .. })));
    assert!(matches!(Project::open(desk.dir.path(), &desk.places), Err(OpenError::Read { .. })));
    assert!(orphans(&desk.places.journals()).is_empty(), "refusing leaves nothing behind");
}

#[test]
fn a_project_without_a_file_is_recovered_and_discarded_with_its_folder() {
    let desk = Desk::new();
    let folder = desk.places.untitled().join("one");
    std::fs::create_dir_all(folder.join("media")).unwrap();
    let nodes = json!({ "photo": { "op": "image.load", "path": "media/a.png" } });
    let mut project = Project::untitled(&desk.places, folder.clone(), nodes).unwrap();
    assert!(project.is_dirty() && matches!(project.save(false), Err(SaveError::NoFile)));
    project
        .edit("Rename", None, |edit| Ok(edit.set_deep(place!["nodes", "photo", "ui", "name"], "Sea")?))
        .unwrap();
    drop(project);
    let orphan = orphans(&desk.places.journals()).pop().unwrap();
    let project = Project::recover(orphan, &desk.places).unwrap();
    assert_eq!((project.scene().items[0].name.as_str(), project.folder()), ("Sea", folder.clone()));
    project.discard();
    assert!(!folder.exists() && orphans(&desk.places.journals()).is_empty());
}
