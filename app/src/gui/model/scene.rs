//! The document as the window sees it: pictures, what moves in them, where the clip goes.
//!
//! Everything here is derived from the document and thrown away when it changes.

use kinora_pipeline::workflow::ops::{AnimateClick, MaskClick, Op};
use kinora_pipeline::workflow::{Document, Number};
use serde_json::Value;

use super::framing::clip_of;

/// Where a picture comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    /// A picture file.
    Image {
        /// Its name in the document.
        path: String,
    },
    /// One frame of a clip.
    Frame {
        /// The node that loads the clip.
        video: String,
        /// The clip's name in the document.
        path: String,
        /// Seconds from the start of the file.
        seconds: f64,
        /// Frames after that.
        index: u32,
    },
    /// Made by other nodes; shown after rendering only.
    Made {
        /// The op that makes it.
        op: &'static str,
    },
}

/// What gives a region its shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    /// Clicks, which can be edited.
    Clicks(MaskClick),
    /// A mask file.
    File {
        /// Its name in the document.
        path: String,
    },
    /// Made by other nodes.
    Made {
        /// The op that makes it.
        op: &'static str,
    },
}

/// One thing that moves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Region {
    /// The node of its mask.
    pub(crate) mask: String,
    /// What people call it.
    pub(crate) name: String,
    /// Its shape.
    pub(crate) shape: Shape,
    /// How it moves.
    pub(crate) prompt: String,
    /// How far it moves.
    pub(crate) magnitude: Number,
}

/// A node that writes a shot's clip to a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    /// The node.
    pub(crate) node: String,
    /// The op's name.
    pub(crate) op: &'static str,
    /// The file or folder.
    pub(crate) path: String,
    /// The sequence on the way to it that gives the clip another size or rate.
    pub(crate) framing: Option<String>,
}

/// How a picture moves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shot {
    /// The node.
    pub(crate) node: String,
    /// Its parameters.
    pub(crate) spec: AnimateClick,
    /// Whether it has one thing in fields of its own rather than a list.
    pub(crate) single: bool,
    /// What moves, lowest first.
    pub(crate) regions: Vec<Region>,
    /// Where its clip goes.
    pub(crate) outputs: Vec<Output>,
}

/// A picture with its shot, if it has one yet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    /// The shot's node, or the picture's where there is no shot.
    pub(crate) id: String,
    /// What people call it.
    pub(crate) name: String,
    /// The picture's node.
    pub(crate) picture: String,
    /// Where the picture comes from.
    pub(crate) source: Source,
    /// How it moves.
    pub(crate) shot: Option<Shot>,
}

/// Every picture and shot, in the order of the document.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Scene {
    /// The items.
    pub(crate) items: Vec<Item>,
}

impl Scene {
    /// Reads a document.
    pub(crate) fn of(document: &Document) -> Self {
        let mut items: Vec<Item> = vec![];
        for (name, node) in document.nodes() {
            if let Op::AnimateClick(spec) = &node.op {
                let picture = spec.image.node.clone();
                items.push(Item {
                    id: name.clone(),
                    name: ui_name(node.ui.as_ref()).unwrap_or_else(|| title(name)),
                    source: source(document, &picture),
                    picture,
                    shot: Some(shot(document, name, spec)),
                });
            }
        }
        for (name, node) in document.nodes() {
            let shown = matches!(node.op, Op::ImageLoad(_) | Op::VideoFrame(_));
            if shown && !items.iter().any(|item| item.picture == *name) {
                items.push(Item {
                    id: name.clone(),
                    name: ui_name(node.ui.as_ref()).unwrap_or_else(|| title(name)),
                    picture: name.clone(),
                    source: source(document, name),
                    shot: None,
                });
            }
        }
        let place = |item: &Item| document.nodes().get_index_of(&item.picture).unwrap_or(usize::MAX);
        items.sort_by_key(place);
        Self { items }
    }

    /// An item by id.
    pub(crate) fn item(&self, id: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.id == id)
    }

    /// The item of that id, or the one that shows the same picture, or the first: what to look at
    /// after an edit changed the ids.
    pub(crate) fn nearest(&self, id: &str, picture: &str) -> Option<&Item> {
        self.item(id)
            .or_else(|| self.items.iter().find(|item| item.picture == picture))
            .or_else(|| self.items.first())
    }
}

impl Item {
    /// Its regions; none without a shot.
    pub(crate) fn regions(&self) -> &[Region] {
        self.shot.as_ref().map_or(&[], |shot| &shot.regions)
    }
}

