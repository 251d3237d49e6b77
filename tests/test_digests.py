"""Digests of files: never a kept one of what is there no longer, however a file was changed."""

import os
import time

import pytest

from interp_core import digests
from interp_core.digests import check_same, digest_like, digest_of, digest_or_none, joined, place_digest
from interp_core.errors import InterpError


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file that came to rest long ago, whose digest is known."""
    path = tmp_path / "weights.bin"
    path.write_bytes(b"a" * 100)
    real = time.time_ns
    monkeypatch.setattr(digests.time, "time_ns", lambda: real() + 10 * digests.REST_NS)
    return path


def rewrite(path, data):
    """Other bytes of the same number in the same file, with the time of the last change set back."""
    before = path.stat()
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (before.st_size, before.st_mtime_ns, before.st_ino) == (after.st_size, after.st_mtime_ns, after.st_ino)


def test_a_file_is_read_once_while_it_stays_as_it_is(file, monkeypatch):
    first = digest_of(file)
    monkeypatch.setattr(digests.hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert digest_of(file) == first and len(first) == 64


@pytest.mark.skipif(os.name == "nt", reason="there no time of the last change of what is said about a file is kept")
def test_a_change_of_the_same_size_with_its_time_set_back_is_seen(file):
    first = digest_of(file)
    time.sleep(0.02)  # longer than a tick of the file system's clock
    rewrite(file, b"b" * 100)
    assert digest_of(file) != first


def test_a_file_that_has_just_been_written_is_read_every_time(tmp_path, monkeypatch):
    path = tmp_path / "clip.wav"
    path.write_bytes(b"a" * 100)
    first, found = digest_of(path), path.stat()
    path.write_bytes(b"b" * 100)
    monkeypatch.setattr(digests, "_signature", lambda name: (0, 0, 100, found.st_mtime_ns, found.st_ctime_ns))
    assert digest_of(path) != first, "within one tick nothing else tells the two apart"


def test_a_file_that_changed_or_went_is_refused_by_name(file):
    digest, place = digest_of(file), place_digest(file)
    check_same(file, digest)
    check_same(file, place)
    file.write_bytes(b"other")
    for known in (digest, place):
        with pytest.raises(InterpError, match=r"weights.bin was changed .* mixture"):
            check_same(file, known)
    file.unlink()
    with pytest.raises(InterpError, match="weights.bin was removed"):
        check_same(file, digest)
    assert digest_or_none(file) is None and digest_like(file, place) is None and digest_or_none("a\0b") is None


def test_one_digest_for_many_hangs_on_names_and_contents_and_not_on_their_order():
    assert joined({"a": "1", "b": "2"}) == joined({"b": "2", "a": "1"})
    assert len({joined(one) for one in ({"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1", "b": "1"}, {})}) == 5
