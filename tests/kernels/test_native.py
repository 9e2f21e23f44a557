"""What compiling brings with it; that it computes right is shown with the other backends."""

from __future__ import annotations

import pytest
import torch
from tests.kernels import oracle

from reelmill.errors import UsageError
from reelmill.kernels import native, reference
from reelmill.kernels.dispatch import Case, choose_sparse
from reelmill.kernels.reference import Blocks
from reelmill.kernels.tiles import TileLayout, tile_layout

CPU = Case(torch.device("cpu"), torch.float32, 64)


@pytest.fixture
def fresh(monkeypatch):
    """Nothing is known of this machine, and nothing learnt of it stays."""
    native._library.cache_clear()
    yield monkeypatch
    native._library.cache_clear()


def case(layout: TileLayout, dtype=torch.float32, dim=40):
    made = torch.Generator().manual_seed(0)
    lists = oracle.random_lists(layout, 2, 3, 4, made)
    rows = [torch.randn(2, layout.tokens, 3, dim, generator=made).to(dtype) for _ in range(4)]
    place = (layout.offsets, layout.offsets, layout.max_tile, layout.max_tile)
    return rows, Blocks(lists.index, lists.count, *place, 0.3)


def run(of, rows, blocks):
    do, q, k, v = rows
    o, lse = of.forward(q, k, v, blocks)
    return [o, lse, *of.backward(do, q, k, v, o, lse, blocks)]


def needs_compiler() -> None:
    if reason := native.lacks():
        pytest.skip(reason)


def test_threads_change_nothing():
    needs_compiler()
    rows, blocks = case(tile_layout((5, 7, 9), tile=(4, 4, 4)))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(run(native, rows, blocks))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_every_number_of_every_output_is_written(monkeypatch):
    """With fresh memory full of NaN; some lists are empty, and some tiles nobody reads."""
    needs_compiler()
    rows, blocks = case(tile_layout((5, 7, 9), tile=(4, 4, 4)))
    expected, empty = run(native, rows, blocks), torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(torch.nan))
    for a, b in zip(run(native, rows, blocks), expected, strict=True):
        assert torch.equal(a, b)


def test_what_is_no_number_is_not_hidden():
    needs_compiler()
    layout = tile_layout((3, 5, 7), tile=(2, 2, 4))
    (_, q, k, v), blocks = case(layout)
    k[:, 3], v[:, 40] = torch.nan, torch.inf
    for a, b in zip(
        native.forward(q, k, v, blocks), reference.forward(q, k, v, blocks), strict=True
    ):
        assert torch.equal(a.isfinite(), b.isfinite())


@pytest.mark.parametrize("wrong", ["index", "negative", "count", "offsets", "largest"])
def test_lists_that_lead_out_of_the_tensors_are_refused(wrong):
    needs_compiler()
    layout = tile_layout((3, 5, 7), tile=(2, 2, 4))
    rows, blocks = case(layout)
    index, count, offsets = (x.clone() for x in blocks[:3])
    index[0, 1, 2], count[0, 1, 2] = 0, 1
    if wrong in ("index", "negative"):
        index[0, 1, 2, 0] = layout.tiles if wrong == "index" else -1
    if wrong == "count":
        count[0, 1, 2] = index.shape[-1] + 1
    if wrong == "offsets":
        offsets[-1] += 1
    largest = layout.max_tile - (wrong == "largest")
    blocks = Blocks(index, count, offsets, offsets, largest, largest, 0.3)
    o = torch.zeros(rows[1].shape)
    with pytest.raises(UsageError, match="tiles that are not there"):
        native.forward(*rows[1:], blocks)
    with pytest.raises(UsageError, match="tiles that are not there"):
        native.backward(*rows, o, torch.zeros(2, 3, layout.tokens), blocks)


def test_without_a_compiler_torch_computes(fresh):
    fresh.setenv("PATH", "")
    fresh.setenv("CXX", "")
    choice = choose_sparse(CPU)
    assert choice.name == "cpu"
    assert "no C++ compiler" in str(choice.lacks["native"])
    with pytest.raises(UsageError, match="no C\\+\\+ compiler"):
        choose_sparse(CPU, "native")


def test_a_compiler_that_fails_is_quoted(fresh, tmp_path):
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
    broken.chmod(0o755)
    fresh.setenv("CXX", str(broken))
    choice = choose_sparse(CPU)
    assert choice.name == "cpu"
    assert "out of order" in str(choice.lacks["native"])


def test_a_folder_that_others_may_write_to_is_not_trusted(fresh, tmp_path):
    needs_compiler()
    native._library.cache_clear()
    fresh.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "reelmill" / "kernels").mkdir(parents=True)
    (tmp_path / "reelmill" / "kernels").chmod(0o777)
    assert "written by others" in str(native.lacks())


@pytest.mark.slow
@pytest.mark.parametrize("instructions", ["x86-64", "haswell", "native"])
def test_every_width_of_vectors_computes_the_same(fresh, tmp_path, instructions):
    needs_compiler()
    native._library.cache_clear()
    fresh.setenv("XDG_CACHE_HOME", str(tmp_path))
    flags = [f"-march={instructions}" if "march" in flag else flag for flag in native.FLAGS]
    fresh.setattr(native, "FLAGS", tuple(flags))
    if reason := native.lacks():
        pytest.skip(reason)  # another family of processors
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-13)):
        for dim in (5, 16, 40, 64):
            rows, blocks = case(tile_layout((5, 7, 9), tile=(4, 4, 4)), dtype, dim)
            for a, b in zip(run(native, rows, blocks), run(reference, rows, blocks), strict=True):
                torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    assert len(list((tmp_path / "reelmill" / "kernels").glob("*.so"))) == 1
