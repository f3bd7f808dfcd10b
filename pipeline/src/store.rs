//! What lies on disk: atomic files, contained paths, the cache, models and assets.

pub mod assets;
pub mod atomic;
pub mod cache;
pub mod disk;
pub mod hub;
pub mod model_source;
pub mod model_store;
pub mod paths;
pub mod registry;
pub mod safetensors_guard;
