"""TransNetV2: the network against plain arithmetic, its windows, its cuts, its files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.frames import joined, measured, moving
from tests.small_run import curate, recipe_file

from reelmill.curation.models.transnet import CONTEXT, FILES, STEP, TransNetV2, Windows, read
from reelmill.curation.models.weights import Weights
from reelmill.curation.video.shots import Shots, first_frames
from reelmill.datasets.media.encode import write_video
from reelmill.errors import WeightsError


def random_network(seed: int = 0) -> TransNetV2:
    torch.manual_seed(seed)
    network = TransNetV2().eval()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if "running_mean" in name:
                value.normal_(0, 0.05)
            elif "running_var" in name:
                value.uniform_(0.5, 1.5)
            elif name.endswith(("bn.weight", "bn.bias")):
                value.add_(torch.randn_like(value) * 0.2)
    return network


@pytest.fixture(scope="module")
def network():
    return random_network()


def pictures(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 27, 48, 3), np.uint8)


def _convolved(x, weight, dilation):
    """x [c, t, h, w], weight [o, c, kt, kh, kw], zeros around: by sums of shifted pictures."""
    _, _, kt, kh, kw = weight.shape
    t, h, w = x.shape[1:]
    pads = [(0, 0), *((dilation * (k // 2),) * 2 if i == 0 else (k // 2,) * 2
                      for i, k in enumerate((kt, kh, kw)))]  # fmt: skip
    padded = np.pad(x, pads)
    out = np.zeros((weight.shape[0], t, h, w))
    for a in range(kt):
        for b in range(kh):
            for c in range(kw):
                part = padded[:, a * dilation : a * dilation + t, b : b + h, c : c + w]
                out += np.tensordot(weight[:, :, a, b, c], part, 1)
    return out


def _cosines(rows):
    """[t, 101]: to the frames 50 before up to 50 after, 0 where there is none."""
    out = np.zeros((len(rows), 101))
    for i, one in enumerate(rows):
        for k in range(101):
            if 0 <= (j := i + k - 50) < len(rows):
                out[i, k] = one @ rows[j] / np.linalg.norm(one) / np.linalg.norm(rows[j])
    return out


def by_hand(state: dict[str, torch.Tensor], shown: np.ndarray) -> np.ndarray:
    """The paper's network in float64, from the published names. shown: [t, 27, 48, 3]."""
    p = {name: value.double().numpy() for name, value in state.items()}
    relu = lambda x: np.maximum(x, 0)  # noqa: E731
    linear = lambda x, name: x @ p[f"{name}.weight"].T + p[f"{name}.bias"]  # noqa: E731

    def dilated(x, name):
        parts = []
        for d in (1, 2, 4, 8):
            layer = f"{name}.Conv3D_{d}.layers"
            parts.append(
                _convolved(_convolved(x, p[f"{layer}.0.weight"], 1), p[f"{layer}.1.weight"], d)
            )
        x = np.concatenate(parts)
        mean, var, scale, shift = (
            p[f"{name}.bn.{part}"][:, None, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(var + 1e-3) * scale + shift

    x = shown.transpose(3, 0, 1, 2) / 255.0
    means = []
    for i in range(3):
        first = relu(dilated(x, f"SDDCNN.{i}.DDCNN.0"))
        x = relu(dilated(first, f"SDDCNN.{i}.DDCNN.1")) + first
        c, t, h, w = x.shape
        x = x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(c, t, h // 2, 2, w // 2, 2).mean((3, 5))
        means.append(x.mean((2, 3)))
    looks = x.transpose(1, 2, 3, 0).reshape(len(shown), -1)
    alike = relu(linear(_cosines(linear(np.concatenate(means).T, "frame_sim_layer.projection")),
                        "frame_sim_layer.fc"))  # fmt: skip
    colours = np.zeros((len(shown), 512))
    for i, picture in enumerate(shown.astype(int)):
        for r, g, b in picture.reshape(-1, 3) // 32:
            colours[i, r * 64 + g * 8 + b] += 1
    hues = relu(linear(_cosines(colours), "color_hist_layer.fc"))
    hidden = relu(linear(np.concatenate([hues, alike, looks], axis=1), "fc1"))
    return linear(hidden, "cls_layer1")[:, 0]


def test_the_network_is_what_plain_arithmetic_gives():
    shown, network = pictures(12), random_network().double()
    with torch.inference_mode():
        ours = network(torch.from_numpy(shown[None]))[0].numpy()
    np.testing.assert_allclose(ours, by_hand(network.state_dict(), shown), atol=1e-9)
    assert np.ptp(ours) > 1e-3


def test_names_and_shapes_are_the_published_ones(network):
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["SDDCNN.0.DDCNN.0.Conv3D_1.layers.0.weight"] == (32, 3, 1, 3, 3)
    assert shapes["SDDCNN.2.DDCNN.1.Conv3D_8.layers.1.weight"] == (64, 128, 3, 1, 1)
    assert shapes["SDDCNN.1.DDCNN.0.bn.running_var"] == (128,)
    assert shapes["frame_sim_layer.projection.weight"] == (128, 448)
    assert shapes["frame_sim_layer.fc.weight"] == (128, 101)
    assert shapes["color_hist_layer.fc.bias"] == (128,)
    assert shapes["fc1.weight"] == (1024, 4864)
    assert shapes["cls_layer2.weight"] == (1, 1024)
    assert len(shapes) == 6 * (8 + 5) + 6 + 6


class Counting(torch.nn.Module):
    """A stand-in whose answer tells which frames it was shown, by their first value."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape == (1, 100, 27, 48, 3)
        numbers = x[..., 0, 0, 0].double() + 256 * x[..., 0, 0, 1]
        return torch.logit(((numbers + 1) / 1000 + numbers.sum() * 1e-7).float())


@pytest.mark.parametrize("count", [1, 2, 49, 50, 51, 99, 100, 101, 260])
def test_windows_are_those_of_the_authors(count):
    """Oracle: their rule over all frames: 25 copies before, the rest behind, steps of 50."""
    film = np.zeros((count, 27, 48, 3), np.uint8)
    film[:, 0, 0, 0], film[:, 0, 0, 1] = np.arange(count) % 256, np.arange(count) // 256
    behind = CONTEXT + STEP - (count % STEP if count % STEP else STEP)
    padded = np.concatenate([film[:1]] * CONTEXT + [film] + [film[-1:]] * behind)
    theirs = []
    for start in range(0, len(padded) - 99, STEP):
        said = Counting()(torch.from_numpy(padded[start : start + 100][None]))
        theirs.append(torch.sigmoid(said)[0, 25:75].numpy())
    windows = Windows(Counting())
    for picture in film:
        windows.push(picture)
        assert len(windows._held) < 100
    np.testing.assert_array_equal(windows.finish(), np.concatenate(theirs)[:count])


def test_a_film_without_frames_has_no_likelihoods(network):
    assert Windows(network).finish().shape == (0,)


def scenes(likely, threshold):
    """The authors' scenes, by going through the frames one by one: [start, last] each."""
    found, start, before = [], 0, 0
    now = 0
    for i, value in enumerate(likely):
        now = int(value > threshold)
        if before == 1 and now == 0:
            start = i
        if before == 0 and now == 1 and i != 0:
            found.append((start, i))
        before = now
    return found if now else [*found, (start, len(likely) - 1)]


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40), st.sampled_from([0.3, 0.5]))
def test_shots_begin_where_the_authors_scenes_do(likely, threshold):
    ours = first_frames(np.array(likely, np.float32), np.float32(threshold))
    theirs = [start for start, _ in scenes(np.array(likely, np.float32), np.float32(threshold))]
    # A film that begins within a transition has its first scene after it; we keep what is before.
    assert ours == [start for start in theirs if start > 0]


def test_only_whole_files_of_weights_are_read(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / FILES[0])
    again = read(tmp_path)
    for name, value in again.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])
    less = dict(network.state_dict())
    less.pop("fc1.bias")
    torch.save(less, tmp_path / FILES[0])
    with pytest.raises(WeightsError, match=r"fc1\.bias"):
        read(tmp_path)
    torch.save({"network": print}, tmp_path / FILES[0])
    with pytest.raises(WeightsError, match="no weights of TransNetV2"):
        read(tmp_path)


