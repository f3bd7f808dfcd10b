//! The two raster types every layer shares.

/// A raster whose buffer does not fit its size.
#[derive(Debug, thiserror::Error)]
#[error("a {width}x{height} {what} needs {expected} values, got {got}")]
pub struct PictureError {
    what: &'static str,
    width: u32,
    height: u32,
    expected: usize,
    got: usize,
}

/// An 8-bit sRGB picture, row-major, three bytes a pixel, no padding.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

/// Coverage 0..1 per pixel, row-major. Not a gamma-encoded quantity.
#[derive(Clone, PartialEq)]
pub struct Mask {
    width: u32,
    height: u32,
    alpha: Vec<f32>,
}

impl Picture {
    /// Wraps `width * height * 3` bytes.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self, PictureError> {
        let expected = width as usize * height as usize * 3;
        if rgb.len() != expected || expected == 0 {
            return Err(PictureError { what: "RGB picture", width, height, expected, got: rgb.len() });
        }
        Ok(Self { width, height, rgb })
    }

    /// Width in pixels, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes, `r g b r g b …`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The bytes, for writing in place.
    pub fn rgb_mut(&mut self) -> &mut [u8] {
        &mut self.rgb
    }

    /// Gives the buffer back.
    pub fn into_rgb(self) -> Vec<u8> {
        self.rgb
    }
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({}x{})", self.width, self.height)
    }
}

impl Mask {
    /// Wraps `width * height` coverages; the caller keeps them in 0..1.
    pub fn new(width: u32, height: u32, alpha: Vec<f32>) -> Result<Self, PictureError> {
        let expected = width as usize * height as usize;
        if alpha.len() != expected || expected == 0 {
            return Err(PictureError { what: "mask", width, height, expected, got: alpha.len() });
        }
        Ok(Self { width, height, alpha })
    }

    /// Width in pixels, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The coverages.
    pub fn alpha(&self) -> &[f32] {
        &self.alpha
    }

    /// The coverages, for writing in place.
    pub fn alpha_mut(&mut self) -> &mut [f32] {
        &mut self.alpha
    }

    /// Sum of coverage over the number of pixels, 0..1.
    pub fn area_fraction(&self) -> f64 {
        self.alpha.iter().map(|&a| f64::from(a)).sum::<f64>() / self.alpha.len() as f64
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({}x{}, {:.1} % covered)", self.width, self.height, 100.0 * self.area_fraction())
    }
}
