//! The unsafe FFmpeg calls that `ffmpeg-next` has no safe form for.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::path::Path;
use std::sync::Once;

use ffmpeg_next as ffmpeg;
use ffmpeg_next::ffi;

use super::error::MediaError;

/// Largest single allocation FFmpeg may make, in bytes: a 16384² frame of 10-bit 4:2:2.
const MAX_ALLOC: usize = 1 << 30;

/// Sets up the library once: errors only through return values, allocations bounded.
pub(super) fn start() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails only where devices or networking would be registered; neither is used.
        let _ = ffmpeg::init();
        ffmpeg::log::set_level(ffmpeg::log::Level::Quiet);
        // SAFETY: sets one integer; no allocation of ours is under way inside `Once`.
        unsafe { ffi::av_max_alloc(MAX_ALLOC) };
    });
}

/// Colour tags as the numbers of ITU-T H.273; 2 is "unspecified".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ColourTags {
    pub(super) matrix: i32,
    pub(super) transfer: i32,
    pub(super) primaries: i32,
    /// 1 limited, 2 full, 0 unstated.
    pub(super) range: i32,
}

/// Reads the tags without going through Rust enums, which a hostile file could leave invalid.
pub(super) fn colour_tags(frame: &ffmpeg::frame::Video) -> ColourTags {
    // SAFETY: `as_ptr` is a live AVFrame for the borrow; each field is a C int behind a Rust enum
    // type, read as the i32 it is.
    unsafe {
        let frame = frame.as_ptr();
        ColourTags {
            matrix: (&raw const (*frame).colorspace).cast::<i32>().read(),
            transfer: (&raw const (*frame).color_trc).cast::<i32>().read(),
            primaries: (&raw const (*frame).color_primaries).cast::<i32>().read(),
            range: (&raw const (*frame).color_range).cast::<i32>().read(),
        }
    }
}

/// The best presentation time of a decoded frame, in units of the stream's time base.
pub(super) fn best_timestamp(frame: &ffmpeg::frame::Video) -> Option<i64> {
    // SAFETY: `as_ptr` is a live AVFrame for the borrow.
    let stamp = unsafe { (*frame.as_ptr()).best_effort_timestamp };
    (stamp != ffi::AV_NOPTS_VALUE).then_some(stamp)
}

/// Frame size a stream's parameters state, before its decoder is opened.
pub(super) fn stated_size(context: &ffmpeg::codec::Context) -> (u32, u32) {
    // SAFETY: `as_ptr` is a live AVCodecContext for the borrow.
    let (width, height) = unsafe { ((*context.as_ptr()).width, (*context.as_ptr()).height) };
    (u32::try_from(width).unwrap_or(0), u32::try_from(height).unwrap_or(0))
}

/// A value of a metadata dictionary; bytes that are not Unicode are replaced.
pub(super) fn tag(dictionary: &ffmpeg::DictionaryRef<'_>, key: &CStr) -> Option<String> {
    // SAFETY: the dictionary outlives the borrow; av_dict_get returns null or an entry whose value
    // is a zero-terminated string owned by the dictionary, copied before returning.
    unsafe {
        let entry = ffi::av_dict_get(dictionary.as_ptr(), key.as_ptr(), std::ptr::null(), 0);
        if entry.is_null() || (*entry).value.is_null() {
            return None;
        }
        Some(CStr::from_ptr((*entry).value).to_string_lossy().into_owned())
    }
}

/// The matrix of luma and chroma, as swscale names its coefficient tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matrix {
    Bt601,
    Bt709,
    Bt2020,
    Smpte240,
    Fcc,
}

/// One side of a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) format: ffmpeg::format::Pixel,
    pub(super) matrix: Matrix,
    pub(super) full_range: bool,
}

/// swscale between two pixel formats of one size, with stated matrices and ranges.
pub(super) struct Converter {
    context: ffmpeg::software::scaling::Context,
}

// SAFETY: the context is owned, holds no thread-local state, and is used by one thread at a time
// through `&mut self`.
unsafe impl Send for Converter {}

impl Converter {
    /// Checks both formats first: swscale aborts the process on a missing one.
    pub(super) fn new(
        path: &Path,
        width: u32,
        height: u32,
        from: Side,
        to: Side,
    ) -> Result<Self, MediaError> {
        use ffmpeg::software::scaling::{Context, Flags};
        let missing = |what: &str| MediaError::MissingPart {
            path: path.to_path_buf(),
            kind: "pixel format conversion",
            name: what.to_owned(),
        };
        let (source, target): (ffi::AVPixelFormat, ffi::AVPixelFormat) =
            (from.format.into(), to.format.into());
        // SAFETY: both take a plain number and look it up in a constant table.
        let (readable, writable) =
            unsafe { (ffi::sws_isSupportedInput(source) > 0, ffi::sws_isSupportedOutput(target) > 0) };
        if !readable || from.format == ffmpeg::format::Pixel::None {
            return Err(missing(&format!("from {:?}", from.format)));
        }
        if !writable || to.format == ffmpeg::format::Pixel::None {
            return Err(missing(&format!("to {:?}", to.format)));
        }
        let flags = Flags::BICUBIC
            | Flags::ACCURATE_RND
            | Flags::FULL_CHR_H_INT
            | Flags::FULL_CHR_H_INP
            | Flags::BITEXACT;
        let mut context = Context::get(from.format, width, height, to.format, width, height, flags)
            .map_err(|_| missing(&format!("from {:?} to {:?}", from.format, to.format)))?;
        // SAFETY: the context is live and ours; sws_getCoefficients returns a pointer into a
        // constant table for any argument. A negative result means the pair needs no tables.
        unsafe {
            ffi::sws_setColorspaceDetails(
                context.as_mut_ptr(),
                ffi::sws_getCoefficients(table(from.matrix)),
                i32::from(from.full_range),
                ffi::sws_getCoefficients(table(to.matrix)),
                i32::from(to.full_range),
                0,
                1 << 16,
                1 << 16,
            );
        }
        Ok(Self { context })
    }

