//! The kinds of value a field of a document can hold: links, numbers that may be keyframed,
//! points and boxes.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What travels along a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PortKind {
    /// A still picture.
    Picture,
    /// Coverage 0..1 per pixel.
    Mask,
    /// Frames with a rate.
    Clip,
    /// A file that was written.
    File,
    /// One number.
    Number,
}

impl PortKind {
    /// As it appears in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Picture => "a picture",
            Self::Mask => "a mask",
            Self::Clip => "a clip",
            Self::File => "a file",
            Self::Number => "a number",
        }
    }
}

/// `@node` or `@node.port`: the value another node makes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Link {
    /// The node.
    pub node: String,
    /// One of its named outputs; its main one when `None`.
    pub port: Option<String>,
}

impl Link {
    /// Reads `@node` or `@node.port`; `None` when the text is not a link.
    pub fn read(text: &str) -> Option<Self> {
        let (node, port) = match text.strip_prefix('@')?.split_once('.') {
            Some((node, port)) => (node, Some(port)),
            None => (text.strip_prefix('@')?, None),
        };
        let good = is_node_name(node) && port.is_none_or(is_node_name);
        good.then(|| Self { node: node.to_owned(), port: port.map(str::to_owned) })
    }
}

/// Whether `name` may name a node: a letter or `_`, then letters, digits, `_` and `-`, at most 64.
pub(super) fn is_node_name(name: &str) -> bool {
    let mut chars = name.chars();
    name.len() <= 64
        && chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.port {
            Some(port) => write!(f, "@{}.{port}", self.node),
            None => write!(f, "@{}", self.node),
        }
    }
}

impl Serialize for Link {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Link {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::read(&text).ok_or_else(|| serde::de::Error::custom("expected a link such as \"@node\""))
    }
}

impl JsonSchema for Link {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Link".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A link to what another node makes: @node or @node.port.",
            "type": "string",
            "pattern": "^@[A-Za-z_][A-Za-z0-9_-]{0,63}(\\.[A-Za-z_][A-Za-z0-9_-]{0,63})?$"
        })
    }
}

/// How a value goes from one key to the next, and how motion is spread over a clip.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyEase {
    /// Holds each value until the next key.
    Step,
    /// Straight lines.
    Linear,
    /// Starts and ends each stretch at rest.
    #[default]
    Smooth,
}

/// A number that may change over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Number {
    /// The same at every time.
    Constant(f64),
    /// Made by another node.
    Linked(Link),
    /// Given at some times, in seconds.
    Keyed(Keyframes),
}

/// A number given at some times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keyframes {
    /// Pairs of time in seconds and value, times rising.
    #[schemars(length(min = 1, max = 4096))]
    pub keys: Vec<(f64, f64)>,
    /// How the value goes from one key to the next.
    #[serde(default)]
    pub ease: KeyEase,
}

impl Keyframes {
    /// The index of the first key that does not come after the one before it.
    pub fn out_of_order(&self) -> Option<usize> {
        let rising = |pair: &[(f64, f64)]| matches!(pair, [(before, _), (after, _)] if before < after);
        self.keys.windows(2).position(|pair| !rising(pair)).map(|index| index + 1)
    }

    /// The value at `t` seconds; held before the first key and after the last.
    pub fn at(&self, t: f64) -> f64 {
        let after = self.keys.partition_point(|&(time, _)| time <= t);
        let (Some(&(t1, v1)), before) =
            (self.keys.get(after), after.checked_sub(1).and_then(|i| self.keys.get(i)))
        else {
            return self.keys.last().map_or(0.0, |&(_, value)| value);
        };
        let Some(&(t0, v0)) = before else { return v1 };
        let x = (t - t0) / (t1 - t0);
        let x = match self.ease {
            KeyEase::Step => 0.0,
            KeyEase::Linear => x,
            KeyEase::Smooth => x * x * (3.0 - 2.0 * x),
        };
        v0 + (v1 - v0) * x
    }
}

impl Number {
    /// The link, when another node makes it.
    pub fn link(&self) -> Option<&Link> {
        match self {
            Self::Linked(link) => Some(link),
            _ => None,
        }
    }

    /// The value at `t` seconds; `linked` is what the link brought.
    pub fn at(&self, t: f64, linked: Option<f64>) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Keyed(keys) => keys.at(t),
            Self::Linked(_) => linked.unwrap_or_default(),
        }
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Constant(value)
    }
}

/// A click: a point to keep in the mask or to leave out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// From the left edge (0) to the right edge (1) of the picture.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub x: f64,
    /// From the top edge (0) to the bottom edge (1) of the picture.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub y: f64,
    /// True to have it in the mask, false to have it out.
    #[serde(default = "yes")]
    pub keep: bool,
}

/// A rectangle around the thing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rectangle {
    /// Left edge, 0..1 of the width.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub x0: f64,
    /// Top edge, 0..1 of the height.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub y0: f64,
    /// Right edge, beyond `x0`.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub x1: f64,
    /// Bottom edge, beyond `y0`.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub y1: f64,
}

pub(super) fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_strictly() {
        let link = Link::read("@shot.fps").unwrap();
        assert_eq!((link.node.as_str(), link.port.as_deref()), ("shot", Some("fps")));
        assert_eq!(link.to_string(), "@shot.fps");
        for bad in ["shot", "@", "@.x", "@a.", "@a.b.c", "@a b", "@1a", "@ä", "@@a"] {
            assert!(Link::read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn keys_hold_outside_and_ease_between() {
        let mut keys = Keyframes { keys: vec![(1.0, 0.0), (3.0, 8.0), (3.5, 4.0)], ease: KeyEase::Linear };
        let at = |keys: &Keyframes| [0.0, 1.5, 2.0, 3.25, 9.0].map(|t| keys.at(t));
        assert_eq!(at(&keys), [0.0, 2.0, 4.0, 6.0, 4.0]);
        keys.ease = KeyEase::Smooth;
        assert_eq!(at(&keys), [0.0, 8.0 * 0.15625, 4.0, 6.0, 4.0]);
        keys.ease = KeyEase::Step;
        assert_eq!(at(&keys), [0.0, 0.0, 0.0, 8.0, 4.0]);
        assert_eq!(keys.out_of_order(), None);
        keys.keys[2].0 = 3.0;
        assert_eq!(keys.out_of_order(), Some(2));
    }
}
