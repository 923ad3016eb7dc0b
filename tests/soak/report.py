"""What a scenario says of itself."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Report:
    """Lines to print, and what was not as promised."""

    lines: list[str] = field(default_factory=list)
    flaws: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    """Promises of time that were not kept: safety has no tolerance, a busy machine has."""

    @property
    def found(self) -> list[str]:
        """Whatever was not kept, with the checker's details."""
        details = [line.strip() for line in self.lines if line.startswith("  ")]
        return [*self.flaws, *details, *self.late] if self.flaws else []

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

    def checked(self, description: Path) -> None:
        """Run the checker, a program that knows nothing of the product, on a run's facts, and take over what it says."""
        answer = subprocess.run(
            [sys.executable, "-m", "soak.checker", description.resolve()],
            cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False,
        )  # fmt: skip
        lines = answer.stdout.splitlines()
        self.lines += lines
        self.late += [line.removeprefix("LATE   ") for line in lines if line.startswith("LATE")]
        flaws = [line.removeprefix("BROKEN ") for line in lines if line.startswith("BROKEN ")]
        self.flaws += flaws
        if answer.returncode and not flaws:  # it did not get to the end
            self.hold(f"the checker: {answer.stderr[-1000:]}", kept=False)

    def none_of(self, n: int, what: str) -> None:
        """Nothing went wrong in ``n`` trials: say how little that shows (rule of three, 95 %)."""
        self.lines.append(f"note   n = {n} {what}: none lost shows less than {3 / max(n, 1):.2%} for each")