def film_of(folder):
    folder.mkdir(exist_ok=True)
    frames = joined([moving(40, seed=i, step=1) for i in (1, 2)])
    write_video(folder / "film.mp4", frames, fps=25)
    return folder


def test_shots_are_cut_by_the_network_over_the_shared_decode(network, tmp_path):
    from safetensors.torch import save_file

    store = tmp_path / "weights"
    (store / "transnetv2").mkdir(parents=True)
    save_file(network.state_dict(), store / "transnetv2" / FILES[1])

    class Here(Shots):
        def open(self, info):
            return self.open_with(info, Weights(store))

    stage = Here(detector="transnetv2")
    found = measured(stage, film_of(tmp_path / "media") / "film.mp4")
    likely = found.tracks["score"]
    assert len(likely) == 80
    assert likely.min() > 0
    level = float(np.sort(likely)[-2])  # one frame alone is above it
    peak = int(np.argmax(likely))
    assert found.stage.with_field("threshold", level).cuts(found.tracks, found.info) == [peak + 1]
    whole = found.stage.facts(found.tracks, found.whole, found.info)
    assert whole["inner_change"] == pytest.approx(float(likely[:-1].max()))


RECIPE = """
kind: video
stages: [Probe, Shots: {detector: transnetv2}, Cut]
"""


def test_without_weights_no_film_is_left_uncut(tmp_path):
    (tmp_path / "none").mkdir()
    given_ = {"recipe": recipe_file(tmp_path, RECIPE), "weights": tmp_path / "none", "workers": 0}
    with pytest.raises(WeightsError, match="transnetv2"):
        curate(film_of(tmp_path / "media"), tmp_path / "w", **given_)
    with pytest.raises(WeightsError, match="choose another detector"):
        curate(film_of(tmp_path / "media"), tmp_path / "w", allow_missing=True, **given_)
