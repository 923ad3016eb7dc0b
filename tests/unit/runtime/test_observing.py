"""The port for those who look after a process: real sockets, and a loop that really stands still."""

import asyncio
import re
import select
import socket
import threading
import urllib.error
import urllib.request
from contextlib import closing

import pytest
from processes import free_port
from prometheus_client import generate_latest

from nanobatch_runtime import metrics
from nanobatch_runtime.errors import UnavailableError
from nanobatch_runtime.observing import observing
from nanobatch_runtime.settings import ObservedSettings, SettingsError, load
from nanobatch_runtime.testing import eventually


def at(address: str) -> ObservedSettings:
    return ObservedSettings(metrics=address)


def get(address: str, path: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://{address}{path}", headers=headers)  # our own
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  # our own
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def test_metrics_are_shown_with_what_is_read_while_somebody_looks():
    with metrics.QUEUE_READY.of(lambda: {("gemini", "m"): 2.0}), metrics.QUEUE_READY.of(lambda: {("gemini", "m"): 3.0}):
        async with observing(at("127.0.0.1:0"), "test") as observed:
            code, text = await asyncio.to_thread(get, observed.address, "/metrics")
            assert code == 200
            assert 'nanobatch_queue_ready{model="m",provider="gemini"} 5.0' in text
            assert re.search(r"^nanobatch_loop_lag_seconds \d", text, re.MULTILINE)
            assert re.search(r"^process_resident_memory_bytes \d", text, re.MULTILINE)
    assert "nanobatch_queue_ready{" not in metrics_text()


async def test_tasks_are_counted_while_they_go_on():
    async with observing(at("127.0.0.1:0"), "test") as observed:

        async def tasks() -> float:
            _, text = await asyncio.to_thread(get, observed.address, "/metrics")
            return float(re.search(r"^nanobatch_tasks (\S+)", text, re.MULTILINE)[1])

        before, end = await tasks(), asyncio.Event()
        waiting = [asyncio.create_task(end.wait()) for _ in range(5)]
        assert await tasks() == before + 5
        end.set()
        await asyncio.gather(*waiting)
        assert await tasks() == before


async def test_a_process_is_ready_when_it_says_so_and_live_while_its_loop_turns():
    async with observing(at("127.0.0.1:0"), "test") as observed:
        assert (await asyncio.to_thread(get, observed.address, "/readyz"))[0] == 503
        serving = True
        observed.ready_when(lambda: serving)
        assert (await asyncio.to_thread(get, observed.address, "/readyz"))[0] == 200
        assert (await asyncio.to_thread(get, observed.address, "/healthz"))[0] == 200
        serving = False
        assert (await asyncio.to_thread(get, observed.address, "/readyz"))[0] == 503


async def test_a_loop_that_stands_still_is_not_live_and_its_metrics_are_shown_all_the_same():
    async with observing(at("127.0.0.1:0"), "test") as observed:
        answers: dict[str, int] = {}

        def look() -> None:
            answers["/healthz"] = get(observed.address, "/healthz")[0]
            answers["/metrics"] = get(observed.address, "/metrics")[0]

        looking = threading.Thread(target=look)
        looking.start()
        looking.join()  # on the loop, on purpose: it turns no more until both have been answered
        assert answers == {"/healthz": 503, "/metrics": 200}


async def test_on_loopback_it_answers_to_this_machines_own_names_alone():
    async with observing(at("127.0.0.1:0"), "test") as observed:
        for name in ("127.0.0.1:1", "localhost", "[::1]:9090", "127.0.0.7"):
            assert (await asyncio.to_thread(get, observed.address, "/metrics", Host=name))[0] == 200, name
        code, text = await asyncio.to_thread(get, observed.address, "/metrics", Host="rebound.example:9090")
        assert code == 421
        assert "nanobatch_" not in text


async def test_clients_that_say_nothing_do_not_pile_up():
    async with observing(at("127.0.0.1:0"), "test") as observed:
        host, _, port = observed.address.rpartition(":")
        before = threading.active_count()
        silent = [socket.create_connection((host, int(port))) for _ in range(40)]
        try:
            # Those beyond the sixteenth are sent away, which they notice.
            await eventually(lambda: len(select.select(silent, [], [], 0)[0]) >= 40 - 16)
            assert threading.active_count() - before <= 16
        finally:
            for each in silent:
                each.close()


async def test_an_address_that_is_taken_is_named():
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        opening = observing(at(f"127.0.0.1:{other.getsockname()[1]}"), "test")
        with pytest.raises(UnavailableError, match="NANOBATCH_METRICS"):
            await opening.__aenter__()


async def test_off_means_that_nothing_listens_and_nothing_is_measured():
    threads = threading.active_count()
    async with observing(at(""), "test") as observed:
        assert observed.address == ""
        assert threading.active_count() == threads
        assert "loop-lag" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_the_port_is_given_back():
    address = f"127.0.0.1:{free_port()}"
    for _ in range(2):
        async with observing(at(address), "test") as observed:
            assert observed.address == address


@pytest.mark.parametrize(("given", "meant"), [("", ""), ("off", ""), ("0.0.0.0:9090", "0.0.0.0:9090")])
def test_the_setting_is_an_address_or_off(monkeypatch, given, meant):
    monkeypatch.setenv("NANOBATCH_METRICS", given)
    assert load(ObservedSettings).metrics == meant


@pytest.mark.parametrize("wrong", ["9090", "unix:/tmp/metrics", "host:port"])
def test_what_is_no_address_is_named(monkeypatch, wrong):
    monkeypatch.setenv("NANOBATCH_METRICS", wrong)
    with pytest.raises(SettingsError, match="NANOBATCH_METRICS"):
        load(ObservedSettings)


def metrics_text() -> str:
    return generate_latest(metrics.REGISTRY).decode()
