"""Embeddings over the shared decode, and what is decided by them."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.encoders import make_encoder
from tests.frames import joined, measured, moving
from tests.small_run import curate, recipe_file

from reelmill.curation import measure
from reelmill.curation.explain.verdict_table import VerdictTable
from reelmill.curation.models.vision import Vision
from reelmill.curation.models.weights import Weights
from reelmill.curation.semantic_duplicate import SemanticDuplicate, alike_pairs
from reelmill.curation.stage import FactTable, NotApplicable, NotMeasured
from reelmill.curation.video.aesthetic import Aesthetic
from reelmill.curation.video.embedding import Embedding, directions, packed, unpacked
from reelmill.datasets.media.decode import decode_frames, probe
from reelmill.datasets.media.encode import write_video
from reelmill.datasets.sample import Clip, Kind
from reelmill.datasets.workspace import open_workspace
from reelmill.errors import WeightsError

RECIPE = """
kind: video
max_failed: 1.0
stages:
  - Probe
  - Shots: {min_seconds: 0.5, join: embedding, min_similarity: 1.1}
  - Embedding
  - PHash
  - SemanticDuplicate: {min_similarity: 0.997}
  - Cut: {preset: ultrafast}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("weights")
    make_encoder(root / "vision", "clip", width=512)
    return root


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """One of two shots, the same again with more loss, and one of other pictures."""
    folder = tmp_path_factory.mktemp("films")
    pictures = joined([moving(40, seed=1, step=1), moving(30, seed=2, step=1)])
    write_video(folder / "a.mp4", pictures, fps=25)
    write_video(folder / "again.mp4", pictures, fps=25, crf=30)
    write_video(folder / "b.mp4", moving(50, seed=3, step=1), fps=25)
    return folder


@given(st.integers(1, 900), st.integers(0, 99))
def test_packed_vectors_point_where_they_did(width, seed):
    vector = np.random.default_rng(seed).standard_normal(width)
    back = unpacked(packed(vector))
    assert len(packed(vector)) <= 4 * (width + 6) / 3 + 4
    assert np.abs(back - vector).max() <= np.abs(vector).max() / 127 * 0.5001
    with pytest.raises(ValueError, match="packed"):
        unpacked("AAAA")


def test_a_clip_has_the_mean_of_its_frames_vectors(store, films):
    """Oracle: the encoder, shown every 13th frame by hand."""

    class Here(Embedding):
        def open(self, info):
            return self.open_with(info, Weights(store))

    found = measured(Here(fps=2.0), films / "a.mp4")
    info = probe(films / "a.mp4")
    shown = [f.bgr[..., ::-1].copy() for f in decode_frames(films / "a.mp4", info)]
    picked = [0, 13, 25, 38, 50, 63]
    assert found.tracks["frame"].tolist() == picked
    assert found.tracks["vector"].dtype == np.float16
    theirs = Vision(store / "vision")([shown[i] for i in picked])
    facts = found.facts
    mean = theirs.mean(axis=0)
    cosine = unpacked(facts["embedding"]) @ mean / np.linalg.norm(mean)
    assert cosine / np.linalg.norm(unpacked(facts["embedding"])) > 0.9999
    assert facts["embedding_spread"] == pytest.approx(1 - np.linalg.norm(mean), abs=1e-3)
    assert facts["embedding_model"] == "clip 512"


def test_without_weights_nothing_is_measured(films):
    facts = measured(Embedding(), films / "b.mp4").facts
    assert set(facts.values()) == {NotMeasured("weights 'vision' absent")}


def reasons(workspace: Path) -> dict[str, list[tuple[str, str]]]:
    rows = VerdictTable(open_workspace(workspace)).rows("level = 'clip'", [])
    found: dict[str, list[tuple[str, str]]] = {}
    for row in sorted(rows, key=lambda row: row["unit"]):
        found.setdefault(Path(row["path"]).name, []).append((row["reason"], row["detail"]))
    return found


def test_a_run_joins_shots_and_drops_what_looks_the_same(store, films, tmp_path, monkeypatch):
    recipe = recipe_file(tmp_path, RECIPE)
    w = tmp_path / "w"
    first = curate(films, w, recipe=recipe, weights=store, workers=0)
    assert first.clips.to_json() == {"in": 5, "kept": 3, "rejected": 2, "failed": 0}
    told = reasons(w)
    lost = told["a.mp4"] if told["a.mp4"][0][0] else told["again.mp4"]
    assert [reason for reason, _ in lost] == ["semantic_duplicate"] * 2
    assert all(detail.startswith("of ") for _, detail in lost)
    opened = []
    for name in ("decode", "clip_frames", "probe"):
        real = getattr(measure, name)
        monkeypatch.setattr(measure, name, lambda *a, r=real, **k: opened.append(a) or r(*a, **k))
    joined_ = curate(films, w, "Shots.min_similarity=-1", recipe=recipe, weights=store, workers=0)
    assert opened == []
    assert joined_.clips.to_json() == {"in": 3, "kept": 2, "rejected": 1, "failed": 0}


