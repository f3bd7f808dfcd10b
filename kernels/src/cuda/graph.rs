//! Work recorded once and repeated: a CUDA graph of many small launches starts as one.

use std::fmt;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::CudaGraph;
use candle_core::cuda_backend::cudarc::driver::sys::{
    CUgraphInstantiate_flags as Flags, CUstreamCaptureMode as Mode,
};
use candle_core::{Device, Tensor};

use crate::error::{KernelError, Result};

/// A recorded function of tensors on a card.
///
/// Everything the function reads besides its inputs, such as weights, must stay where it is and as
/// it is: keep the network alive and unchanged. The function must not wait for the card, read back
/// from it, or upload more than a few kilobytes.
pub struct Recorded {
    graph: CudaGraph,
    inputs: Vec<Tensor>,
    output: Tensor,
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded").field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

impl Recorded {
    /// Runs `f` on copies of `inputs` as usual, to load kernels and choose algorithms, then records it.
    ///
    /// # Errors
    /// [`KernelError::NoCuda`] off a card, what `f` returns, or the driver's refusal to record it.
    pub fn new<E: From<KernelError>>(
        device: &Device,
        inputs: &[Tensor],
        f: impl Fn(&[Tensor]) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<Self, E> {
        let Device::Cuda(cuda) = device else {
            return Err(KernelError::NoCuda { reason: "the device is not a card".into() }.into());
        };
        let tensor = KernelError::Tensor;
        let inputs =
            inputs.iter().map(Tensor::copy).collect::<candle_core::Result<Vec<_>>>().map_err(tensor)?;
        let _cached = cuda.enable_cuda_graph_htod_cache();
        let output = f(&inputs)?.contiguous().and_then(|y| y.copy()).map_err(tensor)?;
        device.synchronize().map_err(tensor)?;
        let stream = cuda.cuda_stream();
        stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).w().map_err(tensor)?;
        // The result's memory belongs to the graph, so it is copied out and given back within it.
        let recorded = f(&inputs).and_then(|y| {
            y.contiguous().and_then(|y| output.slice_set(&y, 0, 0)).map_err(|e| E::from(tensor(e)))
        });
        let graph = stream.end_capture(Flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
        recorded?;
        let graph = graph
            .w()
            .map_err(tensor)?
            .ok_or_else(|| tensor(candle_core::Error::Msg("the driver recorded no work".into()).bt()))?;
        Ok(Self { graph, inputs, output })
    }

    /// The result for other inputs of the same shapes and types, as the function itself would give it.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for another number of inputs; what the tensor library or the driver says.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Tensor> {
        if inputs.len() != self.inputs.len() {
            return Err(KernelError::shape(
                "recorded",
                format!("{} inputs", self.inputs.len()),
                inputs.len(),
            ));
        }
        for (to, from) in self.inputs.iter().zip(inputs) {
            if to.dims() != from.dims() {
                return Err(KernelError::shape("recorded", format!("an input {:?}", to.dims()), from.dims()));
            }
            to.slice_set(&from.contiguous()?, 0, 0)?;
        }
        self.graph.launch().w()?;
        Ok(self.output.copy()?)
    }
}