    /// Converts; `output` is allocated when empty.
    pub(super) fn run(
        &mut self,
        input: &ffmpeg::frame::Video,
        output: &mut ffmpeg::frame::Video,
    ) -> Result<(), ffmpeg::Error> {
        self.context.run(input, output)
    }
}

fn table(matrix: Matrix) -> i32 {
    match matrix {
        Matrix::Bt601 => ffi::SWS_CS_ITU601,
        Matrix::Bt709 => ffi::SWS_CS_ITU709,
        Matrix::Bt2020 => ffi::SWS_CS_BT2020,
        Matrix::Smpte240 => ffi::SWS_CS_SMPTE240M,
        Matrix::Fcc => ffi::SWS_CS_FCC,
    }
}

/// A frame whose planes may be written: alone in owning its buffers.
pub(super) fn make_writable(frame: &mut ffmpeg::frame::Video) -> Result<(), ffmpeg::Error> {
    // SAFETY: the frame is live and exclusively borrowed; the call replaces shared buffers by copies.
    match unsafe { ffi::av_frame_make_writable(frame.as_mut_ptr()) } {
        code if code < 0 => Err(ffmpeg::Error::from(code)),
        _ => Ok(()),
    }
}

/// Lets a demuxer pass over the packets of every stream but one, unread where its format can.
pub(super) fn read_only(input: &mut ffmpeg::format::context::Input, stream: usize) {
    // SAFETY: the context is live and exclusively borrowed; it has `nb_streams` live streams.
    unsafe {
        let context = input.as_mut_ptr();
        for index in 0..(*context).nb_streams as usize {
            if index != stream {
                (**(*context).streams.add(index)).discard = ffi::AVDiscard::AVDISCARD_ALL;
            }
        }
    }
}

/// Goes to the last point of a stream at or before a moment, in units of its time base, from which it can be
/// decoded; to the first one after it where there is none before.
pub(super) fn seek_stream(
    input: &mut ffmpeg::format::context::Input,
    stream: usize,
    at: i64,
) -> Result<(), ffmpeg::Error> {
    let index = i32::try_from(stream).map_err(|_| ffmpeg::Error::StreamNotFound)?;
    // SAFETY: the context is live and exclusively borrowed; a stream that is not there is refused.
    let code = unsafe {
        match ffi::avformat_seek_file(input.as_mut_ptr(), index, i64::MIN, at, at, 0) {
            code if code < 0 => ffi::avformat_seek_file(input.as_mut_ptr(), index, i64::MIN, at, i64::MAX, 0),
            code => code,
        }
    };
    if code < 0 { Err(ffmpeg::Error::from(code)) } else { Ok(()) }
}

/// An encoder by name.
pub(super) fn encoder(path: &Path, name: &str) -> Result<ffmpeg::Codec, MediaError> {
    start();
    ffmpeg::encoder::find_by_name(name).ok_or_else(|| MediaError::MissingPart {
        path: path.to_path_buf(),
        kind: "encoder",
        name: name.to_owned(),
    })
}

/// Sets the four-character code a container stores for a stream.
pub(super) fn set_stream_tag(stream: &mut ffmpeg::StreamMut<'_>, code: [u8; 4]) {
    // SAFETY: the stream belongs to a live output context, exclusively borrowed, and its codecpar
    // was allocated with it.
    unsafe {
        (*(*stream.as_mut_ptr()).codecpar).codec_tag = u32::from_le_bytes(code);
    }
}

/// Copies the opened encoder's parameters (with extradata and colour tags) to a stream.
pub(super) fn copy_parameters(
    stream: &mut ffmpeg::StreamMut<'_>,
    encoder: &ffmpeg::codec::Context,
) -> Result<(), ffmpeg::Error> {
    // SAFETY: both structures are live; the call deep-copies into the stream's own codecpar.
    match unsafe { ffi::avcodec_parameters_from_context((*stream.as_mut_ptr()).codecpar, encoder.as_ptr()) } {
        code if code < 0 => Err(ffmpeg::Error::from(code)),
        _ => Ok(()),
    }
}
