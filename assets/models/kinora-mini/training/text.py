"""Caption encoder: the CLIP text layout with a factorised token table and a head that names the motion.

ids [B, 32] int64 -> states [B, 32, 192] (after the final layer norm), pooled [B, 192] (state at the
first end-of-text token), kinds [B, K + 1] logits; column order is `motions.KINDS` then "unrecognised".
"""
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class TextConfig:
    vocab_size: int = 49408
    table_width: int = 48       # the frozen table; `token_projection` brings it to hidden_size
    hidden_size: int = 192
    num_hidden_layers: int = 4
    num_attention_heads: int = 6
    intermediate_size: int = 768
    max_position_embeddings: int = 32
    eos_token_id: int = 49407
    num_kinds: int = 23


class SelfAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = c.num_attention_heads
        for n in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, n, nn.Linear(c.hidden_size, c.hidden_size))

    def forward(self, x):
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for p in (self.q_proj, self.k_proj, self.v_proj))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc1 = nn.Linear(c.hidden_size, c.intermediate_size)
        self.fc2 = nn.Linear(c.intermediate_size, c.hidden_size)

    def forward(self, x):
        h = self.fc1(x)
        return self.fc2(h * torch.sigmoid(1.702 * h))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn = SelfAttention(c)
        self.layer_norm1 = nn.LayerNorm(c.hidden_size)
        self.mlp = Mlp(c)
        self.layer_norm2 = nn.LayerNorm(c.hidden_size)

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Embeddings(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.token_embedding = nn.Embedding(c.vocab_size, c.table_width)
        self.token_projection = nn.Linear(c.table_width, c.hidden_size, bias=False)
        self.position_embedding = nn.Embedding(c.max_position_embeddings, c.hidden_size)
        self.token_embedding.weight.requires_grad_(False)
        nn.init.normal_(self.position_embedding.weight, std=0.02)

    def forward(self, ids, noise=0.0):
        e = self.token_embedding(ids)
        if noise > 0:  # training only: neighbours in the table must mean the same
            e = e + noise * torch.randn_like(e)
        return self.token_projection(e) + self.position_embedding.weight[:ids.shape[1]]


class Encoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.layers = nn.ModuleList([Layer(c) for _ in range(c.num_hidden_layers)])


class TextModel(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embeddings = Embeddings(c)
        self.encoder = Encoder(c)
        self.final_layer_norm = nn.LayerNorm(c.hidden_size)


class TextEncoder(nn.Module):
    def __init__(self, cfg: TextConfig):
        super().__init__()
        self.cfg = cfg
        self.text_model = TextModel(cfg)
        self.kind_head = nn.Linear(cfg.hidden_size, cfg.num_kinds + 1)

    def forward(self, ids, noise=0.0):
        t = self.text_model
        x = t.embeddings(ids, noise)
        for layer in t.encoder.layers:
            x = layer(x)
        x = t.final_layer_norm(x)
        end = (ids == self.cfg.eos_token_id).int().argmax(1)
        pooled = x[torch.arange(x.shape[0], device=x.device), end]
        return x, pooled, self.kind_head(pooled)
