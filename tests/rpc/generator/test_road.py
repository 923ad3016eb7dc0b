from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from io import BytesIO

from PIL import Image

from nanobatch.storage.v1 import lease_service_pb2 as pb
from nanobatch_generator.domain import Charged, Done, FailureClass, KeyCheck, PictureRequest, ProviderError, Usage
from nanobatch_generator.pictures import CheckedPictures
from nanobatch_runtime.errors import AbortedError, NanobatchError, ResourceExhaustedError, UnavailableError
from nanobatch_runtime.ids import derived_id, new_id
from nanobatch_runtime.pictures import PictureChecker
from nanobatch_runtime.testing import eventually


def states(house):
    return [row.state for row in house.storage.rows.values()]


def failure_class(row):
    return pb.FailureClass.Name(row.failure.failure_class).removeprefix("FAILURE_CLASS_")


async def test_a_prompt_becomes_a_stored_picture_with_its_thumbnail_and_cost(house, picture, provider_key):
    [row] = house.storage.add(
        prompt="a banana in space",
        credential=house.storage.credential(),
        seed=7,
        attempts=1,
        model="gemini-3-pro-image",
    )
    async with house.generator():
        await eventually(lambda: row.state == "COMPLETED")
        await eventually(lambda: house.spooled == [])
    master, thumbnail = derived_id(row.attempt_id, "master"), derived_id(row.attempt_id, "thumbnail")
    assert row.images == {master: picture, thumbnail: b"THUMBNAIL"}  # the provider's bytes, untouched
    assert row.header.usage.cost_micros == 38_703
    assert row.header.provider_response_id == "r-1"
    [request] = house.provider.requests
    assert (request.prompt, request.seed, request.attempts) == ("a banana in space", 7, 1)
    assert request.max_output_tokens > 0
    assert house.provider.keys == [provider_key]
    assert house.provider.checks == 0


