"""kill -9 of a run on a Ray cluster, most often inside a decode: the next run ends the same."""

from __future__ import annotations

import pytest
from tests.kills import Scene, kill_and_resume, real_clips
from tests.media import noise_video
from tests.ray_nodes import Nodes

FILES = 6


@pytest.fixture(scope="module")
def nodes():
    made = Nodes(2)
    yield made
    made.close()


@pytest.fixture(scope="module")
def real_scene(media, tmp_path_factory) -> Scene:
    return Scene.play(real_clips(media), tmp_path_factory.mktemp("real"), "real")


@pytest.mark.slow
def test_kill_9_of_a_run_on_a_cluster(nodes, tmp_path):
    """Once, with made films."""
    (tmp_path / "films").mkdir()
    for seed in range(FILES):
        noise_video(tmp_path / "films" / f"{seed}.mp4", seconds=0.5 + 0.125 * seed, seed=seed)
    films = sorted(str(path) for path in (tmp_path / "films").iterdir())
    scene = Scene.play(films, tmp_path)
    options = {"engine": "ray", "address": nodes.address, "workers": 1}
    kill_and_resume(scene, tmp_path / "runs", 1, options, nodes.working)


@pytest.mark.slow
@pytest.mark.media
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(3))
def test_kill_9_inside_the_decodes_of_a_run_on_a_cluster(nodes, real_scene, tmp_path, part):
    options = {"engine": "ray", "address": nodes.address, "workers": 2}
    toll = kill_and_resume(real_scene, tmp_path, 5, options, nodes.working, seed=part)
    assert toll.inside


@pytest.mark.slow
@pytest.mark.media
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(3))
def test_kill_9_inside_the_decodes_of_a_run_with_a_cluster_of_its_own(real_scene, tmp_path, part):
    toll = kill_and_resume(real_scene, tmp_path, 5, {"engine": "ray", "workers": 2}, seed=10 + part)
    assert toll.inside
