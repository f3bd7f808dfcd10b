//! One place where errors become exit codes.

use std::fmt;
use std::io::IsTerminal as _;

/// What a failed command means for whoever started it; the numbers follow BSD's `sysexits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Wrong command line.
    Usage,
    /// The input is wrong; trying again will not help.
    BadInput,
    /// A device or a model is missing.
    Unavailable,
    /// A fault of Kinora itself.
    Bug,
    /// A file could not be read or written.
    Io,
    /// The machine is short of something just now.
    Temporary,
    /// Stopped by a signal; `--resume` continues.
    Interrupted(u8),
    /// Verification found a difference, or an evaluation missed a bar.
    Different,
}

impl Kind {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Different => 1,
            Self::Usage => 2,
            Self::BadInput => 65,
            Self::Unavailable => 69,
            Self::Bug => 70,
            Self::Io => 74,
            Self::Temporary => 75,
            Self::Interrupted(code) => code,
        }
    }
}

/// Lines are broken for a terminal only, and never within a path or a name: in a log they are
/// searched for.
pub(crate) fn install_diagnostics() {
    let hook = miette::set_hook(Box::new(|_| {
        let options = miette::MietteHandlerOpts::new().break_words(false);
        Box::new(options.wrap_lines(std::io::stderr().is_terminal()).build())
    }));
    // Someone else's hook is as good.
    drop(hook);
}

/// An error with the exit code it leads to.
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    report: Report,
}

enum Report {
    /// Points into a document.
    Diagnostic(miette::Report),
    /// A chain of causes.
    Chain(anyhow::Error),
}

/// Result of a command.
pub(crate) type Outcome = Result<(), Failure>;

impl Failure {
    pub(crate) fn new(kind: Kind, error: impl Into<anyhow::Error>) -> Self {
        Self { kind, report: Report::Chain(error.into()) }
    }

    pub(crate) fn message(kind: Kind, message: impl fmt::Display) -> Self {
        Self::new(kind, anyhow::anyhow!("{message}"))
    }

    pub(crate) fn diagnostic(kind: Kind, report: impl Into<miette::Report>) -> Self {
        Self { kind, report: Report::Diagnostic(report.into()) }
    }

    /// The text for standard error, ending in a newline.
    pub(crate) fn render(&self) -> String {
        match &self.report {
            Report::Diagnostic(report) => format!("{report:?}\n"),
            Report::Chain(error) => {
                let mut text = format!("error: {error}\n");
                let mut shown = error.to_string();
                for cause in error.chain().skip(1) {
                    let cause = cause.to_string();
                    // Many errors already quote their source; saying it twice helps nobody.
                    if !shown.contains(&cause) {
                        text.push_str(&format!("  because: {cause}\n"));
                    }
                    shown = cause;
                }
                text
            }
        }
    }
}

/// Adds the meaning of a failure where it is known.
pub(crate) trait OrFail<T> {
    fn or_fail(self, kind: Kind) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrFail<T> for Result<T, E> {
    fn or_fail(self, kind: Kind) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(kind, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_already_quoted_is_not_repeated() {
        let inner = std::io::Error::other("disk on fire");
        let quoting = anyhow::Error::new(inner).context("cannot read a.png: disk on fire");
        assert_eq!(Failure::new(Kind::Io, quoting).render(), "error: cannot read a.png: disk on fire\n");
        let plain = anyhow::Error::new(std::io::Error::other("disk on fire")).context("cannot read a.png");
        assert!(Failure::new(Kind::Io, plain).render().contains("because: disk on fire"));
    }

    #[test]
    fn codes_are_the_documented_ones() {
        let codes =
            [Kind::Usage, Kind::BadInput, Kind::Unavailable, Kind::Io, Kind::Temporary].map(Kind::code);
        assert_eq!(codes, [2, 65, 69, 74, 75]);
        assert_eq!(Kind::Interrupted(143).code(), 143);
    }
}
