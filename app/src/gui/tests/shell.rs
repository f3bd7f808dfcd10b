//! The frame around everything: first screen, palette, menus, colours, arrangement, drops, refusals.

use std::sync::Arc;

use eframe::egui::{Color32, ColorImage, Event, Key, Modifiers, vec2};
use egui_kittest::kittest::Queryable as _;

use super::support::{Desk, Dropped, SMALL};
use crate::gui::command::{Command, Group, TABLE};
use crate::gui::layout::Pane;
use crate::gui::model::settings::{TEXT_SCALES, ThemeChoice};
use crate::gui::overlays::modal::Modal;
use crate::gui::state::MaskView;
use crate::gui::tasks::pictures::Loading;

#[test]
fn the_first_screen_offers_pictures_and_ones_own() {
    let mut desk = Desk::new();
    for label in ["Start with the picture Rocket", "Use your own picture…", "Open project…"] {
        assert!(desk.has(label), "{label}");
    }
    desk.state_mut().dialogs.script(vec![]);
    desk.click("Use your own picture…");
    assert!(desk.state().project.is_none(), "a dismissed dialog changes nothing");
}

#[test]
fn the_palette_finds_and_does_a_command() {
    let mut desk = Desk::new();
    desk.harness.key_press_modifiers(Modifiers::COMMAND, Key::P);
    desk.steps(3);
    assert!(desk.harness.query_all_by_label("Find a command").count() == 2 && desk.state().palette.is_some());
    desk.harness.event(Event::Text("light col".into()));
    desk.steps(3);
    desk.harness.key_press(Key::Enter);
    desk.steps(3);
    assert_eq!(desk.state().settings.theme, ThemeChoice::Light);
    assert!(desk.state().palette.is_none());
    desk.harness.key_press_modifiers(Modifiers::COMMAND, Key::P);
    desk.steps(2);
    desk.harness.key_press(Key::Escape);
    desk.steps(2);
    assert!(desk.state().palette.is_none());
}

#[test]
fn every_command_is_in_its_menu_and_blocked_ones_say_why() {
    let mut desk = Desk::new();
    for group in Group::ALL {
        desk.click(group.name());
        for entry in TABLE.iter().filter(|entry| entry.group == group) {
            let found = desk.harness.query_all_by_label_contains(entry.name).count();
            assert!(found > 0, "{} is not in the menu {}", entry.name, group.name());
        }
        desk.harness.key_press(Key::Escape);
        desk.steps(3);
    }
    for entry in TABLE {
        if let Some(why) = desk.state().blocked(entry.command) {
            assert!(!why.is_empty() && !why.ends_with('.'), "{}: {why}", entry.name);
        }
    }
    assert_eq!(desk.state().blocked(Command::Animate).as_deref(), Some("there is no picture"));
}

#[test]
fn colours_text_size_and_arrangement_are_remembered() {
    let mut desk = Desk::new();
    desk.open(SMALL);
    desk.state_mut().todo.extend([
        Command::Theme(ThemeChoice::Light),
        Command::LargerText,
        Command::ShowPane(Pane::Models),
    ]);
    desk.steps(4);
    let before = desk.state().settings.clone();
    assert_eq!((before.theme, before.text_scale), (ThemeChoice::Light, 110));
    let desk = desk.reopened();
    assert_eq!((desk.state().settings.theme, desk.state().settings.text_scale), (ThemeChoice::Light, 110));
    assert_eq!(desk.state().settings.recent.len(), 1);
    assert!(desk.has("Open shot.kinora.json"), "the first screen lists it");
}

#[test]
fn panels_keep_their_arrangement_and_can_be_put_back() {
    let mut desk = Desk::new();
    desk.open(SMALL);
    assert!(!desk.has("Never use the network"));
    desk.click("Models");
    assert!(desk.has("Never use the network"), "the tab came forward");
    assert!(desk.state().settings.layout.is_some());
    let mut desk = desk.reopened();
    desk.click("Open shot.kinora.json");
    desk.opened();
    assert!(desk.has("Never use the network"), "and is still in front");
    desk.state_mut().todo.push(Command::ResetLayout);
    desk.steps(3);
    assert!(!desk.has("Never use the network"));
}

