//! The job that an `animate.click` stands for: its fields, and what its links bring.

use super::{AnimateClick, key, magnitude};
use crate::media::Picture;
use crate::systems::follow_your_click::{ClickAnimation, Magnitude, Region, SamplingChoice};
use crate::workflow::context::{NodeContext, RunError};
use crate::workflow::error::{FieldPath, Segment};
use crate::workflow::fields::Number;
use crate::workflow::forecast::Shape;

impl AnimateClick {
    /// The job with stand-ins for what only other nodes can give.
    pub(super) fn outline(&self, photo: Picture, regions: Vec<Region>) -> ClickAnimation {
        ClickAnimation {
            photo,
            regions,
            frames: self.frames as usize,
            ease: self.ease,
            seed: self.seed,
            steps: self.steps.map(|steps| steps as usize),
            guide: self.guide,
            composite: self.composite,
            size: self.size,
            sampling: self.sampling(),
        }
    }

    pub(super) fn sampling(&self) -> SamplingChoice {
        SamplingChoice {
            negative_prompt: self.negative_prompt.clone(),
            guidance_scale: self.guidance_scale,
            sampler: self.sampler,
            working_size: self.working_size,
            pin_background: self.pin_background,
        }
    }

    /// The size of the frames.
    pub(super) fn shape(&self, inputs: &[(String, Shape)]) -> Shape {
        let photo = Shape::first(inputs);
        let longer = photo.width.max(photo.height).max(1);
        let wanted = u64::from(self.size.unwrap_or(3840)).min(longer);
        Shape {
            width: photo.width * wanted / longer,
            height: photo.height * wanted / longer,
            frames: u64::from(self.frames),
            rate: 0,
        }
        .at_rate(self.fps)
    }

    pub(super) fn prompts(&self) -> Vec<(Vec<Segment>, &str)> {
        let single = self.prompt.iter().map(|prompt| (vec![key("prompt")], prompt.as_str()));
        let many = self.regions.iter().enumerate().map(|(index, region)| {
            (vec![key("regions"), Segment::Index(index), key("prompt")], region.prompt.as_str())
        });
        single.chain(many).collect()
    }

    /// The magnitude of every region with the field it stands in.
    pub(super) fn magnitudes(&self) -> Vec<(Vec<Segment>, Number)> {
        let single = self
            .prompt
            .iter()
            .map(|_| (vec![key("magnitude")], self.magnitude.clone().unwrap_or_else(magnitude)));
        let many = self.regions.iter().enumerate().map(|(index, region)| {
            (vec![key("regions"), Segment::Index(index), key("magnitude")], region.magnitude.clone())
        });
        single.chain(many).collect()
    }

    /// The number frame by frame; `linked` is what a link brought.
    pub(super) fn over_frames(&self, number: &Number, linked: Option<f64>) -> Magnitude {
        let at = |frame: u32| number.at(f64::from(frame) / self.fps, linked);
        match number {
            Number::Keyed(_) => Magnitude::per_frame((0..self.frames).map(at).collect()),
            _ => Magnitude::Constant(at(0)),
        }
    }

    fn magnitude_of(
        &self,
        at: &[Segment],
        number: &Number,
        context: &NodeContext<'_>,
    ) -> Result<Magnitude, RunError> {
        let field = FieldPath(at.to_vec()).to_string();
        let linked = number.link().map(|_| context.number_input(&field)).transpose()?;
        let found = self.over_frames(number, linked);
        match found.frames(self.frames as usize).into_iter().find(|value| !(0.0..=1.0).contains(value)) {
            None => Ok(found),
            Some(value) => {
                Err(RunError::input(format!("{field}: expected a magnitude from 0 to 1, got {value}")))
            }
        }
    }

    pub(super) fn gather(&self, context: &NodeContext<'_>) -> Result<Vec<Region>, RunError> {
        let single = self.mask.iter().zip(&self.prompt).map(|(_, prompt)| ("mask".to_owned(), prompt));
        let many = self.regions.iter().enumerate();
        let many = many.map(|(index, region)| (format!("regions[{index}].mask"), &region.prompt));
        let regions = single.chain(many).zip(self.magnitudes());
        regions
            .map(|((mask, prompt), (at, number))| {
                Ok(Region {
                    mask: (*context.mask_input(&mask)?).clone(),
                    prompt: prompt.clone(),
                    magnitude: self.magnitude_of(&at, &number, context)?,
                })
            })
            .collect()
    }
}
