"""The file of measured seconds: what is read back, what counts as nothing, and several writers."""

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sngd_tune.selection.cost.cache import CACHE_VERSION, CostCache, default_cache, environment
from sngd_tune.selection.cost.timing import Timing

WRONG = {
    "not JSON": b"{",
    "not text": b"\xff\x00",
    "empty": b"",
    "a list": b"[]",
    "no version": b'{"environments": {"here": {"a": [1.0, true]}}}',
    "another version": json.dumps(
        {"version": CACHE_VERSION + 1, "environments": {"here": {"a": [1.0, True]}}}
    ).encode(),
    "no environments": json.dumps({"version": CACHE_VERSION, "environments": 3}).encode(),
    "an environment that is none": json.dumps({"version": CACHE_VERSION, "environments": {"here": ["a"]}}).encode(),
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_a_file_that_is_none_counts_as_empty_and_is_written_anew(tmp_path, content):
    path = tmp_path / "cost.json"
    path.write_bytes(content)
    cache = CostCache(path, "here")
    assert cache.get("a") is None
    cache.put("a", Timing(2.0, False))
    cache.save()
    assert CostCache(path, "here").get("a") == Timing(2.0, False)


@given(
    st.dictionaries(
        st.text(), st.lists(st.none() | st.booleans() | st.floats() | st.text(max_size=2), max_size=3) | st.integers()
    )
)
def test_only_whole_entries_are_believed(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("cache") / "cost.json"
    path.write_text(json.dumps({"version": CACHE_VERSION, "environments": {"here": entries}}))
    cache = CostCache(path, "here")
    for name, entry in entries.items():
        found = cache.get(name)
        if found is not None:
            assert entry == [found.seconds, found.measured]
            assert 0 <= found.seconds < float("inf")
            assert isinstance(found.measured, bool)


def test_writers_keep_what_others_have_written(tmp_path):
    path = tmp_path / "below" / "cost.json"
    one, other, elsewhere = CostCache(path, "here"), CostCache(path, "here"), CostCache(path, "there")
    for cache, name in ((one, "a"), (other, "b"), (elsewhere, "c")):
        cache.put(name, Timing(1.0))
    for cache in (one, other, elsewhere):
        cache.save()
    again = CostCache(path, "here")
    assert again.get("a") == again.get("b") == Timing(1.0)
    assert again.get("c") is None
    assert CostCache(path, "there").get("c") == Timing(1.0)
    assert [file.name for file in path.parent.iterdir()] == ["cost.json"]


def test_the_oldest_go_first(tmp_path, monkeypatch):
    monkeypatch.setattr("sngd_tune.selection.cost.cache._MOST", 3)
    cache = CostCache(tmp_path / "cost.json", "here")
    for name in "abcde":
        cache.put(name, Timing(1.0))
        cache.save()
    kept = CostCache(tmp_path / "cost.json", "here")
    assert [name for name in "abcde" if kept.get(name)] == ["c", "d", "e"]


def test_nothing_new_is_not_written(tmp_path):
    path = tmp_path / "cost.json"
    CostCache(path, "here").save()
    assert not path.exists()


def test_without_a_file_it_lasts_as_long_as_the_object(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = CostCache(None, "here")
    cache.put("a", Timing(1.0))
    cache.save()
    assert cache.get("a") == Timing(1.0)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_said_once(tmp_path):
    (tmp_path / "file").write_text("")
    cache = CostCache(tmp_path / "file" / "cost.json", "here")
    cache.put("a", Timing(1.0))
    with pytest.warns(UserWarning, match="measured costs cannot be kept there"):
        cache.save()
    cache.put("b", Timing(1.0))
    cache.save()
    assert cache.get("a") == cache.get("b")


@pytest.mark.parametrize(("named", "expected"), [("/some/where", "/some/where"), ("relative", None), ("", None)])
def test_the_default_place(monkeypatch, named, expected):
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    monkeypatch.setenv("HOME", os.sep + "home")
    assert default_cache() == Path(expected or "/home/.cache") / "sngd_tune" / "cost.json"


def test_environments_differ_by_threads_and_torch(monkeypatch):
    here = environment(torch.device("cpu"), 1)
    assert here != environment(torch.device("cpu"), 2)
    monkeypatch.setattr(torch, "__version__", "1.0")
    assert here != environment(torch.device("cpu"), 1)
