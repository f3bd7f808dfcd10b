//! Commands on takes: what the buttons in their list do, for the take that is shown.

use super::model::changes;
use super::model::takes::{self, Take};
use super::state::State;
use super::tasks::masks::Masking;
use super::tasks::player::Film;
use kinora_pipeline::control::click::CandidateKind;
use kinora_pipeline::workflow::ops::Candidate;

use super::model::scene::Shape;

/// The candidates with what a document calls them, in the order they are offered in.
pub(crate) const CANDIDATES: [(Candidate, CandidateKind, &str); 4] = [
    (Candidate::Part, CandidateKind::Part, "Part"),
    (Candidate::Object, CandidateKind::Object, "Object"),
    (Candidate::Whole, CandidateKind::Whole, "Whole"),
    (Candidate::Salient, CandidateKind::Salient, "Salient"),
];

impl State {
    fn film_key(take: &Take) -> Option<Film> {
        take.cache_key().map(Film::Take)
    }

    /// The take that the program monitor shows.
    pub(crate) fn shown_take(&self) -> Option<Take> {
        let film = self.monitor.film.as_ref().filter(|_| !self.monitor.sequence)?;
        self.takes().into_iter().find(|take| Self::film_key(take).as_ref() == Some(film))
    }

    /// The take that is compared with the one shown: the next older one whose frames are there, else the next newer.
    pub(crate) fn comparable_take(&self) -> Option<Take> {
        let shown = self.shown_take()?;
        let all = self.takes();
        let at = all.iter().position(|take| take.key == shown.key)?;
        let (newer, older) = all.split_at(at);
        let mut others = older.iter().skip(1).chain(newer.iter().rev());
        others.find(|take| self.has_frames(take)).cloned()
    }

    /// Shows another take beside the one that is shown, or that one alone again.
    pub(crate) fn compare_takes(&mut self) {
        let other = self.comparable_take().as_ref().and_then(Self::film_key);
        self.monitor.other = if self.monitor.other.is_some() { None } else { other };
    }

    /// Marks the take that is shown as a favourite, or no longer.
    pub(crate) fn star_take(&mut self) {
        let Some((shot, take)) = self.shot_node().zip(self.shown_take()) else { return };
        self.edit(|project| takes::star(project, &shot, &take.key));
    }

    /// Brings what made the take that is shown back into the project.
    pub(crate) fn use_take(&mut self) {
        let Some((shot, take)) = self.shot_node().zip(self.shown_take()) else { return };
        self.edit(|project| takes::use_settings(project, &shot, &take.key));
    }

    /// The latest take whose frames are gone.
    pub(crate) fn lost_take(&self) -> Option<Take> {
        self.takes().into_iter().find(|take| !self.has_frames(take))
    }

    /// Makes the frames of the latest take that lost them again.
    pub(crate) fn render_lost_take(&mut self) {
        let Some((shot, take)) = self.shot_node().zip(self.lost_take()) else { return };
        self.render_again(&shot, &take);
    }

    fn shot_node(&self) -> Option<String> {
        Some(self.item()?.shot.as_ref()?.node.clone())
    }

    /// What the clicks of the chosen region may mean, as a document calls it, the best first.
    pub(crate) fn candidates(&mut self) -> Vec<Candidate> {
        let Some((index, region)) = self.region() else { return vec![] };
        let Shape::Clicks(clicks) = &region.shape else { return vec![] };
        let now = clicks.candidate;
        let Some(Masking::Ready(mask)) = self.mask(index) else { return vec![] };
        if mask.candidates.len() < 2 {
            return vec![];
        }
        let has = |kind: CandidateKind| mask.candidates.iter().any(|(found, _)| *found == kind);
        let found = CANDIDATES.into_iter().filter(|(wanted, kind, _)| has(*kind) || now == *wanted);
        std::iter::once(Candidate::Best).chain(found.map(|(wanted, ..)| wanted)).collect()
    }

    /// Takes the next of the things that the clicks may mean, or the one before.
    pub(crate) fn next_candidate(&mut self, forward: bool) {
        let found = self.candidates();
        let Some((index, region)) = self.region() else { return };
        let Shape::Clicks(clicks) = &region.shape else { return };
        let at = found.iter().position(|candidate| *candidate == clicks.candidate);
        let count = found.len();
        let step = if forward { 1 } else { count.saturating_sub(1) };
        let Some(&wanted) = at.and_then(|at| found.get((at + step) % count.max(1))) else {
            let why = "the clicks mean one thing only, or are not cut out yet";
            self.toasts.add(super::overlays::toasts::Kind::Info, why);
            return;
        };
        let id = self.choice.item.clone();
        self.edit(|project| changes::set_candidate(project, &id, index, wanted));
    }
}
