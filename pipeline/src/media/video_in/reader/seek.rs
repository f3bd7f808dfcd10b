//! Going to a moment of a clip: exactly, or to the nearest place where decoding can begin.

use ffmpeg_next as ffmpeg;

use super::{State, VideoReader};
use crate::media::error::MediaError;
use crate::media::video_in::TimedPicture;

/// Seconds before a moment that are decoded whole on the way to it.
const WHOLE: f64 = 1.0;

/// How a way to a moment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caught {
    /// The next frame given is the one sought.
    There,
    /// The first frame that could be decoded is after it.
    TooLate,
    /// It was called off.
    Stopped,
}

impl VideoReader {
    /// Goes to the frame shown at `seconds`: the last whose time is not after it.
    ///
    /// Before the first frame gives the first; after the end gives the last.
    ///
    /// # Errors
    /// `seconds` is not a number, or the file cannot be sought.
    pub fn seek(&mut self, seconds: f64) -> Result<(), MediaError> {
        self.seek_unless(seconds, &|| false).map(|_| ())
    }

    /// [`Self::seek`], until `stop` says so: then the place is unknown and the answer `false`.
    ///
    /// # Errors
    /// Those of [`Self::seek`].
    pub fn seek_unless(&mut self, seconds: f64, stop: &dyn Fn() -> bool) -> Result<bool, MediaError> {
        let target = self.target(seconds)?;
        let (mut back, mut whole) = (0.0, false);
        loop {
            self.rewind_to(seconds - back)?;
            match self.catch_up(target, back >= seconds, whole, stop)? {
                // A frame that stands this long: one that was left out might have come after it.
                Caught::There if !whole && self.found_early(target) => whole = true,
                Caught::There => return Ok(true),
                Caught::Stopped => return Ok(false),
                Caught::TooLate if back >= seconds => {
                    return Err(MediaError::Damaged {
                        path: self.path.clone(),
                        expected: "a frame at or before the time sought",
                        found: "none".into(),
                    });
                }
                // The container's key frame was after the target: start earlier.
                Caught::TooLate => back = if back == 0.0 { 2.0 } else { back * 4.0 },
            }
        }
    }

    /// Goes forward to the frame shown at `seconds` without going back first: for a moment shortly after
    /// the frame given last. `false` when `stop` said so.
    ///
    /// # Errors
    /// Those of [`Self::next_frame`].
    pub fn advance_unless(&mut self, seconds: f64, stop: &dyn Fn() -> bool) -> Result<bool, MediaError> {
        let target = self.target(seconds)?;
        // What was decoded already may be what is shown then.
        let shown = self.pending.pop_front();
        if let Some(frame) = shown.as_ref().filter(|frame| frame.seconds > target) {
            self.pending.push_front(frame.clone());
            return Ok(true);
        }
        let caught = self.catch_up(target, true, false, stop)?;
        if let (Caught::There, Some(shown)) = (caught, shown)
            && self.pending.front().is_some_and(|next| next.seconds > target)
        {
            self.pending.push_front(shown);
            return Ok(true);
        }
        match caught {
            Caught::There if !self.found_early(target) => Ok(true),
            Caught::Stopped => Ok(false),
            _ => self.seek_unless(seconds, stop),
        }
    }

    /// Goes to where decoding can begin at or before `seconds` and gives the frame there: quick however far
    /// apart such frames are.
    ///
    /// # Errors
    /// Those of [`Self::seek`].
    pub fn seek_near(&mut self, seconds: f64) -> Result<Option<TimedPicture>, MediaError> {
        self.target(seconds)?;
        self.rewind_to(seconds)?;
        self.decode_next()
    }

    /// The moment up to which frames count as shown at `seconds`.
    fn target(&self, seconds: f64) -> Result<f64, MediaError> {
        if !seconds.is_finite() {
            return Err(MediaError::BadSpec {
                path: self.path.clone(),
                expected: "a finite time to seek to".into(),
                found: seconds.to_string(),
            });
        }
        // Half a tick, so that a frame's own time finds that frame after rounding.
        let unit = self.time_base.0 as f64 / self.time_base.1 as f64;
        Ok(seconds.max(0.0) + unit / 2.0)
    }

    /// Whether the frame found is of the stretch in which some were left out.
    fn found_early(&self, target: f64) -> bool {
        self.pending.front().is_some_and(|frame| frame.seconds < target - WHOLE)
    }

    /// Decodes until the last frame not after `target`, which alone is converted; where the first frame is
    /// after it already that one is taken if `first` allows. Unless `whole`, frames no other needs are left
    /// out on the way.
    fn catch_up(
        &mut self,
        target: f64,
        first: bool,
        whole: bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<Caught, MediaError> {
        self.hurry = (!whole).then_some(target);
        let caught = self.decode_until(target, first, stop);
        self.hurry = None;
        self.decoder.skip_frame(ffmpeg::Discard::Default);
        caught
    }

    fn decode_until(
        &mut self,
        target: f64,
        first: bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<Caught, MediaError> {
        let mut best: Option<(f64, ffmpeg::frame::Video)> = None;
        while let Some(seconds) = self.receive()? {
            let frame = std::mem::replace(&mut self.decoded, ffmpeg::frame::Video::empty());
            if seconds <= target {
                best = Some((seconds, frame));
                if stop() {
                    return Ok(Caught::Stopped);
                }
                continue;
            }
            match best.take() {
                Some((at, shown)) => {
                    self.ahead = Some((seconds, frame));
                    self.give(at, shown)?;
                }
                None if first => self.give(seconds, frame)?,
                None => return Ok(Caught::TooLate),
            }
            return Ok(Caught::There);
        }
        match best {
            Some((at, last)) => {
                self.give(at, last)?;
                Ok(Caught::There)
            }
            None => Ok(Caught::TooLate),
        }
    }

    /// Converts a frame to be the next one given.
    fn give(&mut self, seconds: f64, frame: ffmpeg::frame::Video) -> Result<(), MediaError> {
        self.decoded = frame;
        let shown = self.convert(seconds)?;
        self.pending.push_back(shown);
        Ok(())
    }

    fn rewind_to(&mut self, seconds: f64) -> Result<(), MediaError> {
        self.deadline.renew(self.limits.call_deadline);
        let unit = self.time_base.0 as f64 / self.time_base.1 as f64;
        // FFmpeg counts whole-file seeks in microseconds of stream time.
        let at = ((seconds.max(0.0) + self.origin as f64 * unit) * 1e6).round() as i64;
        self.input.seek(at, ..at + 1).or_else(|_| self.input.seek(at, ..)).map_err(|error| {
            MediaError::Damaged {
                path: self.path.clone(),
                expected: "a clip that can be sought",
                found: error.to_string(),
            }
        })?;
        self.decoder.flush();
        self.pending.clear();
        self.ahead = None;
        self.state = State::Reading;
        self.last_seconds = f64::NEG_INFINITY;
        Ok(())
    }

    /// On the way to a moment, pictures that no other needs are not decoded, until shortly before it.
    pub(super) fn leave_out(&mut self, packet: &ffmpeg::Packet) {
        let Some(target) = self.hurry else { return };
        let before = packet.pts().is_some_and(|pts| self.seconds(pts) < target - WHOLE);
        let discard = if before { ffmpeg::Discard::NonReference } else { ffmpeg::Discard::Default };
        self.decoder.skip_frame(discard);
    }
}
