//! How a shot is rendered, and where its clip goes.

use kinora_pipeline::workflow::ModelName;
use serde_json::Value;

use super::{EditError, Project, field, shot_of};

/// The parameters that only public checkpoints have a use for; the embedded model refuses them.
const PUBLIC_ONLY: [&str; 5] =
    ["negative_prompt", "guidance_scale", "sampler", "working_size", "pin_background"];

/// Sets or removes a parameter of a shot.
pub(crate) fn set_shot(
    project: &mut Project,
    item: &str,
    name: &'static str,
    value: Option<Value>,
) -> Result<(), EditError> {
    let (_, shot) = shot_of(project.scene(), item)?;
    let shot = shot.node.clone();
    project.edit(&format!("Change {name}"), Some(&format!("{name} {shot}")), |edit| {
        Ok(edit.set_or_remove(field(&shot, name), value)?)
    })
}

/// Sets or removes a parameter of the node that saves a shot's clip.
pub(crate) fn set_output(
    project: &mut Project,
    output: &str,
    name: &'static str,
    value: Option<Value>,
) -> Result<(), EditError> {
    let output = output.to_owned();
    project.edit("Change export", Some(&format!("{name} {output}")), |edit| {
        Ok(edit.set_or_remove(field(&output, name), value)?)
    })
}

/// Renders a shot with another model. Parameters that the embedded model has no use for go with the model that had.
pub(crate) fn set_model(project: &mut Project, item: &str, model: &str) -> Result<(), EditError> {
    let (_, shot) = shot_of(project.scene(), item)?;
    let shot = shot.node.clone();
    project.edit("Change model", None, |edit| {
        edit.set(field(&shot, "model"), model)?;
        if model == ModelName::EMBEDDED {
            for name in PUBLIC_ONLY {
                edit.set_or_remove(field(&shot, name), None)?;
            }
        }
        Ok(())
    })
}
