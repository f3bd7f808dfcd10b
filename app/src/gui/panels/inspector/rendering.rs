//! How the clip of a shot is made: its length, the model, and what that model can be told.

use eframe::egui::{Id, RichText, Ui};
use kinora_pipeline::systems::follow_your_click::{Ease, MAX_GUIDANCE, Sampler};
use kinora_pipeline::workflow::ModelName;
use serde_json::{Value, json};

use crate::gui::command::Command;
use crate::gui::icons;
use crate::gui::layout::Pane;
use crate::gui::model::changes;
use crate::gui::model::scene::Shot;
use crate::gui::state::State;
use crate::gui::theme::{Type, palette};
use crate::gui::widgets::{Dragged, Tone, button, caption, choice, menu, number, text_field};

/// What public checkpoints use where a document does not say, as they were published.
const USUAL_GUIDANCE: f64 = 7.5;
/// The longest negative prompt that can be typed; the model reads fewer words and says so.
const LONGEST: usize = 300;

/// Sets or removes a parameter of the chosen shot; edits that follow are others.
fn set(state: &mut State, name: &'static str, value: Option<Value>) {
    let id = state.choice.item.clone();
    state.edit(|project| changes::set_shot(project, &id, name, value));
    state.close_gesture();
}

/// Sets a parameter while its control is dragged; the whole drag is one edit.
fn drag(state: &mut State, dragged: Dragged, name: &'static str, value: Value) {
    if dragged.changed {
        let id = state.choice.item.clone();
        state.edit(|project| changes::set_shot(project, &id, name, Some(value)));
    }
    if dragged.ended {
        state.close_gesture();
    }
}

/// How long the clip is and how its motion runs.
pub(super) fn clip(ui: &mut Ui, state: &mut State, shot: &Shot) {
    let mut frames = f64::from(shot.spec.frames);
    let dragged = number(ui, "Frames", &mut frames, 2.0..=16.0, 0, "");
    drag(state, dragged, "frames", json!(frames.round() as u32));
    let mut fps = shot.spec.fps;
    let dragged = number(ui, "Frame rate", &mut fps, 1.0..=60.0, 0, " fps");
    drag(state, dragged, "fps", json!(fps.round()));
    let mut ease = shot.spec.ease;
    let eases = [(Ease::Linear, "Even"), (Ease::Smooth, "Slow in and out"), (Ease::Loop, "There and back")];
    if choice(ui, "Course", &mut ease, &eases) {
        set(state, "ease", Some(json!(ease)));
    }
    let seconds = f64::from(shot.spec.frames) / shot.spec.fps.max(0.1);
    caption(ui, format!("{seconds:.1} s long"));
}

/// The model, and its settings.
pub(super) fn show(ui: &mut Ui, state: &mut State, shot: &Shot) {
    let spec = &shot.spec;
    model(ui, state, &spec.model);
    let public = spec.model != ModelName::EMBEDDED;
    let mut seed = spec.seed as f64;
    let dragged = number(ui, "Seed", &mut seed, 0.0..=999_999.0, 0, "");
    drag(state, dragged, "seed", json!(seed.round() as u64));
    let sizes = [
        (None, "As the picture"),
        (Some(256), "256"),
        (Some(512), "512"),
        (Some(1080), "1080"),
        (Some(1920), "1920"),
    ];
    pick(ui, state, "Longer side", "size", spec.size, &sizes);
    let steps: &[(Option<u32>, &str)] = if public {
        &[(None, "25, usual"), (Some(8), "8, quick"), (Some(15), "15"), (Some(40), "40"), (Some(50), "50")]
    } else {
        &[(None, "Usual"), (Some(4), "4, quick"), (Some(8), "8"), (Some(12), "12"), (Some(20), "20")]
    };
    pick(ui, state, "Steps", "steps", spec.steps, steps);
    if public {
        checkpoint(ui, state, shot);
    } else {
        switch(ui, state, "Carry the picture along its motion", "guide", spec.guide);
    }
    switch(ui, state, "Keep the picture's own pixels", "composite", spec.composite);
}

