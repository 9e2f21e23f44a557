"""Segments: neighbours that are alike joined, nothing too long, no cut inside speech."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.frames import joined, measured, moving

from reelmill.curation.video.segments import alike, earlier, later, merged, parted
from reelmill.curation.video.shots import Shots
from reelmill.datasets.media.encode import write_video

NOTHING = np.zeros((0, 2))


@st.composite
def linked(draw):
    """Times of shots, links between them, a longest length."""
    lengths = draw(st.lists(st.integers(1, 60), min_size=1, max_size=9))
    times = np.concatenate([[0.0], np.cumsum(lengths)]) / 4
    count = len(lengths)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, min(count, i + 4))]
    some = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    links = [(draw(st.sampled_from([0.7, 0.8, 0.9])), i, j) for i, j in some]
    return times.tolist(), links, draw(st.sampled_from([2.0, 15.0, None]))


@given(linked(), st.randoms())
def test_runs_cover_all_shots_once_in_any_order_of_links(given_, random):
    times, links, most = given_
    runs = merged(times, links, most)
    assert [k for run in runs for k in run] == list(range(len(times) - 1))
    for run in runs:
        assert len(run) == 1 or most is None or times[run.stop] - times[run.start] <= most + 1e-6
        inside = {(i, j) for _, i, j in links if run.start <= i and j < run.stop}
        covered = {k for i, j in inside for k in range(i, j)}
        assert covered == set(range(run.start, run.stop - 1))  # each inner cut is under a link
    random.shuffle(links)
    assert merged(times, links, most) == runs


@given(linked())
def test_without_a_limit_runs_are_what_links_connect(given_):
    """Oracle: connected components of cuts under links, by hand."""
    times, links, _ = given_
    under = {k for _, i, j in links for k in range(i, j)}
    breaks = [k for k in range(len(times) - 2) if k not in under]
    edges = [0, *(k + 1 for k in breaks), len(times) - 1]
    found = [(run.start, run.stop) for run in merged(times, links, None)]
    assert found == list(itertools.pairwise(edges))


def test_the_most_alike_are_joined_first():
    times = [0.0, 6.0, 12.0, 18.0]
    assert merged(times, [(0.9, 0, 1), (0.95, 1, 2)], 15.0) == [range(1), range(1, 3)]
    assert merged(times, [(0.95, 0, 1), (0.95, 1, 2)], 15.0) == [range(2), range(2, 3)]


def test_likeness_is_of_the_pictures_next_to_the_cut():
    a, b, c = np.eye(4)[:3]
    edges, frames = [0, 10, 20, 30, 40], np.array([0, 4, 8, 12, 16, 22, 26, 32, 36])
    vectors = np.stack([b, a, a, a, c, c, c, a, a])  # shot 0 ends as 1 begins; 1 ends as 2 begins
    found = alike(edges, frames, vectors, 1, 0.5)
    cosines = {(i, j): round(value, 6) for value, i, j in found}
    assert cosines == {(0, 1): pytest.approx(0.5**0.5), (1, 2): pytest.approx(0.5**0.5)}
    far = {(i, j) for _, i, j in alike(edges, frames, vectors, 3, 0.9)}
    assert far == {(0, 3)}
    assert alike([0, 2, 3, 40], frames, vectors, 1, 0.0) == []  # the middle shot has no sample


@given(
    st.integers(2, 400),
    st.floats(0.3, 9),
    st.lists(st.tuples(st.floats(0, 16), st.floats(0.05, 3)), max_size=4),
)
def test_parts_cover_the_shot_and_none_is_too_long(count, most, spoken):
    times = np.arange(count + 1) / 25
    ends = sorted(itertools.chain.from_iterable((a, a + b) for a, b in spoken))
    spans = np.array(ends).reshape(-1, 2)
    parts = parted(times, 0, count, most, spans, 0.5)
    assert [a for a, _ in parts] == [0, *(b for _, b in parts[:-1])]
    assert parts[-1][1] == count
    assert all(times[b] - times[a] <= most + 1e-5 for a, b in parts)
    plain = parted(times, 0, count, most, NOTHING, 0.5)
    assert len(parts) <= len(plain) + 1


def test_long_takes_are_cut_in_pauses_near_by():
    times = np.arange(0, 501) / 25  # 20 s, parts of 15 s at most: one edge at 10 s
    assert parted(times, 0, 500, 15.0, NOTHING, 0.5) == [(0, 250), (250, 500)]
    spans = np.array([[8.0, 10.3]])
    assert parted(times, 0, 500, 15.0, spans, 0.5)[0] == (0, 258)  # the first frame at 10.3 s
    far = np.array([[1.0, 19.0]])  # no pause near any edge
    assert parted(times, 0, 500, 15.0, far, 0.5)[0] == (0, 250)
    tight = parted(times, 0, 500, 10.0, spans, 0.5)  # an edge that moves makes a part too long
    inner = [times[b] for _, b in tight[:-1]]
    assert len(tight) == 3
    assert not any(8.0 < t < 10.3 for t in inner)


def test_speech_that_outlasts_the_picture_or_begins_before_it_is_no_trouble():
    times = np.arange(0, 251) / 25
    for span in ([[4.0, 99.0]], [[-5.0, 6.0]], [[-5.0, 99.0]]):
        spans = np.array(span)
        assert parted(times, 0, 250, 6.0, spans, 0.5)[-1][1] == 250
        assert 0 < earlier(times, 125, 0, spans, 9.0) <= 125
        assert 125 <= later(times, 125, 250, spans, 9.0) < 250


def test_edges_at_cuts_move_inwards_only_and_only_near():
    times = np.arange(0, 101) / 25
    spans = np.array([[1.7, 2.2]])
    assert earlier(times, 50, 0, spans, 0.5) == 42  # 1.68 s, before the speech
    assert later(times, 50, 100, spans, 0.5) == 55
    assert earlier(times, 50, 0, spans, 0.2) == 50
    assert later(times, 50, 100, spans, 0.1) == 50
    assert earlier(times, 50, 45, spans, 0.5) == 50  # nothing would be left
    assert earlier(times, 42, 0, spans, 0.5) == 42


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Four shots of two seconds at 25 fps."""
    path = tmp_path_factory.mktemp("segments") / "film.mp4"
    write_video(path, joined([moving(50, seed=20 + i, step=1) for i in range(4)]), fps=25)
    return measured(Shots(), path)


