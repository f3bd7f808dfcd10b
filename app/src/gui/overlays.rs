//! What lies over the panels: messages, dialogs, the command palette, the first screen.

pub(crate) mod export;
pub(crate) mod help;
pub(crate) mod missing;
pub(crate) mod modal;
pub(crate) mod palette;
pub(crate) mod toasts;
pub(crate) mod welcome;
