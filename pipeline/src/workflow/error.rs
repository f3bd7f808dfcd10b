//! What can be wrong with a document, said so that it can be mended: the field, what was
//! expected, what was found, the line, and what to do.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// What a failure asks of whoever started the job; the command line maps it to an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The input is wrong; trying again gives the same answer (65).
    BadInput,
    /// A model or device is missing (69).
    Unavailable,
    /// A fault of Kinora itself (70).
    Bug,
    /// The file system failed (74).
    Io,
    /// May succeed later: out of memory, another job at work (75).
    Temporary,
    /// Stopped on request; can be resumed (130).
    Interrupted,
}

/// The kinds of problem a document can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// Not JSON.
    Syntax,
    /// A bound on the document itself: bytes, depth, nodes, length of a string.
    Limit,
    /// The `kinora` version is absent or not one this build reads.
    Version,
    /// A field written twice.
    Duplicate,
    /// An `op` that does not exist.
    UnknownOp,
    /// A field the op does not have.
    UnknownField,
    /// A field the op needs.
    MissingField,
    /// A value of the wrong JSON type.
    Type,
    /// A number outside its range.
    Range,
    /// A value whose content is refused (an empty prompt, two contradicting fields).
    Value,
    /// A link to a node or port that does not exist.
    Link,
    /// A link to a port of the wrong kind.
    Port,
    /// Nodes that need each other.
    Cycle,
    /// No node writes anything.
    NoOutput,
    /// A path that is refused or leads nowhere.
    Path,
    /// An output that is there already.
    Exists,
    /// A model that is unknown or cannot be used.
    Model,
    /// Not enough memory or disk for what is asked.
    Resources,
    /// The file system failed while looking.
    Io,
}

impl ProblemKind {
    /// A stable name for scripts, such as `kinora::unknown_op`.
    pub fn code(self) -> &'static str {
        match self {
            Self::Syntax => "kinora::syntax",
            Self::Limit => "kinora::limit",
            Self::Version => "kinora::version",
            Self::Duplicate => "kinora::duplicate",
            Self::UnknownOp => "kinora::unknown_op",
            Self::UnknownField => "kinora::unknown_field",
            Self::MissingField => "kinora::missing_field",
            Self::Type => "kinora::type",
            Self::Range => "kinora::range",
            Self::Value => "kinora::value",
            Self::Link => "kinora::link",
            Self::Port => "kinora::port",
            Self::Cycle => "kinora::cycle",
            Self::NoOutput => "kinora::no_output",
            Self::Path => "kinora::path",
            Self::Exists => "kinora::exists",
            Self::Model => "kinora::model",
            Self::Resources => "kinora::resources",
            Self::Io => "kinora::io",
        }
    }

    /// What the caller should do about it.
    pub fn class(self) -> ErrorClass {
        match self {
            Self::Model => ErrorClass::Unavailable,
            Self::Resources => ErrorClass::Temporary,
            Self::Io => ErrorClass::Io,
            _ => ErrorClass::BadInput,
        }
    }
}

/// One problem before it is placed in the text.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What kind of problem.
    pub kind: ProblemKind,
    /// The field, from the root of the document.
    pub field: FieldPath,
    /// What would be right.
    pub expected: String,
    /// What is there.
    pub found: String,
    /// What to do, when there is more to say.
    pub help: Option<String>,
}

impl Finding {
    /// A problem at `field`.
    pub fn new(
        kind: ProblemKind,
        field: FieldPath,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self { kind, field, expected: expected.into(), found: found.into(), help: None }
    }

    /// Adds what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// The way from the root of a document to a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldPath(pub Vec<Segment>);

/// One step of a [`FieldPath`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// A key of an object.
    Key(String),
    /// A place in a list.
    Index(usize),
}

impl FieldPath {
    /// The field of a node: `nodes.NODE`.
    pub fn node(name: &str) -> Self {
        Self(vec![Segment::Key("nodes".into()), Segment::Key(name.into())])
    }

    /// This path and a key.
    pub fn key(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.0.push(Segment::Key(key.into()));
        path
    }

    /// This path and an index.
    pub fn index(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.0.push(Segment::Index(index));
        path
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the document");
        }
        for (i, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if i == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// One problem with its place in the text.
#[derive(Debug, Clone)]
pub struct Problem {
    finding: Finding,
    line: usize,
    column: usize,
    span: Option<std::ops::Range<usize>>,
    source: Arc<NamedSource<Arc<str>>>,
}

impl Problem {
    /// Places `finding` at `span` (bytes) of the text.
    pub fn new(
        finding: Finding,
        span: Option<std::ops::Range<usize>>,
        source: Arc<NamedSource<Arc<str>>>,
    ) -> Self {
        let text: &str = source.inner();
        let before = span.as_ref().and_then(|s| text.get(..s.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { finding, line, column, span, source }
    }

    /// The kind of problem.
    pub fn kind(&self) -> ProblemKind {
        self.finding.kind
    }

    /// The field, as `nodes.shot.frames`.
    pub fn field(&self) -> String {
        self.finding.field.to_string()
    }

    /// What would be right.
    pub fn expected(&self) -> &str {
        &self.finding.expected
    }

    /// What is there.
    pub fn found(&self) -> &str {
        &self.finding.found
    }

    /// Line, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Column in characters, from 1.
    pub fn column(&self) -> usize {
        self.column
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.finding.field)?;
        if self.span.is_some() {
            write!(f, " (line {})", self.line)?;
        }
        write!(f, ": expected {}, found {}", self.finding.expected, self.finding.found)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.finding.kind.code()))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.finding.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.span.as_ref().map(|_| &*self.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.clone()?;
        let label =
            LabeledSpan::new(Some(format!("expected {}", self.finding.expected)), span.start, span.len());
        Some(Box::new(std::iter::once(label)))
    }
}

/// Everything found wrong with a document; never empty.
#[derive(Debug, Clone)]
pub struct DocumentError {
    first: Box<Problem>,
    others: Vec<Problem>,
}

impl DocumentError {
    /// The error of `first` and `others`.
    pub fn new(first: Problem, others: Vec<Problem>) -> Self {
        Self { first: Box::new(first), others }
    }

    /// Every problem, in the order of the document.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        std::iter::once(&*self.first).chain(&self.others)
    }

    /// The problem that decides the message.
    pub fn first(&self) -> &Problem {
        &self.first
    }

    /// The kind of the first problem.
    pub fn kind(&self) -> ProblemKind {
        self.first.kind()
    }

    /// What the caller should do about it.
    pub fn class(&self) -> ErrorClass {
        self.first.kind().class()
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        match self.others.len() {
            0 => Ok(()),
            1 => write!(f, " (and one more problem)"),
            n => write!(f, " (and {n} more problems)"),
        }
    }
}

impl std::error::Error for DocumentError {}

impl Diagnostic for DocumentError {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.first.code()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.first.help()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.first.source_code()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.first.labels()
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.others.iter().map(|other| other as &dyn Diagnostic)))
    }
}
