"""The blocks of a tower, in the paper's order (section 3.1, Figure 1).

self-attention over [media; text] -> text cross-attention (video only) -> the other modality ->
MLP. A block has two halves, `attend` and `feed`, because the towers meet in between.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelmill.model.attention import attention
from reelmill.model.config import TowerConfig
from reelmill.model.rope import Rope, rotate

EPS = 1e-6


class Time(NamedTuple):
    """Embeddings of the U distinct times of a batch.

    emb: [U, dim]. six: [U, 6, dim], shared projection (`table` adaLN). which: [B, L], the time a
    token has; None when U = B and a sample's tokens share one.
    """

    emb: Tensor
    six: Tensor
    which: Tensor | None

    def spread(self, values: Tensor) -> Tensor:
        """[U, dim] -> [B, L or 1, dim]."""
        return values[:, None] if self.which is None else F.embedding(self.which, values)

    def of(self, tokens: slice) -> Time:
        return self if self.which is None else self._replace(which=self.which[:, tokens])


class TextKV(NamedTuple):
    """Keys and values of one block's text cross-attention; fixed over all steps of sampling."""

    k: Tensor
    v: Tensor


class Attends(Protocol):
    """Computes self-attention over [text; media]: [B, L, heads, head_dim], as q. gate: of VSA."""

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, layer: int
    ) -> Tensor: ...


class Context(NamedTuple):
    """What stays the same through all blocks of a tower.

    time: of the media tokens, text_time: of the text tokens. rope: for [media; text]. mask: keys
    of [media; text]; text_mask: keys of the text alone. text: the prompt, [B, L, dim]. text_kv:
    what each block's text cross-attention makes of it, or empty: made by the block. sparse: what
    computes the self-attention where it is not the dense one; rope is then for [text; media].
    """

    time: Time
    text_time: Time
    rope: Rope
    mask: Tensor | None
    text_mask: Tensor | None
    text: Tensor
    text_kv: tuple[TextKV, ...]
    sparse: Attends | None = None


class AdaLN(nn.Module):
    """Modulation by time: `count` vectors per distinct time."""

    def __init__(self, config: TowerConfig, count: int):
        super().__init__()
        self.count = count
        if config.adaln == "table":
            self.table = nn.Parameter(torch.randn(count, config.dim) / config.dim**0.5)
        else:
            self.linear = nn.Linear(config.dim, count * config.dim)

    def forward(self, time: Time, first: int, last: int) -> list[Tensor]:
        """Vectors first to last (excluded), each [B, L or 1, dim]."""
        if hasattr(self, "table"):
            source = time.six[:, first:last] if self.count == 6 else time.emb[:, None]
            values = source + self.table[first:last]
        else:
            rows = slice(first * time.emb.shape[1], last * time.emb.shape[1])
            values = F.linear(F.silu(time.emb), self.linear.weight[rows], self.linear.bias[rows])
            values = values.unflatten(1, (last - first, -1))
        return [time.spread(value) for value in values.unbind(1)]


class QKNorm(nn.Module):
    """RMSNorm of queries and keys, over all heads at once or per head."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        self.heads, self.per_head = config.heads, config.qk_norm == "head"
        width = config.head_dim if self.per_head else config.dim
        self.q, self.k = nn.RMSNorm(width, eps=EPS), nn.RMSNorm(width, eps=EPS)

    def forward(self, norm: nn.RMSNorm, x: Tensor) -> Tensor:
        """[B, L, dim] -> [B, L, heads, head_dim], normalised, in x's dtype also under autocast."""
        if self.per_head:
            x = x.unflatten(-1, (self.heads, -1))
        x = F.rms_norm(x, norm.normalized_shape, norm.weight.to(x.dtype), EPS)
        return x if self.per_head else x.unflatten(-1, (self.heads, -1))


class Stream(nn.Module):
    """All that one kind of token owns in a block: adaLN, QKV, output projection and MLP."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        dim = config.dim
        self.adaln = AdaLN(config, 6)
        self.norm = nn.LayerNorm(dim, eps=EPS, elementwise_affine=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.qk_norm = QKNorm(config)
        self.out = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, config.ffn), nn.GELU("tanh"), nn.Linear(config.ffn, dim)
        )

    def project(self, x: Tensor, time: Time) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v: [B, L, heads, head_dim]."""
        return self.queries_keys_values(self.modulate(x, time))

    def modulate(self, x: Tensor, time: Time) -> Tensor:
        shift, scale = self.adaln(time, 0, 2)
        return torch.addcmul(shift, self.norm(x), 1 + scale)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).chunk(3, -1)
        norm = self.qk_norm
        return norm(norm.q, q), norm(norm.k, k), v.unflatten(-1, (norm.heads, -1))

    def merge(self, x: Tensor, attended: Tensor, time: Time) -> Tensor:
        (gate,) = self.adaln(time, 2, 3)
        return torch.addcmul(x, gate, self.out(attended))

    def feed(self, x: Tensor, time: Time) -> Tensor:
        shift, scale, gate = self.adaln(time, 3, 6)
        return torch.addcmul(x, gate, self.mlp(torch.addcmul(shift, self.norm(x), 1 + scale)))


