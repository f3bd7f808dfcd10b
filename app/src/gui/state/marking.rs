//! Saying what moves: clicks and strokes on the picture, and the regions they begin.

use super::{Choice, State};
use crate::gui::model::changes::{self, Click, Start};
use crate::gui::model::scene::{Item, Region, Shape, Source};
use crate::gui::overlays::toasts::Kind;

impl State {
    /// A click on the picture: a new region, or one more click of the chosen one.
    pub(crate) fn clicked(&mut self, x: f64, y: f64, keep: bool) {
        let Some(item) = self.item().cloned() else { return };
        let click = Click { x, y, keep };
        let chosen = self.region().map(|(index, region)| (index, matches!(region.shape, Shape::Clicks(_))));
        match chosen {
            Some((index, true)) if !self.canvas.new_region || !keep => {
                self.edit(|project| changes::add_click(project, &item.id, index, click));
                let count = match self.region() {
                    Some((_, Region { shape: Shape::Clicks(clicks), .. })) => clicks.points.len(),
                    _ => 0,
                };
                self.choice.click = count.checked_sub(1);
            }
            _ if !keep => {
                let why = "click on the thing first; then leave parts of it out";
                self.toasts.add(Kind::Info, why.to_owned());
            }
            _ => self.begin_region(&item, Start::Click(click)),
        }
    }

    /// A stroke of the brush: more of the chosen region, or a new one.
    pub(crate) fn stroked(&mut self, points: Vec<(f64, f64)>, erase: bool) {
        let Some(item) = self.item().cloned() else { return };
        let radius = f64::from(self.canvas.brush);
        let stroke = kinora_pipeline::control::mask::Stroke { points, radius, erase };
        let chosen = self.choice.region.filter(|_| !self.canvas.new_region || erase);
        if let Some(index) = chosen {
            self.edit(|project| changes::add_stroke(project, &item.id, index, &stroke));
        } else if erase {
            self.toasts.add(Kind::Info, "choose a region to erase from");
        } else {
            self.begin_region(&item, Start::Stroke(&stroke));
        }
    }

    fn begin_region(&mut self, item: &Item, start: Start<'_>) {
        let prompt = self.suggested_prompt(item);
        let added = self.edit(|project| changes::add_region(project, &item.id, start, &prompt));
        if let Some((id, index)) = added {
            self.choice =
                Choice { item: id, picture: item.picture.clone(), region: Some(index), click: None };
            self.canvas.new_region = false;
        }
    }

    /// A motion to begin with, so that one click is enough to see something move.
    fn suggested_prompt(&self, item: &Item) -> String {
        if let Some(prompt) = self.continued_prompt(item) {
            return prompt;
        }
        let known = crate::gui::samples::SAMPLES.iter().find(|sample| match &item.source {
            Source::Image { path } => path.ends_with(sample.file),
            _ => false,
        });
        known.map_or("drift to the left", |sample| sample.prompt).to_owned()
    }

    /// What was said of the shot with whose last frame a picture begins.
    fn continued_prompt(&self, item: &Item) -> Option<String> {
        let project = self.project.as_ref()?;
        let ui = project.document().node(&item.picture)?.ui.as_ref()?;
        let before = project.scene().item(ui.get("continues")?.as_str()?)?;
        Some(before.regions().first()?.prompt.clone())
    }
}
