"""Builds the frozen factorised token table of the caption encoder (run once, on a CPU).

Every one of the 49,408 CLIP byte-pair tokens is written out as a string and embedded as a one-word
sentence by all-MiniLM-L6-v2 (Apache-2.0). The 384 numbers are reduced to 48 by a whitened PCA whose
covariance counts the words of motion and direction (`captions.motion_lexicon`) much more than the rest
of English, because a plain PCA would spend its axes on topics and fold "left" onto "right".
Related words that never occur in the training captions therefore start close to words that do.

usage: make_token_table.py MINILM_DIR BPE_VOCAB.txt.gz OUT.safetensors
"""
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from captions import motion_lexicon
from tokenizer import ClipBpe


class MiniLm:
    """The forward pass of a 6-layer BERT with mean pooling; weights as in the published safetensors."""

    def __init__(self, folder):
        self.w = {k.removeprefix("bert."): v.float() for k, v in load_file(f"{folder}/model.safetensors").items()}
        self.tok = Tokenizer.from_file(f"{folder}/tokenizer.json")
        self.tok.no_padding()
        self.tok.enable_truncation(48)

    def lin(self, x, name):
        return F.linear(x, self.w[name + ".weight"], self.w[name + ".bias"])

    def ln(self, x, name):
        return F.layer_norm(x, (x.shape[-1],), self.w[name + ".weight"], self.w[name + ".bias"], 1e-12)

    @torch.no_grad()
    def embed(self, texts, batch=256):
        """list of N strings -> [N, 384], unit length."""
        enc = [e.ids for e in self.tok.encode_batch(texts)]
        order = sorted(range(len(enc)), key=lambda i: len(enc[i]))  # similar lengths together: little padding
        out = torch.zeros(len(texts), 384)
        for s in range(0, len(order), batch):
            idx = order[s:s + batch]
            n = max(len(enc[i]) for i in idx)
            ids = torch.tensor([enc[i] + [0] * (n - len(enc[i])) for i in idx])
            mask = torch.tensor([[1.0] * len(enc[i]) + [0.0] * (n - len(enc[i])) for i in idx])
            x = (self.w["embeddings.word_embeddings.weight"][ids]
                 + self.w["embeddings.position_embeddings.weight"][:n]
                 + self.w["embeddings.token_type_embeddings.weight"][0])
            x = self.ln(x, "embeddings.LayerNorm")
            bias = ((1 - mask) * -1e9)[:, None, None]
            for l in range(6):
                p = f"encoder.layer.{l}."
                q, k, v = (self.lin(x, p + f"attention.self.{t}").unflatten(-1, (12, 32)).transpose(1, 2)
                           for t in ("query", "key", "value"))
                a = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
                x = self.ln(x + self.lin(a, p + "attention.output.dense"), p + "attention.output.LayerNorm")
                h = F.gelu(self.lin(x, p + "intermediate.dense"))
                x = self.ln(x + self.lin(h, p + "output.dense"), p + "output.LayerNorm")
            e = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            out[idx] = F.normalize(e, dim=-1)
        return out


def main(folder, vocab, out, width=48):
    bpe = ClipBpe(vocab)
    lm = MiniLm(folder)
    strings = [bpe.token_text(i) for i in range(49408)]
    emb = lm.embed([s if s.strip() else "." for s in strings])
    lex = lm.embed(motion_lexicon())
    mean = emb.mean(0)
    lex_c = lex - lex.mean(0)
    cov = (emb - mean).T @ (emb - mean) / len(emb) + 4.0 * lex_c.T @ lex_c / len(lex)
    val, vec = torch.linalg.eigh(cov)
    basis = vec[:, -width:].flip(1)
    proj = (emb - mean) @ basis
    # Whitened by the spread over the lexicon and the vocabulary together, so that no axis is drowned.
    table = proj / (0.5 * proj.std(0) + 0.5 * (lex_c @ basis).std(0))
    table[49406:] = torch.randn(2, width, generator=torch.Generator().manual_seed(1))  # start and end of text
    save_file({"table": table.clamp(-6, 6).half().contiguous()}, out)
    print("kept variance", float(val[-width:].sum() / val.sum()), "table std", float(table.std()))
    idx = {s: i for i, s in enumerate(strings) if bpe.is_word(i)}
    t = F.normalize(table, dim=-1)
    words = [w for w in motion_lexicon() if w in idx]
    for w in ("leftward", "rise", "descend", "swell", "twirl", "glide", "left", "right", "rotate"):
        if w in idx:
            sim = t[[idx[x] for x in words]] @ t[idx[w]]
            print(w, [(words[i], round(float(sim[i]), 2)) for i in sim.topk(min(7, len(words))).indices])


if __name__ == "__main__":
    main(*sys.argv[1:4])