def with_embedding(film, letters: str):
    """The film's tracks, with one planted embedding for each half second of every shot."""
    looks = dict(zip("ABCD", np.eye(8, dtype=np.float16), strict=False))
    vectors = np.repeat(np.stack([looks[letter] for letter in letters]), 4, axis=0)
    frames = np.concatenate([50 * i + np.array([0, 13, 25, 38]) for i in range(4)])
    return film.tracks | {"Embedding:frame": frames, "Embedding:vector": vectors}


def spans_of(film, tracks, **changes):
    stage = Shots(join="embedding")
    for name, value in changes.items():
        stage = stage.with_field(name, value)
    return stage.segment(tracks, film.whole, film.info)


def test_clips_are_long_takes_and_several_shots_of_one_scene(film):
    clips = spans_of(film, with_embedding(film, "AABC"))
    assert [(c.start_frame, c.end_frame) for c in clips] == [(0, 100), (100, 150), (150, 200)]
    assert [s["start_frame"] for s in clips[0].shots] == [0, 50]
    assert [s["end_s"] for s in clips[0].shots] == [2.0, 4.0]
    assert clips[1].shots == [{"start_s": 0.0, "end_s": 2.0, "start_frame": 0, "end_frame": 50}]
    facts = [film.stage.facts(film.tracks, clip, film.info) for clip in clips]
    assert [f["shots"] for f in facts] == [2, 1, 1]


def test_shot_and_reverse_shot_are_one_scene(film):
    tracks = with_embedding(film, "ABAC")
    assert [c.end_frame for c in spans_of(film, tracks)] == [150, 200]
    assert [c.end_frame for c in spans_of(film, tracks, reach=1)] == [50, 100, 150, 200]


def test_joined_clips_keep_to_the_longest_length(film):
    tracks = with_embedding(film, "AAAA")
    assert [c.seconds for c in spans_of(film, tracks)] == [8.0]
    assert max(c.seconds for c in spans_of(film, tracks, max_seconds=5)) <= 5
    assert len(spans_of(film, tracks, max_seconds=5)) == 2
    assert len(spans_of(film, tracks, min_similarity=None)) == 4


def test_joining_is_a_decision_and_costs_no_measurement():
    assert Shots(join="embedding").measuring() == Shots().measuring()
    assert Shots(join="embedding").knobs() != Shots().knobs()
    with pytest.raises(ValueError, match="join is one of"):
        Shots(join="magic")


def test_no_clip_ends_inside_a_word_next_to_a_pause(tmp_path):
    path = tmp_path / "talk.mp4"
    pictures = joined([moving(50, seed=20 + i, step=1) for i in range(2)])
    sound = np.zeros((1, 4 * 16_000), np.float32)
    write_video(path, pictures, fps=25, audio=sound, audio_rate=16_000)
    film = measured(Shots(), path)
    spoken = np.array([[0, 8000], [27_200, 35_200]])  # 1.7 to 2.2 s goes across the cut
    tracks = film.tracks | {"Voice:speech": spoken}
    edges = lambda stage: [  # noqa: E731
        (c.start_frame, c.end_frame) for c in stage.segment(tracks, film.whole, film.info)
    ]
    assert edges(Shots()) == [(0, 42), (55, 100)]
    assert edges(Shots().with_field("avoid_speech", None)) == [(0, 50), (50, 100)]
