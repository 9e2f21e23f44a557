"""Context parallelism (DeepSpeed-Ulysses, arXiv 2309.14509): neighbours share their video tokens.

Each rank carries a stretch of a sample's video tokens through the layers. For self-attention one
all-to-all gives it all tokens of its heads, and another its tokens of all heads. Text and sound are
few: every rank carries them whole, and computes its heads of what they attend to. What enters and
what leaves the layers is whole on every rank, so neither model nor loss knows of it: gradients are
right once they are averaged over all ranks, as FSDP does. Any number of tokens is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from reelmill.errors import UsageError
from reelmill.model.attention import attention
from reelmill.model.blocks import Context, CrossAttention, Link, TextKV
from reelmill.model.mmdit import Layer, MMDiT
from reelmill.model.rope import Rope, rotate
from reelmill.model.tower import State
from reelmill.training.ranks import Ranks


def share_context(model: MMDiT, ranks: Ranks) -> None:
    """Lets the ranks of each group of `ranks.context` share the video tokens of their samples.

    Raises UsageError where they cannot share the heads. All ranks must call it.
    """
    if ranks.context == 1:
        return
    heads = model.config.video.heads
    if heads % ranks.context:
        raise UsageError(
            f"{heads} heads cannot be shared by {ranks.context} ranks (context): choose a number "
            "that divides them."
        )
    group = dist.new_subgroups(ranks.context)[0]
    neighbours = Neighbours(group, ranks.rank % ranks.context, ranks.context)
    for layer in cast(Sequence[Layer], model.layers):
        layer.register_forward_pre_hook(neighbours.enter)
        if layer.cross is not None:
            layer.cross.audio.forward = _Heads(layer.cross.audio, neighbours)  # type: ignore
    model.layers[-1].register_forward_hook(neighbours.leave)


@dataclass
class Neighbours:
    """The ranks that share tokens. lengths: how many video tokens each of them has just now."""

    group: dist.ProcessGroup
    rank: int
    size: int
    lengths: list[int] = field(default_factory=list)

    @property
    def mine(self) -> slice:
        """This rank's video tokens."""
        first = sum(self.lengths[: self.rank])
        return slice(first, first + self.lengths[self.rank])

    def exchange(self, pieces: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Sends piece i to neighbour i; what each of them sent, of these shapes."""
        return list(_Exchange.apply(self.group, tuple(shapes), *pieces))  # type: ignore

    def to_heads(self, x: Tensor) -> Tensor:
        """My tokens [B, l, heads, C] -> all tokens of my heads [B, L, heads / size, C]."""
        pieces = x.chunk(self.size, 2)
        batch, _, heads, width = pieces[0].shape
        return torch.cat(self.exchange(pieces, [(batch, n, heads, width) for n in self.lengths]), 1)

    def to_tokens(self, x: Tensor) -> Tensor:
        """The inverse of `to_heads`."""
        pieces = x.split(self.lengths, 1)
        return torch.cat(self.exchange(pieces, [pieces[self.rank].shape] * self.size), 2)

    def my_heads(self, x: Tensor) -> Tensor:
        """Of what all ranks have, [B, n, heads, C]."""
        return x.chunk(self.size, 2)[self.rank]

    def all_heads(self, x: Tensor) -> Tensor:
        """The inverse of `my_heads`."""
        return torch.cat(self.exchange([x] * self.size, [x.shape] * self.size), 2)

    def all_tokens(self, x: Tensor) -> Tensor:
        """My tokens [B, l, C] -> those of all ranks."""
        shapes = [(x.shape[0], n, x.shape[2]) for n in self.lengths]
        return torch.cat(self.exchange([x] * self.size, shapes), 1)

    def enter(self, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Before a layer: the video has this rank's tokens alone."""
        video, audio, link = cast(tuple[State | None, State | None, Link | None], args)
        if video is None:
            return args
        if not isinstance(video.ctx.sparse, Ulysses):
            count = video.x.shape[1]
            self.lengths = [len(c) for c in torch.arange(count).tensor_split(self.size)]
            video = State(video.x[:, self.mine], video.c, self._context(video))
        if link is not None:
            link = link._replace(video_rope=_cut(link.video_rope, [self.mine]))
        return video, audio, link

    def _context(self, state: State) -> Context:
        ctx, words, count = state.ctx, state.c.shape[1], state.x.shape[1]
        mine, mask = self.mine, ctx.mask
        if ctx.sparse is None:  # its tables and masks are for [media; text]
            tables = [slice(count, None), mine]
            if mask is not None:
                mask = torch.cat((mask[..., count:], mask[..., :count]), -1)
        else:
            tables = [slice(0, words), slice(words + mine.start, words + mine.stop)]
        return ctx._replace(
            time=ctx.time.of(mine),
            rope=_cut(ctx.rope, tables),
            mask=None,
            sparse=Ulysses(self, words, mask, ctx),
        )

    def leave(self, layer: nn.Module, args: Any, out: Any) -> Any:
        """After the last layer: the video has all its tokens again."""
        video, audio = out
        if video is None:
            return out
        return State(self.all_tokens(video.x), video.c, video.ctx.sparse.whole), audio


@dataclass(frozen=True)
class Ulysses:
    """Self-attention over [text; video], of which a rank has all the text and some of the video.

    mask: keys of the whole. whole: what the tower said before the tokens were shared; where it is
    sparse, its attention is what each rank computes for its heads.
    """

    neighbours: Neighbours
    words: int
    mask: Tensor | None
    whole: Context

    def attend(self, q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, layer: int) -> Tensor:
        """[B, l, heads, head_dim], as q."""
        near, inner = self.neighbours, self.whole.sparse
        given = [x for x in (q, k, v, gate) if x is not None]
        width = q.shape[-1]
        together = torch.cat(given, -1)
        text, video = together[:, : self.words], together[:, self.words :]
        parts = torch.cat((near.my_heads(text), near.to_heads(video)), 1).split(width, -1)
        if inner is None:
            out = attention(parts[0], parts[1], parts[2], self.mask).unflatten(2, (-1, width))
        else:
            last = parts[3] if gate is not None else None
            out = inner.attend(parts[0], parts[1], parts[2], last, layer)
        text, video = out[:, : self.words], out[:, self.words :]
        return torch.cat((near.all_heads(text), near.to_tokens(video)), 1)


@dataclass(frozen=True)
class _Heads:
    """The forward pass of a CrossAttention of whole tokens to shared ones: each rank its heads."""

    module: CrossAttention
    neighbours: Neighbours

    def __call__(
        self, x: Tensor, kv: TextKV, mask: Tensor | None = None, rope: Rope | None = None
    ) -> Tensor:
        module, near = self.module, self.neighbours
        q = module.qk_norm(module.qk_norm.q, module.q(module.norm(x)))
        q = near.my_heads(q if rope is None else rotate(q, rope))
        width = q.shape[-1]
        k, v = near.to_heads(torch.cat(kv, -1)).split(width, -1)
        out = attention(q, k, v, mask).unflatten(2, (-1, width))
        return module.out(near.all_heads(out).flatten(2))  # type: ignore[no-any-return]


class _Exchange(torch.autograd.Function):
    """All-to-all of pieces of any shape. Its adjoint sends the gradients back."""

    @staticmethod
    def forward(ctx: Any, group: dist.ProcessGroup, shapes: Any, *pieces: Tensor) -> Any:
        ctx.group, ctx.shapes = group, [piece.shape for piece in pieces]
        return _all_to_all(group, shapes, pieces)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return None, None, *_all_to_all(ctx.group, ctx.shapes, grads)


@torch.compiler.disable
def _all_to_all(
    group: dist.ProcessGroup, shapes: Sequence[Sequence[int]], pieces: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    sizes = [torch.Size(shape).numel() for shape in shapes]
    sent = torch.cat([piece.reshape(-1) for piece in pieces])
    got = sent.new_empty(sum(sizes))
    dist.all_to_all_single(got, sent, sizes, [piece.numel() for piece in pieces], group)
    return tuple(
        part.reshape(tuple(shape)) for part, shape in zip(got.split(sizes), shapes, strict=True)
    )


def _cut(rope: Rope, tokens: Sequence[slice]) -> Rope:
    return Rope(*(torch.cat([table[:, some] for some in tokens], 1) for table in rope))
