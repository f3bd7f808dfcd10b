//! Ctrl-C and SIGTERM ask the job to stop; the job answers at its next poll.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use kinora_pipeline::progress::CancelToken;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Remembers which signal cancelled, for the exit code.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    pub(crate) token: CancelToken,
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Installs the handlers. A second signal of the same kind ends the process at once, in case
    /// the job does not answer.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let interrupt = Self { token: CancelToken::default(), signal: Arc::default() };
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])
            .context("the handler for Ctrl-C could not be installed")?;
        let seen = interrupt.clone();
        std::thread::spawn(move || {
            for signal in signals.forever() {
                if seen.signal.swap(signal.unsigned_abs() as usize, Ordering::SeqCst) != 0 {
                    std::process::exit(128 + signal);
                }
                seen.token.cancel();
            }
        });
        Ok(interrupt)
    }

    /// `128 + signal`: 130 for Ctrl-C, 143 for SIGTERM.
    pub(crate) fn exit_code(&self) -> u8 {
        let signal = self.signal.load(Ordering::SeqCst);
        128 + u8::try_from(if signal == 0 { SIGINT.unsigned_abs() as usize } else { signal }).unwrap_or(2)
    }
}
