//! Latents to pixels within the memory there is.

use candle_core::Tensor;

use crate::nets::AutoencoderKl;
use crate::nets::tiling::TileSpec;
use crate::nets::weights::NetError;

/// One frame of latents `[1, h, w, c]` as pixels `[1, H, W, 3]`, and whether it took overlapping tiles: the way of a
/// card without memory for the whole frame. Tiles have norms of their own, so a clip must not change between the ways:
/// `tiled` begins with them.
///
/// # Errors
/// The network's.
pub(super) fn decode(vae: &AutoencoderKl, latents: &Tensor, tiled: bool) -> Result<(Tensor, bool), NetError> {
    if !tiled {
        match vae.decode(latents) {
            Err(error) if latents.device().is_cuda() && out_of_memory(&error) => {}
            decoded => return decoded.map(|pixels| (pixels, false)),
        }
    }
    vae.decode_tiled(latents, TileSpec::default()).map(|pixels| (pixels, true))
}

/// Whether the driver had no memory left. Nothing typed tells: the driver's name for it is in the text.
fn out_of_memory(error: &NetError) -> bool {
    error.to_string().contains("OUT_OF_MEMORY")
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::VarBuilder;

    use super::*;
    use crate::nets::AutoencoderKlConfig;
    use crate::sampling::noise::normal;

    /// The small autoencoder of a committed pipeline.
    fn autoencoder(device: &Device, dtype: DType) -> AutoencoderKl {
        let file = include_bytes!("../../../../tests/fixtures/pipeline/animatediff.safetensors");
        let all = candle_core::safetensors::load_buffer(file, device).unwrap();
        let weights =
            all.into_iter().filter_map(|(name, x)| Some((name.strip_prefix("vae.")?.to_owned(), x)));
        let config = AutoencoderKlConfig {
            block_out_channels: vec![8, 8],
            layers_per_block: 1,
            norm_num_groups: 2,
            ..AutoencoderKlConfig::default()
        };
        AutoencoderKl::new(&config, VarBuilder::from_tensors(weights.collect(), dtype, device)).unwrap()
    }

    #[test]
    fn a_clip_that_began_in_tiles_goes_on_in_tiles() {
        let vae = autoencoder(&Device::Cpu, DType::F32);
        let latents = normal(2, 0, &[1, 80, 16, 4]).unwrap();
        let (whole, tiled) = decode(&vae, &latents, false).unwrap();
        assert!(!tiled);
        let (pieces, tiled) = decode(&vae, &latents, true).unwrap();
        assert!(tiled);
        assert_eq!(whole.dims(), pieces.dims());
        assert_eq!(pieces.dims(), &[1, 160, 32, 3]);
    }

    #[test]
    fn other_failures_stay_failures() {
        let vae = autoencoder(&Device::Cpu, DType::F32);
        let error = decode(&vae, &Tensor::zeros((1, 8, 8, 3), DType::F32, &Device::Cpu).unwrap(), false);
        assert!(!out_of_memory(&error.unwrap_err()));
    }

    #[cfg(feature = "cuda")]
    #[test]
    #[allow(clippy::print_stderr)]
    fn a_card_without_memory_for_the_frame_decodes_tiles() {
        let card = match kinora_kernels::open_cuda(0) {
            Ok(card) => card,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        let vae = autoencoder(&card, DType::F16);
        let latents = normal(2, 0, &[1, 1024, 1024, 4]).unwrap();
        let latents = latents.to_dtype(DType::F16).unwrap().to_device(&card).unwrap();
        let (whole, tiled) = decode(&vae, &latents, false).unwrap();
        assert!(!tiled);
        let whole = whole.to_dtype(DType::F32).unwrap().to_device(&Device::Cpu).unwrap();
        card.synchronize().unwrap();
        // Everything the card has left, in pieces of 64 MiB: less than one level of the frame needs.
        let mut ballast = Vec::new();
        while let Ok(piece) = Tensor::zeros(1 << 26, DType::U8, &card) {
            ballast.push(piece);
        }
        ballast.truncate(ballast.len() - 2);
        let (pieces, tiled) = decode(&vae, &latents, false).unwrap();
        assert!(tiled, "the frame fitted beside {} pieces", ballast.len());
        let filled = ballast.len();
        drop(ballast);
        let pieces = pieces.to_dtype(DType::F32).unwrap().to_device(&Device::Cpu).unwrap();
        let apart = (pieces - &whole).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        let power = whole.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        eprintln!("{filled} pieces of ballast, {:.1} dB under the picture", 10.0 * (power / apart).log10());
        assert!(apart < 0.05 * power);
    }
}
