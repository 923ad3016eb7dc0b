from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint

import pytest
import typer
from typer.testing import CliRunner

from nanobatch_client import (
    Execution,
    ExecutionState,
    ExecutionUpdate,
    PauseReason,
    Progress,
    ProgressUpdate,
    Result,
    ResultState,
    ResultUpdate,
    Stats,
    Waiting,
    WaitReason,
)
from nanobatch_client.cli import main, plugins, session
from nanobatch_client.cli.display import Endings
from nanobatch_client.cli.keys import Choice, KeyVariableError, choose
from nanobatch_client.cli.output import jsonable
from nanobatch_client.cli.view import RunView

KEY = "k-123"


@pytest.mark.parametrize(
    ("model", "variable", "environ", "expected"),
    [
        (None, None, {}, Choice("sandbox")),
        (None, None, {"GEMINI_API_KEY": KEY}, Choice("gemini-2.5-flash-image", KEY, "GEMINI_API_KEY")),
        (None, "MINE", {"MINE": KEY}, Choice("gemini-2.5-flash-image", KEY, "MINE")),
        (None, "MINE", {"MINE": KEY, "GEMINI_API_KEY": "x"}, Choice("gemini-2.5-flash-image", KEY, "MINE")),
        ("sandbox", "MINE", {"MINE": KEY, "GEMINI_API_KEY": "x"}, Choice("sandbox")),
        ("gemini-3-pro-image", None, {"GEMINI_API_KEY": KEY}, Choice("gemini-3-pro-image", KEY, "GEMINI_API_KEY")),
        ("gemini-3-pro-image", None, {}, Choice("gemini-3-pro-image")),
        ("gpt-image-9", None, {"GEMINI_API_KEY": KEY}, Choice("gpt-image-9")),
        (None, None, {"GEMINI_API_KEY": "  "}, Choice("sandbox")),
    ],
)
def test_model_and_key_are_chosen(
    model: str | None, variable: str | None, environ: dict[str, str], expected: Choice
) -> None:
    assert choose(model, variable, environ) == expected


def test_a_key_is_not_shown_by_accident() -> None:
    assert KEY not in repr(Choice("m", KEY, "MINE"))
    with pytest.raises(KeyVariableError) as caught:
        choose(None, "AIzaSomeRealKey", {})
    assert "AIza" not in str(caught.value)
    with pytest.raises(KeyVariableError, match="MY_KEY is not set"):
        choose(None, "MY_KEY", {})


@pytest.mark.parametrize(("given", "micros"), [(None, None), ("2.5", 2_500_000), ("$0.039", 39_000), ("0", 0)])
def test_dollars_become_micros(given: str | None, micros: int | None) -> None:
    assert session.micros(given) == micros


@pytest.mark.parametrize("given", ["much", "-1", "nan", "inf", "0.0000001", ""])
def test_other_amounts_are_refused(given: str) -> None:
    with pytest.raises(typer.BadParameter, match="dollars"):
        session.micros(given)


def test_json_has_iso_times_seconds_and_dollars() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    execution = Execution("e", ExecutionState.PENDING, "m", create_time=moment, labels={"a": "b"})
    made = jsonable(execution)
    assert (made["state"], made["create_time"], made["labels"]) == ("PENDING", "2026-01-02T00:00:00Z", {"a": "b"})
    assert (made["max_cost_micros"], made["max_cost_dollars"]) == (None, None)
    assert made["stats"]["total_cost_dollars"] == 0
    result = Result("r", "e", 0, 0, "t", ResultState.COMPLETED, processing_time=timedelta(seconds=1.5))
    assert jsonable(result)["processing_time_seconds"] == 1.5
    json.dumps(made)


NOW = datetime(2026, 1, 1, tzinfo=UTC)


def view() -> RunView:
    return RunView(Execution("e", ExecutionState.PROCESSING, "m", start_time=NOW))


def paused(reason: PauseReason, stats: Stats) -> ExecutionUpdate:
    return ExecutionUpdate(9, stats, Execution("e", ExecutionState.PAUSED, "m", pause_reason=reason))


