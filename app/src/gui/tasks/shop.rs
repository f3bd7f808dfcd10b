//! The models, loaded once and shared by every thread.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cli::DeviceChoice;
use crate::engines::Machinery;
use crate::session;

/// Machinery with the device it was made for.
type Made = Mutex<Option<(DeviceChoice, Arc<Machinery>)>>;

/// The models of one folder. What plans and cuts masks has its own, on the processor, so that nothing of it lies on a
/// card and a job that stops can leave the card empty.
pub(crate) struct Shop {
    models: PathBuf,
    device: Mutex<DeviceChoice>,
    plans: Made,
    renders: Made,
}

// A poisoned lock only costs loading a model again.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shop {
    /// The models below `models`, to render on `device`. Loads nothing yet.
    pub(crate) fn new(models: &Path, device: DeviceChoice) -> Self {
        Self {
            models: models.to_path_buf(),
            device: Mutex::new(device),
            plans: Made::default(),
            renders: Made::default(),
        }
    }

    /// Renders on another device from the next job on.
    pub(crate) fn set_device(&self, device: DeviceChoice) {
        *lock(&self.device) = device;
        // What a job holds is its own until it ends.
        if let Ok(mut made) = self.renders.try_lock() {
            let_go(made.take());
        }
    }

    /// What plans are made and masks are cut with.
    ///
    /// # Errors
    /// A models folder that cannot be used; no device is opened.
    pub(crate) fn for_plans(&self) -> Result<Arc<Machinery>, String> {
        self.made(&self.plans, |device| Machinery::for_plans(session::location(device), &self.models))
    }

    /// What jobs render with, on the device that is chosen.
    ///
    /// # Errors
    /// A card that this build or machine does not have.
    pub(crate) fn for_renders(&self) -> Result<Arc<Machinery>, String> {
        self.made(&self.renders, |device| Machinery::new(session::device(device)?, &self.models))
    }

    fn made(
        &self,
        made: &Made,
        make: impl FnOnce(DeviceChoice) -> Result<Machinery, crate::failure::Failure>,
    ) -> Result<Arc<Machinery>, String> {
        let wanted = *lock(&self.device);
        let mut made = lock(made);
        if let Some((device, machinery)) = made.as_ref()
            && *device == wanted
        {
            return Ok(Arc::clone(machinery));
        }
        let_go(made.take());
        let machinery = Arc::new(make(wanted).map_err(|failure| failure.render())?);
        *made = Some((wanted, Arc::clone(&machinery)));
        Ok(machinery)
    }

    /// Lets go of everything that renders hold: weights, tensors, and what the card's driver kept of them.
    pub(crate) fn free_renders(&self) {
        let_go(lock(&self.renders).take());
    }

    /// Looks at the models anew, because some came or went.
    pub(crate) fn look_again(&self) {
        lock(&self.plans).take();
        // Never wait for a job that opens its device: it looks at the models after that.
        if let Ok(mut made) = self.renders.try_lock() {
            let_go(made.take());
        }
    }

    /// What renders hold now, without holding it.
    #[cfg(test)]
    pub(crate) fn held(&self) -> Option<std::sync::Weak<Machinery>> {
        lock(&self.renders).as_ref().map(|(_, machinery)| Arc::downgrade(machinery))
    }
}

fn let_go(made: Option<(DeviceChoice, Arc<Machinery>)>) {
    let Some((_, machinery)) = made else { return };
    let device = machinery.device().clone();
    drop(machinery);
    session::free_memory(&device);
}

impl std::fmt::Debug for Shop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shop")
    }
}