#[test]
fn files_are_dropped_and_pasted() {
    let mut desk = Desk::new();
    desk.put("photos/my sea.jpg", crate::gui::samples::SAMPLES[1].bytes);
    let path = desk.path("photos/my sea.jpg");
    desk.harness.input_mut().dropped_files.push(Arc::new(Dropped(path.clone())));
    desk.steps(2);
    desk.wait("the picture is shown", |state| state.item().is_some());
    assert_eq!(desk.state().item().unwrap().name, "My sea");
    desk.harness.event(Event::Paste(format!("file://{}\n", path.display().to_string().replace(' ', "%20"))));
    desk.opened();
    assert_eq!(desk.state().project.as_ref().unwrap().scene().items.len(), 2);
    let folder = desk.state().project.as_ref().unwrap().folder();
    assert_eq!(Desk::list(&folder.join("media")), ["my sea.jpg"], "the same file is kept once");
    desk.harness.event(Event::Paste("just words".into()));
    desk.opened();
    assert_eq!(desk.state().project.as_ref().unwrap().scene().items.len(), 2);
    let copied = ColorImage::filled([40, 30], Color32::from_rgb(10, 200, 30));
    desk.harness.event(Event::PasteImage(Arc::new(copied)));
    desk.opened();
    assert_eq!(desk.state().item().unwrap().name, "Pasted");
    let pasted = kinora_pipeline::media::read_picture(
        &folder.join("media/pasted.png"),
        &kinora_pipeline::media::ImageLimits::default(),
    )
    .unwrap();
    assert_eq!((pasted.width(), pasted.height(), &pasted.rgb()[..3]), (40, 30, &[10, 200, 30][..]));
}

#[test]
fn a_hostile_document_is_refused_in_words_and_nothing_happens() {
    let mut desk = Desk::new();
    let outside = SMALL.replace("rocket.jpg", "../../../etc/passwd");
    desk.put("bad/a.kinora.json", b"{ \"kinora\": 1, \"nodes\": { \"a\": { \"op\": \"shell.run\" } } }");
    let path = desk.path("bad/a.kinora.json");
    desk.open_any(&path);
    assert!(desk.has("a.kinora.json was not opened"));
    let text = match &desk.state().modal {
        Some(Modal::Refused { text, .. }) => text.clone(),
        other => panic!("{other:?}"),
    };
    assert!(text.contains("shell.run") && text.contains("line 1"), "{text}");
    desk.click("Close");
    assert!(desk.state().project.is_none() && desk.state().modal.is_none());
    desk.open(&outside);
    assert!(desk.has("A file is missing"), "what lies outside is not there for a document");
    desk.click("Later");
    desk.wait("the picture is refused", |state| {
        let key = state.item().and_then(|item| state.picture_key(item));
        key.is_some_and(|key| matches!(state.pictures.peek(&key), Some(Loading::Failed(_))))
    });
    assert!(desk.has("The picture cannot be shown"));
    assert!(desk.harness.query_by_label_contains("climbs out with ..").is_some());
}

#[test]
fn keys_do_nothing_to_the_project_while_someone_types() {
    let mut desk = Desk::new();
    desk.open(SMALL);
    desk.wait("the picture is there", |state| state.item().is_some());
    desk.harness.get_by_label("How it moves").click();
    desk.steps(2);
    for key in [Key::M, Key::X, Key::Delete] {
        desk.harness.key_press(key);
    }
    desk.harness.event(Event::Text(" mx".into()));
    desk.steps(3);
    assert_eq!(desk.state().canvas.view, MaskView::Tint);
    let region = desk.state().item().unwrap().regions()[0].clone();
    assert!(region.prompt.contains(" mx"), "{}", region.prompt);
}

#[test]
fn everything_fits_at_every_text_size_and_window() {
    let big = vec2(1440.0, 900.0);
    let cases = TEXT_SCALES.map(|scale| (scale, big));
    for (scale, size) in cases.into_iter().chain([(100, vec2(760.0, 520.0))]) {
        let mut desk = Desk::sized(size);
        desk.state_mut().settings.text_scale = scale;
        let ctx = desk.harness.ctx.clone();
        desk.state().apply_settings(&ctx);
        desk.open(SMALL);
        desk.steps(6);
        let screen = ctx.content_rect();
        for label in ["Animate", "Save", "Canvas", "Inspector"] {
            let rect = desk.harness.get_by_label(label).rect();
            assert!(screen.expand(1.0).contains_rect(rect), "{label} at {scale} %: {rect:?} in {screen:?}");
        }
    }
}
