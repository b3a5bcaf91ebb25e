use time::OffsetDateTime;
use tokio::time::Instant;

/// One formula for both ways of running: under tokio's paused clock time is virtual and jumps; otherwise it is the machine's.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: OffsetDateTime,
    zero: Instant,
}

impl Clock {
    /// A clock that shows `start` now. Call it inside a tokio runtime.
    pub fn starting_at(start: OffsetDateTime) -> Self {
        Self { start, zero: Instant::now() }
    }

    pub fn now(&self) -> OffsetDateTime {
        self.start + self.zero.elapsed()
    }

    /// The tokio instant at which the clock will show `when`; the present when that is past.
    pub(crate) fn instant(&self, when: OffsetDateTime) -> Instant {
        match std::time::Duration::try_from(when - self.start) {
            Ok(after_start) => self.zero + after_start,
            Err(_) => Instant::now(),
        }
    }
}
