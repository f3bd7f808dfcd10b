//! Our operations as nodes of candle's graph, so that `Tensor::backward` goes through them.
//!
//! A kernel computes its result from detached operands exactly as it does for inference; [`record`] then
//! ties the result to the operands that want a gradient. Nothing is kept for a call whose operands want
//! none, and gradients nobody wants are not computed: candle's own products compute both.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, InplaceOp1, Layout, Result, Shape,
    Storage, Tensor,
};

use crate::cpu::view::ours;

/// One gradient an operand, `None` where it wants none.
pub(crate) type Gradients = Vec<Option<Tensor>>;

/// Whether any of the operands wants a gradient.
pub(crate) fn tracked<'a>(operands: impl IntoIterator<Item = &'a Tensor>) -> bool {
    operands.into_iter().any(Tensor::track_op)
}

/// Whether operands like `x` have kernels of ours; others are composed of candle's own operations, which
/// are differentiable by themselves.
pub(crate) fn fused(x: &Tensor) -> bool {
    #[cfg(feature = "cuda")]
    if crate::cuda::device(x).is_some() {
        return true;
    }
    ours(x)
}

/// Ties `out`, fresh and held by nobody else, to `operands`.
///
/// `backward` gets the gradient of `out`, contiguous, and `out`, both without a graph behind them, and
/// returns as many gradients as there are operands; those of operands that want none are ignored.
pub(crate) fn record(
    name: &'static str,
    operands: &[&Tensor],
    out: Tensor,
    backward: impl Fn(&Tensor, &Tensor) -> crate::error::Result<Gradients> + Send + Sync + 'static,
) -> crate::error::Result<Tensor> {
    let backward = move |grad: &Tensor, out: &Tensor| -> Result<Gradients> {
        Ok(backward(&grad.detach().contiguous()?, &out.detach())?)
    };
    Ok(node(name, operands, out, Box::new(backward))?)
}

fn node(name: &'static str, operands: &[&Tensor], out: Tensor, backward: Backward) -> Result<Tensor> {
    let wanted: Vec<usize> = (0..operands.len()).filter(|i| operands[*i].track_op()).collect();
    // Of the operands that want one.
    let gradients = {
        let wanted = wanted.clone();
        move |grad: &Tensor, out: &Tensor| -> Result<Gradients> {
            let mut all = backward(grad, out)?;
            Ok(wanted.iter().map(|i| all.get_mut(*i).and_then(Option::take)).collect())
        }
    };
    let fill = |gradients: Backward| -> Result<Node> {
        let slot = Take(Mutex::new(None));
        out.inplace_op1(&slot)?;
        Ok(Node { name, shape: out.shape().clone(), storage: slot.0, gradients })
    };
    match *wanted.as_slice() {
        [] => Ok(out),
        [a] => operands[a].apply_op1(fill(Box::new(gradients))?),
        [a, b] => operands[a].apply_op2(operands[b], fill(Box::new(gradients))?),
        [a, b, c] => operands[a].apply_op3(operands[b], operands[c], fill(Box::new(gradients))?),
        [a, b, ref rest @ ..] => {
            // candle's nodes have three operands at most. The others hang on a token, which comes after
            // this node on the way back and hands out what was computed here.
            let left = Arc::new(Mutex::new(Gradients::new()));
            let others: Vec<&Tensor> = rest.iter().map(|i| operands[*i]).collect();
            let kept = left.clone();
            let nothing = Tensor::zeros(1, DType::F32, out.device())?;
            let zero = nothing.copy()?;
            let hand_out = move |_: &Tensor, _: &Tensor| {
                Ok(std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner)))
            };
            let token = node(name, &others, nothing, Box::new(hand_out))?;
            let first = move |grad: &Tensor, out: &Tensor| -> Result<Gradients> {
                let mut all = gradients(grad, out)?;
                let rest = all.split_off(2);
                *left.lock().unwrap_or_else(PoisonError::into_inner) = rest;
                all.push(Some(zero.clone()));
                Ok(all)
            };
            operands[a].apply_op3(operands[b], &token, fill(Box::new(first))?)
        }
    }
}

/// Moves a tensor's memory out of it: candle's custom operations return memory, not tensors.
struct Take(Mutex<Option<Storage>>);

impl Take {
    fn put(&self, storage: Storage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(storage);
    }
}

impl InplaceOp1 for Take {
    fn name(&self) -> &'static str {
        "take"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        self.put(Storage::Cpu(std::mem::replace(storage, CpuStorage::F32(Vec::new()))));
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &mut CudaStorage, _: &Layout) -> Result<()> {
        let empty = crate::cuda::nothing(&storage.device)?;
        self.put(Storage::Cuda(std::mem::replace(storage, empty)));
        Ok(())
    }
}

type Backward = Box<dyn Fn(&Tensor, &Tensor) -> Result<Gradients> + Send + Sync>;

struct Node {
    name: &'static str,
    shape: Shape,
    /// The result until the graph has taken it.
    storage: Mutex<Option<Storage>>,
    gradients: Backward,
}

impl Node {
    fn cpu(&self) -> Result<(CpuStorage, Shape)> {
        match self.storage.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(Storage::Cpu(storage)) => Ok((storage, self.shape.clone())),
            _ => Err(self.misplaced()),
        }
    }

    fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        match self.storage.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(Storage::Cuda(storage)) => Ok((storage, self.shape.clone())),
            _ => Err(self.misplaced()),
        }
    }

    fn misplaced(&self) -> candle_core::Error {
        let message = format!("{}: an operand that wants a gradient is on another device", self.name);
        candle_core::Error::Msg(message).bt()
    }
}

impl CustomOp1 for Node {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(&self, _: &Tensor, out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok((self.gradients)(grad, out)?.pop().flatten())
    }
}

impl CustomOp2 for Node {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut all = (self.gradients)(grad, out)?.into_iter();
        Ok((all.next().flatten(), all.next().flatten()))
    }
}

impl CustomOp3 for Node {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut all = (self.gradients)(grad, out)?.into_iter();
        Ok((all.next().flatten(), all.next().flatten(), all.next().flatten()))
    }
}
