//! The panels and how they are arranged.

use eframe::egui::{
    Color32, CursorIcon, Id, Response, Role, Sense, Stroke, Style, Ui, Visuals, WidgetInfo, WidgetText, vec2,
};
use egui_tiles::{
    Behavior, ResizeState, SimplificationOptions, TabState, Tile, TileId, Tiles, Tree, UiResponse,
};
use serde::{Deserialize, Serialize};

use super::panels;
use super::sequence::Focus;
use super::state::State;
use super::theme::{Palette, Type, palette, space};

/// A panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pane {
    /// The picture with its regions.
    Canvas,
    /// The clip.
    Program,
    /// The project's pictures.
    Media,
    /// What is chosen.
    Inspector,
    /// The clips made so far.
    Takes,
    /// Clips over time.
    Timeline,
    /// What is rendered.
    Jobs,
    /// The models.
    Models,
}

impl Pane {
    /// Every panel.
    pub(crate) const ALL: [Self; 8] = [
        Self::Canvas,
        Self::Program,
        Self::Media,
        Self::Inspector,
        Self::Timeline,
        Self::Takes,
        Self::Jobs,
        Self::Models,
    ];

    /// Its title.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Canvas => "Canvas",
            Self::Program => "Program",
            Self::Media => "Media",
            Self::Inspector => "Inspector",
            Self::Timeline => "Timeline",
            Self::Takes => "Takes",
            Self::Jobs => "Jobs",
            Self::Models => "Models",
        }
    }
}

/// The arrangement of a first start.
pub(crate) fn usual() -> Tree<Pane> {
    let mut tiles = Tiles::default();
    let pane = |tiles: &mut Tiles<Pane>, pane| tiles.insert_pane(pane);
    let left = {
        let tabs = [Pane::Media, Pane::Models].map(|p| pane(&mut tiles, p)).to_vec();
        tiles.insert_tab_tile(tabs)
    };
    let canvas = {
        let tabs = vec![pane(&mut tiles, Pane::Canvas)];
        tiles.insert_tab_tile(tabs)
    };
    let program = {
        let tabs = vec![pane(&mut tiles, Pane::Program)];
        tiles.insert_tab_tile(tabs)
    };
    let right = {
        let tabs = vec![pane(&mut tiles, Pane::Inspector)];
        tiles.insert_tab_tile(tabs)
    };
    let bottom = {
        let tabs = [Pane::Timeline, Pane::Takes, Pane::Jobs].map(|p| pane(&mut tiles, p)).to_vec();
        tiles.insert_tab_tile(tabs)
    };
    let monitors = tiles.insert_horizontal_tile(vec![canvas, program]);
    let middle = tiles.insert_vertical_tile(vec![monitors, bottom]);
    let root = tiles.insert_horizontal_tile(vec![left, middle, right]);
    share(&mut tiles, root, &[(left, 1.0), (middle, 4.2), (right, 1.6)]);
    share(&mut tiles, middle, &[(monitors, 2.0), (bottom, 1.0)]);
    share(&mut tiles, monitors, &[(canvas, 1.15), (program, 1.0)]);
    Tree::new(Id::unique("panels"), root, tiles)
}

fn share(tiles: &mut Tiles<Pane>, container: TileId, shares: &[(TileId, f32)]) {
    if let Some(Tile::Container(egui_tiles::Container::Linear(linear))) = tiles.get_mut(container) {
        for &(tile, share) in shares {
            linear.shares.set_share(tile, share);
        }
    }
}

/// The remembered arrangement, if it is one and has every panel once.
pub(crate) fn remembered(kept: Option<&serde_json::Value>) -> Option<Tree<Pane>> {
    let tree: Tree<Pane> = serde_json::from_value(kept?.clone()).ok()?;
    let mut panes: Vec<Pane> = tree
        .tiles
        .tiles()
        .filter_map(|tile| match tile {
            Tile::Pane(pane) => Some(*pane),
            Tile::Container(_) => None,
        })
        .collect();
    let complete = panes.len() == Pane::ALL.len() && Pane::ALL.iter().all(|pane| panes.contains(pane));
    panes.clear();
    (complete && tree.root().is_some_and(|root| tree.tiles.get(root).is_some())).then_some(tree)
}

/// Brings a panel to the front.
pub(crate) fn show(tree: &mut Tree<Pane>, pane: Pane) {
    tree.make_active(|_, tile| matches!(tile, Tile::Pane(found) if *found == pane));
}

/// Draws the panels.
pub(crate) struct Panels<'a> {
    /// What they show and change.
    pub(crate) state: &'a mut State,
    /// Whether the arrangement was changed.
    pub(crate) edited: bool,
}

