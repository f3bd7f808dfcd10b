//! How the picture is looked at and worked on: the tool, the zoom, the brush.

/// What a click on the canvas does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Tool {
    /// Adds what is under it.
    #[default]
    Pick,
    /// Takes out what is under it.
    LeaveOut,
    /// Paints the shape.
    Brush,
    /// Takes paint and shape away.
    Erase,
    /// Drags the picture.
    Pan,
}

/// How regions are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum MaskView {
    /// Tinted over the picture.
    #[default]
    Tint,
    /// The chosen one, white on black.
    Matte,
    /// Not at all.
    Hidden,
}

/// The canvas.
#[derive(Debug, Clone)]
pub(crate) struct Canvas {
    /// Points of the screen per pixel of the picture; none fits the picture to the panel.
    pub(crate) zoom: Option<f32>,
    /// The point of the picture in the middle of the panel, 0..1.
    pub(crate) centre: [f32; 2],
    /// What a click does.
    pub(crate) tool: Tool,
    /// How regions are shown.
    pub(crate) view: MaskView,
    /// Whether the next click begins a new region although one is chosen.
    pub(crate) new_region: bool,
    /// The zoom that was drawn last.
    pub(crate) drawn_zoom: f32,
    /// Half the width of the brush, of the picture's longer side.
    pub(crate) brush: f32,
    /// Where the keys of the canvas are, 0..1 of the picture's width and height.
    pub(crate) cursor: (f64, f64),
    /// The stroke that is being drawn.
    pub(crate) stroke: Option<Vec<(f64, f64)>>,
}

impl Default for Canvas {
    fn default() -> Self {
        Self {
            zoom: None,
            centre: [0.5, 0.5],
            tool: Tool::default(),
            view: MaskView::default(),
            new_region: false,
            drawn_zoom: 0.0,
            brush: 0.02,
            cursor: (0.5, 0.5),
            stroke: None,
        }
    }
}
