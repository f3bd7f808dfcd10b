//! Where a card's time goes, call by call.

use std::cell::RefCell;
use std::collections::BTreeMap;

use candle_core::Device;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, sys::CUevent_flags};
use candle_core::cuda_backend::{CudaDevice, WrapErr};

use crate::error::{KernelError, Result};

/// The calls of one name in a profile.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileRow {
    /// Operation, kernel and, where it is known, the shape.
    pub name: String,
    pub calls: usize,
    pub milliseconds: f64,
}

struct Recorder {
    device: CudaDevice,
    marks: Vec<(String, CudaEvent)>,
}

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// Notes on the stream that the work queued from here on belongs to `name`.
pub(crate) fn mark(name: impl FnOnce() -> String) {
    RECORDER.with(|recorder| {
        if let Some(recorder) = recorder.borrow_mut().as_mut() {
            let stream = recorder.device.cuda_stream();
            // A card that cannot record an event fails at the next launch, which tells.
            if let Ok(event) = stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)) {
                recorder.marks.push((name(), event));
            }
        }
    });
}

/// Runs `f` and tells what the card spent its time on, longest first. Time between one call of ours and
/// the next is the first one's, so plain tensor operations count for what ran before them.
///
/// # Errors
/// [`KernelError::NoCuda`] for a device that is no card; what `f` or the driver returned.
pub fn profiled<T, E: From<KernelError>>(
    device: &Device,
    f: impl FnOnce() -> std::result::Result<T, E>,
) -> std::result::Result<(T, Vec<ProfileRow>), E> {
    let Device::Cuda(cuda) = device else {
        return Err(KernelError::NoCuda { reason: "the device is not a card".into() }.into());
    };
    RECORDER.with(|recorder| {
        *recorder.borrow_mut() = Some(Recorder { device: cuda.clone(), marks: Vec::new() });
    });
    mark(|| "before the first call".into());
    let result = f();
    mark(String::new);
    let marks = RECORDER.with(|recorder| recorder.borrow_mut().take()).map(|r| r.marks).unwrap_or_default();
    Ok((result?, rows(device, &marks)?))
}

fn rows(device: &Device, marks: &[(String, CudaEvent)]) -> Result<Vec<ProfileRow>> {
    device.synchronize()?;
    let mut rows: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
    for pair in marks.windows(2) {
        if let [(name, start), (_, end)] = pair {
            let row = rows.entry(name).or_default();
            row.0 += 1;
            row.1 += f64::from(start.elapsed_ms(end).w()?);
        }
    }
    let mut rows: Vec<ProfileRow> = rows
        .into_iter()
        .map(|(name, (calls, milliseconds))| ProfileRow { name: name.to_owned(), calls, milliseconds })
        .collect();
    rows.sort_by(|a, b| b.milliseconds.total_cmp(&a.milliseconds));
    Ok(rows)
}
