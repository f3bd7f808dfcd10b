//! What lies on disk: atomic files, contained paths, the cache, models and assets.

pub mod assets;
pub mod atomic;
<<<<<<< HEAD
pub mod hub;
=======
pub mod cache;
>>>>>>> fae46c0 (Read, plan, run and prove documents)
pub mod model_source;
pub mod model_store;
pub mod paths;
pub mod registry;
pub mod safetensors_guard;