impl Behavior<Pane> for Panels<'_> {
    fn pane_ui(&mut self, ui: &mut Ui, _tile: TileId, pane: &mut Pane) -> UiResponse {
        let p = palette(ui);
        ui.painter().rect_filled(ui.max_rect(), 0, p.panel);
        if ui.input(|input| input.pointer.any_pressed()) && ui.rect_contains_pointer(ui.max_rect()) {
            match pane {
                Pane::Timeline => self.state.focus = Focus::Timeline,
                Pane::Canvas | Pane::Inspector => self.state.focus = Focus::Picture,
                _ => {}
            }
        }
        match pane {
            Pane::Canvas => panels::canvas::show(ui, self.state),
            Pane::Program => panels::program::show(ui, self.state),
            Pane::Media => panels::media::show(ui, self.state),
            Pane::Inspector => panels::inspector::show(ui, self.state),
            Pane::Timeline => panels::timeline::show(ui, self.state),
            Pane::Takes => panels::takes::show(ui, self.state),
            Pane::Jobs => panels::jobs::show(ui, self.state),
            Pane::Models => panels::models::show(ui, self.state),
        }
        UiResponse::None
    }

    fn tab_title_for_pane(&mut self, pane: &Pane) -> WidgetText {
        pane.title().into()
    }

    fn tab_ui(
        &mut self,
        tiles: &mut Tiles<Pane>,
        ui: &mut Ui,
        id: Id,
        tile: TileId,
        state: &TabState,
    ) -> Response {
        let p = palette(ui);
        let mut title = match tiles.get(tile) {
            Some(Tile::Pane(pane)) => pane.title().to_owned(),
            _ => "Group".to_owned(),
        };
        if let Some(Tile::Pane(Pane::Jobs)) = tiles.get(tile)
            && let count @ 1.. = self.state.open_jobs()
        {
            title = format!("{title} {count}");
        }
        let ink = if state.active { p.text } else { p.muted };
        let galley = ui.painter().layout_no_wrap(title.clone(), Type::Strong.font(), ink);
        let width = galley.size().x + 2.0 * space::M;
        let (_, rect) = ui.allocate_space(vec2(width, ui.available_height()));
        let response = ui.interact(rect, id, Sense::click_and_drag()).on_hover_cursor(CursorIcon::Default);
        let enabled = ui.is_enabled();
        response.widget_info(|| WidgetInfo::selected(Role::Tab, enabled, state.active, &title));
        if ui.is_rect_visible(rect) && !state.is_being_dragged {
            let ink = if response.hovered() { p.text } else { ink };
            if state.active {
                let line = rect.with_min_y(rect.bottom() - 2.0).shrink2(vec2(space::M, 0.0));
                ui.painter().rect_filled(line, 1, p.accent);
            }
            if response.has_focus() {
                ui.painter().rect_stroke(
                    rect.shrink(2.0),
                    3,
                    Stroke::new(1.0, p.accent),
                    eframe::egui::StrokeKind::Inside,
                );
            }
            let at = rect.center() - galley.size() / 2.0;
            ui.painter().galley_with_override_text_color(at, galley, ink);
        }
        self.on_tab_button(tiles, tile, response)
    }

    fn tab_bar_height(&self, _style: &Style) -> f32 {
        32.0
    }

    fn gap_width(&self, _style: &Style) -> f32 {
        4.0
    }

    fn min_size(&self) -> f32 {
        120.0
    }

    fn tab_bar_color(&self, visuals: &Visuals) -> Color32 {
        palette_of(visuals).panel
    }

    fn tab_bar_hline_stroke(&self, visuals: &Visuals) -> Stroke {
        Stroke::new(1.0, palette_of(visuals).line)
    }

    fn resize_stroke(&self, style: &Style, state: ResizeState) -> Stroke {
        let p = palette_of(&style.visuals);
        match state {
            ResizeState::Idle => Stroke::new(4.0, p.chrome),
            ResizeState::Hovering => Stroke::new(2.0, p.muted),
            ResizeState::Dragging => Stroke::new(2.0, p.accent),
        }
    }

    fn drag_preview_stroke(&self, visuals: &Visuals) -> Stroke {
        Stroke::new(2.0, palette_of(visuals).accent)
    }

    fn drag_preview_color(&self, visuals: &Visuals) -> Color32 {
        palette_of(visuals).accent.gamma_multiply(0.2)
    }

    fn simplification_options(&self) -> SimplificationOptions {
        // Every panel keeps its title, so that it can be dragged.
        SimplificationOptions { all_panes_must_have_tabs: true, ..SimplificationOptions::default() }
    }

    fn on_edit(&mut self, _action: egui_tiles::EditAction) {
        self.edited = true;
    }
}

fn palette_of(visuals: &Visuals) -> &'static Palette {
    let theme = if visuals.dark_mode { eframe::egui::Theme::Dark } else { eframe::egui::Theme::Light };
    Palette::of(theme)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arrangement_is_remembered_only_when_it_is_whole() {
        let kept = serde_json::to_value(usual()).unwrap();
        assert!(remembered(Some(&kept)).is_some());
        let mut other = usual();
        let canvas = other.tiles.find_pane(&Pane::Canvas).unwrap();
        other.remove_recursively(canvas);
        assert!(remembered(Some(&serde_json::to_value(other).unwrap())).is_none(), "a panel is missing");
        assert!(remembered(Some(&serde_json::json!({ "root": 7 }))).is_none());
        assert!(remembered(None).is_none());
    }
}
