use super::*;
use proptest::prelude::*;

fn click(x: f32, y: f32) -> ClickPoint {
    ClickPoint { x, y, keep: true }
}

fn disc(width: u32, height: u32) -> Picture {
    let rgb = (0..width * height)
        .flat_map(|i| {
            let (x, y) = ((i % width) as f32 - 0.6 * width as f32, (i / width) as f32 - 0.4 * height as f32);
            let grain = (i * 7919 % 11) as u8;
            if x.hypot(y) < 0.2 * height as f32 { [190 + grain, 60, 50] } else { [60, 110 + grain, 90] }
        })
        .collect();
    Picture::new(width, height, rgb).unwrap()
}

#[test]
fn one_click_selects_the_disc() {
    let cut = ClickCut::new(&disc(320, 200));
    let found = cut.cut(&[click(0.6, 0.4)], None).unwrap();
    let best = &found[0].mask;
    let (mut both, mut any) = (0, 0);
    for (i, &a) in best.alpha().iter().enumerate() {
        let (x, y) = ((i % 320) as f32 - 192.0, (i / 320) as f32 - 80.0);
        let want = x.hypot(y) < 40.0;
        both += usize::from(want && a > 0.5);
        any += usize::from(want || a > 0.5);
    }
    assert!(both as f32 / any as f32 > 0.95, "IoU {both}/{any}");
    assert!(found[0].score > 0.5, "{}", found[0].score);
    let again = cut.cut(&[click(0.6, 0.4)], None).unwrap();
    assert!(found.iter().zip(&again).all(|(a, b)| a.mask == b.mask && a.score == b.score));
}

#[test]
fn prompts_outside_the_picture_are_refused() {
    let cut = ClickCut::new(&disc(40, 30));
    for (x, y) in [(1.01, 0.5), (-0.1, 0.5), (0.5, f32::NAN), (f32::INFINITY, 0.0)] {
        assert!(matches!(cut.cut(&[click(x, y)], None), Err(ClickError::OutsidePicture { index: 0, .. })));
    }
    assert_eq!(cut.cut(&[], None).unwrap_err(), ClickError::NothingWanted);
    let no = ClickPoint { x: 0.5, y: 0.5, keep: false };
    assert_eq!(cut.cut(&[no], None).unwrap_err(), ClickError::NothingWanted);
    assert_eq!(
        cut.cut(&[click(0.5, 0.5), no], None).unwrap_err(),
        ClickError::Contradiction { first: 0, second: 1 }
    );
    let flat = BoxPrompt { x0: 0.5, y0: 0.1, x1: 0.5, y1: 0.9 };
    assert!(matches!(cut.cut(&[], Some(flat)), Err(ClickError::BadBox { .. })));
    let stroke = Stroke { points: vec![], radius: 0.01, keep: true };
    assert_eq!(
        cut.cut_prompts(&Prompts { strokes: vec![stroke], ..Prompts::default() }).unwrap_err(),
        ClickError::BadStroke { index: 0 }
    );
}

#[test]
fn a_box_and_a_stroke_select_the_disc_too() {
    let cut = ClickCut::new(&disc(320, 200));
    let area = BoxPrompt { x0: 0.42, y0: 0.12, x1: 0.78, y1: 0.68 };
    let boxed = &cut.cut(&[], Some(area)).unwrap()[0].mask;
    let stroke = Stroke { points: vec![[0.55, 0.4], [0.65, 0.4]], radius: 0.01, keep: true };
    let brushed = &cut.cut_prompts(&Prompts { strokes: vec![stroke], ..Prompts::default() }).unwrap()[0].mask;
    let true_share = std::f64::consts::PI * 1600.0 / 64000.0;
    for mask in [boxed, brushed] {
        assert!(
            (mask.area_fraction() / true_share - 1.0).abs() < 0.08,
            "{}",
            mask.area_fraction() / true_share
        );
    }
}

#[test]
fn saliency_adds_a_candidate_only_under_the_click() {
    let picture = disc(320, 200);
    let network = |p: &Picture| {
        let alpha = (0..p.width() * p.height()).map(|i| {
            let (x, y) = ((i % 320) as f32 - 192.0, (i / 320) as f32 - 80.0);
            if x.hypot(y) < 40.0 { 1.0 } else { 0.0 }
        });
        Mask::new(p.width(), p.height(), alpha.collect()).map_err(|e| SaliencyError::Network(Box::new(e)))
    };
    let cut = ClickCut::new(&picture).with_salient(&network).unwrap();
    assert!(cut.cut(&[click(0.6, 0.4)], None).unwrap().iter().any(|c| c.kind == CandidateKind::Salient));
    assert!(cut.cut(&[click(0.1, 0.9)], None).unwrap().iter().all(|c| c.kind != CandidateKind::Salient));
    let wrong = |_: &Picture| Mask::new(1, 1, vec![1.0]).map_err(|e| SaliencyError::Network(Box::new(e)));
    assert!(matches!(ClickCut::new(&picture).with_salient(&wrong), Err(SaliencyError::Size { .. })));
}

#[test]
fn degenerate_pictures_never_panic() {
    for (w, h) in [(1, 1), (1, 9), (9, 1), (2, 2), (3, 700), (2000, 3), (1300, 1)] {
        for flat in [true, false] {
            let rgb = (0..w * h * 3).map(|i| if flat { 120 } else { (i * 37 % 251) as u8 }).collect();
            let cut = ClickCut::new(&Picture::new(w, h, rgb).unwrap());
            let found = cut.cut(&[click(1.0, 0.0)], None).unwrap();
            assert!(!found.is_empty());
            assert!(
                found
                    .iter()
                    .all(|c| c.mask.alpha()[w as usize - 1] > 0.5
                        && (c.mask.width(), c.mask.height()) == (w, h))
            );
            assert!(
                !cut.cut(&[], Some(BoxPrompt { x0: 0.0, y0: 0.0, x1: 1.0, y1: 1.0 })).unwrap().is_empty()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn clicks_hold_exactly(
        w in 1u32..90, h in 1u32..90, cell in 1u32..12, salt in 0u32..1000,
        points in prop::collection::vec((0f32..=1.0, 0f32..=1.0, any::<bool>()), 1..6),
        boxed in any::<bool>(),
    ) {
        let rgb = (0..w * h).flat_map(|i| {
            let k = (i % w / cell * 31 + i / w / cell * 17 + salt) .wrapping_mul(2_654_435_761);
            [k as u8, (k >> 8) as u8, (k >> 16) as u8]
        }).collect();
        let cut = ClickCut::new(&Picture::new(w, h, rgb).unwrap());
        let points: Vec<ClickPoint> = points.into_iter().map(|(x, y, keep)| ClickPoint { x, y, keep }).collect();
        let area = boxed.then_some(BoxPrompt { x0: 0.2, y0: 0.1, x1: 0.8, y1: 0.9 });
        match cut.cut(&points, area) {
            Ok(found) => for c in &found {
                prop_assert!(c.mask.alpha().iter().all(|a| (0.0..=1.0).contains(a)));
                prop_assert!((0.0..=1.0).contains(&c.score));
                for p in &points {
                    let (x, y) = (prompts::pixel(p.x, w as usize), prompts::pixel(p.y, h as usize));
                    prop_assert_eq!(c.mask.alpha()[y * w as usize + x] > 0.5, p.keep);
                }
            },
            Err(e) => prop_assert!(matches!(e, ClickError::NothingWanted | ClickError::Contradiction { .. }), "{e}"),
        }
    }
}
