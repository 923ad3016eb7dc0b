"""Temporary folders, also of processes that were killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile

from nanobatch_runtime.scratch import scratch_folder

SCRIPT = """
import time
from nanobatch_runtime.scratch import scratch_folder
with scratch_folder("test") as folder:
    (folder / "file").write_text("left")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_a_killed_processs_folder_goes_with_the_next_start_and_a_living_ones_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "nanobatch-test-of-somebody").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env={"TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = process.stdout.readline().strip()
        with scratch_folder("test") as folder:
            names = {path.name for path in tmp_path.iterdir()}
            assert names == {"nanobatch-test-of-somebody", folder.name, left.rpartition("/")[2]}
        process.kill()
        process.wait()
    with scratch_folder("test") as folder:
        assert {path.name for path in tmp_path.iterdir()} == {"nanobatch-test-of-somebody", folder.name}
    assert [path.name for path in tmp_path.iterdir()] == ["nanobatch-test-of-somebody"]
