"""A prepared statement says and answers what SQLAlchemy's own execution does, on both databases."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    MetaData,
    Table,
    Text,
    bindparam,
    delete,
    func,
    select,
    tuple_,
)
from sqlalchemy import update as changed
from sqlalchemy.exc import IntegrityError

from nanobatch_storage.adapters.database import open_database
from nanobatch_storage.adapters.prepared import Prepared
from nanobatch_storage.adapters.rows import insert_of
from nanobatch_storage.adapters.tables import _ID, UtcDateTime, _Json, _NullableJson

THINGS = Table(
    "things",
    MetaData(),
    Column("id", _ID, primary_key=True),
    Column("kind", Text),
    Column("at", UtcDateTime),
    Column("facts", _Json),
    Column("perhaps", _NullableJson),
    Column("number", BigInteger),
    Column("part", Float),
    Column("good", Boolean),
)
_ROWS = [
    {
        "id": str(uuid.UUID(int=number)),
        "kind": "100 % of 'it' :x %(y)s" if number else None,
        "at": datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC) if number % 2 else None,
        "facts": {"a": [1, None, "é\u202e"], "n": number},
        "perhaps": None if number == 2 else ["x"],
        "number": 2**40 + number,
        "part": 0.5,
        "good": bool(number % 2),
    }
    for number in range(5)
]
_IDS = [row["id"] for row in _ROWS]
_OF = select(THINGS).where(THINGS.c.id.in_(bindparam("ids", expanding=True))).order_by(THINGS.c.id)


@pytest.fixture
async def database(database_url):
    async with open_database(database_url) as opened:

        async def begin(tx):
            await _defined(tx, "drop_all")  # databases are emptied between tests, not made anew
            await _defined(tx, "create_all")
            await tx.connection.execute(insert_of(THINGS), _ROWS)

        await opened.write(begin)
        yield opened
        await opened.write(lambda tx: _defined(tx, "drop_all"))


async def _defined(tx, what):
    connection = tx.connection._connection
    if tx.connection.dialect.name == "sqlite":
        getattr(THINGS.metadata, what)(connection)
    else:
        await connection.run_sync(getattr(THINGS.metadata, what))


@pytest.mark.parametrize("count", [0, 1, 3, 5])
async def test_rows_are_those_of_sqlalchemy_whatever_the_length_of_a_list(database, count):
    prepared = Prepared(_OF)
    async with database.read() as tx:
        for ids in (_IDS[:count], _IDS[-count:] if count else []):
            plain = (await tx.connection.execute(_OF, {"ids": ids})).all()
            fast = (await tx.connection.execute(prepared, {"ids": ids})).all()
            assert [dict(row._mapping) for row in fast] == [dict(row._mapping) for row in plain]
            assert [row.id for row in fast] == sorted(ids)
    assert count == 0 or [dict(row._mapping) for row in fast] == _ROWS[-count:]


async def test_constants_lists_of_tuples_and_lists_that_are_constant_go_with_it(database):
    wanted = (
        select(THINGS.c.id, func.count().over().label("of"))
        .where(
            tuple_(THINGS.c.id, THINGS.c.number).in_(bindparam("pairs", expanding=True)),
            THINGS.c.part == 0.5,
            THINGS.c.number.not_in([1, 2, 2**40 + 3]),
        )
        .order_by(THINGS.c.id.desc())
        .limit(bindparam("count"))
    )
    pairs = [(row["id"], row["number"]) for row in _ROWS[1:]]
    async with database.read() as tx:
        plain = (await tx.connection.execute(wanted, {"pairs": pairs, "count": 2})).all()
        fast = (await tx.connection.execute(Prepared(wanted), {"pairs": pairs, "count": 2})).all()
    assert fast == plain == [(_IDS[4], 3), (_IDS[2], 3)]


async def test_one_row_and_many_are_changed_and_what_was_changed_is_returned(database):
    by_id = Prepared(changed(THINGS).where(THINGS.c.id == bindparam("row_id")).values(facts=bindparam("facts")))
    gone = Prepared(delete(THINGS).where(THINGS.c.id.in_(bindparam("ids", expanding=True))).returning(THINGS.c.at))

    async def work(tx):
        await tx.connection.execute(by_id, {"row_id": _IDS[0], "facts": [0]})
        await tx.connection.execute(by_id, [{"row_id": name, "facts": {"n": name}} for name in _IDS[1:3]])
        return (await tx.connection.execute(gone, {"ids": _IDS[3:]})).scalars().all()

    assert set(await database.write(work)) == {_ROWS[3]["at"], _ROWS[4]["at"]}
    async with database.read() as tx:
        left = (await tx.connection.execute(Prepared(_OF), {"ids": _IDS})).all()
    assert [row.facts for row in left] == [[0], {"n": _IDS[1]}, {"n": _IDS[2]}]


async def test_errors_are_told_as_sqlalchemy_tells_them_and_undo_the_transaction(database):
    async def work(tx):
        await tx.connection.execute(
            Prepared(delete(THINGS).where(THINGS.c.id.in_(bindparam("ids", expanding=True)))), {"ids": _IDS[1:]}
        )
        await tx.connection.execute(insert_of(THINGS), _ROWS[0])

    with pytest.raises(IntegrityError) as caught:
        await database.write(work)
    assert "100 %" not in str(caught.value)  # no values in what is logged
    async with database.read() as tx:
        assert len((await tx.connection.execute(Prepared(_OF), {"ids": _IDS})).all()) == len(_IDS)


async def test_a_value_that_is_missing_is_an_error_before_anything_is_asked(database):
    async with database.read() as tx:
        with pytest.raises(Exception, match="number"):
            await tx.connection.execute(Prepared(select(THINGS.c.id).where(THINGS.c.number == bindparam("number"))), {})
