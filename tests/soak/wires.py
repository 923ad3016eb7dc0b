"""What a proxy must know of two protocols to lose one certain answer: PostgreSQL's COMMIT, and an RPC's in HTTP/2."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import ClassVar

_MESSAGE_HEADER = 5
_FRAME_HEADER = 9
_DATA, _HEADERS = 0x0, 0x1
_END_STREAM = 0x1
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class LostCommits:
    """Loses the server's answer to a share of all COMMITs. Made by :meth:`losing`; needs ``sslmode=disable``."""

    share: ClassVar[float] = 0.0
    dice: ClassVar[random.Random] = random.Random(0)

    @classmethod
    def losing(cls, share: float, seed: int) -> type[LostCommits]:
        """Return a listener class of its own for one proxy."""
        return type("LostCommitsOf", (cls,), {"share": share, "dice": random.Random(seed)})

    def __init__(self) -> None:
        self._rest = b""

    def asked(self, data: bytes) -> None:
        """Nothing of the client's is of interest."""

    def answers(self, data: bytes) -> bool:
        self._rest += data
        lost = False
        while len(self._rest) >= _MESSAGE_HEADER:
            size = 1 + int.from_bytes(self._rest[1:5], "big")
            if len(self._rest) < size:
                break
            message, self._rest = self._rest[:size], self._rest[size:]
            if message[:1] == b"C" and message[_MESSAGE_HEADER:] == b"COMMIT\0" and self.dice.random() < self.share:
                lost = True
        return lost


class LostAnswers:
    """Loses a share of the answers to calls that are told by their size: they need no decoding of headers.

    ``upload_bytes``: calls whose request is at least that long (a picture). ``answer_bytes``: answers that are at least
    that long (leases, with their prompts and keys).
    """

    share: ClassVar[float] = 0.0
    dice: ClassVar[random.Random] = random.Random(0)
    upload_bytes: ClassVar[int] = 10_000
    answer_bytes: ClassVar[int] = 500

    @classmethod
    def losing(cls, share: float, seed: int, answer_bytes: int = 500) -> type[LostAnswers]:
        """Return a listener class of its own for one proxy."""
        return type(
            "LostAnswersOf", (cls,), {"share": share, "dice": random.Random(seed), "answer_bytes": answer_bytes}
        )

    def __init__(self) -> None:
        self._near, self._far = _Frames(preface=True), _Frames(preface=False)
        self._sent: dict[int, int] = {}

    def asked(self, data: bytes) -> None:
        for kind, _, stream, size in self._near.read(data):
            if kind == _DATA:
                self._sent[stream] = self._sent.get(stream, 0) + size

    def answers(self, data: bytes) -> bool:
        lost = False
        for kind, flags, stream, size in self._far.read(data):
            long_request = kind == _HEADERS and self._sent.get(stream, 0) >= self.upload_bytes
            long_answer = kind == _DATA and size >= self.answer_bytes
            if (long_request or long_answer) and self.dice.random() < self.share:
                lost = True
            if flags & _END_STREAM:
                self._sent.pop(stream, None)
        return lost


class _Frames:
    """Splits a byte stream into HTTP/2 frames: kind, flags, stream, length."""

    def __init__(self, *, preface: bool) -> None:
        self._rest = b""
        self._skip = len(_PREFACE) if preface else 0

    def read(self, data: bytes) -> Iterator[tuple[int, int, int, int]]:
        if self._skip:
            cut = min(self._skip, len(data))
            self._skip -= cut
            data = data[cut:]
        self._rest += data
        while len(self._rest) >= _FRAME_HEADER:
            size = int.from_bytes(self._rest[:3], "big")
            if len(self._rest) < _FRAME_HEADER + size:
                return
            kind, flags = self._rest[3], self._rest[4]
            stream = int.from_bytes(self._rest[5:9], "big") & 0x7FFFFFFF
            self._rest = self._rest[_FRAME_HEADER + size :]
            yield kind, flags, stream, size
