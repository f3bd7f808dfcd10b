//! Decoding a latent picture in overlapping tiles, so that memory is one tile's.

use candle_core::{DType, Tensor};

use super::weights::{NetError, Result};

const NET: &str = "tiled decode";

/// How a latent picture is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileSpec {
    /// Side of a tile in latent cells.
    pub tile: usize,
    /// Cells neighbouring tiles share; blended linearly. Below `tile`.
    pub overlap: usize,
}

impl Default for TileSpec {
    /// 64-cell tiles, a quarter shared: a 512-pixel tile for an eightfold autoencoder.
    fn default() -> Self {
        Self { tile: 64, overlap: 16 }
    }
}

/// Starts of tiles of length `tile` that cover `0..length` and overlap by at least `overlap`; the
/// last is flush with the end.
pub fn tile_starts(length: usize, tiles: TileSpec) -> Vec<usize> {
    if length <= tiles.tile {
        return vec![0];
    }
    let stride = tiles.tile.saturating_sub(tiles.overlap).max(1);
    let mut starts: Vec<usize> = (0..length - tiles.tile).step_by(stride).collect();
    starts.push(length - tiles.tile);
    starts
}

/// Decodes `latents` `[n, h, w, c]` tile by tile with `decode`, which multiplies the size by
/// `factor`; the result is `[n, h·factor, w·factor, channels]` in f32.
///
/// # Errors
/// A tile no larger than its overlap, or whatever `decode` returns.
pub fn decode_tiled(
    latents: &Tensor,
    tiles: TileSpec,
    factor: usize,
    mut decode: impl FnMut(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let (n, h, w, _) = latents.dims4()?;
    if tiles.tile <= tiles.overlap {
        return Err(NetError::input(NET, "a tile larger than its overlap", tiles));
    }
    if h <= tiles.tile && w <= tiles.tile {
        return decode(latents);
    }
    let (rows, columns) = (tile_starts(h, tiles), tile_starts(w, tiles));
    let (row_weights, column_weights) = (ramps(h, &rows, tiles, factor), ramps(w, &columns, tiles, factor));
    let mut pictures = Vec::with_capacity(n);
    for i in 0..n {
        let frame = latents.narrow(0, i, 1)?;
        let mut sum: Vec<f32> = Vec::new();
        let mut channels = 0;
        for (&y, wy) in rows.iter().zip(&row_weights) {
            for (&x, wx) in columns.iter().zip(&column_weights) {
                let tile = frame.narrow(1, y, tiles.tile.min(h))?.narrow(2, x, tiles.tile.min(w))?;
                let decoded = decode(&tile.contiguous()?)?;
                channels = decoded.dim(3)?;
                if decoded.dims() != [1, wy.len(), wx.len(), channels] {
                    let expected = format!("a tile of [1, {}, {}, c]", wy.len(), wx.len());
                    return Err(NetError::input(NET, expected, decoded.dims()));
                }
                sum.resize(h * factor * w * factor * channels, 0.0);
                let values = decoded.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
                for (dy, line) in values.chunks_exact(wx.len() * channels).enumerate() {
                    let start = ((y * factor + dy) * w * factor + x * factor) * channels;
                    let target = &mut sum[start..start + line.len()];
                    for (dx, (to, from)) in
                        target.chunks_exact_mut(channels).zip(line.chunks_exact(channels)).enumerate()
                    {
                        let weight = wy[dy] * wx[dx];
                        for (to, from) in to.iter_mut().zip(from) {
                            *to += weight * from;
                        }
                    }
                }
            }
        }
        pictures.push(Tensor::from_vec(sum, (1, h * factor, w * factor, channels), latents.device())?);
    }
    Ok(Tensor::cat(&pictures, 0)?)
}

/// For each tile the weight of each of its output pixels along one axis; at every pixel the
/// weights of all tiles sum to one.
fn ramps(length: usize, starts: &[usize], tiles: TileSpec, factor: usize) -> Vec<Vec<f32>> {
    let tile = tiles.tile.min(length) * factor;
    let ramp = (tiles.overlap * factor) as f32;
    let raw: Vec<Vec<f32>> = (0..starts.len())
        .map(|k| {
            (0..tile)
                .map(|i| {
                    let rise = if k == 0 { 1.0 } else { ((i as f32 + 0.5) / ramp).min(1.0) };
                    let fall = if k + 1 == starts.len() { 1.0 } else { ((tile - i) as f32 - 0.5) / ramp };
                    rise.min(fall.min(1.0))
                })
                .collect()
        })
        .collect();
    let mut total = vec![0.0_f32; length * factor];
    for (&start, weights) in starts.iter().zip(&raw) {
        for (i, weight) in weights.iter().enumerate() {
            total[start * factor + i] += weight;
        }
    }
    let normalised = |(&start, weights): (&usize, &Vec<f32>)| {
        weights.iter().enumerate().map(|(i, weight)| weight / total[start * factor + i]).collect()
    };
    starts.iter().zip(&raw).map(normalised).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use kinora_kernels::upsample_nearest2x;

    use super::*;

    #[test]
    fn tiles_cover_everything_and_overlap_enough() {
        for length in 1..70 {
            let tiles = TileSpec { tile: 16, overlap: 5 };
            let starts = tile_starts(length, tiles);
            assert_eq!(starts[0], 0);
            assert_eq!(starts[starts.len() - 1] + tiles.tile.min(length), length);
            for pair in starts.windows(2) {
                assert!(
                    pair[0] < pair[1] && pair[1] + tiles.overlap <= pair[0] + tiles.tile,
                    "{length}: {starts:?}"
                );
            }
        }
    }

    #[test]
    fn a_local_decoder_is_reproduced_exactly_by_tiles() {
        let latents = Tensor::arange(0_f32, 2.0 * 23.0 * 37.0 * 3.0, &Device::Cpu)
            .and_then(|t| t.reshape((2, 23, 37, 3)))
            .and_then(|t| t / 100.0)
            .unwrap();
        let whole = upsample_nearest2x(&latents).unwrap();
        for overlap in [0, 1, 3, 7] {
            let tiles = TileSpec { tile: 8, overlap };
            let tiled = decode_tiled(&latents, tiles, 2, |t| Ok(upsample_nearest2x(t)?)).unwrap();
            let worst = (&tiled - &whole).and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>()).unwrap();
            assert!(worst < 1e-4, "overlap {overlap}: {worst}");
        }
        let refused = decode_tiled(&latents, TileSpec { tile: 4, overlap: 4 }, 2, |t| Ok(t.clone()));
        assert!(matches!(refused, Err(NetError::Input { .. })));
    }
}