def test_joining_by_embeddings_without_weights_is_refused(films, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(WeightsError, match="what Shots joins shots by"):
        curate(
            films, tmp_path / "w", recipe=recipe_file(tmp_path, RECIPE), weights=tmp_path / "none"
        )


def table(vectors, seconds, assets=None) -> FactTable:
    count = len(vectors)
    assets = assets or range(count)
    clips = [
        Clip(f"{a:064x}"[::-1], Kind.VIDEO, 0, s, Fraction(1), 0, 0, 1)
        for a, s in zip(assets, seconds, strict=True)
    ]
    texts = np.array([None if v is None else packed(v) for v in vectors], object)
    same = np.ones(count)
    return FactTable(clips, {"embedding": texts, "source_pixels": same, "source_bytes": same})


def test_the_longest_stays_and_is_named():
    a, b = np.eye(2)
    near = np.array([1.0, 0.01])
    stage = SemanticDuplicate().with_field("min_similarity", 0.99)
    given_ = table([a, near, b, None, a], [3, 5, 2, 9, 4])
    found = stage.select(given_)
    assert sorted(found) == [0, 4]
    assert {no.detail for no in found.values()} == {f"of {given_.clips[1].id}"}
    assert SemanticDuplicate().select(given_) == {}
    one_file = table([a, a], [3, 5], assets=[7, 7])
    assert stage.select(one_file) == {}
    every = SemanticDuplicate(same_asset=True).with_field("min_similarity", 0.99)
    assert list(every.select(one_file)) == [0]


@given(st.integers(0, 50), st.sampled_from([0.2, 0.6, 0.95]))
def test_pairs_are_those_of_a_direct_comparison(seed, least):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((40, 6)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows.astype(np.float64) @ rows.T.astype(np.float64)
    theirs = {(i, j) for i in range(40) for j in range(i) if round(cosines[i, j], 6) >= least}
    pairs = [zip(i.tolist(), j.tolist(), strict=True) for i, j, _ in alike_pairs(rows, least)]
    assert {(j, i) for part in pairs for i, j in part} == theirs


def test_many_clips_are_searched_in_cells_and_still_found(monkeypatch):
    import reelmill.curation.semantic_duplicate as module

    monkeypatch.setattr(module, "EXACT", 100)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2000, 32)).astype(np.float32)
    rows[1::2] = rows[::2] + 0.05 * rng.standard_normal((1000, 32))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = {
        pair
        for i, j, _ in alike_pairs(rows, 0.95)
        for pair in zip(i.tolist(), j.tolist(), strict=True)
    }
    planted = {(k, k + 1) for k in range(0, 2000, 2)}
    assert len(found & planted) >= 990
    assert found <= planted


def test_embeddings_of_two_networks_are_not_compared():
    rows, known = directions([packed(np.ones(3)), None])
    assert known.tolist() == [True, False]
    assert rows[0] == pytest.approx(3**-0.5, rel=1e-5)
    with pytest.raises(ValueError, match="not of one network"):
        directions([packed(np.ones(3)), packed(np.ones(4))])


@dataclass
class Seen:
    facts: dict = field(default_factory=dict)


@pytest.mark.media
def test_aesthetic_scores_come_from_clips_vectors_only(weights):
    rng = np.random.default_rng(0)
    vector = rng.standard_normal(768)
    vector /= np.linalg.norm(vector)
    from reelmill.curation.models.aesthetic import AestheticHead

    exact = AestheticHead(weights / "aesthetic", "mlp", 768)(vector)

    def judged(model: str):
        facts = {"embedding": packed(vector), "embedding_model": model}
        with Aesthetic().session(Weights(weights)) as judge:
            return judge([Seen(facts)])[0]["aesthetic"]

    assert judged("clip 768") == pytest.approx(exact, abs=0.05)
    assert isinstance(judged("siglip 768"), NotApplicable)
    assert isinstance(judged("clip 512"), NotApplicable)  # of ViT-B/32 there is a linear head only


def test_without_weights_or_embedding_there_is_no_score(tmp_path):
    facts = {"embedding": packed(np.ones(768)), "embedding_model": "clip 768"}
    absent = NotMeasured("weights 'vision' absent")
    with Aesthetic().session(Weights(tmp_path)) as judge:
        told = judge([Seen(facts), Seen(dict.fromkeys(facts, absent))])
    assert [t["aesthetic"] for t in told] == [NotMeasured("weights 'aesthetic' absent"), absent]
