//! What lies on disk: atomic files, contained paths, the cache, models and assets.

pub mod atomic;
pub mod paths;
pub mod model_source;
