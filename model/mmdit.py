"""The joint video-audio diffusion transformer (paper section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from reelmill.model.attention import key_mask
from reelmill.model.blocks import AVCross, Block, DualBlock, Link, SingleBlock
from reelmill.model.config import MMDiTConfig, TowerConfig
from reelmill.model.modality import TARGET, Modality, Text
from reelmill.model.rope import rope
from reelmill.model.sparse import Shares, Sparse, Tiling
from reelmill.model.tower import State, Tower, TowerText


class EncodedText(NamedTuple):
    """A prompt as both towers read it; constant while one clip is sampled."""

    video: TowerText | None
    audio: TowerText | None


class Layer(nn.Module):
    """One block of each tower and the place where they meet: the unit that training shards,
    recomputes and compiles."""

    def __init__(self, config: MMDiTConfig, index: int):
        super().__init__()
        self.index = index
        self.video = _block(config.video, index)
        self.audio = None if config.audio is None else _block(config.audio, index)
        self.cross = None if config.audio is None else AVCross(config.video, config.av_order)

    def forward(
        self, video: State | None, audio: State | None, link: Link | None
    ) -> tuple[State | None, State | None]:
        video, audio = self._attend(self.video, video), self._attend(self.audio, audio)
        if link is not None and video is not None and audio is not None and self.cross is not None:
            v, a = self.cross(video.x, audio.x, link)
            video, audio = video._replace(x=v), audio._replace(x=a)
        return self._feed(self.video, video), self._feed(self.audio, audio)

    def _attend(self, block: Block | None, s: State | None) -> State | None:
        if block is None or s is None:
            return None
        return State(*block.attend(s.x, s.c, s.ctx, self.index), s.ctx)

    def _feed(self, block: Block | None, s: State | None) -> State | None:
        return None if block is None or s is None else State(*block.feed(*s), s.ctx)


class MMDiT(nn.Module):
    """Twin towers. `MMDiT(config)` with `config.audio = None` is the video tower alone; its
    parameters bear the same names."""

    def __init__(self, config: MMDiTConfig):
        super().__init__()
        self.config = config
        self.video = Tower(config.video)
        self.audio = None if config.audio is None else Tower(config.audio)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.video.blocks))
        self.initialise()

    def forward(
        self,
        video: Modality | None,
        audio: Modality | None,
        text: Text | EncodedText,
        *,
        av: bool = True,
        sparsity: Shares | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Velocities z0 - eps of all tokens, in the order they came, before unpatchify.

        Video [B, L_v, token_out], audio [B, L_a, token_out]; None for a modality that is None,
        whose tower is not run. Those of references and of what is held clean mean nothing: take the
        targets (conditioning.py: `video_velocity`, `audio_velocity`). av=False leaves out the
        cross-attention between the towers. sparsity: shares of key tiles that the video's
        self-attention leaves out, for each layer; None: 0 for a tower made for it, else dense.
        """
        if not isinstance(text, EncodedText):
            text = self.encode_text(text)
        tiling = sparse = None
        if video is not None and (sparsity is not None or self.config.video.sparse):
            tiling = Tiling.of(video)
            video, shares = tiling.tiles(video), sparsity or [0.0] * len(self.layers)
            if text.video is not None:
                sparse = tiling.sparse(text.video.c.shape[1], text.video.pad, shares)
        v = _enter(self.video, video, text.video, sparse)
        a = _enter(self.audio, audio, text.audio)
        link = self.link(video, audio) if av else None
        for layer in self.layers:
            v, a = layer(v, a, link)
        out = _leave(self.video, v, video)
        if tiling is not None and out is not None:
            out = tiling.raster(out)
        return out, _leave(self.audio, a, audio)

    def encode_text(
        self, text: Text, *, cache: bool = False, audio: Text | None = None
    ) -> EncodedText:
        """Projects a prompt for both towers.

        audio: what the audio tower reads, where it is another prompt (negative prompts).
        cache: with the keys and values of every text cross-attention, which do not depend on time;
        the sampler makes them once per clip. Needs whole, unsharded parameters.
        """
        layers = cast(list[Layer], list(self.layers)) if cache else []
        return EncodedText(
            _tower_text(self.video, [layer.video for layer in layers], text),
            _tower_text(self.audio, [layer.audio for layer in layers], audio or text),
        )

    def link(self, video: Modality | None, audio: Modality | None) -> Link | None:
        """How the towers see each other; None when one is absent."""
        if video is None or audio is None:
            return None
        dims, theta = self.config.video.rope_dims, self.config.video.rope_theta
        return Link(
            rope(video.pos[..., :1], dims, theta),
            rope(audio.pos, dims, theta),
            self._visible(video),
            self._visible(audio),
        )

    def _visible(self, m: Modality) -> Tensor | None:
        hidden = m.pad
        if m.kind is not None and not self.config.av_include_refs:
            others = (m.kind != TARGET).expand(m.x.shape[:2])
            hidden = others if hidden is None else hidden | others
        return key_mask((hidden, *m.x.shape[:2]))

    @torch.no_grad()
    def initialise(self) -> None:
        """Linear layers Xavier; embeddings of time and text N(0, .02); heads and the way from the
        other tower zero (notes on Wan's and Ovi's initialisation)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Tower):
                for linear in (*module.text, *module.time):
                    if isinstance(linear, nn.Linear):
                        nn.init.normal_(linear.weight, std=0.02)
                nn.init.zeros_(module.head.weight)
            elif isinstance(module, AVCross):
                nn.init.zeros_(module.audio.out.weight)
                nn.init.zeros_(module.video.out.weight)
            elif isinstance(module, Block) and module.gate is not None:
                nn.init.zeros_(module.gate.weight)


def part_of(parameter: str) -> str:
    """Which part a parameter of MMDiT belongs to, by its name: `video`, `audio` or `cross`."""
    names = parameter.split(".")
    return names[2] if names[0] == "layers" else names[0]


def _block(config: TowerConfig, index: int) -> Block:
    return DualBlock(config) if index < config.dual else SingleBlock(config)


def _tower_text(
    tower: Tower | None, blocks: Sequence[Block | None], text: Text
) -> TowerText | None:
    if tower is None:
        return None
    c = tower.encode_text(text)
    attentions = [block.text for block in blocks if block is not None]
    return TowerText(c, text.pad, tuple(x.keys_values(c) for x in attentions if x is not None))


def _enter(
    tower: Tower | None, m: Modality | None, text: TowerText | None, sparse: Sparse | None = None
) -> State | None:
    if m is None:
        return None
    if tower is None or text is None:
        raise ValueError("tokens of a modality that this model or this text was not made for")
    return tower.enter(m, text, sparse)


def _leave(tower: Tower | None, state: State | None, m: Modality | None) -> Tensor | None:
    return None if tower is None or state is None or m is None else tower.leave(state, m)
