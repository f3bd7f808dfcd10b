//! `kinora models`

use kinora_pipeline::store::hub::HubOptions;
use kinora_pipeline::store::model_store::{ModelStore, ModelStoreError, Presence};

use crate::cli::ModelsCommand;
use crate::failure::{Failure, Kind, OrFail as _, Outcome};
use crate::output::{say, table};
use crate::progress::{human_bytes, watcher};
use crate::signals::Interrupt;

pub(crate) fn run(command: &ModelsCommand) -> Outcome {
    let mut options = HubOptions::from_env();
    if let ModelsCommand::Pull { offline: true, .. } = command {
        options.offline = true;
    }
    let store = ModelStore::new(&ModelStore::default_root(), options).map_err(failure)?;
    match command {
        ModelsCommand::List => list(&store),
        ModelsCommand::Pull { model, .. } => pull(&store, model),
        ModelsCommand::Verify { model } => verify(&store, model),
        ModelsCommand::Rm { model } => {
            let freed = store.remove(model).map_err(failure)?;
            say(format!("removed {model}, {} freed", human_bytes(freed)));
            Ok(())
        }
    }
}

fn failure(error: ModelStoreError) -> Failure {
    Failure::new(Kind::Unavailable, error)
}

fn list(store: &ModelStore) -> Outcome {
    let mut rows = vec![["id", "state", "size", "needs", "what", "licence"].map(str::to_owned).to_vec()];
    rows.push(
        ["embedded", "built in", "", "", "kinora-mini: Follow-Your-Click", "see assets/LICENSES.md"]
            .map(str::to_owned)
            .to_vec(),
    );
    for model in store.list().map_err(failure)? {
        let state = match model.presence {
            Presence::Absent => "not here",
            Presence::Partial => "partial",
            Presence::Present => "installed",
        };
        let size = if model.bytes > 0 { human_bytes(model.bytes) } else { String::new() };
        rows.push(vec![model.id, state.to_owned(), size, model.needs.join(" "), model.title, model.licence]);
    }
    table(&rows);
    Ok(())
}

fn pull(store: &ModelStore, model: &str) -> Outcome {
    let interrupt = Interrupt::install().or_fail(Kind::Io)?;
    let progress = watcher(None, interrupt.token.clone());
    let result = store.pull(model, progress.as_ref());
    drop(progress);
    if interrupt.token.is_cancelled() {
        let message = format!("interrupted; `kinora models pull {model}` continues where it stopped");
        return Err(Failure::message(Kind::Interrupted(interrupt.exit_code()), message));
    }
    let files = result.map_err(failure)?;
    say(format!("{} is in {}", files.id, files.root.display()));
    Ok(())
}

fn verify(store: &ModelStore, model: &str) -> Outcome {
    let report = store.verify(model).map_err(failure)?;
    for file in &report.sound {
        say(format!("sound    {file}"));
    }
    for (file, problem) in &report.damaged {
        say(format!("DAMAGED  {file}: {problem}"));
    }
    if report.damaged.is_empty() {
        return Ok(());
    }
    Err(Failure::message(Kind::Different, format!("{model} is damaged; remove it and pull it again")))
}
