//! The embedded model's own arithmetic against the fixtures of its training code
//! (`assets/models/kinora-mini/training/export_fixtures.py`).
// Test helpers outside #[test] functions may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use kinora_pipeline::media::Raster;
use kinora_pipeline::nets::mini::{FieldConfig, MotionField, Plate, PlateConfig};
use kinora_pipeline::systems::follow_your_click::guide::{Layer, Scene, View, hole_of, push_pull};
use kinora_pipeline::systems::follow_your_click::motions::{Geometry, Kind, Truth};

type Tensors = HashMap<String, Tensor>;

fn fixture(name: &str) -> Tensors {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mini").join(name);
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// One item of a `[N, C, H, W]` tensor as a channels-last raster.
fn raster(tensor: &Tensor, item: usize) -> Raster {
    let item = tensor.get(item).unwrap();
    let (channels, height, width) = item.dims3().unwrap();
    Raster { width, height, channels, data: flat(&item.permute((1, 2, 0)).unwrap()) }
}

fn assert_close(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let scale = want.iter().fold(0.0f32, |m, v| m.max(v.abs())).max(1e-6);
    let worst = got.iter().zip(want).fold(0.0f32, |m, (g, w)| m.max((g - w).abs()));
    assert!(worst <= 1e-4 * scale, "{what}: worst difference {worst}, largest value {scale}");
}

#[test]
fn push_pull_matches() {
    let t = fixture("push_pull.safetensors");
    let (image, weight) = (raster(&t["in.image"], 0), raster(&t["in.weight"], 0));
    let want = raster(&t["out.filled"], 0);
    assert_close("filled", &push_pull(&image, &weight).data, &want.data);
}

#[test]
fn the_guide_matches_for_moving_and_gated_regions() {
    let t = fixture("guide_without_camera.safetensors");
    let gates = flat(&t["in.gate"]);
    let frames = t["mid.displacement"].dims()[1];
    for (item, &gate) in gates.iter().enumerate() {
        let photo = raster(&t["in.frame0"], item);
        let mask = raster(&t["in.mask"], item);
        let hole = hole_of(&mask);
        assert_close("hole", &hole.data, &raster(&t["mid.hole"], item).data);
        let known = Raster { data: hole.data.iter().map(|h| 1.0 - h).collect(), ..hole.clone() };
        let filled = push_pull(&photo, &known);
        assert_close("filled", &filled.data, &raster(&t["mid.filled"], item).data);
        let view = View::of(photo.width, photo.height);
        let scene = Scene {
            view,
            photo,
            plate: filled,
            layers: vec![Layer { mask, hole, gated: gate > 0.5 }],
            sharp: false,
        };
        for frame in 0..frames {
            let field = flat(&t["mid.displacement"].get(item).unwrap().get(frame).unwrap());
            let displacement = move |x: f32, y: f32| {
                let [column, row] = view.pixel([x, y]).map(|v| v.round() as usize);
                let at = 2 * (row * view.width + column);
                [field[at], field[at + 1]]
            };
            let got = scene.frame(&[displacement]);
            let n = item * frames + frame;
            assert_close("guide", &got.picture.data, &raster(&t["out.guide"], n).data);
            assert_close("mask", &got.mask.data, &raster(&t["out.mask"], n).data);
            assert_close("validity", &got.valid.data, &raster(&t["out.validity"], n).data);
        }
    }
}

#[test]
fn motions_are_the_ones_of_the_training_data() {
    let t = fixture("motions.safetensors");
    let names = [
        "left",
        "right",
        "up",
        "down",
        "up_left",
        "up_right",
        "down_left",
        "down_right",
        "turn_cw",
        "turn_ccw",
        "grow",
        "shrink",
        "sway",
        "ripple",
        "flow_left",
        "flow_right",
        "flow_up",
        "flow_down",
        "bounce",
        "shake",
        "swing",
        "pulse",
        "still",
        "left+grow",
        "up_right+turn_ccw",
    ];
    let points: Vec<Vec<f32>> = t["in.points"].reshape((25, 2)).unwrap().to_vec2().unwrap();
    for (item, name) in names.iter().enumerate() {
        let geometry =
            flat(&t["in.geometry"].get(item).unwrap()).into_iter().map(f64::from).collect::<Vec<_>>();
        let geometry = Geometry { cx: geometry[0], cy: geometry[1], radius: geometry[2], sy: geometry[4] };
        let magnitude = f64::from(flat(&t["in.magnitude"])[item]);
        let phases = flat(&t["in.s"].get(item).unwrap());
        let kinds: Vec<Kind> = name.split('+').map(|n| Kind::from_name(n).unwrap()).collect();
        let kinds = [kinds[0], *kinds.get(1).unwrap_or(&Kind::Still)];
        let got: Vec<f32> = phases
            .iter()
            .flat_map(|&s| {
                let truth = Truth::pair(kinds, geometry, magnitude, f64::from(s));
                points
                    .iter()
                    .flat_map(move |p| truth.at([f64::from(p[0]), f64::from(p[1])]))
                    .collect::<Vec<_>>()
            })
            .map(|v| v as f32)
            .collect();
        let want = flat(&t["out.displacement"].get(item).unwrap());
        let worst = got.iter().zip(&want).fold(0.0f32, |m, (g, w)| m.max((g - w).abs()));
        assert!(worst < 2e-6, "{name}: {worst}");
    }
}

fn config<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mini").join(name);
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    serde_json::from_str(&header.metadata().as_ref().unwrap()["config"]).unwrap()
}

