"""What every place has to do, whatever filesystem it is on."""

import pickle
import time
from pathlib import Path

import pytest

from sngd_tune.errors import ConfigurationError
from sngd_tune.storage import Place, open_place
from tests.s3 import S3Server


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        found = open_place(tmp_path / "storage")
    else:
        server: S3Server = request.getfixturevalue("s3")
        found = server.place(tmp_path.name)
    found.make()
    return found


def test_what_is_written_is_read_back_whole(place: Place) -> None:
    content = bytes(range(256)) * 4096
    place.write("a/b/model.pt", content)
    assert place.read("a/b/model.pt") == content
    assert place.below("a").read("b/model.pt") == content


def test_a_file_takes_the_place_of_the_one_before(place: Place) -> None:
    place.write("state", b"the longer one of the two")
    place.write("state", b"short")
    assert place.read("state") == b"short"
    assert place.names() == ["state"]


def test_names_are_those_of_all_finished_files_below(place: Place) -> None:
    assert place.names() == []
    for name in ("b", "a/2", "a/1", "a/.1.123.tmp"):
        place.write(name, b"x")
    assert place.names() == ["a/1", "a/2", "b"]
    assert place.below("a").names() == ["1", "2"]
    assert place.below("c").names() == []


def test_a_file_that_is_missing_says_so_and_is_deleted_without_complaint(place: Place) -> None:
    with pytest.raises(FileNotFoundError):
        place.read("nothing")
    assert place.modified("nothing") is None
    place.delete("nothing")
    place.write("something", b"x")
    place.delete("something")
    assert place.names() == []


def test_a_place_that_is_cleared_is_empty_and_can_be_written_again(place: Place) -> None:
    place.write("a/1", b"x")
    place.clear()
    place.clear()
    assert place.names() == []
    place.make()
    place.write("a/1", b"y")
    assert place.read("a/1") == b"y"


def test_times_are_those_of_writing(place: Place) -> None:
    before = time.time()
    place.write("now", b"x")
    modified = place.modified("now")
    assert modified is not None
    assert abs(modified - before) < 5


def test_a_place_travels_to_another_process(place: Place) -> None:
    pickle.loads(pickle.dumps(place)).write("from/there", b"x")
    assert place.read("from/there") == b"x"


def test_folders_inside_keep_the_options_of_the_uri(s3: S3Server) -> None:
    below = s3.place("study").below("checkpoints", "0001")
    below.write("1.pt", b"x")
    assert open_place(below.uri).read("1.pt") == b"x"


def test_no_new_folder_buries_a_mount_that_is_away(tmp_path: Path) -> None:
    place = open_place(tmp_path / "mount")
    with pytest.raises(FileNotFoundError):
        place.write("a/1", b"x")
    assert not (tmp_path / "mount").exists()


@pytest.mark.parametrize("uri", ["nosuch://bucket/runs", "s3://bucket?colour=red"])
def test_what_is_no_storage_is_refused(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="must be a folder, or a URI such as"):
        open_place(uri)
