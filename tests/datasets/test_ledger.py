"""The ledger keeps what was committed and nothing else."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reelmill.datasets.ledger import Batch, Ledger, TrackReader, latest_rows, tracks_table
from reelmill.datasets.workspace import open_workspace
from reelmill.errors import DatasetError, WorkspaceError

FOLDER = "ledger/facts/Toy/k"


def rows(*pairs):
    return pa.table({"unit": [u for u, _ in pairs], "x": [x for _, x in pairs]})


def commit(ledger, table, folder=FOLDER):
    batch = Batch()
    batch.add(folder, table)
    ledger.commit(batch)


def test_committed_rows_are_read_back_by_a_new_process(tmp_path):
    workspace = open_workspace(tmp_path / "w")
    commit(Ledger(workspace), rows(("b", 2), ("a", 1)))
    commit(Ledger(workspace), rows(("c", 3)))
    ledger = Ledger(workspace)
    assert ledger.units(FOLDER) == {"a", "b", "c"}
    assert sorted(ledger.table(FOLDER)["x"].to_pylist()) == [1, 2, 3]


def test_a_file_without_its_commit_does_not_exist(tmp_path):
    workspace = open_workspace(tmp_path / "w")
    commit(Ledger(workspace), rows(("a", 1)))
    for file in (workspace.ledger / "commits").glob("*.json"):
        file.unlink()
    assert Ledger(workspace).table(FOLDER) is None


def test_equal_rows_in_any_order_give_equal_files(tmp_path):
    names = []
    for name, pairs in (("1", [("a", 1), ("b", 2)]), ("2", [("b", 2), ("a", 1)])):
        workspace = open_workspace(tmp_path / name)
        commit(Ledger(workspace), rows(*pairs))
        names.append(
            [(p.name, p.read_bytes()) for p in sorted((workspace.root / FOLDER).iterdir())]
        )
    assert names[0] == names[1]


def test_an_altered_file_is_named(tmp_path):
    workspace = open_workspace(tmp_path / "w")
    commit(Ledger(workspace), rows(("a", 1)))
    file = next((workspace.root / FOLDER).iterdir())
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(DatasetError, match=file.name):
        Ledger(workspace).table(FOLDER)


@given(
    arrays=st.dictionaries(
        st.text(min_size=1, max_size=8),
        hnp.arrays(
            st.sampled_from([np.float32, np.int64, np.uint8, np.bool_, np.float16]),
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
        ),
        max_size=4,
    )
)
def test_tracks_round_trip(tmp_path_factory, arrays):
    workspace = open_workspace(tmp_path_factory.mktemp("w") / "w")
    ledger = Ledger(workspace)
    commit(ledger, tracks_table("a", arrays | {"last": np.arange(3)}), "tracks/Toy/k")
    found = TrackReader(ledger, "tracks/Toy/k")["a"]
    for name, array in arrays.items():
        if name != "last":
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype


def test_object_arrays_are_refused():
    with pytest.raises(TypeError, match="dtype"):
        tracks_table("a", {"x": np.array([{}], dtype=object)})


@given(st.lists(st.sampled_from("abcdefg")), st.lists(st.sampled_from("abcdefghij")))
def test_latest_rows_finds_each_unit(names, wanted):
    table = pa.table({"unit": pa.array(names, pa.string())})
    expected = [names.index(w) if w in names else -1 for w in wanted]
    assert latest_rows(table, wanted).tolist() == expected


def test_two_runs_on_one_workspace_are_refused(tmp_path):
    workspace = open_workspace(tmp_path / "w")
    with (
        workspace.lock(),
        pytest.raises(WorkspaceError, match="in use by process"),
        workspace.lock(),
    ):
        pass
    with workspace.lock():
        pass


def test_a_workspace_of_another_schema_or_with_other_files_is_refused(tmp_path):
    workspace = open_workspace(tmp_path / "w")
    (workspace.root / "workspace.json").write_text('{"schema": 99}')
    with pytest.raises(WorkspaceError, match="version 99"):
        open_workspace(workspace.root)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    with pytest.raises(WorkspaceError, match="other files"):
        open_workspace(tmp_path / "home")
