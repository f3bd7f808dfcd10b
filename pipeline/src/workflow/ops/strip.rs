//! `strip`: clips side by side over time, as one picture.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CLIP, Input, NodeOp, PICTURE_PORTS};
use crate::media::{Picture, resize};
use crate::workflow::context::{NodeContext, RunError};
use crate::workflow::fields::{Link, PortKind};
use crate::workflow::forecast::{Shape, Work};
use crate::workflow::value::Value;

/// Space between the pictures, in pixels.
const GAP: u32 = 4;
/// Its grey.
const GROUND: u8 = 32;

/// Lays frames of clips out on one picture: a row per clip, time to the right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Strip {
    /// The clips, from top to bottom.
    #[schemars(length(min = 1, max = 32))]
    pub clips: Vec<Link>,
    /// Frames per row, spread evenly from the first to the last.
    #[serde(default = "columns")]
    #[schemars(extend("minimum" = 1, "maximum" = 32))]
    pub columns: u32,
    /// Width of one frame in pixels.
    #[serde(default = "cell")]
    #[schemars(extend("minimum" = 16, "maximum" = 1024))]
    pub cell: u32,
}

fn columns() -> u32 {
    4
}

fn cell() -> u32 {
    256
}

impl NodeOp for Strip {
    fn inputs(&self) -> Vec<Input<'_>> {
        self.clips.iter().enumerate().map(|(i, link)| Input::item("clips", i, link, CLIP)).collect()
    }

    fn outputs(&self) -> &'static [(&'static str, PortKind)] {
        PICTURE_PORTS
    }

    fn forecast(&self, inputs: &[(String, Shape)]) -> (Shape, Work) {
        let first = Shape::first(inputs);
        let height = u64::from(self.cell) * first.height.max(1) / first.width.max(1);
        let shape = Shape {
            width: u64::from(self.cell + GAP) * u64::from(self.columns),
            height: (height + u64::from(GAP)) * self.clips.len() as u64,
            frames: 1,
            rate: 0,
        };
        (shape, Work::decode(shape))
    }

    fn run(&self, context: &mut NodeContext<'_>) -> Result<Value, RunError> {
        let columns = self.columns as usize;
        let mut rows = vec![];
        for index in 0..self.clips.len() {
            let clip = context.clip_input(&format!("clips[{index}]"))?;
            let height = (f64::from(self.cell) * f64::from(clip.height()) / f64::from(clip.width())).round();
            let height = (height as u32).clamp(1, 4096);
            let mut row = vec![];
            for column in 0..columns {
                context.poll()?;
                let last = clip.frames() - 1;
                let at =
                    if columns == 1 { last } else { (column * last + (columns - 1) / 2) / (columns - 1) };
                row.push(resize(&clip.frame(at)?, self.cell, height));
            }
            rows.push((height, row));
            context.step("rows", index + 1, self.clips.len());
        }
        let width = (self.cell + GAP) * self.columns + GAP;
        let height = rows.iter().map(|(height, _)| height + GAP).sum::<u32>() + GAP;
        let mut sheet = vec![GROUND; width as usize * height as usize * 3];
        let mut top = GAP;
        for (height, row) in &rows {
            for (column, frame) in row.iter().enumerate() {
                let left = GAP + (self.cell + GAP) * column as u32;
                paste(&mut sheet, width, frame, left, top);
            }
            top += height + GAP;
        }
        let sheet = Picture::new(width, height, sheet).map_err(|error| RunError::bug(error.to_string()))?;
        Ok(Value::picture(sheet))
    }
}

fn paste(sheet: &mut [u8], sheet_width: u32, frame: &Picture, left: u32, top: u32) {
    let row_bytes = frame.width() as usize * 3;
    for (y, row) in frame.rgb().chunks_exact(row_bytes).enumerate() {
        let start = ((top as usize + y) * sheet_width as usize + left as usize) * 3;
        if let Some(target) = sheet.get_mut(start..start + row_bytes) {
            target.copy_from_slice(row);
        }
    }
}
