//! Normalisation calls to CUDA kernels.

mod once;

use candle_core::Tensor;
use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;

use super::{Held, Output, card, element, function, launch, profile, ready};
use crate::error::{KernelError, Result};
use crate::pointwise::Activation;
use crate::used::note;

/// `GroupParams` of `cuda/norm.cu`, field by field.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct GroupParams {
    x: u64,
    rest: u64,
    out: u64,
    weight: u64,
    bias: u64,
    added: u64,
    scale: u64,
    shift: u64,
    partial: u64,
    points: i64,
    channels: i32,
    split: i32,
    groups: i32,
    chunks: i32,
    chunk_points: i32,
    tile: i32,
    lines: i32,
    added_samples: i32,
    activation: i32,
    eps: f32,
}

// SAFETY: plain numbers in C layout, the same as the kernels' parameter.
unsafe impl DeviceRepr for GroupParams {}

/// `LayerParams` of `cuda/norm.cu`, field by field.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct LayerParams {
    x: u64,
    out: u64,
    weight: u64,
    bias: u64,
    added: u64,
    rows: i64,
    repeat: i64,
    channels: i32,
    lanes: i32,
    period: i32,
    eps: f32,
}

// SAFETY: plain numbers in C layout, the same as the kernels' parameter.
unsafe impl DeviceRepr for LayerParams {}

/// A group norm whose extents the caller has checked.
#[derive(Debug)]
pub(crate) struct GroupCall<'a> {
    pub(crate) weight: &'a Tensor,
    pub(crate) bias: &'a Tensor,
    /// `[n, …]`, the channels behind those of `x`.
    pub(crate) rest: Option<&'a Tensor>,
    /// `[m, channels]`, each row for `n / m` samples in a row.
    pub(crate) added: Option<&'a Tensor>,
    /// Scale and shift, `[n, channels]`.
    pub(crate) film: Option<(&'a Tensor, &'a Tensor)>,
    pub(crate) groups: usize,
    pub(crate) eps: f64,
    pub(crate) activation: Activation,
}

/// How a group norm is cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Vectors of a row that a block handles at once.
    pub(super) tile: usize,
    /// Rows that a block handles at once.
    pub(super) lines: usize,
    /// Blocks a sample.
    pub(super) chunks: usize,
    pub(super) chunk_points: usize,
}

impl Cut {
    /// About one wave of two blocks of up to 512 threads a multiprocessor.
    pub(super) fn new(samples: usize, points: usize, vectors: usize, multiprocessors: usize) -> Self {
        let tile = vectors.min(512);
        let lines = (512 / tile).max(1);
        // A chunk of fewer than four rows a thread is all prologue.
        let most = points.div_ceil(4 * lines).max(1);
        let chunks = (2 * multiprocessors / samples.max(1)).clamp(1, most);
        let chunk_points = points.div_ceil(chunks).max(1);
        Self { tile, lines, chunks: points.div_ceil(chunk_points).max(1), chunk_points }
    }

    pub(super) fn threads(self) -> usize {
        (self.tile * self.lines).next_multiple_of(32)
    }
}

