"""The queue in a test: leases and ledger of one store, and the steps that most tests take."""

import uuid
from dataclasses import dataclass, field
from datetime import timedelta

from nanobatch_storage.adapters.leases_sql import SqlLeases
from nanobatch_storage.adapters.ledger_sql import SqlLedger
from nanobatch_storage.domain import (
    Charged,
    Completion,
    Failure,
    Image,
    ImageKind,
    LeaseRef,
    NewPicture,
    Usage,
)
from nanobatch_storage.pictures import blob_path

TTL = timedelta(seconds=30)
PRICE = Usage(input_tokens=12, image_output_tokens=1290, cost_micros=38_704, reported=True)


@dataclass
class Queue:
    """Leases and ledger with the steps that most tests take."""

    ledger: SqlLedger
    leases: SqlLeases = field(init=False)
    lag: timedelta = timedelta(0)
    owner: str = ""
    buckets: dict = field(default_factory=dict)

    async def take(self, slots=1, suspects=0):
        leases = list((await self.leases.take(slots, suspects)).leases)
        self.buckets |= {lease.result.lease_id: lease.execution.bucket_id for lease in leases}
        return leases

    async def started(self, slots=1, suspects=0):
        """Lease and start attempts: pairs of (lease reference, attempt id)."""
        return [(ref(lease), await self.start(ref(lease))) for lease in await self.take(slots, suspects)]

    async def start(self, lease, ended=None):
        return await self.ledger.start(lease, self.buckets.get(lease.lease_id, str(uuid.uuid4())), ended)

    async def complete(self, lease, attempt_id, usage=PRICE):
        completion = Completion(lease, attempt_id, (picture(),), usage, timedelta(seconds=2), "response")
        return (await self.ledger.complete(completion, [stored(p, self.owner) for p in completion.pictures])).state

    async def fail(self, lease, attempt_id, kind, *, charged=Charged.NO, usage=None, retry_after=None):
        failure = Failure(kind, kind.value, "A sentence.", charged, usage or Usage(), retry_after)
        return (await self.ledger.fail(lease, attempt_id, failure))[0]

    async def confirmed(self, execution):
        await self.ledger.confirm_key(execution.bucket_id)
        return execution


def ref(lease):
    return LeaseRef(lease.result.id, lease.result.lease_id)


def picture():
    return NewPicture(str(uuid.uuid4()), ImageKind.MASTER, "image/png", 1024, 1024, 7, "a" * 64)


def stored(new, owner):
    return Image(
        new.id, owner, new.kind, new.mime_type, new.width, new.height, new.size_bytes, new.sha256,
        blob_path(owner, new.id, new.mime_type), None, None, None,
    )  # fmt: skip


async def now_of(store, actor, execution):
    return (await store.executions.get(actor, execution.id)).execution


async def overtaken(store, queue):
    """A zombie: its lease ran out and somebody else has the result now."""
    ((zombie, attempt),) = await queue.started(1)
    store.clock.advance(TTL + timedelta(seconds=1))
    ((heir, new_attempt),) = await queue.started(1)
    assert heir.result_id == zombie.result_id
    return (zombie, attempt), (heir, new_attempt)
