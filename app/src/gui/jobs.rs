//! Asking for clips, and what happens when they are there.

use kinora_pipeline::store::cache::Cache;
use kinora_pipeline::workflow::Clip;
use serde_json::json;

use super::layout::Pane;
use super::model::marks::Marked;
use super::model::patch::place;
use super::model::places::unix_now;
use super::model::queue::{Ending, Job, Order, Phase, Purpose};
use super::model::takes::{self, MAX_TAKES, Take};
use super::model::{changes, media};
use super::overlays::toasts::Kind;
use super::state::State;
use super::tasks::player::Film;
use super::tasks::runner::{Live, News};

/// The greatest seed that every reader of JSON keeps exactly.
const LAST_SEED: u64 = (1 << 53) - 1;

impl State {
    /// Makes the clip of the chosen shot.
    pub(crate) fn animate(&mut self) {
        self.close_gesture();
        let (Some(project), Some(item)) = (&self.project, self.item()) else { return };
        let Some(shot) = &item.shot else { return };
        let (folder, document) = (project.folder(), project.value().clone());
        let (title, purpose) = (item.name.clone(), Purpose::Take { shot: shot.node.clone() });
        let order = Order { title: &title, purpose, document, folder: &folder, out: None, force: false };
        let id = self.runner.change(|queue| queue.add(order));
        self.monitor.watch(id);
    }

    /// Makes the clip of the chosen shot once more with a seed it was not made with yet.
    pub(crate) fn retake(&mut self) {
        let Some(shot) = self.item().and_then(|item| item.shot.as_ref()) else { return };
        let made = self.takes();
        let used = made.iter().filter_map(|take| take.summary(&shot.node).1).chain([shot.spec.seed]);
        let seed = used.max().unwrap_or(0).saturating_add(1).min(LAST_SEED);
        let id = self.choice.item.clone();
        if self.edit(|project| changes::set_shot(project, &id, "seed", Some(json!(seed)))).is_some() {
            self.animate();
        }
    }

    /// The latest take of the chosen shot whose frames are there.
    pub(crate) fn last_take(&self) -> Option<Take> {
        self.takes().into_iter().find(|take| self.has_frames(take))
    }

    /// Begins a new shot with the last frame of the chosen one.
    pub(crate) fn extend(&mut self) {
        let Some(item) = self.item().cloned() else { return };
        let (Some(shot), Some(project), Some(take)) = (&item.shot, &self.project, self.last_take()) else {
            return;
        };
        let folder = project.folder();
        let frame = || -> Result<String, String> {
            let cache = Cache::open(&self.places.cache).map_err(|error| error.to_string())?;
            let clip = take.cache_key().and_then(|key| Clip::open(&cache, &key));
            let clip = clip.ok_or("the frames of this take are gone; render it again")?;
            let last = clip.frame(clip.frames() - 1).map_err(|error| error.to_string())?;
            let name = format!("{}-continued.png", item.picture);
            media::import_picture(&folder, &name, &last).map_err(|error| error.to_string())
        };
        let name = match frame() {
            Ok(name) => name,
            Err(why) => {
                self.toasts.add(Kind::Error, why);
                return;
            }
        };
        let added = self.edit(|project| changes::add_continuation(project, &name, &shot.node));
        if let Some(id) = added {
            self.choose(&id);
            self.show_pane = Some(Pane::Canvas);
            self.toasts.add(Kind::Info, "click on what should go on moving");
        }
    }

    /// The job whose clip the program monitor shows while it is made: one that was asked for, or
    /// that of a shot there is no clip of yet.
    pub(crate) fn made_now(&self) -> Option<Live> {
        let live = self.runner.look(|_, live| live.cloned())?;
        let shown = self.item().and_then(|item| item.shot.as_ref()).map(|shot| &shot.node);
        let own = matches!(&live.purpose, Purpose::Take { shot } if Some(shot) == shown);
        let watched = self.monitor.making == Some(live.id) || (own && !self.can_play());
        watched.then_some(live)
    }