/// Runs the call on `x` `[n, points, channels]`; `None` when no kernel takes it.
pub(crate) fn group_norm(
    device: &CudaDevice,
    x: &Tensor,
    call: &GroupCall<'_>,
    (samples, points, channels): (usize, usize, usize),
) -> Result<Option<Tensor>> {
    let others = [
        Some(call.weight),
        Some(call.bias),
        call.rest,
        call.added,
        call.film.map(|f| f.0),
        call.film.map(|f| f.1),
    ];
    let same = |other: &&Tensor| other.dtype() == x.dtype() && other.device().same_device(x.device());
    let Some(element) = element(x.dtype()) else { return Ok(None) };
    if !others.iter().flatten().all(same) || call.groups > 4096 {
        return Ok(None);
    }
    let vector = 16 / x.dtype().size_in_bytes();
    let held = |x: &Tensor| Held::new(&x.contiguous()?);
    let (input, weight, bias) = (ready(x)?, held(call.weight)?, held(call.bias)?);
    let added = call.added.map(held).transpose()?;
    let film = call.film.map(|(scale, shift)| Result::Ok((held(scale)?, held(shift)?))).transpose()?;
    let input = Held::new(&input)?;
    let rest = call.rest.map(|rest| Held::new(&ready(rest)?)).transpose()?;
    let split = if rest.is_some() { x.dims().last().copied().unwrap_or_default() } else { channels };
    let operands = [Some(&input), rest.as_ref(), Some(&weight), Some(&bias)];
    let aligned = operands.into_iter().flatten().all(Held::aligned);
    let wide = aligned && channels % vector == 0 && split % vector == 0;
    let step = if wide { vector } else { 1 };
    let card = card(device)?;
    let dims = [&x.dims()[..x.dims().len().saturating_sub(1)], &[channels]].concat();
    let out = Output::new(device, x.dtype(), samples * points * channels)?;
    let small = (wide && vector == 8 && card.capability == (9, 0))
        .then(|| once::Fit::new(samples, points, channels, call.groups, card.multiprocessors))
        .flatten();
    note("group_norm", if small.is_some() { "once" } else { "split" }, None);
    profile::mark(|| format!("group_norm {samples}x{points}x{channels}"));
    if samples * points == 0 {
        return Ok(Some(out.tensor(&dims)));
    }
    let rows = call.added.map_or(Ok(1), |added| added.dim(0))?;
    let count = |what: usize| {
        i32::try_from(what).map_err(|_| KernelError::shape("group_norm", "extents below 2^31", what))
    };
    if let Some(fit) = small {
        let params = once::OnceParams {
            x: input.address()?,
            rest: rest.as_ref().map_or(Ok(0), Held::address)?,
            out: out.address,
            weight: weight.address()?,
            bias: bias.address()?,
            added: added.as_ref().map_or(Ok(0), Held::address)?,
            scale: film.as_ref().map_or(Ok(0), |f| f.0.address())?,
            shift: film.as_ref().map_or(Ok(0), |f| f.1.address())?,
            points: count(points)?,
            channels: count(channels)?,
            split: count(split)?,
            width: count(channels / call.groups)?,
            slabs: count(call.groups / fit.slab_groups)?,
            slab_groups: count(fit.slab_groups)?,
            added_samples: count(samples / rows.max(1))?,
            activation: call.activation as i32,
            eps: call.eps as f32,
        };
        let blocks = count(samples * (call.groups / fit.slab_groups) * fit.cluster)?.unsigned_abs();
        let kernel = function(device, "group_once", element, fit.kernel(), fit.shared_bytes)?;
        // SAFETY: the operands are held past the launch and contiguous, the caller checked the extents, and
        // the output holds all of `x`; the grid is a multiple of the kernel's cluster.
        unsafe {
            launch(&device.cuda_stream(), &kernel, (blocks, once::THREADS, fit.shared_bytes), &params)?
        };
        return Ok(Some(out.tensor(&dims)));
    }
    let cut = Cut::new(samples, points, channels / step, card.multiprocessors);
    let partial = Output::new(device, candle_core::DType::F32, 2 * samples * cut.chunks * call.groups)?;
    let params = GroupParams {
        x: input.address()?,
        rest: rest.as_ref().map_or(Ok(0), Held::address)?,
        out: out.address,
        weight: weight.address()?,
        bias: bias.address()?,
        added: added.as_ref().map_or(Ok(0), Held::address)?,
        scale: film.as_ref().map_or(Ok(0), |f| f.0.address())?,
        shift: film.as_ref().map_or(Ok(0), |f| f.1.address())?,
        partial: partial.address,
        points: points as i64,
        channels: count(channels)?,
        split: count(split)?,
        groups: count(call.groups)?,
        chunks: count(cut.chunks)?,
        chunk_points: count(cut.chunk_points)?,
        tile: count(cut.tile)?,
        lines: count(cut.lines)?,
        added_samples: count(samples / rows.max(1))?,
        activation: call.activation as i32,
        eps: call.eps as f32,
    };
    let blocks = u32::try_from(samples * cut.chunks)
        .ok()
        .filter(|blocks| *blocks < 1 << 31)
        .ok_or_else(|| KernelError::shape("group_norm", "fewer than 2^31 samples", samples))?;
    let threads = cut.threads() as u32;
    let stats_bytes = (8 * cut.tile * step * cut.lines + 8 * call.groups) as u32;
    let names =
        if wide { ["group_stats_wide", "group_apply_wide"] } else { ["group_stats_one", "group_apply_one"] };
    let stats = function(device, "norm", element, names[0], stats_bytes)?;
    let apply = function(device, "norm", element, names[1], 8 * call.groups as u32)?;
    let stream = device.cuda_stream();
    // SAFETY: `held` keeps every operand alive and contiguous past the launches, the caller checked the
    // extents, `partial` holds two sums a sample, chunk and group and the output all of `x`.
    unsafe {
        launch(&stream, &stats, (blocks, threads, stats_bytes), &params)?;
        launch(&stream, &apply, (blocks, threads, 8 * call.groups as u32), &params)?;
    }
    drop(partial);
    Ok(Some(out.tensor(&dims)))
}