async def test_the_real_checker_decodes_a_real_picture_and_refuses_half_of_it(house):
    buffer = BytesIO()
    Image.radial_gradient("L").resize((700, 500)).save(buffer, "PNG")
    whole = buffer.getvalue()
    bodies = {"whole": whole, "half": whole[: len(whole) // 2]}

    async def answer(request: PictureRequest) -> Done:
        return Done(bodies[request.prompt], Usage(cost_micros=5, reported=True))

    house.provider.answer = answer
    [good], [bad] = house.storage.add(prompt="whole"), house.storage.add(prompt="half")
    async with PictureChecker() as checker, house.generator(pictures=CheckedPictures(checker)):
        await eventually(lambda: (good.state, bad.state) == ("COMPLETED", "FAILED"))
        await eventually(lambda: house.spooled == [])
    assert [(i.mime_type, i.width, i.height) for i in good.header.images] == [
        ("image/png", 700, 500),
        ("image/webp", 256, 183),
    ]
    assert failure_class(bad) == "DAMAGED"
    assert bad.failure.code == "PICTURE_DAMAGED"
    assert bad.failure.charged == 2  # YES: it was answered, so it is billed
    assert bad.failure.usage.cost_micros == 5


async def test_a_new_key_is_checked_once_before_the_first_call(house):
    house.storage.unconfirmed.add("bucket")
    house.storage.add(6, credential=house.storage.credential())
    async with house.generator():
        await eventually(lambda: set(states(house)) == {"COMPLETED"})
    assert house.provider.checks == 1
    assert house.storage.confirmed == ["bucket"]


async def test_calls_that_a_pace_puts_off_wait_with_their_lease_and_one_at_a_time_asks_again(house):
    due = asyncio.get_running_loop().time() + 0.5

    def start() -> None:
        left = due - asyncio.get_running_loop().time()
        if left > 0:
            wait = timedelta(seconds=left)
            raise ResourceExhaustedError("A little later.", reason="WINDOW_FULL", retry_after=wait)

    house.storage.on_start = start
    rows = house.storage.add(8)
    async with house.generator():
        await eventually(lambda: all(row.state == "COMPLETED" for row in rows))
    assert house.provider.requests
    # Those that came at once may each have asked once before it was known; afterwards only the first in line asks.
    assert house.storage.calls["StartAttempt"] <= 8 + 8 + 2
    assert not any(row.failure for row in rows)


async def test_the_end_of_a_call_is_told_only_where_somebody_may_wait_for_its_place(house):
    rows = house.storage.add(3, roomy=True)
    async with house.generator():
        await eventually(lambda: all(row.state == "COMPLETED" for row in rows))
        assert house.storage.calls["EndCall"] == 0
        [last] = house.storage.add(1)
        await eventually(lambda: last.state == "COMPLETED")
        await eventually(lambda: house.storage.calls["EndCall"] == 1)


async def test_an_invalid_key_costs_no_call(house):
    house.storage.unconfirmed.add("bucket")
    house.provider.key_check = KeyCheck(valid=False, model_available=False, message="Make a new key.")
    [row] = house.storage.add(credential=house.storage.credential())
    async with house.generator():
        await eventually(lambda: row.state == "FAILED")
    assert (failure_class(row), row.failure.message) == ("KEY_INVALID", "Make a new key.")
    assert (house.provider.requests, row.attempt_id) == ([], "")


async def test_a_missing_model_and_an_unreachable_provider_cost_no_call_either(house):
    house.storage.unconfirmed.add("bucket")
    house.provider.key_check = KeyCheck(valid=True, model_available=False)
    [gone] = house.storage.add()
    async with house.generator():
        await eventually(lambda: gone.state == "FAILED")
        house.provider.key_check = ProviderError(FailureClass.OVERLOADED, "OVERLOADED", "Busy.")
        [busy] = house.storage.add()
        await eventually(lambda: busy.state == "FAILED")
    assert [failure_class(gone), failure_class(busy)] == ["MODEL_GONE", "OVERLOADED"]
    assert house.provider.requests == []


async def test_a_key_that_does_not_open_is_told_and_never_used(house):
    credential = house.storage.credential()
    credential.id = new_id()  # moved to another record
    [row] = house.storage.add(credential=credential)
    async with house.generator():
        await eventually(lambda: row.state == "FAILED")
    assert (failure_class(row), row.failure.code) == ("KEY_UNUSABLE", "CREDENTIAL_BROKEN")
    assert house.provider.requests == []


async def test_a_task_that_cannot_be_asked_for_may_have_been_charged(house):
    attempt, broken = new_id(), house.storage.credential()
    broken.id = new_id()
    rows = [
        *house.storage.add(credential=broken, job=pb.OpenJob(attempt_id=attempt, task_id="a-task")),
        *house.storage.add(provider="unheard-of", job=pb.OpenJob(attempt_id=attempt, task_id="another")),
    ]
    for row in rows:
        row.attempt_id = attempt
    async with house.generator():
        await eventually(lambda: all(row.state == "FAILED" for row in rows))
    assert [(failure_class(row), row.failure.charged) for row in rows] == [("KEY_UNUSABLE", 3), ("TRANSIENT", 3)]
    assert house.provider.requests == []


async def test_source_and_references_go_along_in_order_and_are_read_once(house):
    source, first, second = new_id(), new_id(), new_id()
    house.storage.images = {source: b"s" * 600_000, first: b"1", second: b"2"}
    house.storage.add(5, source_image_id=source, reference_image_ids=[first, second])
    async with house.generator():
        await eventually(lambda: set(states(house)) == {"COMPLETED"})
    for request in house.provider.requests:
        assert [image.data for image in request.input_images] == [b"s" * 600_000, b"1", b"2"]
        assert request.input_images[0].mime_type == "image/png"
    assert house.storage.calls["ReadImage"] == 3


async def test_a_reference_that_is_gone_fails_its_prompt_without_a_call(house):
    [row] = house.storage.add(reference_image_ids=[new_id()])
    async with house.generator():
        await eventually(lambda: row.state == "FAILED")
    assert (failure_class(row), row.failure.code) == ("BAD_REQUEST", "INPUT_IMAGE_GONE")
    assert house.provider.requests == []


async def test_a_hung_call_ends_at_its_own_deadline_as_maybe_charged(house):
    house.provider.hold = asyncio.Event()
    timeout = pb.Lease().timeout
    timeout.FromMilliseconds(150)
    [row] = house.storage.add(timeout=timeout)
    async with house.generator():
        await eventually(lambda: row.state == "FAILED", within=3)
    assert (failure_class(row), row.failure.code, row.failure.charged) == ("UNKNOWN", "CALL_TIMED_OUT", 3)
    assert row.failure.processing_time.ToTimedelta().total_seconds() >= 0.15
    assert house.provider.aborted == 1


async def test_a_providers_verdict_reaches_storage_whole(house):
    async def answer(request: PictureRequest) -> Done:
        raise ProviderError(
            FailureClass.BLOCKED, "CONTENT_BLOCKED", "Refused.", charged=Charged.YES, provider_status="SAFETY"
        )

    house.provider.answer = answer
    [row] = house.storage.add()
    async with house.generator():
        await eventually(lambda: row.state == "FAILED")
    failure = row.failure
    assert (failure_class(row), failure.code, failure.charged, failure.provider_status) == (
        "BLOCKED",
        "CONTENT_BLOCKED",
        2,
        "SAFETY",
    )


async def test_a_bug_in_a_provider_ends_one_attempt_as_maybe_charged_and_nothing_else(house):
    async def answer(request: PictureRequest) -> Done:
        if request.prompt == "bug":
            raise ZeroDivisionError("secret inside")
        return await house.provider._picture(request)

    house.provider.answer = answer
    [bad], [good] = house.storage.add(prompt="bug"), house.storage.add()
    async with house.generator():
        await eventually(lambda: (bad.state, good.state) == ("FAILED", "COMPLETED"))
    assert (failure_class(bad), bad.failure.charged) == ("UNKNOWN", 3)
    assert "incident" in bad.failure.message
    assert "secret inside" not in bad.failure.message


async def test_a_cancelled_execution_is_refused_at_the_last_door(house):
    house.storage.before["StartAttempt"] = [AbortedError("It was cancelled.", reason="LEASE_LOST")]
    [first] = house.storage.add()
    async with house.generator():
        await eventually(lambda: house.storage.calls["StartAttempt"] == 1)
        [second] = house.storage.add()
        await eventually(lambda: second.state == "COMPLETED")
    assert len(house.provider.requests) == 1
    assert first.failure is None  # nothing is told: it is not ours any more


async def test_a_lost_lease_aborts_the_call_and_tells_nobody(house):
    house.storage.lease_seconds = 0.3
    house.provider.hold = asyncio.Event()
    [row] = house.storage.add()
    async with house.generator():
        await eventually(lambda: house.provider.running == 1)
        await eventually(lambda: house.storage.extended[row.lease.result_id] >= 2)
        house.storage.lose(row)
        await eventually(lambda: house.provider.aborted == 1)
        house.provider.hold.set()
        [other] = house.storage.add()
        await eventually(lambda: other.state == "COMPLETED")
    assert row.failure is None
    assert row.header is None


async def test_a_commit_whose_answer_was_lost_is_repeated_and_made_once(house):
    house.storage.after["CompleteResult"] = [UnavailableError("lost on the way")] * 2
    house.storage.after["StartAttempt"] = [UnavailableError("lost on the way")]
    [row] = house.storage.add()
    async with house.generator():
        await eventually(lambda: house.storage.calls["CompleteResult"] == 3 and house.spooled == [])
    assert row.state == "COMPLETED"
    assert len(house.provider.requests) == 1
    assert row.failure is None


async def test_a_picture_that_storage_refuses_for_good_is_told_as_charged(house):
    house.storage.before["CompleteResult"] = [NanobatchError("disk full")] * 5
    [row] = house.storage.add()
    async with house.generator():
        await eventually(lambda: row.state == "FAILED", within=20)
    assert (row.failure.code, row.failure.charged) == ("STORING_FAILED", 2)
    assert row.failure.usage.cost_micros == 38_703


async def test_a_zombies_picture_is_dropped(house):
    house.provider.hold = asyncio.Event()
    [row] = house.storage.add()
    async with house.generator():
        await eventually(lambda: house.provider.running == 1)
        house.storage.lose(row)
        house.provider.hold.set()
        await eventually(lambda: house.storage.calls["CompleteResult"] == 1 and house.spooled == [])
    assert row.header is None


async def test_a_crash_between_answer_and_commit_costs_no_second_call(house, picture):
    """The generator dies with the picture spooled; the next one hands it over before it leases anything."""
    house.storage.before["CompleteResult"] = [UnavailableError("down")] * 1000
    [row] = house.storage.add()
    async with house.generator():
        await eventually(lambda: house.storage.calls["CompleteResult"] > 1)
    assert row.state == "PROCESSING"
    [record] = [name for name in house.spooled if name.endswith(".json")]
    path = next((house.folder / "data" / "spool").glob(f"*/{record}"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert "a banana" not in path.read_text()
    house.storage.before.clear()
    house.storage.asked.clear()
    async with house.generator():
        await eventually(lambda: row.state == "COMPLETED")
        await eventually(lambda: house.spooled == [])
    assert picture in row.images.values()
    assert row.header.usage.cost_micros == 38_703
    assert len(house.provider.requests) == 1


async def test_a_leftover_that_was_overtaken_is_dropped(house):
    house.storage.before["CompleteResult"] = [UnavailableError("down")] * 1000
    [row] = house.storage.add()
    async with house.generator():
        await eventually(lambda: house.storage.calls["CompleteResult"] > 0)
    house.storage.before.clear()
    house.storage.lose(row)
    async with house.generator():
        await eventually(lambda: house.spooled == [])
    assert row.header is None


async def test_a_half_written_leftover_is_removed(house):
    left = house.folder / "data" / "spool" / "dead"
    left.mkdir(parents=True)
    (left / "one.master").write_bytes(b"PICTURE")  # died before the record was written
    (left / "two.master").write_bytes(b"PIC")
    (left / "two.json").write_text(json.dumps({"attempt_id": "two", "sha256": "0"}))
    [row] = house.storage.add()
    async with house.generator():
        await eventually(lambda: row.state == "COMPLETED")
        await eventually(lambda: house.spooled == [])
    assert house.storage.calls["CompleteResult"] == 1


async def test_storage_may_come_later_and_go_away(house, start_storage):
    await house.server.server.stop(None)
    [row] = house.storage.add()
    async with house.generator():
        house.server = await start_storage(house.storage, house.target)
        await eventually(lambda: row.state == "COMPLETED")
        await house.server.server.stop(None)
        house.server = await start_storage(house.storage, house.target)
        [row] = house.storage.add()
        await eventually(lambda: row.state == "COMPLETED", within=20)
    assert len(house.provider.requests) == 2
