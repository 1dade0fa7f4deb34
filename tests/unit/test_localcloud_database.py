"""The state file: what is written is there after a restart, all of it or none."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.database import Database
from localcloud.errors import LocalCloudError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    documents=st.dictionaries(
        st.text(min_size=1, max_size=10), st.dictionaries(st.text(min_size=1, max_size=8), JSON, max_size=4), max_size=5
    )
)
def test_documents_survive_reopening(tmp_path_factory: pytest.TempPathFactory, documents: dict[str, dict[str, object]]) -> None:
    path = tmp_path_factory.mktemp("db") / "state.db"
    database = Database(path)
    for key, document in documents.items():
        database.table("things").put(key, document)
    database.close()
    table = Database(path).table("things")
    assert {key: table.get(key) for key in table} == documents


def test_datetimes_come_back_as_datetimes(tmp_path: Path) -> None:
    moment = datetime(2026, 11, 23, 8, 0, 1, 250000, tzinfo=UTC)
    Database(tmp_path / "state.db").table("t").put("k", {"at": moment, "in": [{"deep": moment}]})
    found = Database(tmp_path / "state.db").table("t").get("k")
    assert found == {"at": moment, "in": [{"deep": moment}]}


def test_what_get_returns_is_a_copy(tmp_path: Path) -> None:
    table = Database(tmp_path / "state.db").table("t")
    table.put("k", {"list": [1]})
    found = table.get("k")
    assert found is not None
    found["list"].append(2)
    assert table.get("k") == {"list": [1]}


def test_concurrent_updates_lose_nothing(tmp_path: Path) -> None:
    table = Database(tmp_path / "state.db").table("t")
    table.put("k", {})
    threads = [threading.Thread(target=lambda n=n: table.update("k", **{f"field{n}": n})) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert table.get("k") == {f"field{n}": n for n in range(20)}


def test_updating_a_missing_document_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        Database(tmp_path / "state.db").table("t").update("nothing", a=1)


def test_what_cannot_be_stored_leaves_the_old_document(tmp_path: Path) -> None:
    table = Database(tmp_path / "state.db").table("t")
    table.put("k", {"a": 1})
    with pytest.raises(TypeError):
        table.put("k", {"a": object()})
    assert table.get("k") == {"a": 1}


def test_snapshots_are_replaced_together(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    database.write_snapshots({"a": b"1", "b": b"1"})
    with pytest.raises(LocalCloudError, match="cannot be saved"):
        database.write_snapshots({"a": b"2", "b": object()})  # type: ignore[dict-item]
    assert database.read_snapshots() == {"a": b"1", "b": b"1"}


def test_a_file_that_is_no_state_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"this is not a database, and longer than its header" * 10)
    with pytest.raises(LocalCloudError, match="--state-dir"):
        Database(path)
    assert path.read_bytes().startswith(b"this is not")
