//! Pooling, resizing and dilation of channels-last pictures.

use candle_core::Tensor;
use kinora_kernels::Conv2d;

use crate::nets::weights::Result;

/// Maximum of each 2 × 2 block; both sides even.
pub(super) fn max_pool2x(x: &Tensor) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    let pairs = x.reshape((n * h, w / 2, 2 * c))?;
    let columns = pairs.narrow(2, 0, c)?.maximum(&pairs.narrow(2, c, c)?)?;
    let pairs = columns.reshape((n * h / 2, 2, w / 2 * c))?;
    let rows = pairs.narrow(1, 0, 1)?.maximum(&pairs.narrow(1, 1, 1)?)?;
    Ok(rows.reshape((n, h / 2, w / 2, c))?)
}

/// Bilinear resize with half-pixel centres, as torch with `align_corners=False`.
pub(super) fn resize_bilinear(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    resize_axis(&resize_axis(x, 1, height)?, 2, width)
}

fn resize_axis(x: &Tensor, axis: usize, length: usize) -> Result<Tensor> {
    let old = x.dim(axis)?;
    if old == length {
        return Ok(x.clone());
    }
    let scale = old as f64 / length as f64;
    let (mut low, mut high, mut weight) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..length {
        let at = ((i as f64 + 0.5) * scale - 0.5).max(0.0);
        let first = (at as usize).min(old - 1);
        low.push(first as u32);
        high.push((first + 1).min(old - 1) as u32);
        weight.push((at - first as f64) as f32);
    }
    let mut shape = vec![1; x.rank()];
    shape[axis] = length;
    let weight = Tensor::from_vec(weight, shape, x.device())?.to_dtype(x.dtype())?;
    let pick = |index: Vec<u32>| x.index_select(&Tensor::from_vec(index, length, x.device())?, axis);
    let (low, high) = (pick(low)?, pick(high)?);
    Ok((&low + (high - &low)?.broadcast_mul(&weight)?)?)
}

/// Applies a 3 × 3 convolution of padding 1 as if it had this dilation and as much padding: the
/// `dilation²` interleaved sub-pictures are convolved as a batch.
pub(super) fn dilated(conv: &Conv2d, x: &Tensor, dilation: usize) -> Result<Tensor> {
    if dilation == 1 {
        return Ok(conv.forward(x)?);
    }
    let (n, h, w, c) = x.dims4()?;
    let (rows, columns) = (h.div_ceil(dilation), w.div_ceil(dilation));
    let padded = x.pad_with_zeros(1, 0, rows * dilation - h)?.pad_with_zeros(2, 0, columns * dilation - w)?;
    let phases =
        padded.reshape(&[n, rows, dilation, columns, dilation, c])?.permute(vec![0, 2, 4, 1, 3, 5])?;
    let phases = phases.contiguous()?.reshape((n * dilation * dilation, rows, columns, c))?;
    let y = conv.forward(&phases)?;
    let out = y.dim(3)?;
    let y = y.reshape(&[n, dilation, dilation, rows, columns, out])?.permute(vec![0, 3, 1, 4, 2, 5])?;
    let y = y.contiguous()?.reshape((n, rows * dilation, columns * dilation, out))?;
    Ok(y.narrow(1, 0, h)?.narrow(2, 0, w)?.contiguous()?)
}

/// `1 / (1 + exp(-x))`.
pub(super) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok((x.neg()?.exp()? + 1.0)?.recip()?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn ramp(n: usize, h: usize, w: usize, c: usize) -> Tensor {
        let values: Vec<f32> = (0..n * h * w * c).map(|i| ((i * 7919 % 101) as f32) / 50.0 - 1.0).collect();
        Tensor::from_vec(values, (n, h, w, c), &Device::Cpu).unwrap()
    }

    fn distance(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).and_then(|d| d.abs()?.max_all()?.to_scalar()).unwrap()
    }

    #[test]
    fn dilation_by_phases_is_a_dilated_convolution() {
        let (x, weight) =
            (ramp(2, 10, 7, 3), ramp(4, 3, 3, 3).permute((0, 3, 1, 2)).unwrap().contiguous().unwrap());
        for dilation in [1, 2, 4, 8] {
            let nchw = x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
            let expected =
                nchw.conv2d(&weight, dilation, 1, dilation, 1).unwrap().permute((0, 2, 3, 1)).unwrap();
            let got = dilated(&Conv2d::new(weight.clone(), None, 1, 1).unwrap(), &x, dilation).unwrap();
            assert!(distance(&got, &expected) < 1e-5, "dilation {dilation}");
        }
    }

    #[test]
    fn pooling_takes_the_largest_of_four() {
        let x =
            Tensor::from_vec(vec![1f32, -1., 2., 0., 5., 3., 4., -9.], (1, 2, 2, 2), &Device::Cpu).unwrap();
        assert_eq!(max_pool2x(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(), [5.0, 3.0]);
    }

    #[test]
    fn doubling_mixes_a_quarter_of_the_neighbour() {
        let x = Tensor::from_vec(vec![0f32, 4.0], (1, 1, 2, 1), &Device::Cpu).unwrap();
        let y = resize_bilinear(&x, 1, 4).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(y, [0.0, 1.0, 3.0, 4.0]);
    }
}
