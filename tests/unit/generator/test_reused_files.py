from __future__ import annotations

import pytest

from nanobatch_generator.reused_files import ReusedFiles, is_free


def inodes(folder):
    return {path.stat().st_ino for path in folder.iterdir()}


def test_a_file_that_was_removed_is_used_again_and_keeps_nothing(tmp_path):
    files = ReusedFiles(tmp_path)
    files.write(tmp_path / "one", b"a long picture")
    before = inodes(tmp_path)
    files.remove(tmp_path / "one")
    [free] = tmp_path.iterdir()
    assert is_free(free)
    assert free.read_bytes() == b""
    files.write(tmp_path / "two", b"short")
    assert (tmp_path / "two").read_bytes() == b"short"
    assert inodes(tmp_path) == before


def test_removing_what_is_not_there_is_fine(tmp_path):
    files = ReusedFiles(tmp_path)
    files.remove(tmp_path / "nothing")
    files.write(tmp_path / "one", b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_only_so_many_empty_files_are_kept(tmp_path):
    files = ReusedFiles(tmp_path)
    for number in range(80):
        files.write(tmp_path / str(number), b"1")
    for number in range(80):
        files.remove(tmp_path / str(number))
    assert len(list(tmp_path.iterdir())) == 64


def test_a_write_that_fails_leaves_nothing(tmp_path):
    files = ReusedFiles(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        files.write(tmp_path / "folder", b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
