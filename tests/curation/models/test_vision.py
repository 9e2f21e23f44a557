"""Picture encoders of a local folder: as transformers itself has them, and nothing but weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.encoders import FAMILIES, make_encoder

from reelmill.curation.models.aesthetic import FILES, AestheticHead
from reelmill.curation.models.vision import Vision
from reelmill.curation.models.weights import Weights, WeightsState
from reelmill.errors import WeightsError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("encoders")
    return {family: make_encoder(root / family, family) for family in FAMILIES}


def pictures(count=3, height=144, width=256):
    return list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8))


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_are_those_of_transformers_own_model_and_processor(folders, family):
    """Oracle: the class and the processor of transformers, called directly, in float64."""
    import transformers

    network = (
        getattr(transformers, FAMILIES[family].reader).from_pretrained(folders[family]).double()
    )
    processor = getattr(transformers, FAMILIES[family].processor).from_pretrained(folders[family])
    seen = processor(images=pictures(), return_tensors="pt")["pixel_values"].double()
    with torch.inference_mode():
        theirs = getattr(network.eval()(pixel_values=seen), FAMILIES[family].output).numpy()
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    encoder = Vision(folders[family])
    assert encoder.family == family
    np.testing.assert_allclose(encoder(pictures()), theirs, atol=2e-5)


def test_batches_do_not_matter(folders):
    encoder = Vision(folders["clip"])
    one_by_one = np.concatenate([encoder([picture]) for picture in pictures(20)])
    np.testing.assert_allclose(encoder(pictures(20)), one_by_one, atol=1e-6)


def broken_folder(tmp_path, source: Path, name: str, **changes) -> Path:
    folder = tmp_path / "bad"
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    data = json.loads((folder / name).read_text()) | changes
    (folder / name).write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("config.json", {"model_type": "bert"}, "model_type 'bert'"),
        (
            "config.json",
            {"num_hidden_layers": 9, "vision_config": None},
            "no picture encoder|lacks",
        ),
        ("preprocessor_config.json", {"size": {"shortest_edge": 10**9}}, "from 1 to 1024"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, "three colours"),
        ("preprocessor_config.json", {"image_std": [0, 1, 1]}, "three colours"),
        ("preprocessor_config.json", {"size": {"shortest_edge": 3}}, "smaller than"),
        ("preprocessor_config.json", {"resample": 99}, "99"),
        ("preprocessor_config.json", {"size": None}, "no picture encoder"),
    ],
)
def test_folders_that_are_none_are_refused(tmp_path, folders, name, changes, says):
    with pytest.raises(WeightsError, match=says):
        Vision(broken_folder(tmp_path, folders["dinov2"], name, **changes))


def test_weights_that_lack_a_layer_are_not_filled_with_chance(tmp_path, folders):
    config = json.loads((folders["dinov2"] / "config.json").read_text())
    more = config["num_hidden_layers"] + 1
    folder = broken_folder(tmp_path, folders["dinov2"], "config.json", num_hidden_layers=more)
    with pytest.raises(WeightsError, match=r"lacks \d+ of the weights"):
        Vision(folder)


def test_no_code_of_the_folder_is_run_and_no_pickle_is_read(tmp_path, folders):
    folder = broken_folder(
        tmp_path, folders["clip"], "config.json", auto_map={"AutoModel": "evil.Evil"}
    )
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    Vision(folder)
    state = {"x": torch.zeros(1)}
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="no picture encoder"):
        Vision(folder)


def test_the_catalogue_knows_a_folder_of_any_such_model(tmp_path, folders):
    root = tmp_path / "weights"
    root.mkdir()
    (root / "vision").symlink_to(folders["siglip"])
    weights = Weights(root)
    assert weights.state("vision")[0] is WeightsState.PRESENT
    assert len(weights.digest("vision")) == 64


@pytest.mark.parametrize(("head", "width"), FILES)
def test_a_head_is_what_its_layers_say_one_after_the_other(tmp_path, head, width):
    """Oracle: torch's own layers, in order."""
    rng = torch.Generator().manual_seed(1)
    sizes = [width, 1] if head == "linear" else [width, 1024, 128, 64, 16, 1]
    names = [""] if head == "linear" else [f"layers.{i}." for i in (0, 2, 4, 6, 7)]
    state, layers = {}, []
    for name, a, b in zip(names, sizes, sizes[1:], strict=False):
        layer = torch.nn.Linear(a, b).double()
        layer.weight.data = torch.randn(b, a, generator=rng, dtype=torch.float64) / a**0.5
        state |= {
            f"{name}weight": layer.weight.data.float(),
            f"{name}bias": layer.bias.data.float(),
        }
        layers.append(layer)
    torch.save(state, tmp_path / FILES[head, width])
    vector = torch.nn.functional.normalize(torch.randn(width, generator=rng).double(), dim=0)
    with torch.inference_mode():
        theirs = float(torch.nn.Sequential(*layers)(vector))
    assert AestheticHead(tmp_path, head, width)(vector.numpy()) == pytest.approx(theirs, abs=1e-6)
    torch.save(state | {"more.weight": torch.zeros(1)}, tmp_path / FILES[head, width])
    with pytest.raises(WeightsError, match="no aesthetic head"):
        AestheticHead(tmp_path, head, width)


@pytest.mark.media
@pytest.mark.parametrize(("head", "width"), FILES)
def test_the_published_heads_are_read(weights, head, width):
    score = AestheticHead(weights / "aesthetic", head, width)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, width))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert all(np.isfinite(score(vector)) for vector in vectors)
