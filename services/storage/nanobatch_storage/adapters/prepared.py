"""Statements that SQLAlchemy writes once and the driver runs: what stands in everybody's way every time.

SQLAlchemy's own road from a statement to rows costs two to three times what the driver's does (docs/adr/0022): looking up
the compiled form, expanding lists, a context and a result for each execution, and on PostgreSQL a switch between greenlets.
Here the SQL, the conversions of parameters and of rows are found out once for each number of list elements. Everything else
stays SQLAlchemy's: what is written, the types, connections, transactions, and how errors are told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from sqlalchemy import Connection, Delete, Dialect, Insert, Select, Update
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

Statement = Select[Any] | Insert | Update | Delete
Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None

_Convert = Callable[[Any], Any]
_MOST_FORMS = 100
"""A list has 32 elements where calls share a transaction; what is longer and rarer is worked out anew now and then."""


class Prepared:
    """A statement for one of two dialects, whose bound values are all named when it is run."""

    def __init__(self, statement: Statement, *, postgresql: Statement | None = None) -> None:
        """``statement`` has no other parameters than ``bindparam`` with a name, and constants.

        ``postgresql`` asks the same of PostgreSQL in its own words, where it has better ones: the same columns, the same names.
        """
        self._statement, self._own = statement, {"postgresql": postgresql}
        self._on: dict[str, OnDialect] = {}

    def on(self, dialect: Dialect) -> OnDialect:
        """Return it as that dialect has it."""
        known = self._on.get(dialect.name)
        if known is None:
            statement = self._own.get(dialect.name)
            known = self._on[dialect.name] = OnDialect(self._statement if statement is None else statement, dialect)
        return known


class Rows(IteratorResult[Any]):
    """Rows that were fetched."""

    rowcount = -1
    """How many there were, or how many a statement has changed."""


class OnDialect:
    """A compiled statement, and the forms that its lists have given it."""

    def __init__(self, statement: Statement, dialect: Dialect) -> None:
        """Compile it."""
        self._dialect = dialect
        self._compiled = statement.compile(dialect=dialect)
        self._forms: dict[tuple[int, ...], _Form] = {}
        self._lists = tuple(
            name for parameter, name in self._compiled.bind_names.items() if parameter.expanding and not parameter.value
        )
        columns = statement.exported_columns.items()
        self._columns = SimpleResultMetaData([str(name) for name, _ in columns])
        self._types: Sequence[TypeEngine[Any]] = [column.type for _, column in columns]
        self._converted: list[tuple[int, _Convert]] | None = None

    def bound(self, values: Mapping[str, Any]) -> tuple[str, Any]:
        """Return the SQL and its parameters as the driver takes them."""
        form = self._form(values)
        return form.sql, form.bind(values)

    def bound_each(self, values: Sequence[Mapping[str, Any]]) -> tuple[str, list[Any]]:
        """Return the SQL and the parameters of many executions; there are no lists among them."""
        form = self._form(values[0])
        return form.sql, [form.bind(each) for each in values]

    @property
    def has_rows(self) -> bool:
        """Whether it answers with rows."""
        return bool(self._types)

    def result(self, cursor: Any, fetched: list[Any]) -> Rows:
        """Return rows that the driver fetched, converted."""
        if self._converted is None and self.has_rows:
            # Asked once: drivers make the description of a cursor anew each time.
            self._converted = self._conversions(cursor.description)
        if self._converted:
            fetched = [self._convert(row) for row in fetched]
        rows = Rows(self._columns, iter(fetched))
        rows.rowcount = cursor.rowcount
        return rows

    def _form(self, values: Mapping[str, Any]) -> _Form:
        lengths = tuple([len(values[name]) for name in self._lists])
        form = self._forms.get(lengths)
        if form is None:
            if len(self._forms) >= _MOST_FORMS:
                self._forms.clear()
            form = self._forms[lengths] = _Form(self._compiled, values)
        return form

    def _conversions(self, description: Sequence[Sequence[Any]]) -> list[tuple[int, _Convert]]:
        if len(description) != len(self._types):
            raise AssertionError(f"{len(description)} columns came, {len(self._types)} are known")
        found: list[tuple[int, _Convert]] = []
        for place, (kind, told) in enumerate(zip(self._types, description, strict=True)):
            convert = kind.dialect_impl(self._dialect).result_processor(self._dialect, told[1])
            if convert is not None:
                found.append((place, convert))
        return found

    def _convert(self, row: Sequence[Any]) -> tuple[Any, ...]:
        values = list(row)
        for place, convert in self._converted or ():
            values[place] = convert(values[place])
        return tuple(values)


class _Form:
    """The SQL for lists of certain lengths, and where each value goes."""

    def __init__(self, compiled: SQLCompiler, values: Mapping[str, Any]) -> None:
        expanded = compiled.construct_expanded_state(values)
        self.sql: str = expanded.statement
        self._order: Sequence[str] | None = expanded.positiontup
        convert: dict[str, Any] = {**compiled._bind_processors, **expanded.processors}  # noqa: SLF001  # has no public name
        lists: Mapping[str, Sequence[str]] = expanded.parameter_expansion
        self._lists = [
            (name, names, [convert.get(each) for each in names]) for name, names in lists.items() if name in values
        ]
        single = [name for name in compiled.bind_names.values() if name in values and name not in lists]
        self._single = [(name, convert.get(name)) for name in single]
        given = {*single, *(each for _, names, _ in self._lists for each in names)}
        self._constants = {
            name: convert[name](value) if name in convert else value
            for name, value in expanded.parameters.items()
            if name not in given
        }

    def bind(self, values: Mapping[str, Any]) -> Any:
        """Return the values by name, or in their order where the driver goes by that."""
        bound = dict(self._constants)
        for name, convert in self._single:
            value = values[name]
            bound[name] = value if convert is None else convert(value)
        for name, names, converts in self._lists:
            flat = values[name]
            if flat and isinstance(flat[0], tuple):
                flat = [element for each in flat for element in each]
            for place, convert, value in zip(names, converts, flat, strict=True):
                bound[place] = value if convert is None else convert(value)
        return bound if self._order is None else tuple([bound[name] for name in self._order])


def raise_told(connection: Connection, error: Exception, sql: str) -> NoReturn:
    """Raise what SQLAlchemy would have raised for a driver's error, and do to the connection and its pool what it would."""
    connection._handle_dbapi_exception(error, sql, None, None, None)  # noqa: SLF001  # there is no public way to it
