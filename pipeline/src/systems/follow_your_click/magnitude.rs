//! How far a region moves, the same over the whole clip or frame by frame.

use super::animation::AnimateError;

/// How far a region moves, 0..=1 of the largest motion a model knows.
#[derive(Debug, Clone, PartialEq)]
pub enum Magnitude {
    /// The same in every frame.
    Constant(f64),
    /// One value a frame: the displacement of a frame is that of a clip made with its value throughout.
    PerFrame(Vec<f64>),
}

impl Magnitude {
    /// One value a frame, constant where all are the same.
    pub fn per_frame(values: Vec<f64>) -> Self {
        match values.first() {
            Some(&first) if values.iter().all(|value| *value == first) => Self::Constant(first),
            _ => Self::PerFrame(values),
        }
    }

    /// The value at a frame; the last one's beyond the end.
    pub fn at(&self, frame: usize) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::PerFrame(values) => values.get(frame).or(values.last()).copied().unwrap_or_default(),
        }
    }

    /// The largest value: what the clip reaches.
    pub fn most(&self) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::PerFrame(values) => values.iter().copied().fold(0.0, f64::max),
        }
    }

    /// Every value of a clip of `frames` frames.
    pub fn frames(&self, frames: usize) -> Vec<f64> {
        (0..frames).map(|frame| self.at(frame)).collect()
    }

    /// Whether it changes over the clip.
    pub fn is_keyed(&self) -> bool {
        matches!(self, Self::PerFrame(_))
    }

    /// Refuses values outside 0..=1 and a list that does not fit the clip; `index` is the region's.
    pub(super) fn check(&self, index: usize, frames: usize) -> Result<(), AnimateError> {
        if let Self::PerFrame(values) = self
            && values.len() != frames
        {
            return Err(AnimateError::MagnitudeFrames { index, expected: frames, got: values.len() });
        }
        let values = match self {
            Self::Constant(value) => std::slice::from_ref(value),
            Self::PerFrame(values) => values.as_slice(),
        };
        match values.iter().find(|value| !(0.0..=1.0).contains(*value)) {
            Some(&got) => Err(AnimateError::Magnitude { index, got }),
            None => Ok(()),
        }
    }
}

impl From<f64> for Magnitude {
    fn from(value: f64) -> Self {
        Self::Constant(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_by_frame_and_checked() {
        let keyed = Magnitude::per_frame(vec![0.0, 0.5, 1.0]);
        assert_eq!((keyed.at(1), keyed.at(9), keyed.most()), (0.5, 1.0, 1.0));
        assert_eq!(Magnitude::per_frame(vec![0.5; 4]), Magnitude::Constant(0.5));
        assert_eq!(Magnitude::from(0.25).frames(2), [0.25, 0.25]);
        keyed.check(0, 3).unwrap();
        assert!(matches!(keyed.check(0, 4), Err(AnimateError::MagnitudeFrames { expected: 4, got: 3, .. })));
        for bad in [-0.1, 1.5, f64::NAN, f64::INFINITY] {
            let keyed = Magnitude::PerFrame(vec![0.5, bad]);
            assert!(matches!(keyed.check(2, 2), Err(AnimateError::Magnitude { index: 2, .. })), "{bad}");
        }
    }
}
