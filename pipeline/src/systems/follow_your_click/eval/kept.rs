//! Measured cases on disk while an evaluation runs, so that one that was stopped can go on.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::measure::CaseResult;

/// First line of the file; a file of other weights, photographs or prompts does not count.
#[derive(Serialize, Deserialize)]
struct Header {
    evaluation: String,
}

/// JSON Lines beside the report: what the cases belong to, then one case a line.
#[derive(Debug)]
pub struct KeptCases {
    path: PathBuf,
    file: File,
}

impl KeptCases {
    /// Opens `path` for the evaluation named by `identity`.
    ///
    /// With `resume`, returns the whole cases an earlier run of the same evaluation left there and
    /// drops a last line cut short; otherwise, or when the file is of another evaluation, starts over.
    pub fn open(path: &Path, identity: &str, resume: bool) -> io::Result<(Self, Vec<CaseResult>)> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let (cases, whole) = if resume { read(&mut file, identity)? } else { (Vec::new(), 0) };
        file.set_len(whole)?;
        file.seek(SeekFrom::Start(whole))?;
        let mut kept = Self { path: path.to_owned(), file };
        if whole == 0 {
            kept.line(&Header { evaluation: identity.to_owned() })?;
        }
        Ok((kept, cases))
    }

    /// Appends a case.
    pub fn keep(&mut self, case: &CaseResult) -> io::Result<()> {
        self.line(case)
    }

    /// The report is written: the cases are in it.
    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_string(value)?;
        text.push('\n');
        self.file.write_all(text.as_bytes())
    }
}

/// The cases and the length of the whole lines that hold them; none and 0 for a foreign file.
fn read(file: &mut File, identity: &str) -> io::Result<(Vec<CaseResult>, u64)> {
    let mut reader = BufReader::new(file);
    let mut line = String::new();
    let mut whole = reader.read_line(&mut line)? as u64;
    match serde_json::from_str::<Header>(&line) {
        Ok(header) if header.evaluation == identity && line.ends_with('\n') => {}
        _ => return Ok((Vec::new(), 0)),
    }
    let mut cases = Vec::new();
    loop {
        line.clear();
        let length = reader.read_line(&mut line)? as u64;
        match serde_json::from_str(&line) {
            Ok(case) if line.ends_with('\n') => cases.push(case),
            _ => return Ok((cases, whole)),
        }
        whole += length;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn case(seconds: f64) -> CaseResult {
        let text = format!(
            r#"{{"kind": "left", "magnitude": 0.3, "prompt": "go", "held_out": false, "understood": "left",
            "measured_kind": "left", "factor": 1.01, "still_px": null, "frame0_db": 49.1,
            "autoencoder_input_db": 31.2, "seconds": {seconds}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn whole_cases_of_the_same_evaluation_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eval.json.cases");
        let (mut kept, cases) = KeptCases::open(&path, "a", true).unwrap();
        assert!(cases.is_empty());
        kept.keep(&case(0.1 + 0.2)).unwrap();
        kept.keep(&case(2.0)).unwrap();
        kept.file.write_all(b"{\"kind\": \"le").unwrap();

        let (mut kept, cases) = KeptCases::open(&path, "a", true).unwrap();
        assert_eq!(cases, [case(0.1 + 0.2), case(2.0)]);
        kept.keep(&case(3.0)).unwrap();
        let (_, cases) = KeptCases::open(&path, "a", true).unwrap();
        assert_eq!(cases.len(), 3, "the line cut short is gone");

        assert!(KeptCases::open(&path, "b", true).unwrap().1.is_empty(), "other weights");
        let (kept, cases) = KeptCases::open(&path, "b", true).unwrap();
        assert!(cases.is_empty());
        kept.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn without_resume_the_evaluation_starts_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cases");
        KeptCases::open(&path, "a", false).unwrap().0.keep(&case(1.0)).unwrap();
        assert!(KeptCases::open(&path, "a", false).unwrap().1.is_empty());
        assert!(KeptCases::open(&path, "a", true).unwrap().1.is_empty());
    }
}