fn shot(document: &Document, name: &str, spec: &AnimateClick) -> Shot {
    let mut regions = vec![];
    let single = spec.regions.is_empty();
    if let (Some(mask), Some(prompt)) = (&spec.mask, &spec.prompt) {
        let magnitude = spec.magnitude.clone().unwrap_or(Number::Constant(0.6));
        regions.push(region(document, &mask.node, prompt, &magnitude));
    }
    regions.extend(spec.regions.iter().map(|r| region(document, &r.mask.node, &r.prompt, &r.magnitude)));
    let outputs = document.nodes().iter().filter_map(|(node, found)| {
        let video = match &found.op {
            Op::VideoSave(save) => &save.video,
            Op::SequenceSave(save) => &save.video,
            _ => return None,
        };
        let path = found.op.get().writes()?.to_owned();
        let (clip, framing) = clip_of(document, &video.node);
        let framing = framing.map(str::to_owned);
        (clip == name).then(|| Output { node: node.clone(), op: found.op.name(), path, framing })
    });
    Shot { node: name.to_owned(), spec: spec.clone(), single, regions, outputs: outputs.collect() }
}

fn region(document: &Document, mask: &str, prompt: &str, magnitude: &Number) -> Region {
    let node = document.node(mask);
    let shape = match node.map(|node| &node.op) {
        Some(Op::MaskClick(clicks)) => Shape::Clicks(clicks.clone()),
        Some(Op::MaskImport(import)) => Shape::File { path: import.path.clone() },
        Some(other) => Shape::Made { op: other.name() },
        None => Shape::Made { op: "nothing" },
    };
    Region {
        mask: mask.to_owned(),
        name: node.and_then(|node| ui_name(node.ui.as_ref())).unwrap_or_else(|| title(mask)),
        shape,
        prompt: prompt.to_owned(),
        magnitude: magnitude.clone(),
    }
}

fn source(document: &Document, picture: &str) -> Source {
    match document.node(picture).map(|node| &node.op) {
        Some(Op::ImageLoad(load)) => Source::Image { path: load.path.clone() },
        Some(Op::VideoFrame(frame)) => match document.node(&frame.video.node).map(|node| &node.op) {
            Some(Op::VideoLoad(load)) => Source::Frame {
                video: frame.video.node.clone(),
                path: load.path.clone(),
                seconds: load.start + frame.at.unwrap_or(0.0),
                index: frame.index.unwrap_or(0),
            },
            Some(other) => Source::Made { op: other.name() },
            None => Source::Made { op: "nothing" },
        },
        Some(other) => Source::Made { op: other.name() },
        None => Source::Made { op: "nothing" },
    }
}

/// The name the editor keeps with a node.
fn ui_name(ui: Option<&Value>) -> Option<String> {
    let name = ui?.get("name")?.as_str()?.trim();
    let name: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
    (!name.is_empty()).then_some(name)
}

/// A node's name as a title: `left_wing-2` reads "Left wing 2".
pub(crate) fn title(node: &str) -> String {
    let words = node.replace(['_', '-'], " ");
    let words = words.trim();
    let mut letters = words.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => node.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(text: &str) -> Scene {
        Scene::of(&Document::parse(text, "test").unwrap())
    }

    #[test]
    fn examples_are_seen_as_pictures_and_shots() {
        let one = scene(include_str!("../../../../workflows/single-click.kinora.json"));
        let item = &one.items[0];
        assert_eq!((one.items.len(), item.id.as_str(), item.name.as_str()), (1, "shot", "Shot"));
        let shot = item.shot.as_ref().unwrap();
        assert!(shot.single && shot.regions[0].name == "Rocket" && shot.regions[0].prompt == "rise slowly");
        assert_eq!(shot.outputs[0].path, "out/single-click.mp4");

        let two = scene(include_str!("../../../../workflows/two-regions.kinora.json"));
        let regions = two.items[0].regions();
        assert!(matches!(&regions[0].shape, Shape::File { path } if path.ends_with("coffee.png")));
        assert!(matches!(&regions[1].shape, Shape::Clicks(clicks) if clicks.points.len() == 2));

        let strip = scene(include_str!("../../../../workflows/magnitude-strip.kinora.json"));
        let ids: Vec<_> = strip.items.iter().map(|item| item.id.as_str()).collect();
        assert_eq!(ids, ["little", "middle", "much"], "three shots of one picture");

        let clip = scene(include_str!("../../../../workflows/video-first-frame.kinora.json"));
        assert!(matches!(&clip.items[0].source, Source::Frame { index: 0, .. }));
    }

    #[test]
    fn a_picture_alone_is_an_item() {
        let text = r#"{ "kinora": 1, "nodes": {
            "my_photo": { "op": "image.load", "path": "a.png" },
            "b": { "op": "image.load", "path": "b.png", "ui": { "name": " Beach\n " } } } }"#;
        let scene = scene(text);
        let names: Vec<_> = scene.items.iter().map(|item| item.name.as_str()).collect();
        assert_eq!(names, ["My photo", "Beach"]);
        assert!(scene.items[0].shot.is_none() && scene.items[0].regions().is_empty());
        assert_eq!(scene.nearest("gone", "b").unwrap().id, "b");
        assert_eq!(scene.nearest("gone", "gone").unwrap().id, "my_photo");
    }
}
