"""The kit's own parts: twins that fit the source, wires that are read right."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from soak.twins import TWINS, make
from soak.wires import LostAnswers, LostCommits

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_fits_the_source_as_it_is_and_is_python(name, tmp_path):
    tree = make(name, ROOT, tmp_path)
    for edit in TWINS[name].edits:
        ast.parse((tree / edit.file).read_text())
        assert (tree / edit.file).read_text() != (ROOT / edit.file).read_text()


def test_the_answer_to_a_commit_is_told_from_others_however_it_is_cut():
    answers = b"T\0\0\0\x06\0\0" + b"C\0\0\0\x0bUPDATE\0" + b"C\0\0\0\x0bCOMMIT\0" + b"Z\0\0\0\x05I"
    for size in (1, 7, 100):
        listener = LostCommits.losing(1.0, seed=1)()
        pieces = [answers[at : at + size] for at in range(0, len(answers), size)]
        assert sum(listener.answers(piece) for piece in pieces) == 1
    listener = LostCommits.losing(1.0, seed=1)()
    assert not listener.answers(b"C\0\0\0\x0bUPDATE\0Z\0\0\0\x05I")


def test_answers_to_uploads_and_long_answers_are_told_by_their_frames():
    def frame(kind: int, stream: int, size: int, flags: int = 0) -> bytes:
        return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + bytes(size)

    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    listener = LostAnswers.losing(1.0, seed=1)()
    listener.asked(preface + frame(1, 1, 30) + frame(0, 1, 12_000) + frame(1, 3, 30) + frame(0, 3, 40))
    assert not listener.answers(frame(1, 3, 10) + frame(0, 3, 40) + frame(1, 3, 10, flags=1))
    assert listener.answers(frame(1, 1, 10))
    assert listener.answers(frame(0, 5, 2000))
