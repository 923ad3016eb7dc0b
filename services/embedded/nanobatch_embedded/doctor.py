"""``nanobatch doctor``: everything that an installation depends on, asked from here, with the environment from here.

In a pod it asks what that pod's environment names, which is what its service needs; on one machine everything.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nanobatch.storage.v1 import analytics_service_pb2, analytics_service_pb2_grpc, common_pb2
from nanobatch_client import Client
from nanobatch_client.errors import UnauthenticatedError
from nanobatch_client.models import ResultState
from nanobatch_client.targets import under_tls
from nanobatch_embedded import keyfile
from nanobatch_embedded.settings import DoctorSettings
from nanobatch_runtime.diagnosis import (
    ComplaintError,
    DoesNotApplyError,
    Finding,
    Verdict,
    examine,
    examine_redis,
    examine_service,
    skipped,
)
from nanobatch_runtime.keyring import Keyring, KeyringError
from nanobatch_runtime.rpc.channel import call, open_channel
from nanobatch_runtime.settings import SettingsError, load

if TYPE_CHECKING:
    from nanobatch_storage.settings import StorageSettings

_ASK_SECONDS = 10.0
_KEYS = {"GEMINI_API_KEY": "gemini"}
"""Variables of provider keys."""
_NO_GATEWAY = "not asked: no gateway that serves"


async def examinations(*, picture: bool) -> AsyncIterator[Finding]:
    """Iterate over the findings, each as soon as it is known. ``picture``: make one with the free sandbox, too."""
    settings = load(DoctorSettings)
    storage, told = _storage_settings(settings)
    if told is not None:
        yield told
    readable: StorageSettings | None = None
    if storage is not None:
        from nanobatch_storage.doctor import examine_storage

        for finding in await examine_storage(storage):
            yield finding
            if finding.check == "schema" and finding.verdict is Verdict.OK:
                readable = storage
    yield await examine_redis(settings.redis) if settings.redis else skipped("redis", "none is named, none is needed")
    yield await _examine_service("storage", settings.storage, "Start storage, or correct NANOBATCH_STORAGE_TARGET.")
    yield await _examine_service(
        "generator",
        settings.generator,
        "Start a generator, or correct NANOBATCH_GENERATOR_TARGET: without one nothing is made.",
    )
    gateway = await _examine_service(
        "gateway",
        settings.gateway,
        "Start it (`make run`, `nanobatch serve gateway`), or correct NANOBATCH_GATEWAY_TARGET.",
    )
    yield gateway
    yield await _examine_models(settings) if gateway.verdict is Verdict.OK else skipped("models", _NO_GATEWAY)
    yield await _examine_keyring(settings, readable)
    for variable, provider in _KEYS.items():
        yield await _examine_provider(settings, variable, provider)
    if picture:
        yield await _examine_picture(settings)


def _storage_settings(settings: DoctorSettings) -> tuple[StorageSettings | None, Finding | None]:
    if importlib.util.find_spec("nanobatch_storage") is None or not settings.has_database:
        return None, skipped("database and pictures", "storage is not here: ask where it is")
    from nanobatch_storage.settings import StorageSettings

    try:
        # Where it would listen is of no interest: a token that it lacks for that must not hide the rest.
        return load(StorageSettings, listen="unix:/unused"), None
    except SettingsError as error:
        advice = "Correct the variables that are named (docs/operations.md, Settings)."
        return None, Finding("settings", Verdict.FAILED, detail=str(error).replace("\n", " "), advice=advice)


async def _examine_service(service: str, target: str, advice: str) -> Finding:
    if not target:
        return skipped(service, f"not asked: no target here (NANOBATCH_{service.upper()}_TARGET)")
    place, credentials = under_tls(target)
    return await examine_service(service, place, advice=advice, shown=target, credentials=credentials)


async def _examine_keyring(settings: DoctorSettings, storage: StorageSettings | None) -> Finding:
    file = settings.data_dir / keyfile.NAME
    given = settings.encryption_key.get_secret_value()
    if not given and not _is_there(file):
        return skipped("key ring", "ENCRYPTION_KEY is not known here: ask where a gateway runs")

    async def work() -> str:
        try:
            known = Keyring.parse(given or file.read_text(encoding="ascii")).key_ids
        except KeyringError as error:
            raise ComplaintError(str(error), "ENCRYPTION_KEY is 64 hex characters, or several with commas.") from error
        if storage is not None:
            wanted = await _read_key_ids(storage)
        elif settings.storage:
            wanted = await _ask_for_key_ids(settings)
        else:
            return f"{len(known)} keys; what rows need cannot be asked from here"
        missing = sorted(wanted - set(known))
        if missing:
            raise ComplaintError(
                f"Rows are sealed with {', '.join(missing)}, which ENCRYPTION_KEY does not hold.",
                "Add the old key to ENCRYPTION_KEY, behind the new one and a comma. What is sealed with other keys "
                "goes on meanwhile.",
            )
        return f"{len(known)} keys, all {len(wanted)} that rows are sealed with among them"

    advice = (
        "What rows are sealed with could not be read: see the checks of the database and of storage above. Storage tells it "
        "to who shows its NANOBATCH_SERVICE_TOKEN; a database says in its log what it failed at."
    )
    return await examine("key ring", "", work, advice=advice)


def _is_there(file: Path) -> bool:
    return os.path.lexists(file)  # also one that may not be read


async def _read_key_ids(storage: StorageSettings) -> set[str]:
    from nanobatch_storage.doctor import key_ids

    return await key_ids(storage)


async def _ask_for_key_ids(settings: DoctorSettings) -> set[str]:
    async with open_channel(settings.storage, settings.service_token) as channel:
        stub = analytics_service_pb2_grpc.AnalyticsServiceStub(channel)
        request = analytics_service_pb2.GetServerStatsRequest(actor=common_pb2.Actor(admin=True))
        return set((await call(stub.GetServerStats(request, timeout=_ASK_SECONDS))).key_ids)


async def _examine_models(settings: DoctorSettings) -> Finding:
    """Ask the gateway for its models; those that retire are told with their successors."""
    token = settings.token.get_secret_value()

    async def work() -> str:
        async with Client(settings.gateway, token=token or None) as client:
            try:
                models = await client.list_models()
            except UnauthenticatedError:
                if token:
                    raise
                raise DoesNotApplyError("not asked: the gateway wants a token (NANOBATCH_TOKEN)") from None
        return " ".join(
            [f"{', '.join(model.id for model in models)}.", *(each for one in models for each in one.warnings)]
        )

    return await examine(
        "models", settings.gateway, work, advice="Set NANOBATCH_TOKEN to a token that the gateway knows."
    )


async def _examine_provider(settings: DoctorSettings, variable: str, provider: str) -> Finding:
    key = os.environ.get(variable, "")
    if not key:
        return skipped(f"provider {provider}", f"{variable} is not set")
    if importlib.util.find_spec("nanobatch_generator") is None:
        return skipped(f"provider {provider}", "generators are not installed here: ask there")
    from nanobatch_generator.doctor import examine_key

    return await examine_key(provider, key, base_url=settings.gemini_base_url, variable=variable)


async def _examine_picture(settings: DoctorSettings) -> Finding:
    """Walk the whole road once: create, watch, see the picture appear, take it home, tidy up."""
    if not settings.gateway:
        return skipped("picture", "no target of a gateway here (NANOBATCH_GATEWAY_TARGET)")

    async def work() -> str:
        async with Client(settings.gateway, token=settings.token.get_secret_value() or None) as client:
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
    return await examine("picture", settings.gateway, work, advice=advice)
