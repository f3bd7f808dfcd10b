//! Decoding holds a few frames, however long the clip. Heap bytes of this thread are counted: the
//! pictures handed out are allocated on it, and a resident-set figure would count FFmpeg's pools.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use kinora_pipeline::media::{VideoLimits, VideoReader};

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn count(change: isize) {
    // A thread being torn down has nothing left to count.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: every call is passed to the system allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_long_clip_holds_a_few_frames() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/samples/big-buck-bunny.mp4");
    let mut reader = VideoReader::open(&path, &VideoLimits::default()).unwrap();
    let info = reader.info().clone();
    assert_eq!((info.width, info.height, info.fps), (1280, 720, Some((25, 1))));
    assert_eq!(info.codec, "h264");
    let before = LIVE.get();
    PEAK.set(before);
    let mut frames = 0;
    let mut last = -1.0;
    while let Some(frame) = reader.next_frame().unwrap() {
        assert!(
            (frame.seconds - f64::from(frames) / 25.0).abs() < 1e-9,
            "frame {frames} at {}",
            frame.seconds
        );
        assert!(frame.seconds > last);
        last = frame.seconds;
        frames += 1;
    }
    assert_eq!(frames, 132);
    let picture = 1280 * 720 * 3;
    let held = PEAK.get() - before;
    assert!(held <= 3 * picture, "{held} bytes, {:.1} pictures", held as f64 / picture as f64);
}
