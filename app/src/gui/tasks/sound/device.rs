//! The system's sound device.

use std::sync::Arc;
use std::time::Instant;

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{BufferSize, FromSample, SampleFormat, SizedSample, Stream, StreamConfig, SupportedBufferSize};
use kinora_pipeline::media::SOUND_RATE;

use super::Shared;

/// Moments the device takes at once: enough to bear a busy machine. The picture allows for the delay.
const BUFFER: u32 = 4096;

/// A device that takes sound as long as this lives.
pub(super) struct Device {
    _stream: Stream,
    /// Moments a second it takes.
    pub(super) rate: u32,
}

impl Device {
    /// Opens the usual output; with the rate of all sound here where it has that.
    pub(super) fn open(shared: &Arc<Shared>) -> Result<Self, String> {
        let device = cpal::default_host().default_output_device().ok_or("there is no device for sound")?;
        let usual = device.default_output_config().map_err(|error| error.to_string())?;
        let ours = device.supported_output_configs().ok().and_then(|mut all| {
            all.find_map(|range| {
                let fits = range.channels() == 2 && range.sample_format() == SampleFormat::F32;
                fits.then(|| range.try_with_sample_rate(SOUND_RATE)).flatten()
            })
        });
        let chosen = ours.unwrap_or(usual);
        let (format, mut config) = (chosen.sample_format(), chosen.config());
        if let SupportedBufferSize::Range { min, max } = *chosen.buffer_size() {
            config.buffer_size = BufferSize::Fixed(BUFFER.clamp(min, max));
        }
        let stream = match format {
            SampleFormat::F32 => build::<f32>(&device, config, shared),
            SampleFormat::I16 => build::<i16>(&device, config, shared),
            SampleFormat::I32 => build::<i32>(&device, config, shared),
            SampleFormat::U16 => build::<u16>(&device, config, shared),
            SampleFormat::U8 => build::<u8>(&device, config, shared),
            other => return Err(format!("the device takes {other} samples, which are not made here")),
        }?;
        stream.play().map_err(|error| error.to_string())?;
        Ok(Self { _stream: stream, rate: config.sample_rate })
    }
}

fn build<T: SizedSample + FromSample<f32>>(
    device: &cpal::Device,
    config: StreamConfig,
    shared: &Arc<Shared>,
) -> Result<Stream, String> {
    let (theirs, lost) = (Arc::clone(shared), Arc::clone(shared));
    let channels = usize::from(config.channels);
    let mut samples: Vec<f32> = vec![];
    let stream = device.build_output_stream::<T, _, _>(
        config,
        move |out, info| {
            let times = info.timestamp();
            let delay = times.playback.checked_duration_since(times.callback).unwrap_or_default();
            samples.resize(out.len(), 0.0);
            theirs.take(&mut samples, channels, delay);
            for (to, sample) in out.iter_mut().zip(&samples) {
                *to = T::from_sample(*sample);
            }
        },
        move |error| {
            tracing::warn!("the sound device: {error}");
            // Of the rest a stream recovers by itself; anything else it may say for ever.
            use cpal::ErrorKind::{DeviceChanged, RealtimeDenied, Xrun};
            if !matches!(error.kind(), DeviceChanged | RealtimeDenied | Xrun) {
                lost.lock().refused = Some(Instant::now());
            }
        },
        None,
    );
    stream.map_err(|error| error.to_string())
}
