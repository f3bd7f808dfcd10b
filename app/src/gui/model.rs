//! What the window edits, without any window: the document with its history, its files, its jobs.

pub(crate) mod changes;
pub(crate) mod edit;
pub(crate) mod film;
pub(crate) mod framing;
pub(crate) mod history;
pub(crate) mod journal;
pub(crate) mod keys;
pub(crate) mod marks;
pub(crate) mod media;
pub(crate) mod patch;
pub(crate) mod places;
pub(crate) mod project;
pub(crate) mod queue;
pub(crate) mod scene;
pub(crate) mod settings;
pub(crate) mod takes;
pub(crate) mod timeline;
pub(crate) mod weights;
