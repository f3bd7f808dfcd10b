"""Writes the tokenised caption banks (train, held out) and ../prompts.json. usage: make_captions.py OUT.npz [N]"""
import json
import random
import sys

import numpy as np

from captions import Grammar
from motions import KINDS, one_hot_kinds
from tokenizer import ClipBpe


def bank(bpe, g, n, held):
    ids, names = [], []
    for _ in range(n):
        k = g.kind()
        while held and k == "unrecognised":
            k = g.kind()
        names.append(k)
        ids.append(bpe.encode(g.one(k, held)))
    return np.array(ids, np.uint16), one_hot_kinds(names).numpy().astype(np.uint8)


if __name__ == "__main__":
    bpe = ClipBpe("../bpe_simple_vocab_16e6.txt.gz")
    words = [bpe.token_text(i) for i in range(256, 49406) if bpe.is_word(i)]
    words = [w for w in words if w.isascii() and w.isalpha() and len(w) > 3]
    from captions import motion_lexicon
    lex = {w for p in motion_lexicon() for w in p.split()}
    words = [w for w in words if w not in lex and not any(l in w for l in ("left", "right", "up", "down"))]
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 200_000
    tr, held = bank(bpe, Grammar(1, words), n, False), bank(bpe, Grammar(2, words), 8000, True)
    np.savez_compressed(sys.argv[1], train_ids=tr[0], train_kinds=tr[1], held_ids=held[0], held_kinds=held[1])
    g = Grammar(3)
    prompts = {k: {"train": sorted({g.one(k) for _ in range(24)}), "held_out": sorted({g.one(k, True) for _ in range(24)})} for k in KINDS}
    prompts["unrecognised"] = {"train": sorted({g.one("unrecognised") for _ in range(24)}), "held_out": []}
    json.dump(prompts, open("../prompts.json", "w"), indent=0)
