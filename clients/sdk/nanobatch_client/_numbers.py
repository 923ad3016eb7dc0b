"""Numbers that a message has no room for: protobuf refuses them with a ValueError that does not say which it was."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from nanobatch_client.errors import InvalidRequestError, Violation

_LARGEST = {FieldDescriptor.CPPTYPE_INT32: 2**31 - 1, FieldDescriptor.CPPTYPE_INT64: 2**63 - 1}


def too_large(message: type[Message], values: Mapping[str, int | None], path: str = "") -> list[Violation]:
    """Return a violation for each of ``values`` that its field of ``message`` cannot hold; ``path`` leads to them."""
    found = []
    for name, value in values.items():
        largest = _LARGEST[message.DESCRIPTOR.fields_by_name[name].cpp_type]
        if value is not None and not -largest <= value <= largest:
            found.append(Violation(path + name, f"{value} is not between {-largest} and {largest}.", "OUT_OF_RANGE"))
    return found


def require_room(violations: list[Violation]) -> None:
    """Raise InvalidRequestError, as the server would, if anything was found."""
    if violations:
        first = violations[0]
        raise InvalidRequestError(
            f"{first.field}: {first.description}", reason="INVALID_REQUEST", violations=violations
        )