def test_a_pause_stands_still_only_when_no_call_is_out() -> None:
    seen = view()
    seen.apply(paused(PauseReason.SPEND_CAP, Stats(total=2, processing=1, pending=1)), NOW)
    assert not seen.stands_still
    late = Result("r", "e", 0, 0, "t", ResultState.COMPLETED)
    seen.apply(ResultUpdate(10, Stats(total=2, completed=1, pending=1), late), NOW)
    assert seen.stands_still


def test_a_pause_by_a_user_is_no_end() -> None:
    seen = view()
    seen.apply(paused(PauseReason.USER, Stats(total=1, pending=1)), NOW)
    assert not seen.stands_still


def test_what_is_waited_for_is_told_until_a_picture_is_there() -> None:
    seen = view()
    wait = Waiting(WaitReason.RATE_LIMITED)
    seen.apply(
        ProgressUpdate(Stats(total=4, completed=1, pending=3), Progress("", 25, timedelta(seconds=9), wait)), NOW
    )
    assert seen.time_to_go.at(NOW) is None
    seen.apply(ExecutionUpdate(1, Stats(total=4, completed=1, pending=3), seen.execution), NOW)
    assert seen.time_to_go.at(NOW) == timedelta(seconds=9)
    assert seen.waiting == wait
    done = Result("r", "e", 0, 0, "t", ResultState.COMPLETED)
    seen.apply(ResultUpdate(2, Stats(total=4, completed=2, pending=2), done), NOW)
    assert seen.waiting is None


def test_an_ending_is_told_once_and_again_after_a_retry() -> None:
    endings = Endings()
    states = [ResultState.PROCESSING, ResultState.FAILED, ResultState.FAILED, ResultState.PENDING, ResultState.FAILED]
    told = [endings.are_new(Result("r", "e", 0, 0, "t", state)) for state in states]
    assert told == [False, True, False, False, True]


def test_help_loads_neither_grpc_nor_rich_nor_protobuf() -> None:
    code = (
        "import sys; from nanobatch_client.cli import main, plugins; plugins.GROUP = 'nobody'\n"
        "sys.argv = ['nanobatch', '--help']\n"
        "try: main.main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'grpc', 'rich', 'google.protobuf', 'nanobatch.gateway', 'nanobatch_runtime', 'nanobatch_client.client'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.rstrip().endswith("loaded: []")
    assert "check-key" in ended.stdout


def test_the_sdk_does_not_need_the_servers_packages() -> None:
    code = (
        "import sys, pkgutil, importlib, nanobatch_client as n\n"
        "names = [m.name for m in pkgutil.walk_packages(n.__path__, 'nanobatch_client.') if '__main__' not in m.name]\n"
        "[importlib.import_module(name) for name in names]\n"
        "print(len(names) > 20, [m for m in sys.modules if m.startswith(('nanobatch_runtime', 'nanobatch_catalog'))])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == "True []"


def broken(app: typer.Typer) -> None:
    raise RuntimeError("out of order")


def sound(app: typer.Typer) -> None:
    app.command("up")(lambda: typer.echo("it is up"))


def entry(name: str, attribute: str) -> EntryPoint:
    return EntryPoint(name, f"plugin_of_tests:{attribute}", plugins.GROUP)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plugin_of_tests", sys.modules[__name__])
    found = [entry("bad", "broken"), entry("gone", "nowhere"), entry("good", "sound")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: found if group == "nanobatch.commands" else [])


@pytest.mark.usefixtures("installed")
def test_a_broken_plugin_is_named_and_the_others_work() -> None:
    complaints: list[str] = []
    app = main.make_app()
    plugins.load(app, complaints.append)
    assert [complaint.split(" could not")[0] for complaint in complaints] == [
        "the commands of bad",
        "the commands of gone",
    ]
    assert CliRunner().invoke(app, ["up"]).output == "it is up\n"
    assert CliRunner().invoke(app, ["run", "--help"]).exit_code == 0


@pytest.mark.parametrize(("args", "loads"), [(["models", "--help"], False), (["up"], True), ([], True)])
@pytest.mark.usefixtures("installed")
def test_plugins_are_loaded_only_where_they_matter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: list[str], *, loads: bool
) -> None:
    monkeypatch.setattr(sys, "argv", ["nanobatch", *args])
    with pytest.raises(SystemExit):
        main.main()
    assert ("out of order" in capsys.readouterr().err) is loads
