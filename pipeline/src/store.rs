//! What lies on disk: atomic files, contained paths, the cache, models and assets.

pub mod atomic;
pub mod model_source;
pub mod paths;