fn weights(tensors: &Tensors) -> candle_nn::VarBuilder<'static> {
    let weights =
        tensors.iter().filter_map(|(k, v)| Some((k.strip_prefix("w.")?.to_owned(), v.clone()))).collect();
    candle_nn::VarBuilder::from_tensors(weights, candle_core::DType::F32, &Device::Cpu)
}

#[test]
fn the_motion_field_matches() {
    let t = fixture("field.safetensors");
    let net = MotionField::new(&config::<FieldConfig>("field.safetensors"), weights(&t)).unwrap();
    let points: Vec<Vec<f32>> = t["in.points"].reshape(((), 2)).unwrap().to_vec2().unwrap();
    for item in 0..2 {
        let phases: Vec<f64> = flat(&t["in.s"].get(item).unwrap()).into_iter().map(f64::from).collect();
        let pooled = t["in.pooled"].get(item).unwrap().unsqueeze(0).unwrap();
        let magnitude = f64::from(flat(&t["in.magnitude"])[item]);
        let motion = net
            .predict(&raster(&t["in.mask"], item), &pooled, &vec![magnitude; phases.len()], &phases)
            .unwrap();
        let got: Vec<f32> =
            motion.frames.iter().flat_map(|f| points.iter().flat_map(|p| f.at(p[0], p[1]))).collect();
        assert_close("displacement", &got, &flat(&t["out.displacement"].get(item).unwrap()));
        let logit = flat(&t["out.gate"])[item];
        assert!((motion.gate - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-5);
    }
}

#[test]
fn a_magnitude_that_changes_gives_each_frame_the_field_of_a_constant_one() {
    let t = fixture("field.safetensors");
    let net = MotionField::new(&config::<FieldConfig>("field.safetensors"), weights(&t)).unwrap();
    let pooled = t["in.pooled"].get(0).unwrap().unsqueeze(0).unwrap();
    let mask = raster(&t["in.mask"], 0);
    let phases = [0.0, 0.25, 0.5, 0.75, 1.0];
    let magnitudes = [0.9, 0.0, 0.3, 1.0, 0.55];
    let keyed = net.predict(&mask, &pooled, &magnitudes, &phases).unwrap();
    let points = [(0.0, 0.0), (0.4, -0.3), (-0.8, 0.7), (0.15, 0.05)];
    let mut moved = 0;
    for (frame, &magnitude) in magnitudes.iter().enumerate() {
        let constant = net.predict(&mask, &pooled, &[magnitude; 5], &phases).unwrap();
        for (x, y) in points {
            let (got, want) = (keyed.frames[frame].at(x, y), constant.frames[frame].at(x, y));
            assert!(
                (got[0] - want[0]).abs() < 1e-6 && (got[1] - want[1]).abs() < 1e-6,
                "{frame}: {got:?} {want:?}"
            );
            moved += usize::from(got[0].hypot(got[1]) > 1e-3);
        }
        assert_eq!(keyed.gate, constant.gate);
    }
    assert!(moved >= 8, "the fixture's field moves things");
    assert_eq!(keyed.frames[1].at(0.1, 0.1), [0.0, 0.0], "no magnitude, no motion");
}

#[test]
fn the_plate_matches() {
    let t = fixture("plate.safetensors");
    let net = Plate::new(&config::<PlateConfig>("plate.safetensors"), weights(&t)).unwrap();
    let got = net.forward(&t["mid.filled"], &t["mid.hole"]).unwrap();
    assert_close("plate", &flat(&got), &flat(&t["out.plate"]));
}
