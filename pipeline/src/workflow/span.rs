//! Finds where a field of a JSON text is written.
//!
//! Only for texts that serde_json has accepted: the scanner follows the grammar and does not
//! check it. It gives up (`None`) rather than guess.

use std::collections::HashSet;
use std::ops::Range;

use super::error::{FieldPath, Segment};

/// The bytes of the value at `path`, or of the nearest enclosing value that is written.
pub(super) fn locate(text: &str, path: &FieldPath) -> Option<Range<usize>> {
    let mut scan = Scanner::new(text);
    scan.blank();
    let mut best = scan.value_range()?;
    for segment in &path.0 {
        match scan.enter(segment, best.start) {
            Some(range) => best = range,
            None => break,
        }
    }
    // A whole node would underline half the document; its first line is enough.
    let shown = text.get(best.clone())?;
    match shown.find('\n') {
        Some(end) => Some(best.start..best.start + end.max(1)),
        None => Some(best),
    }
}

/// The bytes of the key that names the value at `path`.
pub(super) fn locate_key(text: &str, path: &FieldPath) -> Option<Range<usize>> {
    let (Segment::Key(key), parent) = path.0.split_last()? else { return None };
    let mut scan = Scanner::new(text);
    scan.blank();
    let mut at = scan.value_range()?;
    for segment in parent {
        at = scan.enter(segment, at.start)?;
    }
    scan.at = at.start;
    scan.members(|name, name_range, _| (name == *key).then_some(name_range))
}

/// The first key written twice in one object: its path and where the second one is.
pub(super) fn duplicate_key(text: &str) -> Option<(FieldPath, Range<usize>)> {
    let mut scan = Scanner::new(text);
    scan.blank();
    scan.find_duplicate(&FieldPath::default(), 0)
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, bytes: text.as_bytes(), at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Skips a string and gives its bytes, quotes included.
    fn string(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek()? {
                b'\\' => self.at += 2,
                b'"' => {
                    self.at += 1;
                    return Some(start..self.at);
                }
                _ => self.at += 1,
            }
        }
    }

    /// The range of the value here; the position does not change.
    fn value_range(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        self.skip()?;
        let end = std::mem::replace(&mut self.at, start);
        Some(start..end)
    }

    fn skip(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            self.blank();
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' => self.at += 1,
                _ => {
                    while !matches!(
                        self.peek(),
                        None | Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n')
                    ) {
                        self.at += 1;
                    }
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    fn enter(&mut self, segment: &Segment, start: usize) -> Option<Range<usize>> {
        self.at = start;
        match segment {
            Segment::Key(key) => self.members(|name, _, value| (name == *key).then_some(value)),
            Segment::Index(index) => {
                if self.peek()? != b'[' {
                    return None;
                }
                self.at += 1;
                for _ in 0..*index {
                    self.blank();
                    self.skip()?;
                    self.blank();
                    if self.peek()? != b',' {
                        return None;
                    }
                    self.at += 1;
                }
                self.blank();
                if self.peek()? == b']' { None } else { self.value_range() }
            }
        }
    }

    /// Walks the members of the object here until `pick` answers; the last match wins nothing,
    /// the first one does.
    fn members<T>(
        &mut self,
        mut pick: impl FnMut(String, Range<usize>, Range<usize>) -> Option<T>,
    ) -> Option<T> {
        if self.peek()? != b'{' {
            return None;
        }
        self.at += 1;
        loop {
            self.blank();
            if self.peek()? != b'"' {
                return None;
            }
            let name = self.string()?;
            let key: String = serde_json::from_str(self.text.get(name.clone())?).ok()?;
            self.blank();
            self.at += 1;
            self.blank();
            let value = self.value_range()?;
            if let Some(found) = pick(key, name, value.clone()) {
                return Some(found);
            }
            self.at = value.end;
            self.blank();
            if self.peek()? != b',' {
                return None;
            }
            self.at += 1;
        }
    }

    fn find_duplicate(&mut self, path: &FieldPath, depth: usize) -> Option<(FieldPath, Range<usize>)> {
        // serde_json refused deeper texts already.
        if depth > 128 {
            return None;
        }
        match self.peek()? {
            b'{' => {
                let mut seen = HashSet::new();
                self.at += 1;
                loop {
                    self.blank();
                    if self.peek()? != b'"' {
                        return None;
                    }
                    let name = self.string()?;
                    let key: String = serde_json::from_str(self.text.get(name.clone())?).ok()?;
                    let inner = path.key(&key);
                    if !seen.insert(key) {
                        return Some((inner, name));
                    }
                    self.blank();
                    self.at += 1;
                    self.blank();
                    let value = self.value_range()?;
                    if let Some(found) = self.find_duplicate(&inner, depth + 1) {
                        return Some(found);
                    }
                    self.at = value.end;
                    self.blank();
                    if self.peek()? != b',' {
                        return None;
                    }
                    self.at += 1;
                }
            }
            b'[' => {
                self.at += 1;
                for index in 0.. {
                    self.blank();
                    if self.peek()? == b']' {
                        return None;
                    }
                    let value = self.value_range()?;
                    if let Some(found) = self.find_duplicate(&path.index(index), depth + 1) {
                        return Some(found);
                    }
                    self.at = value.end;
                    self.blank();
                    if self.peek()? != b',' {
                        return None;
                    }
                    self.at += 1;
                }
                None
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{ "kinora": 1,
  "no\"des": { "a": [ 1, {"x": "}"}, [2, 3.5e1] ], "b": null } }"#;

    fn at(segments: &[Segment]) -> &'static str {
        &TEXT[locate(TEXT, &FieldPath(segments.to_vec())).unwrap()]
    }

    #[test]
    fn finds_values_and_falls_back_to_what_encloses_them() {
        let key = |k: &str| Segment::Key(k.into());
        assert_eq!(at(&[key("kinora")]), "1");
        let a = [key("no\"des"), key("a")];
        assert_eq!(at(&[a[0].clone(), a[1].clone(), Segment::Index(1), key("x")]), r#""}""#);
        assert_eq!(at(&[a[0].clone(), a[1].clone(), Segment::Index(2), Segment::Index(1)]), "3.5e1");
        assert_eq!(at(&[a[0].clone(), a[1].clone(), Segment::Index(9)]), r#"[ 1, {"x": "}"}, [2, 3.5e1] ]"#);
        assert_eq!(at(&[a[0].clone(), key("b"), key("none")]), "null");
        assert_eq!(at(&[]), r#"{ "kinora": 1,"#);
        let path = FieldPath(vec![a[0].clone(), key("b")]);
        assert_eq!(&TEXT[locate_key(TEXT, &path).unwrap()], r#""b""#);
    }

    #[test]
    fn a_key_written_twice_is_found() {
        assert!(duplicate_key(TEXT).is_none());
        let (path, range) = duplicate_key(r#"{"n": {"a": [{"k": 1, "k": 2}]}}"#).unwrap();
        assert_eq!((path.to_string().as_str(), range), ("n.a[0].k", 22..25));
        // The same key under another spelling.
        assert!(duplicate_key(r#"{"a": 1, "\u0061": 2}"#).is_some());
    }

    #[test]
    fn texts_that_are_not_json_do_not_trip_it() {
        for text in ["", "{", "[", "\"", "\"\\", "{\"a\"", "{\"a\":", "[1,", "]", "{]}", "}{"] {
            let _ = locate(text, &FieldPath::node("a"));
            let _ = locate_key(text, &FieldPath::node("a"));
            let _ = duplicate_key(text);
        }
    }
}