    /// Takes a waiting job out of the line and brings what it would have made into the inspector, as
    /// an edit that can be undone.
    pub(crate) fn edit_job(&mut self, id: u64) {
        let waits = |job: &&Job| job.phase == Phase::Waiting;
        let Some(job) = self.runner.look(|queue, _| queue.job(id).filter(waits).cloned()) else { return };
        if self.project.as_ref().is_none_or(|project| project.folder() != job.folder) {
            self.toasts.add(Kind::Info, "this job is of another project; open that first");
            return;
        }
        let (Purpose::Take { shot: target } | Purpose::Export { node: target }) = &job.purpose;
        let nodes = takes::nodes_of(&job.document, target);
        let brought = self.edit(|project| {
            project.edit("Edit job", None, |edit| {
                for (name, node) in nodes {
                    edit.set(place!["nodes", name.as_str()], node)?;
                }
                Ok(())
            })
        });
        if brought.is_none() {
            return;
        }
        self.runner.change(|queue| queue.remove(id));
        if let Purpose::Take { shot } = &job.purpose {
            self.choose(shot);
        }
        self.show_pane = Some(Pane::Inspector);
        self.toasts.add(Kind::Info, format!("{} is out of the line; change it and animate again", job.title));
    }

    /// Takes in what became of a job.
    pub(crate) fn job_ended(&mut self, news: News) {
        let title = news.job.title.clone();
        self.outlooks.renew();
        self.export_outlooks.renew();
        (self.films, self.changed) = (None, None);
        match (&news.ending, &news.job.purpose) {
            (Ending::Done(_), Purpose::Take { shot }) => {
                let Some(key) = news.key else { return };
                self.list_takes();
                let film = Film::Take(key);
                self.player.forget(&film);
                let shown = self.item().and_then(|item| item.shot.as_ref()).is_some_and(|s| s.node == *shot);
                if shown || self.monitor.making == Some(news.job.id) {
                    self.monitor.load(Some(film), true);
                    self.show_pane = Some(Pane::Program);
                }
                self.toasts.add(Kind::Done, format!("{title} is ready"));
            }
            (Ending::Done(files), Purpose::Export { .. }) => {
                let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
                self.toasts.add(Kind::Done, format!("written: {}", names.join(", ")));
            }
            (Ending::Stopped, _) => {
                self.toasts.add(Kind::Info, format!("{title} was stopped; it can go on later"))
            }
            (Ending::Failed(message), _) => self.toasts.add(Kind::Error, format!("{title}: {message}")),
        }
    }

    /// Lists the takes of the open project that were made while no window, or another project, was there to
    /// list them, and those made just now.
    pub(crate) fn list_takes(&mut self) {
        let Some(project) = &mut self.project else { return };
        let folder = project.folder();
        let made = self.runner.change(|queue| queue.take_unlisted(&folder));
        for job in made.into_iter().rev() {
            let (Purpose::Take { shot }, Some(key)) = (&job.purpose, &job.unlisted) else { continue };
            // A document that lost the shot has nowhere to keep its take.
            if project.document().node(shot).is_none() {
                continue;
            }
            let nodes = takes::nodes_of(&job.document, shot);
            let made = job.ended.unwrap_or_else(unix_now);
            let take = Take { key: key.clone(), made, seconds: job.seconds, star: false, nodes };
            match takes::record(project, shot, take) {
                Ok(Some(_)) => {
                    let why = format!(
                        "a shot keeps {MAX_TAKES} takes: the oldest without a star is off the list of {}",
                        job.title
                    );
                    self.toasts.add(Kind::Info, why);
                }
                Ok(None) => {}
                Err(error) => self.toasts.add(Kind::Warning, format!("the take is not listed: {error}")),
            }
        }
    }

    /// The job to go on with: the chosen one where it did not end well, else the latest such.
    pub(crate) fn job_to_retry(&self) -> Option<u64> {
        let again = |job: &&Job| job.phase.is_over() && job.phase != Phase::Done;
        self.runner.look(|queue, _| {
            let chosen = self.chosen_job.and_then(|id| queue.job(id)).filter(again);
            chosen.or_else(|| queue.jobs().iter().find(again)).map(|job| job.id)
        })
    }

    /// Goes on with that job.
    pub(crate) fn retry_job(&mut self) {
        if let Some(id) = self.job_to_retry() {
            self.runner.change(|queue| queue.retry(id));
        }
    }

