//! Group norms whose samples fit the shared memory of a few multiprocessors: `cuda/group_once.cu`.

use candle_core::cuda_backend::cudarc::driver::DeviceRepr;

/// `OnceParams` of `cuda/group_once.cu`, field by field.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct OnceParams {
    pub(super) x: u64,
    pub(super) rest: u64,
    pub(super) out: u64,
    pub(super) weight: u64,
    pub(super) bias: u64,
    pub(super) added: u64,
    pub(super) scale: u64,
    pub(super) shift: u64,
    pub(super) points: i32,
    pub(super) channels: i32,
    pub(super) split: i32,
    pub(super) width: i32,
    pub(super) slabs: i32,
    pub(super) slab_groups: i32,
    pub(super) added_samples: i32,
    pub(super) activation: i32,
    pub(super) eps: f32,
}

// SAFETY: plain numbers in C layout, the same as the kernels' parameter.
unsafe impl DeviceRepr for OnceParams {}

/// Threads of a block.
pub(super) const THREADS: u32 = 256;

/// How a sample is cut: some neighbouring groups and a piece of the points a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fit {
    pub(super) slab_groups: usize,
    /// Blocks that share the points: 1, 2, 4 or 8.
    pub(super) cluster: usize,
    pub(super) shared_bytes: u32,
}

impl Fit {
    /// For 16-bit samples `[points, channels]`; `None` for those that are too large, or whose groups do not
    /// begin at multiples of 16 bytes, and where two launches were measured to be faster.
    pub(super) fn new(
        samples: usize,
        points: usize,
        channels: usize,
        groups: usize,
        multiprocessors: usize,
    ) -> Option<Self> {
        let width = channels / groups.max(1);
        if width == 0 || points == 0 || samples * points * channels > MOST_VALUES {
            return None;
        }
        let mut best: Option<((usize, usize, usize, usize), Self)> = None;
        for slab_groups in (1..=groups.min(32)).filter(|n| groups.is_multiple_of(*n)) {
            let segment = 2 * slab_groups * width;
            if !segment.is_multiple_of(16) || segment > 512 {
                continue;
            }
            for cluster in [1, 2, 4, 8] {
                let piece = points.div_ceil(cluster) * segment;
                let sums = 8 * (THREADS as usize / (segment / 16)) * (segment / 2);
                let shared = piece + sums + 16 * slab_groups;
                if shared > TWO_BLOCKS {
                    continue;
                }
                let blocks = samples * (groups / slab_groups) * cluster;
                // The fewest blocks that still fill the card; of equals whole sectors of 32 bytes, few to wait for.
                let idle = (2 * multiprocessors).saturating_sub(blocks + 8);
                let cost = (idle, blocks, usize::from(!segment.is_multiple_of(32)), cluster);
                if best.is_none_or(|(least, _)| cost < least) {
                    best = Some((cost, Self { slab_groups, cluster, shared_bytes: shared as u32 }));
                }
            }
        }
        best.map(|(_, fit)| fit)
    }

    pub(super) fn kernel(self) -> &'static str {
        match self.cluster {
            1 => "group_once_1",
            2 => "group_once_2",
            4 => "group_once_4",
            _ => "group_once_8",
        }
    }
}

/// On an H200 one launch takes 0.62 to 0.9 of the time of two up to here, and more than two from 63 MB on.
const MOST_VALUES: usize = 22 << 20;

/// Shared memory of a block when two share a multiprocessor: one loads while the other stores.
const TWO_BLOCKS: usize = 113 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_the_unet_fit() {
        for (points, channels, cluster) in [(1024, 320, 2), (1024, 640, 2), (256, 1280, 1), (64, 2560, 1)] {
            let fit = Fit::new(32, points, channels, 32, 132).unwrap();
            assert_eq!((fit.cluster, fit.slab_groups * channels / 16 % 16), (cluster, 0), "{fit:?}");
        }
        assert_eq!(Fit::new(32, 4096, 320, 32, 132), None);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(Fit::new(2, 65_536, 320, 32, 132), None);
        assert_eq!(Fit::new(1, 64, 36, 6, 132), None);
        assert_eq!(Fit::new(1, 0, 64, 32, 132), None);
    }

    #[test]
    fn blocks_keep_to_their_share() {
        for points in [1, 7, 100, 1000, 4096, 16_384] {
            for channels in [32, 64, 128, 320, 512, 960, 1280, 2560] {
                let Some(fit) = Fit::new(2, points, channels, 32, 132) else { continue };
                let segment = 2 * fit.slab_groups * channels / 32;
                assert!(
                    fit.shared_bytes as usize <= TWO_BLOCKS
                        && segment.is_multiple_of(16)
                        && 32usize.is_multiple_of(fit.slab_groups)
                );
                assert!(segment / 16 <= THREADS as usize);
            }
        }
    }
}
