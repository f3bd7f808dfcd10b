//! Numbers as people read them.

/// A stretch of time.
pub(crate) fn seconds(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0 => "less than a second".to_owned(),
        1..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

/// How long ago a moment was, both in seconds since 1970.
pub(crate) fn ago(then: u64, now: u64) -> String {
    match now.saturating_sub(then) {
        0..45 => "just now".to_owned(),
        past @ 45..3000 => format!("{} min ago", (past + 30) / 60),
        past @ 3000..80_000 => format!("{} h ago", (past + 1800) / 3600),
        past => format!("{} days ago", (past + 43_200) / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_as_people_do() {
        assert_eq!(seconds(0.2), "less than a second");
        assert_eq!(seconds(59.4), "59 s");
        assert_eq!(seconds(61.0), "1 min 01 s");
        assert_eq!(seconds(3720.0), "1 h 02 min");
        assert_eq!(
            (ago(100, 110), ago(0, 120), ago(0, 7200), ago(0, 172_800)),
            ("just now".into(), "2 min ago".into(), "2 h ago".into(), "2 days ago".into())
        );
    }
}