/// What only public checkpoints can be told.
fn checkpoint(ui: &mut Ui, state: &mut State, shot: &Shot) {
    let spec = &shot.spec;
    let sides = [
        (None, "512, usual"),
        (Some(256), "256"),
        (Some(384), "384"),
        (Some(640), "640"),
        (Some(768), "768"),
        (Some(1024), "1024"),
    ];
    pick(ui, state, "Working size", "working_size", spec.working_size, &sides);
    let mut sampler = spec.sampler;
    let samplers = [
        (None, "The model's own"),
        (Some(Sampler::Ddim), "DDIM"),
        (Some(Sampler::Euler), "Euler"),
        (Some(Sampler::EulerKarras), "Euler, Karras"),
        (Some(Sampler::EulerAncestral), "Euler ancestral"),
        (Some(Sampler::Dpmpp2m), "DPM++ 2M"),
        (Some(Sampler::Dpmpp2mKarras), "DPM++ 2M, Karras"),
        (Some(Sampler::Lcm), "LCM"),
    ];
    if choice(ui, "Sampler", &mut sampler, &samplers) {
        set(state, "sampler", sampler.map(|sampler| json!(sampler)));
    }
    let mut scale = spec.guidance_scale.unwrap_or(USUAL_GUIDANCE);
    let dragged = number(ui, "Guidance scale", &mut scale, 1.0..=MAX_GUIDANCE, 1, "");
    drag(state, dragged, "guidance_scale", json!((scale * 10.0).round() / 10.0));
    let mut text = spec.negative_prompt.clone().unwrap_or_default();
    let field = Id::unique(("negative prompt", &shot.node));
    let hint = "Steer away from… the model's own words";
    let response = text_field(ui, field, "Negative prompt", hint, &mut text, LONGEST);
    if response.changed() {
        let words = (!text.trim().is_empty()).then(|| json!(text));
        let id = state.choice.item.clone();
        state.edit(|project| changes::set_shot(project, &id, "negative_prompt", words));
    }
    if response.lost_focus() {
        state.close_gesture();
    }
    switch(ui, state, "Hold the background", "pin_background", spec.pin_background.unwrap_or(true));
}

/// A number of a few, or one the document has.
fn pick(
    ui: &mut Ui,
    state: &mut State,
    label: &str,
    name: &'static str,
    now: Option<u32>,
    usual: &[(Option<u32>, &str)],
) {
    let own = now.map(|number| number.to_string()).unwrap_or_default();
    let mut options = usual.to_vec();
    if !options.iter().any(|(option, _)| *option == now) {
        options.push((now, own.as_str()));
    }
    let mut wanted = now;
    if choice(ui, label, &mut wanted, &options) {
        set(state, name, wanted.map(|number| json!(number)));
    }
}

/// A parameter that is on where the document does not say.
fn switch(ui: &mut Ui, state: &mut State, label: &str, name: &'static str, now: bool) {
    let mut on = now;
    if ui.checkbox(&mut on, RichText::new(label).font(Type::Label.font())).changed() {
        set(state, name, (!on).then(|| json!(false)));
    }
}

/// Which model makes the clip.
fn model(ui: &mut Ui, state: &mut State, now: &str) {
    state.models.look();
    let known: Vec<(String, String, bool)> =
        state.models.animators().into_iter().map(|(m, here)| (m.id.clone(), m.title.clone(), here)).collect();
    let title = |id: &str| if id == ModelName::EMBEDDED { "Kinora mini".to_owned() } else { id.to_owned() };
    let mut wanted = None;
    let mut fetch = false;
    menu(ui, "Model", &title(now), |ui| {
        if ui.selectable_label(now == ModelName::EMBEDDED, "Kinora mini").clicked() {
            wanted = Some(ModelName::EMBEDDED.to_owned());
        }
        for (id, title, here) in &known {
            if *here {
                if ui.selectable_label(now == id, id).on_hover_text(title).clicked() {
                    wanted = Some(id.clone());
                }
            } else if ui
                .button(format!("{id}, not here"))
                .on_hover_text(format!("{title}: fetch it first"))
                .clicked()
            {
                fetch = true;
            }
        }
        if now != ModelName::EMBEDDED && !known.iter().any(|(id, ..)| id == now) {
            let _ = ui.selectable_label(true, now);
        }
    });
    if let Some(wanted) = wanted.filter(|wanted| wanted != now) {
        let id = state.choice.item.clone();
        state.edit(|project| changes::set_model(project, &id, &wanted));
    }
    if known.iter().any(|(id, _, here)| id == now && !here) {
        let p = palette(ui);
        ui.label(
            RichText::new(format!("{now} is not on this machine"))
                .font(Type::Caption.font())
                .color(p.warning),
        );
        fetch |= button(ui, Some(icons::DOWNLOAD), "Fetch it among the models", Tone::Plain).clicked();
    }
    if fetch {
        state.todo.push(Command::ShowPane(Pane::Models));
    }
}
