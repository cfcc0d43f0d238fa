"""Finding original files: plain, packed or in an archive, and what is said of those that are not there."""

import gzip
import tarfile
from pathlib import Path

import pytest

from sngd_tune.datasets.originals import read_originals
from sngd_tune.errors import ConfigurationError
from tests.datasets.files import pack, put

FILES = {"one": b"1" * 1000, "two": b"2"}


def test_plain_packed_and_archived_files_are_the_same(tmp_path: Path) -> None:
    sources = [
        put(tmp_path / "plain", FILES),
        put(tmp_path / "packed", FILES, packed=True),
        pack(tmp_path / "archive.tgz", {**FILES, "other": b""}),
    ]
    for source in sources:
        found = read_originals(source, tuple(FILES))
        assert {name: content.data for name, content in found.items()} == FILES
        assert all(str(source) in content.where and name in content.where for name, content in found.items())


def test_a_plain_file_goes_before_a_packed_one(tmp_path: Path) -> None:
    put(tmp_path, {"one": b"new"})
    put(tmp_path, {"one": b"old"}, packed=True)
    assert read_originals(tmp_path, ["one"])["one"].data == b"new"


def test_all_missing_files_are_named(tmp_path: Path) -> None:
    put(tmp_path, {"two": b""})
    with pytest.raises(
        ConfigurationError, match=r"has no one, three; it must hold one, two, three; name the folder or"
    ):
        read_originals(tmp_path, ["one", "two", "three"])
    with pytest.raises(ConfigurationError, match=r"archive\.tgz: has no three; it must hold one, three"):
        read_originals(pack(tmp_path / "archive.tgz", FILES), ["one", "three"])


def test_no_source(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere: not found; name the folder or the tar archive"):
        read_originals(tmp_path / "nowhere", ["one"])


@pytest.mark.parametrize("content", [b"plain text", gzip.compress(bytes(1000))[:-9], b"\x1f\x8b\x08" + bytes(20)])
def test_a_damaged_packed_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "one.gz").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"one\.gz: cannot be read as gzip \(.*\); fetch it again"):
        read_originals(tmp_path, ["one"])


@pytest.mark.parametrize("damage", ["text", "cut", "empty"])
def test_a_damaged_archive(tmp_path: Path, damage: str) -> None:
    path = pack(tmp_path / "archive.tgz", {"one": bytes(range(256)) * 100, "two": b"2"})
    whole = path.read_bytes()
    path.write_bytes({"text": b"no archive", "cut": whole[: len(whole) // 2], "empty": b""}[damage])
    with pytest.raises(
        ConfigurationError, match=r"archive\.tgz: cannot be read as a tar archive \(.*\); fetch it again"
    ):
        read_originals(path, ["one", "two"])


def test_a_folder_in_an_archive_is_no_file_and_a_broken_link_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("one")
        member.type = tarfile.DIRTYPE
        archive.addfile(member)
    with pytest.raises(ConfigurationError, match="has no one"):
        read_originals(path, ["one"])
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("one")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(member)
    with pytest.raises(ConfigurationError, match="cannot be read as a tar archive"):
        read_originals(path, ["one"])
