//! CLIP's byte-pair tokenizer, equal to `transformers.CLIPTokenizer` id for id.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::GzDecoder;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{
    NFC, Replace, Sequence as Normalizers, replace::ReplacePattern, utils::Lowercase,
};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer};

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
/// Merges CLIP uses of the file, which may list more: 49,408 tokens less the two marks, 256 bytes
/// and 256 word-final bytes.
const MERGES: usize = 49_408 - 2 - 2 * 256;
/// The published file unpacks to 3.2 MB; an archive that grows beyond this is something else.
const MAX_UNPACKED: u64 = 16 << 20;

/// A vocabulary file that cannot be used, or a text that could not be split.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file is not CLIP's merge list.
    #[error(
        "CLIP vocabulary: expected a text file, plain or gzipped, with a header line and {MERGES} merges of two symbols, found {found}; use bpe_simple_vocab_16e6.txt.gz or the merges.txt of a CLIP tokenizer"
    )]
    Vocabulary { found: String },
    /// Fewer than two places for ids: start and end do not fit.
    #[error(
        "CLIP tokenizer: a sequence of {got} tokens has no room for the start and end marks, ask for 2 or more"
    )]
    Length { got: usize },
    /// The tokenizer library refused.
    #[error("CLIP tokenizer: {0}")]
    Library(#[source] tokenizers::Error),
}

/// One prompt as ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizedPrompt {
    /// Start mark, tokens, end mark, then end marks up to the length asked for.
    pub ids: Vec<u32>,
    /// Tokens the text has, without marks and before truncation.
    pub tokens: usize,
    /// Whether the end of the text did not fit. Tell the user; never drop words silently.
    pub truncated: bool,
}

/// Lowercases, cleans white space, splits words and merges bytes.
#[derive(Debug, Clone)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    start: u32,
    end: u32,
}

impl ClipTokenizer {
    /// `file` is `bpe_simple_vocab_16e6.txt.gz` as published, its text, or the `merges.txt` of a
    /// CLIP tokenizer: a header line, then one merge a line, best first.
    ///
    /// # Errors
    /// [`TokenizerError::Vocabulary`] when the file is not such a list.
    pub fn from_bpe_file(file: &[u8]) -> Result<Self, TokenizerError> {
        let bytes = unpacked(file)
            .map_err(|e| TokenizerError::Vocabulary { found: format!("a damaged gzip archive ({e})") })?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|e| TokenizerError::Vocabulary { found: format!("bytes that are not UTF-8 ({e})") })?;
        let mut pairs = Vec::with_capacity(MERGES);
        for (number, line) in text.lines().enumerate().skip(1).take(MERGES) {
            match line.split_once(' ') {
                Some((left, right)) if !right.contains(' ') => {
                    pairs.push((left.to_owned(), right.to_owned()))
                }
                _ => {
                    return Err(TokenizerError::Vocabulary {
                        found: format!("{line:?} on line {}", number + 1),
                    });
                }
            }
        }
        if pairs.len() != MERGES {
            return Err(TokenizerError::Vocabulary { found: format!("{} merges", pairs.len()) });
        }
        let symbols = byte_symbols();
        let words = symbols
            .iter()
            .map(|c| c.to_string())
            .chain(symbols.iter().map(|c| format!("{c}</w>")))
            .chain(pairs.iter().map(|(left, right)| format!("{left}{right}")))
            .chain([START.to_owned(), END.to_owned()]);
        let vocabulary: std::collections::HashMap<String, u32> = words.zip(0..).collect();
        let bpe = BPE::builder()
            .vocab_and_merges(vocabulary.into_iter().collect::<tokenizers::models::bpe::Vocab>(), pairs)
            .unk_token(END.to_owned())
            .continuing_subword_prefix(String::new())
            .end_of_word_suffix("</w>".to_owned())
            .build()
            .map_err(TokenizerError::Library)?;
        Self::around(bpe).map_err(TokenizerError::Library)
    }

    fn around(bpe: BPE) -> Result<Self, tokenizers::Error> {
        let mut tokenizer = Tokenizer::new(bpe);
        let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
        let clean = [NormalizerWrapper::NFC(NFC), spaces.into(), Lowercase.into()];
        tokenizer.with_normalizer(Some(Normalizers::new(clean.to_vec())))?;
        let words =
            r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
        let split = Split::new(SplitPattern::Regex(words.into()), SplitDelimiterBehavior::Removed, true)?;
        tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![
            PreTokenizerWrapper::Split(split),
            PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
        ])));
        tokenizer.add_special_tokens([AddedToken::from(START, true), AddedToken::from(END, true)])?;
        let id =
            |mark: &str| tokenizer.token_to_id(mark).ok_or_else(|| format!("no {mark} in the vocabulary"));
        let (start, end) = (id(START)?, id(END)?);
        Ok(Self { tokenizer, start, end })
    }

    /// The id of the start mark (49406 for CLIP).
    pub fn start(&self) -> u32 {
        self.start
    }

    /// The id of the end mark and of padding (49407 for CLIP).
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Splits `text` and fits it into exactly `max_len` ids (77 for CLIP).
    ///
    /// # Errors
    /// `max_len` below 2.
    pub fn encode(&self, text: &str, max_len: usize) -> Result<TokenizedPrompt, TokenizerError> {
        let Some(room) = max_len.checked_sub(2) else {
            return Err(TokenizerError::Length { got: max_len });
        };
        let encoding = self.tokenizer.encode_fast(text, false).map_err(TokenizerError::Library)?;
        let found = encoding.get_ids();
        let mut ids = Vec::with_capacity(max_len);
        ids.push(self.start);
        ids.extend(found.iter().copied().take(room));
        ids.resize(max_len, self.end);
        if found.len() >= room {
            ids[max_len - 1] = self.end;
        }
        Ok(TokenizedPrompt { ids, tokens: found.len(), truncated: found.len() > room })
    }
}

