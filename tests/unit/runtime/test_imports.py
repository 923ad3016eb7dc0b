"""What services load, and what they leave out: memory that they would keep for as long as they live."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading

import pytest

from nanobatch_runtime.imports import leaving_out

MODULE = "this"
"""One of the standard library that nobody has imported."""


@pytest.fixture(autouse=True)
def _not_imported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delitem(sys.modules, MODULE, raising=False)


def test_what_is_left_out_is_not_there_and_afterwards_it_is() -> None:
    with leaving_out(MODULE), pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module(MODULE)
    assert caught.value.name == MODULE
    assert importlib.import_module(MODULE).__name__ == MODULE


def test_other_threads_import_what_one_leaves_out() -> None:
    with leaving_out(MODULE):
        other = threading.Thread(target=importlib.import_module, args=(MODULE,))
        other.start()
        other.join()
        assert MODULE in sys.modules


def test_nothing_is_left_behind_where_an_import_fails() -> None:
    before = list(sys.meta_path)
    with pytest.raises(ModuleNotFoundError), leaving_out(MODULE):
        importlib.import_module(MODULE)
    assert sys.meta_path == before


def loaded(code: str, modules: set[str]) -> str:
    """Return which of ``modules`` a new interpreter has after ``code``."""
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint('loaded:', sorted({modules!r} & set(sys.modules)))"],
        env={"PATH": os.environ["PATH"], "NANOBATCH_LOG_LEVEL": "none of the levels"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return ended.stdout.rstrip().rpartition("\n")[2]


@pytest.mark.parametrize("service", ["gateway", "generator", "storage"])
def test_a_service_is_started_without_what_it_has_no_use_for(service: str) -> None:
    code = (
        f"sys.argv = ['nanobatch', 'serve', '{service}']\n"
        "from nanobatch_client.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 2\n"  # it is all imported, and the settings are refused
        f"assert 'nanobatch_{service}.wiring' in sys.modules"
    )
    unused = {"PIL.Image", "rich", "pygments", "redis", "nanobatch_client.cli.run", "opentelemetry.sdk", "alembic"}
    assert loaded(code, {*unused, "sqlalchemy.orm", "sqlite3"}) == "loaded: []"


def test_geminis_sdk_is_ready_for_calls_without_what_it_has_no_use_for() -> None:
    code = (
        "import asyncio\n"
        "from nanobatch_runtime import logs\n"
        "from nanobatch_generator.providers.registry import open_providers\n"
        "async def run():\n"
        "    async with open_providers() as providers: await providers['gemini'].ready()\n"
        "asyncio.run(run())\n"
        "assert 'google.genai' in sys.modules"
    )
    assert loaded(code, {"PIL.Image", "httpx2", "rich", "click"}) == "loaded: []"


def test_the_orm_can_be_imported_where_it_was_left_out() -> None:
    code = (
        "from nanobatch_storage.adapters import sqlalchemy_async\n"
        "import sqlalchemy.ext.asyncio as package\n"
        "try: package.AsyncSession()\n"
        "except NotImplementedError: print('told')\n"
        "assert 'sqlalchemy.orm' not in sys.modules\n"
        "from sqlalchemy.ext.asyncio.session import AsyncSession\n"
        "assert AsyncSession().sync_session is not None"
    )
    assert loaded(code, {"sqlalchemy.orm"}) == "loaded: ['sqlalchemy.orm']"
