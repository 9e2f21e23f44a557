"""The ends of one tower: tokens, time and text in; velocities out. Its blocks are in mmdit.py."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelmill.model.attention import key_mask
from reelmill.model.blocks import EPS, AdaLN, Context, TextKV, Time
from reelmill.model.config import TowerConfig
from reelmill.model.flow import velocity
from reelmill.model.modality import KEYFRAME, Modality, Text
from reelmill.model.rope import rope
from reelmill.model.sparse import Sparse

FREQUENCIES = 256


class TowerText(NamedTuple):
    """A prompt as one tower reads it: c [B, L, dim]; pad as in Text; kv as in Context."""

    c: Tensor
    pad: Tensor | None
    kv: tuple[TextKV, ...]


class State(NamedTuple):
    """A tower on its way through the blocks: media tokens x, text tokens c, and what stays."""

    x: Tensor
    c: Tensor
    ctx: Context


def sinusoid(sigma: Tensor) -> Tensor:
    """float32 [n, 256] of noise levels sigma = 1 - t in [0, 1], at 1000 sigma as imported weights
    expect it (Wan, HunyuanVideo): cosines first."""
    half = FREQUENCIES // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=sigma.device) / half)
    angles = 1000.0 * sigma.float()[:, None] * rates
    return torch.cat((angles.cos(), angles.sin()), -1)


class Tower(nn.Module):
    """Embeddings and head of one modality.

    text_bias: added to the attention logits of text keys in joint self-attention. 0 is the model;
    -inf leaves text out, as in a Wan checkpoint, and lets imported weights be joined gradually.
    keyframe: added to keyframe tokens (M13), zero at first; audio has none.
    """

    def __init__(self, config: TowerConfig):
        super().__init__()
        dim = config.dim
        self.config = config
        self.text_bias = 0.0
        self.inp = nn.Linear(config.token_in, dim)
        self.keyframe = nn.Parameter(torch.zeros(dim)) if len(config.patch) == 3 else None
        self.text = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU("tanh"), nn.Linear(dim, dim)
        )
        self.time = nn.Sequential(nn.Linear(FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_six = nn.Linear(dim, 6 * dim) if config.adaln == "table" else None
        self.norm = nn.LayerNorm(dim, eps=EPS, elementwise_affine=False)
        self.adaln = AdaLN(config, 2)
        self.head = nn.Linear(dim, config.token_out)

    def enter(self, m: Modality, text: TowerText, sparse: Sparse | None = None) -> State:
        if m.x.shape[2] != self.config.token_in:
            raise ValueError(
                f"tokens are {m.x.shape[2]} wide, this tower takes {self.config.token_in}"
            )
        if len(text.c) != len(m.x):
            raise ValueError(f"{len(m.x)} samples, but {len(text.c)} prompts")
        time, text_time = self.embed_time(m, text.c.shape[1])
        words = text.c.shape[1]  # at position 0, which turns nothing: text has none
        pos = F.pad(m.pos, (0, 0, 0, words) if sparse is None else (0, 0, words, 0))
        if sparse is not None and self.text_bias:
            raise ValueError("sparse attention knows no bias of text")
        ctx = Context(
            time=time,
            text_time=text_time,
            rope=rope(pos, self.config.rope_dims, self.config.rope_theta),
            mask=self.joint_mask(m, text) if sparse is None else None,
            text_mask=key_mask((text.pad, *text.c.shape[:2])),
            text=text.c,
            text_kv=text.kv,
            sparse=sparse,
        )
        x = self.inp(m.x)
        if self.keyframe is not None and m.kind is not None:
            x = x + (m.kind == KEYFRAME)[..., None] * self.keyframe
        return State(x, text.c, ctx)

    def leave(self, state: State, m: Modality) -> Tensor:
        """Velocities of all tokens: [B, L, token_out]."""
        shift, scale = self.adaln(state.ctx.time, 0, 2)
        out = self.head(torch.addcmul(shift, self.norm(state.x), 1 + scale))
        if self.config.predicts == "velocity":
            return out
        cells, channels = m.x.unflatten(2, (-1, self.config.in_ch)), self.config.out_ch
        if self.config.predicts == "residual":
            out = out + cells[..., channels : 2 * channels].flatten(2)
        return velocity(cells[..., :channels].flatten(2), out, m.t[..., None])

    def embed_time(self, m: Modality, text_length: int) -> tuple[Time, Time]:
        """Embeds every distinct time once. Text has the time of the noisiest token."""
        t = m.t
        if t.shape[1] == 1:
            time = self._time(t[:, 0], None)
            return time, time
        noisiest = (t if m.pad is None else t.masked_fill(m.pad, 1.0)).amin(1, keepdim=True)
        joint = torch.cat((t, noisiest.expand(-1, text_length)), 1)
        distinct, index = joint.unique(return_inverse=True)
        time = self._time(distinct, index)
        return time.of(slice(0, t.shape[1])), time.of(slice(t.shape[1], None))

    def _time(self, t: Tensor, index: Tensor | None) -> Time:
        emb = self.time(sinusoid(1 - t).to(self.inp.weight.dtype))
        six = (
            emb[:, None]
            if self.time_six is None
            else self.time_six(F.silu(emb)).unflatten(1, (6, -1))
        )
        return Time(emb, six, index)

    def joint_mask(self, m: Modality, text: TowerText) -> Tensor | None:
        batch, length = m.x.shape[:2]
        words = text.c.shape[1]
        seen = key_mask((m.pad, batch, length), (text.pad, batch, words))
        if self.text_bias == 0.0:
            return seen
        bias = m.x.new_zeros(1, 1, 1, length + words)
        bias[..., length:] = self.text_bias
        return bias if seen is None else bias.masked_fill(~seen, -math.inf)

    def encode_text(self, text: Text) -> Tensor:
        return self.text(text.tokens.to(self.inp.weight.dtype))