/// A layer norm whose extents the caller has checked: row `r` gets row `(r / repeat) % period` of
/// `added` `[period, channels]` after the affine map.
pub(crate) fn layer_norm(
    device: &CudaDevice,
    x: &Tensor,
    (weight, bias): (&Tensor, &Tensor),
    added: Option<(&Tensor, usize)>,
    eps: f64,
) -> Result<Option<Tensor>> {
    let same = |other: &Tensor| other.dtype() == x.dtype() && other.device().same_device(x.device());
    let Some(element) = element(x.dtype()) else { return Ok(None) };
    if !same(weight) || !same(bias) || !added.is_none_or(|(added, _)| same(added)) {
        return Ok(None);
    }
    let held = |x: &Tensor| Held::new(&x.contiguous()?);
    let (input, weight, bias) = (Held::new(&ready(x)?)?, held(weight)?, held(bias)?);
    let period = added.map_or(Ok(1), |(added, _)| added.dim(0))?;
    let repeat = added.map_or(1, |(_, repeat)| repeat);
    let added = added.map(|(added, _)| held(added)).transpose()?;
    let aligned = [Some(&input), Some(&weight), Some(&bias), added.as_ref()];
    let aligned = aligned.into_iter().flatten().all(Held::aligned);
    let channels = x.dims().last().copied().unwrap_or_default();
    let rows = x.elem_count() / channels.max(1);
    let out = Output::new(device, x.dtype(), x.elem_count())?;
    let vector = 16 / x.dtype().size_in_bytes();
    let shape = (aligned && channels % vector == 0).then(|| lanes(channels / vector)).flatten();
    note("layer_norm", if shape.is_some() { "rows" } else { "blocks" }, None);
    profile::mark(|| format!("layer_norm {rows}x{channels}"));
    if rows == 0 {
        return Ok(Some(out.tensor(x.dims())));
    }
    let count = |what: usize| {
        i32::try_from(what).map_err(|_| KernelError::shape("layer_norm", "extents below 2^31", what))
    };
    let params = LayerParams {
        x: input.address()?,
        out: out.address,
        weight: weight.address()?,
        bias: bias.address()?,
        added: added.as_ref().map_or(Ok(0), Held::address)?,
        rows: rows as i64,
        repeat: repeat.max(1) as i64,
        channels: count(channels)?,
        lanes: count(shape.map_or(0, |(lanes, _)| lanes))?,
        period: count(period)?,
        eps: eps as f32,
    };
    let (name, blocks) = match shape {
        Some((lanes, vectors)) => (format!("layer_norm_{vectors}"), rows.div_ceil(256 / lanes)),
        None => ("layer_norm_any".into(), rows.min(1 << 16)),
    };
    let blocks = u32::try_from(blocks)
        .ok()
        .filter(|blocks| *blocks < 1 << 31)
        .ok_or_else(|| KernelError::shape("layer_norm", "fewer than 2^31 blocks of rows", rows))?;
    let kernel = function(device, "norm", element, &name, 0)?;
    // SAFETY: the operands are held past the launch and contiguous, the caller checked the extents, and
    // the output is as large as `x`.
    unsafe { launch(&device.cuda_stream(), &kernel, (blocks, 256, 0), &params)? };
    Ok(Some(out.tensor(x.dims())))
}

/// Lanes of a row and vectors of a lane for rows of so many vectors; `None` beyond ten a lane.
pub(super) fn lanes(vectors: usize) -> Option<(usize, usize)> {
    let fits = |lanes: usize| {
        let need = vectors.div_ceil(lanes).max(1);
        [1, 2, 3, 4, 5, 6, 8, 10].into_iter().find(|v| *v >= need).map(|v| (lanes, v))
    };
    // Fewest idle places; of equals the most lanes, whose loads are the most at once.
    [32, 16, 8]
        .into_iter()
        .filter_map(fits)
        .filter(|(lanes, v)| *lanes == 32 || *v <= 6)
        .min_by_key(|(lanes, v)| lanes * v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fill_their_lanes() {
        assert_eq!(lanes(40), Some((8, 5)));
        assert_eq!(lanes(80), Some((16, 5)));
        assert_eq!(lanes(160), Some((32, 5)));
        assert_eq!(lanes(96), Some((32, 3)));
        assert_eq!(lanes(1), Some((8, 1)));
        assert_eq!(lanes(320), Some((32, 10)));
        assert_eq!(lanes(321), None);
    }

    #[test]
    fn one_wave_of_blocks_covers_every_point() {
        for (samples, points, vectors) in
            [(32, 4096, 40), (2, 65536, 40), (32, 64, 320), (1, 1, 1), (300, 7, 1000)]
        {
            let cut = Cut::new(samples, points, vectors, 132);
            assert!(cut.chunks * cut.chunk_points >= points && (cut.chunks - 1) * cut.chunk_points < points);
            assert!(cut.threads() <= 512 && cut.lines >= 1, "{cut:?}");
            assert!(samples > 264 || samples * cut.chunks <= 264, "{cut:?}");
        }
        assert_eq!(Cut::new(32, 4096, 40, 132).chunks, 8);
    }
}