fn unpacked(file: &[u8]) -> std::io::Result<Cow<'_, [u8]>> {
    if !file.starts_with(&[0x1f, 0x8b]) {
        return Ok(Cow::Borrowed(file));
    }
    let mut text = Vec::new();
    GzDecoder::new(file).take(MAX_UNPACKED).read_to_end(&mut text)?;
    Ok(Cow::Owned(text))
}

/// The 256 printable stand-ins for bytes in the order CLIP numbers them: first the bytes that
/// print as themselves, then the others as characters from U+0100 on.
fn byte_symbols() -> Vec<char> {
    let printable = || (0x21..=0x7e_u32).chain(0xa1..=0xac).chain(0xae..=0xff);
    let moved = (0..=255_u32).filter(|byte| printable().all(|p| p != *byte)).zip(0x100_u32..).map(|(_, c)| c);
    printable().chain(moved).filter_map(char::from_u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip() -> ClipTokenizer {
        ClipTokenizer::from_bpe_file(include_bytes!(
            "../../../assets/models/kinora-mini/bpe_simple_vocab_16e6.txt.gz"
        ))
        .unwrap()
    }

    #[test]
    fn marks_frame_the_text_and_pad_it() {
        let prompt = clip().encode("a photo of a cat", 77).unwrap();
        assert_eq!(prompt.ids[..8], [49406, 320, 1125, 539, 320, 2368, 49407, 49407]);
        assert_eq!((prompt.ids.len(), prompt.tokens, prompt.truncated), (77, 5, false));
    }

    #[test]
    fn truncation_is_reported_exactly_when_words_are_lost() {
        let clip = clip();
        let fits = clip.encode(&"cat ".repeat(75), 77).unwrap();
        assert_eq!((fits.truncated, fits.ids[75], fits.ids[76]), (false, 2368, 49407));
        let over = clip.encode(&"cat ".repeat(76), 77).unwrap();
        assert_eq!((over.truncated, over.tokens, over.ids.len(), over.ids[76]), (true, 76, 77, 49407));
    }

    #[test]
    fn a_length_without_room_and_foreign_files_are_refused() {
        assert!(matches!(clip().encode("cat", 1), Err(TokenizerError::Length { got: 1 })));
        assert_eq!(clip().encode("cat", 2).unwrap().ids, [49406, 49407]);
        for bad in [&b"\x1f\x8b\x08"[..], b"", b"header\na b c\n", b"header\ni n\n", b"\xff\xfe"] {
            assert!(matches!(ClipTokenizer::from_bpe_file(bad), Err(TokenizerError::Vocabulary { .. })));
        }
    }
}