    /// The job to move in the line: the chosen one where it waits, else the last of those that wait for an earlier
    /// turn, or the first for a later one. None where it has no neighbour on that side.
    pub(crate) fn job_to_shift(&self, earlier: bool) -> Option<u64> {
        self.runner.look(|queue, _| {
            let waits: Vec<u64> =
                queue.jobs().iter().filter(|job| job.phase == Phase::Waiting).map(|job| job.id).collect();
            let chosen = self.chosen_job.filter(|id| waits.contains(id));
            let end = if earlier { waits.last() } else { waits.first() };
            let id = chosen.or(end.copied())?;
            let edge = if earlier { waits.first() } else { waits.last() };
            (edge != Some(&id)).then_some(id)
        })
    }

    /// Lets that job have its turn one earlier, or one later.
    pub(crate) fn shift_job(&mut self, earlier: bool) {
        if let Some(id) = self.job_to_shift(earlier) {
            self.chosen_job = Some(id);
            self.runner.change(|queue| queue.shift(id, earlier));
        }
    }

    /// Whether the list has jobs that are done.
    pub(crate) fn has_finished_jobs(&self) -> bool {
        self.runner.look(|queue, _| queue.jobs().iter().any(|job| job.phase == Phase::Done))
    }

    /// The takes of the chosen shot, the latest first.
    pub(crate) fn takes(&self) -> Vec<Take> {
        let Some(project) = &self.project else { return vec![] };
        let shot = self.item().and_then(|item| item.shot.as_ref());
        shot.map(|shot| takes::takes(project.value(), &shot.node)).unwrap_or_default()
    }

    /// Shows the latest take of the chosen shot, or the clip its picture is from where there is none.
    pub(crate) fn monitor_latest(&mut self) {
        let film = self.takes().first().and_then(Take::cache_key).map(Film::Take);
        // A clip that nothing was made of yet is seen as it is.
        if film.is_some() || !self.show_source() {
            self.monitor.load(film, false);
        }
    }

    /// Whether a shot was changed since its latest take, which the timeline shows while an export makes what it
    /// is now.
    pub(crate) fn is_changed(&mut self, shot: &str) -> bool {
        let Some(project) = &self.project else { return false };
        let revision = project.revision();
        if let Some((_, known)) = self.changed.as_ref().filter(|(of, _)| *of == revision)
            && let Some(changed) = known.get(shot)
        {
            return *changed;
        }
        let latest = takes::takes(project.value(), shot).into_iter().find(|take| self.has_frames(take));
        let changed = latest.is_some_and(|take| takes::is_changed(project.value(), shot, &take));
        let (of, known) = self.changed.get_or_insert_with(Default::default);
        if *of != revision {
            (*of, *known) = (revision, Default::default());
        }
        known.insert(shot.to_owned(), changed);
        changed
    }

    /// The names of what was changed since its latest take, of what is exported.
    pub(crate) fn changed_shots(&mut self, of: &Marked) -> Vec<String> {
        let mut shots: Vec<String> = match of {
            Marked::Shot(shot) => vec![shot.clone()],
            Marked::Timeline => {
                let tracks = self.timeline().into_iter().flat_map(|timeline| &timeline.tracks);
                let seen = tracks.filter(|track| !track.hidden).flat_map(|track| &track.clips);
                seen.map(|clip| clip.node.clone()).collect()
            }
        };
        shots.sort();
        shots.dedup();
        shots.retain(|shot| self.is_changed(shot));
        shots.iter().map(|shot| self.clip_name(shot)).collect()
    }

    /// Whether the frames of a take are still there.
    pub(crate) fn has_frames(&self, take: &Take) -> bool {
        let cache = Cache::open(&self.places.cache).ok();
        cache.zip(take.cache_key()).is_some_and(|(cache, key)| cache.has(&key))
    }

    /// Makes the frames of a take again from what it remembers.
    pub(crate) fn render_again(&mut self, shot: &str, take: &Take) {
        let Some(project) = &self.project else { return };
        let document = json!({ "kinora": 1, "nodes": take.nodes });
        let (folder, title) = (project.folder(), "Earlier take".to_owned());
        let purpose = Purpose::Take { shot: shot.to_owned() };
        let order = Order { title: &title, purpose, document, folder: &folder, out: None, force: false };
        self.runner.change(|queue| queue.add(order));
    }
}

/// Whether a clip is whole in a cache; for tests.
#[cfg(test)]
pub(crate) fn clip_of(state: &State, take: &Take) -> Option<kinora_pipeline::workflow::Clip> {
    kinora_pipeline::workflow::Clip::open(&Cache::open(&state.places.cache).ok()?, &take.cache_key()?)
}
