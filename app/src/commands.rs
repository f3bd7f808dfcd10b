//! One file a subcommand.

pub(crate) mod animate;
pub(crate) mod bench;
pub(crate) mod bench_attention;
pub(crate) mod eval;
pub(crate) mod models;
pub(crate) mod render;
pub(crate) mod schema;
pub(crate) mod validate;
pub(crate) mod verify;
