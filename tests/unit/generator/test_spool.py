from __future__ import annotations

from datetime import timedelta

import pytest

from nanobatch_generator.domain import LeaseRef, Usage
from nanobatch_generator.spool import Spool, SpoolEntry
from nanobatch_runtime.ids import new_id

DATA = b"picture" * 1000


def entry_in(spool):
    return SpoolEntry(
        folder=spool.folder,
        ref=LeaseRef(new_id(), new_id()),
        attempt_id=new_id(),
        lease_duration=timedelta(seconds=30),
        usage=Usage(1, 2, 3, 4, reported=True),
        response_id="r",
        processing_time=timedelta(seconds=1.5),
    )


async def test_what_a_dead_process_left_is_found_whole(tmp_path):
    dead = Spool(tmp_path)
    entry = entry_in(dead)
    await dead.write(entry, DATA)
    dead.close()  # as the system does with the locks of a killed process
    heir = Spool(tmp_path)
    assert await heir.leftovers() == [entry]
    assert entry.master.read_bytes() == DATA
    await heir.remove(entry)
    heir.close()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


async def test_a_living_neighbours_entries_are_left_alone(tmp_path):
    living = Spool(tmp_path)
    await living.write(entry_in(living), DATA)
    neighbour = Spool(tmp_path)
    assert await neighbour.leftovers() == []
    neighbour.close()
    living.close()


@pytest.mark.parametrize("cut", ["record missing", "record cut", "bytes cut", "bytes missing"])
async def test_a_half_written_entry_is_removed(tmp_path, cut):
    dead = Spool(tmp_path)
    entry = entry_in(dead)
    await dead.write(entry, DATA)
    if cut == "record missing":
        entry.record.unlink()
    elif cut == "record cut":
        entry.record.write_text(entry.record.read_text()[:-20])
    elif cut == "bytes cut":
        entry.master.write_bytes(DATA[:-1])
    else:
        entry.master.unlink()
    dead.close()
    entry.folder.mkdir(exist_ok=True)
    heir = Spool(tmp_path)
    assert await heir.leftovers() == []
    assert not entry.record.exists()
    assert not entry.master.exists()
    heir.close()


async def test_only_the_owner_may_read_it(tmp_path):
    spool = Spool(tmp_path / "spool")
    entry = entry_in(spool)
    await spool.write(entry, DATA)
    modes = {path.name: path.stat().st_mode & 0o777 for path in spool.folder.iterdir()}
    assert set(modes.values()) == {0o600}
    assert spool.folder.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    spool.close()


async def test_a_full_disk_leaves_nothing_half(tmp_path):
    spool = Spool(tmp_path)
    entry = entry_in(spool)
    entry.record.mkdir()  # the record cannot be written
    with pytest.raises(OSError, match="directory"):
        await spool.write(entry, DATA)
    spool.close()
