//! The program monitor: which clip, which moment, how fast.

use super::tasks::player::{Film, FilmInfo};

/// The fastest J and L go.
const FASTEST: f64 = 8.0;

/// What the program monitor shows.
#[derive(Debug, Clone)]
pub(crate) struct Monitor {
    /// The clip.
    pub(crate) film: Option<Film>,
    /// Whether the timeline is shown instead.
    pub(crate) sequence: bool,
    /// A second one beside it.
    pub(crate) other: Option<Film>,
    /// Where the second begins, 0..1 of the width.
    pub(crate) wipe: f32,
    /// The moment, in seconds.
    pub(crate) position: f64,
    /// Seconds of clip per second; 0 while it stands.
    pub(crate) speed: f64,
    /// The job whose clip is shown while it is made.
    pub(crate) making: Option<u64>,
    /// The frame drawn last, kept until the next one is decoded.
    pub(crate) drawn: Option<(Film, usize)>,
    /// Whether the last frame of the clip is shown and play begins anew from the start.
    at_end: bool,
}

impl Default for Monitor {
    fn default() -> Self {
        Self {
            film: None,
            sequence: false,
            other: None,
            wipe: 0.5,
            position: 0.0,
            speed: 0.0,
            making: None,
            drawn: None,
            at_end: false,
        }
    }
}

impl Monitor {
    /// Shows a clip from its start.
    pub(crate) fn load(&mut self, film: Option<Film>, play: bool) {
        if self.film != film {
            self.drawn = None;
        }
        *self = Self {
            wipe: self.wipe,
            drawn: self.drawn.take(),
            film,
            speed: if play { 1.0 } else { 0.0 },
            ..Self::default()
        };
    }

    /// Shows the timeline where it was last.
    pub(crate) fn enter_sequence(&mut self) {
        self.making = None;
        if !self.sequence {
            self.pause();
            (self.sequence, self.other, self.at_end) = (true, None, false);
        }
    }

    /// Shows the clip of a job while it is made.
    pub(crate) fn watch(&mut self, job: u64) {
        self.pause();
        (self.sequence, self.other, self.making) = (false, None, Some(job));
    }

    /// Whether it plays.
    pub(crate) fn is_playing(&self) -> bool {
        self.speed != 0.0
    }

    /// Space.
    pub(crate) fn toggle(&mut self) {
        self.making = None;
        if self.is_playing() {
            self.speed = 0.0;
            return;
        }
        if self.at_end {
            self.position = 0.0;
        }
        self.at_end = false;
        self.speed = 1.0;
    }

    /// J (`forward` false) and L: each press doubles the speed, the other direction begins at 1.
    pub(crate) fn shuttle(&mut self, forward: bool) {
        let sign = if forward { 1.0 } else { -1.0 };
        let along = self.speed * sign > 0.0;
        self.speed = if along { (self.speed * 2.0).clamp(-FASTEST, FASTEST) } else { sign };
        (self.making, self.at_end) = (None, false);
    }

    /// K.
    pub(crate) fn pause(&mut self) {
        self.speed = 0.0;
    }

    /// Goes to a frame and stands there.
    pub(crate) fn go_to(&mut self, info: &FilmInfo, frame: usize) {
        self.speed = 0.0;
        (self.making, self.at_end) = (None, false);
        self.position = frame.min(info.frames - 1) as f64 / info.fps;
    }

    /// One frame on or back.
    pub(crate) fn step(&mut self, info: &FilmInfo, forward: bool) {
        let frame = info.frame_at(self.position);
        let next = if forward { frame + 1 } else { frame.saturating_sub(1) };
        self.go_to(info, next);
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, info: &FilmInfo, seconds: f64, repeat: bool) {
        if !self.is_playing() {
            return;
        }
        self.arrive(info, self.position + self.speed * seconds, repeat);
    }

    /// Play has come to a moment, which may lie beyond an end of the clip.
    pub(crate) fn arrive(&mut self, info: &FilmInfo, mut position: f64, repeat: bool) {
        let length = info.seconds();
        if !(0.0..length).contains(&position) {
            if repeat {
                position = position.rem_euclid(length);
            } else {
                self.at_end = self.speed > 0.0;
                position = if self.at_end { (info.frames - 1) as f64 / info.fps } else { 0.0 };
                self.speed = 0.0;
            }
        }
        self.position = position;
    }
}

/// A moment as `minutes:seconds.frame`.
pub(crate) fn timecode(info: &FilmInfo, position: f64) -> String {
    let frame = info.frame_at(position);
    let rate = (info.fps.round() as usize).max(1);
    let seconds = frame / rate;
    format!("{:02}:{:02}:{:02}", seconds / 60, seconds % 60, frame % rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: FilmInfo = FilmInfo { width: 4, height: 4, frames: 16, fps: 8.0 };

    #[test]
    fn shuttle_keys_speed_up_turn_round_and_stop() {
        let mut monitor = Monitor::default();
        let speeds: Vec<f64> = [true, true, true, true, true, false, false]
            .map(|forward| {
                monitor.shuttle(forward);
                monitor.speed
            })
            .to_vec();
        assert_eq!(speeds, [1.0, 2.0, 4.0, 8.0, 8.0, -1.0, -2.0]);
        monitor.pause();
        assert!(!monitor.is_playing());
    }

    #[test]
    fn time_passes_round_or_to_the_end() {
        let mut monitor = Monitor::default();
        monitor.toggle();
        monitor.advance(&INFO, 2.25, true);
        assert!((monitor.position - 0.25).abs() < 1e-9);
        monitor.advance(&INFO, 10.0, false);
        assert_eq!((INFO.frame_at(monitor.position), monitor.is_playing()), (15, false));
        monitor.toggle();
        assert_eq!((monitor.position, monitor.speed), (0.0, 1.0), "play at the end begins anew");
        monitor.shuttle(false);
        monitor.advance(&INFO, 1.0, true);
        assert!((monitor.position - 1.0).abs() < 1e-9);
        monitor.advance(&INFO, 5.0, false);
        assert_eq!((monitor.position, monitor.is_playing()), (0.0, false));
    }

    #[test]
    fn steps_stay_within_the_clip() {
        let mut monitor = Monitor::default();
        monitor.step(&INFO, false);
        assert_eq!(monitor.position, 0.0);
        monitor.go_to(&INFO, 99);
        monitor.step(&INFO, true);
        assert_eq!(INFO.frame_at(monitor.position), 15);
        assert_eq!(timecode(&INFO, monitor.position), "00:01:07");
    }
}
