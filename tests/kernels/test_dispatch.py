from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from reelmill.errors import UsageError
from reelmill.kernels import cpu, native
from reelmill.kernels.dispatch import DENSE, SPARSE, Case, attention, choose_dense, choose_sparse
from reelmill.kernels.trial import trial

pytestmark = pytest.mark.long

CPU = torch.device("cpu")


def case(dtype=torch.float32, head_dim=64, grad=True) -> Case:
    return Case(CPU, dtype, head_dim, grad)


def test_the_cpu_gets_what_runs_there_and_every_other_says_why_not():
    dense, sparse = choose_dense(case()), choose_sparse(case())
    assert (dense.name, sparse.name) == ("sdpa", "cpu" if native.lacks() else "native")
    assert set(dense.lacks) == set(DENSE)
    assert set(sparse.lacks) == set(SPARSE)
    assert sparse.lacks["cpu"] is None
    assert sparse.lacks["native"] == native.lacks()
    assert "CUDA" in str(sparse.lacks["triton"])
    assert "backward" in str(sparse.lacks["flex"])


def test_a_named_backend_is_used_or_refused():
    assert choose_dense(case(), "math").name == "math"
    assert choose_sparse(case(), "reference").name == "reference"
    with pytest.raises(UsageError, match="CUDA device"):
        choose_dense(case(), "flash_attn")
    with pytest.raises(UsageError, match="there are"):
        choose_dense(case(), "fastest")


@pytest.mark.slow
def test_the_environment_names_a_backend():
    code = (
        "import torch; from reelmill.kernels.dispatch import Case, choose_dense, choose_sparse;"
        "c = Case(torch.device('cpu'), torch.float32, 64);"
        "print(choose_dense(c).name, choose_sparse(c).name, choose_sparse(c, 'cpu').name)"
    )
    env = os.environ | {"REELMILL_ATTENTION": "math", "REELMILL_SPARSE_ATTENTION": "reference"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    assert run.stdout.split() == ["math", "reference", "cpu"]


def some(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("backend", ["auto", "sdpa", "math"])
def test_dense_attention_takes_tokens_before_heads(backend):
    q, k, v = some(2, 5, 3, 8), some(2, 9, 3, 8), some(2, 9, 3, 8)
    out = attention(q, k, v, scale=0.2, backend=backend)
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * 0.2
    expected = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v)
    torch.testing.assert_close(out, expected)


def test_packed_sequences_do_not_see_each_other():
    q, k, v = some(2, 7, 2, 4), some(2, 10, 2, 4), some(2, 10, 2, 4)
    out = attention(q, k, v, cu_seqlens=[0, 3, 7], cu_seqlens_k=[0, 1, 10])
    for (a, b), (c, d) in (((0, 3), (0, 1)), ((3, 7), (1, 10))):
        parts = (x.transpose(1, 2) for x in (q[:, a:b], k[:, c:d], v[:, c:d]))
        torch.testing.assert_close(
            out[:, a:b], F.scaled_dot_product_attention(*parts).transpose(1, 2)
        )


@pytest.mark.parametrize("bounds", [[0, 3], [1, 7], [0, 5, 3, 7], [0]])
def test_bounds_that_do_not_fit_are_refused(bounds):
    q = some(2, 7, 2, 4)
    with pytest.raises(UsageError, match="Bounds"):
        attention(q, q, q, cu_seqlens=bounds)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_trial_finds_the_backend_sound(dtype):
    found = trial(case(dtype, 16))
    assert found.good
    assert found.repeats
    assert 0 < found.output < found.gradients * 10


def test_the_trial_finds_a_wrong_backend_out(monkeypatch):
    right = cpu.backward

    def wrong(*arguments):
        dq, dk, dv = right(*arguments)
        return dq, dk * 1.01, dv

    monkeypatch.setattr(cpu, "backward", wrong)
    assert trial(case(head_dim=16), "reference").good
    assert not trial(case(head_dim=16), "cpu").good


def test_kernels_check_says_what_would_be_used_and_why():
    from reelmill.commands.kernels import app

    run = CliRunner().invoke(app, ["check", "--json", "--head-dim", "32", "--dtype", "float32"])
    assert run.exit_code == 0
    answer = json.loads(run.stdout.splitlines()[-1])
    assert answer["head_dim"] == 32
    assert answer["good"] is True
    assert answer["dense"]["uses"] in answer["dense"]["lacks"]
    assert answer["sparse"]["lacks"][answer["sparse"]["uses"]] is None


def test_kernels_check_refuses_a_type_it_does_not_know():
    from reelmill.commands.kernels import app

    run = CliRunner().invoke(app, ["check", "--dtype", "int8"])
    assert isinstance(run.exception, UsageError)
