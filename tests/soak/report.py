"""What a scenario says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Report:
    """Lines to print, and what was not as promised."""

    lines: list[str] = field(default_factory=list)
    flaws: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    """Promises of time that were not kept: safety has no tolerance, a busy machine has."""

    def say(self, line: str) -> None:
        self.lines.append(line)

    def hold(self, promise: str, *, kept: bool) -> None:
        """Note a promise with what was measured, and whether it was kept."""
        self.lines.append(f"{'ok    ' if kept else 'BROKEN'} {promise}")
        if not kept:
            self.flaws.append(promise)

    def timely(self, promise: str, *, kept: bool) -> None:
        """Note a promise of time."""
        self.lines.append(f"{'ok    ' if kept else 'LATE  '} {promise}")
        if not kept:
            self.late.append(promise)

    def checked(self, lines: list[str]) -> None:
        """Take over what the checker has printed."""
        self.lines += lines
        self.late += [line.removeprefix("LATE   ") for line in lines if line.startswith("LATE")]
        self.flaws += [line.removeprefix("BROKEN ") for line in lines if line.startswith("BROKEN ")]

    def none_of(self, n: int, what: str) -> None:
        """Nothing went wrong in ``n`` trials: say how little that shows (rule of three, 95 %)."""
        self.lines.append(f"note   n = {n} {what}: none lost shows less than {3 / max(n, 1):.2%} for each")