class CrossAttention(nn.Module):
    """x attends another sequence: LayerNorm, no gate, not modulated by time (as in Wan).

    norm_context: whether the other sequence is normalised too (the other tower's state is, text
    embeddings are not).
    """

    def __init__(self, config: TowerConfig, *, norm_context: bool):
        super().__init__()
        dim = config.dim
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.context_norm = nn.LayerNorm(dim, eps=EPS) if norm_context else nn.Identity()
        self.q, self.kv, self.out = (
            nn.Linear(dim, dim),
            nn.Linear(dim, 2 * dim),
            nn.Linear(dim, dim),
        )
        self.qk_norm = QKNorm(config)

    def keys_values(self, context: Tensor, rope: Rope | None = None) -> TextKV:
        k, v = self.kv(self.context_norm(context)).chunk(2, -1)
        k = self.qk_norm(self.qk_norm.k, k)
        return TextKV(k if rope is None else rotate(k, rope), v.unflatten(-1, k.shape[2:]))

    def forward(
        self, x: Tensor, kv: TextKV, mask: Tensor | None = None, rope: Rope | None = None
    ) -> Tensor:
        """What is to be added to x."""
        q = self.qk_norm(self.qk_norm.q, self.q(self.norm(x)))
        return self.out(attention(q if rope is None else rotate(q, rope), *kv, mask))


class Block(nn.Module):
    """Joint self-attention of media tokens x and text tokens c, then text cross-attention."""

    x: Stream
    c: Stream

    def __init__(self, config: TowerConfig):
        super().__init__()
        self.text = CrossAttention(config, norm_context=False) if config.text_xattn else None
        self.gate = nn.Linear(config.dim, config.dim) if config.sparse else None

    def attend(self, x: Tensor, c: Tensor, ctx: Context, layer: int) -> tuple[Tensor, Tensor]:
        hidden = self.x.modulate(x, ctx.time)
        media = self.x.queries_keys_values(hidden)
        text = self.c.project(c, ctx.text_time)
        if ctx.sparse is None:
            q, k, v = (torch.cat(pair, 1) for pair in zip(media, text, strict=True))
            o = attention(rotate(q, ctx.rope), rotate(k, ctx.rope), v, ctx.mask)
            x_o, c_o = o.split((x.shape[1], c.shape[1]), 1)
        else:
            q, k, v = (torch.cat(pair, 1) for pair in zip(text, media, strict=True))
            gate = None
            if self.gate is not None:  # text has no coarse half: its gate is not read
                gate = self.gate(hidden).unflatten(-1, q.shape[2:])
                gate = torch.cat((torch.zeros_like(text[0]), gate), 1)
            o = ctx.sparse.attend(rotate(q, ctx.rope), rotate(k, ctx.rope), v, gate, layer)
            c_o, x_o = o.flatten(2).split((c.shape[1], x.shape[1]), 1)
        x = self.x.merge(x, x_o, ctx.time)
        c = self.c.merge(c, c_o, ctx.text_time)
        if self.text is not None:
            kv = ctx.text_kv[layer] if ctx.text_kv else self.text.keys_values(ctx.text)
            x = x + self.text(x, kv, ctx.text_mask)
        return x, c

    def feed(self, x: Tensor, c: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        return self.x.feed(x, ctx.time), self.c.feed(c, ctx.text_time)


class DualBlock(Block):
    """Media and text have their own parameters (equations 1 to 3)."""

    def __init__(self, config: TowerConfig):
        super().__init__(config)
        self.x, self.c = Stream(config), Stream(config)


class SingleBlock(Block):
    """Media and text share all parameters, as one concatenated sequence."""

    def __init__(self, config: TowerConfig):
        super().__init__(config)
        self.shared = Stream(config)

    @property
    def x(self) -> Stream:  # type: ignore[override]
        return self.shared

    c = x  # type: ignore[assignment]


class Link(NamedTuple):
    """How the towers see each other: rotary tables over time alone, and masks of keys."""

    video_rope: Rope
    audio_rope: Rope
    video_mask: Tensor | None
    audio_mask: Tensor | None


class AVCross(nn.Module):
    """Audio attends video, then video attends the updated audio (equation 5).

    Both output projections start at zero, so that a tower alone equals the tower inside the joint
    model before the first step of joint training.
    """

    def __init__(self, config: TowerConfig, order: str):
        super().__init__()
        self.sequential = order == "sequential"
        self.audio = CrossAttention(config, norm_context=True)
        self.video = CrossAttention(config, norm_context=True)

    def forward(self, v: Tensor, a: Tensor, link: Link) -> tuple[Tensor, Tensor]:
        seen = self.audio.keys_values(v, link.video_rope)
        heard = a + self.audio(a, seen, link.video_mask, link.audio_rope)
        sound = self.video.keys_values(heard if self.sequential else a, link.audio_rope)
        return v + self.video(v, sound, link.audio_mask, link.video_rope), heard
