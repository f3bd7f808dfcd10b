"""The CLIP byte-pair tokenizer: lower-cased, whitespace-collapsed text -> ids (49,408 tokens).

Own re-statement of the published algorithm; the merge list is `bpe_simple_vocab_16e6.txt.gz` (MIT,
OpenAI CLIP). Word pattern and byte alphabet are the published ones, so ids equal those of CLIP.
"""
import gzip
import html
import re
from functools import lru_cache

START, END = 49406, 49407
# \p{L} and \p{N} spelled with the standard library: letters are [^\W\d_], numbers single digits.
WORDS = re.compile(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|[^\s\w]+|_+", re.IGNORECASE)


def byte_alphabet():
    """Printable stand-in character for each of the 256 byte values, in vocabulary order."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    rest = [b for b in range(256) if b not in keep]
    return {**{b: chr(b) for b in keep}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


class ClipBpe:
    def __init__(self, path, max_len=32):
        lines = gzip.open(path, "rt", encoding="utf-8").read().split("\n")
        merges = [tuple(l.split()) for l in lines[1:49152 - 256 - 2 + 1]]
        self.alphabet = byte_alphabet()
        vocab = list(self.alphabet.values())
        vocab += [v + "</w>" for v in vocab] + ["".join(m) for m in merges]
        self.vocab = vocab + ["<|startoftext|>", "<|endoftext|>"]
        self.ids = {v: i for i, v in enumerate(self.vocab)}
        self.rank = {m: i for i, m in enumerate(merges)}
        self.unbyte = {c: b for b, c in self.alphabet.items()}
        self.max_len = max_len
        self.word = lru_cache(maxsize=200_000)(self._word)

    def is_word(self, i):
        return self.vocab[i].endswith("</w>")

    def token_text(self, i):
        s = self.vocab[i].removesuffix("</w>")
        return bytes(self.unbyte.get(c, 32) for c in s).decode("utf-8", "replace")

    def _word(self, w):
        parts = [self.alphabet[b] for b in w.encode("utf-8")]
        parts[-1] += "</w>"
        while len(parts) > 1:
            best = min(zip(parts, parts[1:]), key=lambda p: self.rank.get(p, 1 << 30))
            if best not in self.rank:
                break
            out, i = [], 0
            while i < len(parts):
                if i + 1 < len(parts) and (parts[i], parts[i + 1]) == best:
                    out.append(parts[i] + parts[i + 1])
                    i += 2
                else:
                    out.append(parts[i])
                    i += 1
            parts = out
        return [self.ids[p] for p in parts]

    def encode(self, text):
        """text -> list of max_len ids: start, words (cut to fit), end, padded with end."""
        text = re.sub(r"\s+", " ", html.unescape(html.unescape(text))).strip().lower()
        ids = [t for w in WORDS.findall(text) for t in self.word(w)][:self.max_len - 2]
        ids = [START] + ids + [END]
        return ids + [END] * (self.max_len - len(ids))
