"""A dry run says what the encoding then does, and writes nothing."""

from __future__ import annotations

from pathlib import Path

from tests.scene_shards import film_sample, still_sample, write_set

from reelmill.training.encode import EncodeOptions, encode
from reelmill.training.encode_plan import plan_encode

SETTINGS = {"height": 32, "width": 32, "frames": (17, 9), "channels": 16, "stride": 4}


def test_a_dry_run_counts_what_the_encoding_then_writes(tmp_path: Path):
    films = [film_sample(i, seconds=s) for i, s in enumerate((1.5, 0.75, 0.3))]
    shards = (
        write_set(tmp_path / "video", films),
        write_set(tmp_path / "image", [still_sample(20)]),
    )
    options = EncodeOptions(shards=shards, output=tmp_path / "latents", **SETTINGS)
    before = plan_encode(options)
    assert not options.output.exists()
    assert (before.to_fit, before.there, before.held) == (("video", "audio"), 0, 0)
    made = encode(options)
    assert (before.parts, before.clips, before.short, before.samples, before.unread) == (
        made.parts,
        made.clips,
        made.short,
        made.samples,
        0,
    )
    after = plan_encode(options)
    assert (after.there, after.held, after.clips, after.samples) == (2, made.samples, 0, 0)
    assert after.to_fit == ()
    next(options.output.glob("video-*.tar")).unlink()
    torn = plan_encode(options)
    assert (torn.there, torn.clips, torn.short) == (1, 3, made.short)
    assert torn.held + torn.samples == made.samples
