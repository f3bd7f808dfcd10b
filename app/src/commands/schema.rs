//! `kinora schema`

use kinora_pipeline::workflow::schema_text;

use crate::failure::Outcome;
use crate::output::say;

pub(crate) fn run() -> Outcome {
    say(schema_text().trim_end());
    Ok(())
}
