//! What is chosen: the item, its region and click, with its picture and masks.

use eframe::egui::Color32;

use super::State;
use crate::gui::model::project::Project;
use crate::gui::model::scene::{Item, Region, Shape};
use crate::gui::tasks::masks::{MaskKey, MaskSource, Masking};
use crate::gui::tasks::pictures::{Loading, PictureKey};
use crate::gui::theme::region_colour;

/// What is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The item.
    pub(crate) item: String,
    /// Its picture, by which it is found again when its id changes.
    pub(crate) picture: String,
    /// The region.
    pub(crate) region: Option<usize>,
    /// The click of that region.
    pub(crate) click: Option<usize>,
}

impl State {
    /// The chosen item.
    pub(crate) fn item(&self) -> Option<&Item> {
        self.project.as_ref()?.scene().item(&self.choice.item)
    }

    /// The chosen region with its place.
    pub(crate) fn region(&self) -> Option<(usize, &Region)> {
        let index = self.choice.region?;
        Some((index, self.item()?.regions().get(index)?))
    }

    /// Chooses an item.
    pub(crate) fn choose(&mut self, id: &str) {
        let Some(item) = self.project.as_ref().and_then(|project| project.scene().item(id)) else { return };
        let region = (!item.regions().is_empty()).then_some(0);
        let choice = Choice { item: item.id.clone(), picture: item.picture.clone(), region, click: None };
        if self.choice.item != choice.item {
            self.canvas.zoom = None;
            self.canvas.centre = [0.5, 0.5];
            self.canvas.new_region = false;
            self.typed = None;
        }
        self.choice = choice;
        if !self.monitor.sequence {
            self.monitor_latest();
        }
    }

    /// Lets what is chosen be something that is there.
    pub(crate) fn keep_choice(&mut self) {
        let Some(project) = &self.project else {
            self.choice = Choice::default();
            return;
        };
        let Some(item) = project.scene().nearest(&self.choice.item, &self.choice.picture) else { return };
        if item.id != self.choice.item || item.picture != self.choice.picture {
            let region = self.choice.region.or((!item.regions().is_empty()).then_some(0));
            self.choice =
                Choice { item: item.id.clone(), picture: item.picture.clone(), region, click: None };
        }
        let count = item.regions().len();
        if self.choice.region.is_some_and(|index| index >= count) {
            (self.choice.region, self.choice.click) = (count.checked_sub(1), None);
        }
        if let Some(region) = self.choice.region.and_then(|index| item.regions().get(index)) {
            let clicks = match &region.shape {
                Shape::Clicks(clicks) => clicks.points.len(),
                _ => 0,
            };
            if self.choice.click.is_some_and(|click| click >= clicks) {
                self.choice.click = None;
            }
        }
    }

    /// The key of an item's picture.
    pub(crate) fn picture_key(&self, item: &Item) -> Option<PictureKey> {
        PictureKey::of(&self.project.as_ref()?.folder(), &item.source)
    }

    /// The chosen item's picture.
    pub(crate) fn picture(&mut self) -> Option<(PictureKey, Loading)> {
        let key = self.item().and_then(|item| self.picture_key(item))?;
        let loading = self.pictures.get(&key);
        Some((key, loading))
    }

    /// The mask of a region of the chosen item.
    pub(crate) fn mask(&mut self, index: usize) -> Option<Masking> {
        let region = self.item()?.regions().get(index)?;
        let source = match &region.shape {
            Shape::Clicks(clicks) => MaskSource::Clicks(clicks.clone()),
            Shape::File { path } => MaskSource::File { path: path.clone() },
            Shape::Made { .. } => return None,
        };
        let folder = self.project.as_ref()?.folder();
        let (key, loading) = self.picture()?;
        let Loading::Ready(shown) = loading else { return Some(Masking::Waiting) };
        let key = MaskKey::new(key, folder, source, region_colour(index));
        Some(self.masks.get(&key, &shown.picture))
    }

    /// Prepares the chosen picture for clicks before there is one.
    pub(crate) fn prepare(&mut self) {
        let Some(folder) = self.project.as_ref().map(Project::folder) else { return };
        if let Some((key, Loading::Ready(shown))) = self.picture() {
            let key = MaskKey::new(key, folder, MaskSource::Prepare, Color32::WHITE);
            self.masks.get(&key, &shown.picture);
        }
    }
}
