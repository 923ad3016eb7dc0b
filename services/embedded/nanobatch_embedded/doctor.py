"""``nanobatch doctor``: everything that an installation depends on, asked from here, with the environment from here.

In a pod it asks what that pod's service needs; on one machine everything.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nanobatch.storage.v1 import analytics_service_pb2, analytics_service_pb2_grpc, common_pb2
from nanobatch_client import Client
from nanobatch_client.models import ResultState
from nanobatch_embedded import keyfile
from nanobatch_embedded.settings import DoctorSettings
from nanobatch_runtime.diagnosis import (
    ComplaintError,
    Finding,
    Verdict,
    examine,
    examine_redis,
    examine_service,
    skipped,
)
from nanobatch_runtime.keyring import Keyring
from nanobatch_runtime.rpc.channel import call, open_channel
from nanobatch_runtime.settings import SettingsError, load

if TYPE_CHECKING:
    from nanobatch_storage.settings import StorageSettings

_ASK_SECONDS = 10.0
_KEYS = {"GEMINI_API_KEY": ("gemini", "gemini-2.5-flash-image")}
"""Variables of provider keys, with the model that is asked for."""


async def examinations(*, picture: bool) -> AsyncIterator[Finding]:
    """Iterate over the findings, each as soon as it is known. ``picture``: make one with the free sandbox, too."""
    settings = load(DoctorSettings)
    storage, complaint = _storage_settings()
    if complaint is not None:
        yield complaint
    key_ids: set[str] | None = None
    if storage is not None:
        from nanobatch_storage.doctor import examine_storage

        findings, key_ids = await examine_storage(storage)
        for finding in findings:
            yield finding
    yield await examine_redis(settings.redis) if settings.redis else skipped("redis", "none is named, none is needed")
    split = _is_split(settings, storage)
    if split:
        yield await examine_service(
            "storage", settings.storage_target, advice="Start storage, or correct NANOBATCH_STORAGE_TARGET."
        )
        yield await examine_service(
            "generator",
            settings.generator_target,
            advice="Start a generator, or correct NANOBATCH_GENERATOR_TARGET: without one nothing is made.",
        )
    else:
        yield skipped("storage and generator", "they are in the one process of `nanobatch up`")
    yield await examine_service(
        "gateway",
        settings.gateway_target,
        advice="Start it (`make run`, `nanobatch serve gateway`), or correct NANOBATCH_GATEWAY_TARGET.",
    )
    yield await _examine_keyring(settings, key_ids, ask=split)
    for variable, (provider, model) in _KEYS.items():
        yield await _examine_provider(settings, variable, provider, model)
    if picture:
        yield await _examine_picture(settings)


def _storage_settings() -> tuple[StorageSettings | None, Finding | None]:
    if importlib.util.find_spec("nanobatch_storage") is None:
        return None, skipped("database and pictures", "storage is not installed here: ask there")
    from nanobatch_storage.settings import StorageSettings

    try:
        # Where it would listen is of no interest: a token that it lacks for that must not hide the rest.
        return load(StorageSettings, listen="unix:/unused"), None
    except SettingsError as error:
        advice = "Correct the variables that are named (docs/operations.md, Settings)."
        return None, Finding("settings", Verdict.FAILED, detail=str(error).replace("\n", " "), advice=advice)


def _is_split(settings: DoctorSettings, storage: StorageSettings | None) -> bool:
    """Say whether services are processes of their own: a target is named, or the database is no file."""
    named = {"storage_target", "generator_target"} & settings.model_fields_set
    return bool(named) or storage is None or not storage.database_url.startswith("sqlite")


async def _examine_keyring(settings: DoctorSettings, used: set[str] | None, *, ask: bool) -> Finding:
    text = settings.encryption_key.get_secret_value() or _key_of(settings.data_dir)
    if not text:
        return skipped("key ring", "ENCRYPTION_KEY is not known here: ask where a gateway runs")

    async def work() -> str:
        known = Keyring.parse(text).key_ids
        wanted = used if used is not None or not ask else await _ask_for_key_ids(settings)
        if wanted is None:
            return f"{len(known)} keys; what rows need could not be read"
        missing = sorted(wanted - set(known))
        if missing:
            raise ComplaintError(
                f"Rows are sealed with {', '.join(missing)}, which ENCRYPTION_KEY does not hold.",
                "Add the old key to ENCRYPTION_KEY, behind the new one and a comma. What is sealed with other keys "
                "goes on meanwhile.",
            )
        return f"{len(known)} keys, all {len(wanted)} that rows are sealed with among them"

    return await examine("key ring", "", work, advice="ENCRYPTION_KEY is 64 hex characters, or several with commas.")


def _key_of(folder: Path) -> str:
    path = folder / keyfile.NAME
    return path.read_text(encoding="ascii").strip() if path.exists() else ""


async def _ask_for_key_ids(settings: DoctorSettings) -> set[str]:
    async with open_channel(settings.storage_target, settings.service_token) as channel:
        stub = analytics_service_pb2_grpc.AnalyticsServiceStub(channel)
        request = analytics_service_pb2.GetServerStatsRequest(actor=common_pb2.Actor(admin=True))
        return set((await call(stub.GetServerStats(request, timeout=_ASK_SECONDS))).key_ids)


async def _examine_provider(settings: DoctorSettings, variable: str, provider: str, model: str) -> Finding:
    key = os.environ.get(variable, "")
    if not key:
        return skipped(f"provider {provider}", f"{variable} is not set")
    if importlib.util.find_spec("nanobatch_generator") is None:
        return skipped(f"provider {provider}", "generators are not installed here: ask there")
    from nanobatch_generator.doctor import examine_key

    return await examine_key(provider, model, key, base_url=settings.gemini_base_url, variable=variable)


async def _examine_picture(settings: DoctorSettings) -> Finding:
    """Walk the whole road once: create, watch, see the picture appear, take it home, tidy up."""

    async def work() -> str:
        async with Client(settings.gateway_target, token=settings.token.get_secret_value() or None) as client:
            execution = await client.create_execution(["nanobatch doctor"], model="sandbox")
            try:
                async for _ in client.watch(execution.id):
                    pass
                results: Sequence[object] = [one async for one in client.list_results(execution.id)]
                (result,) = results
                if result.state is not ResultState.COMPLETED or result.image_id is None:  # type: ignore[attr-defined]
                    raise ComplaintError("The sandbox made no picture.", "The generator's log says why.")
            finally:
                await client.delete_execution(execution.id)
        return "created, watched, made, deleted"

    advice = "The checks above say what is away; `nanobatch admin stats`, whether somebody works."
    return await examine("picture", settings.gateway_target, work, advice=advice)
