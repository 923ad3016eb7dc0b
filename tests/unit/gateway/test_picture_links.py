"""Addresses of pictures: stable for a day, the same on all gateways, and nobody else can make one."""

from __future__ import annotations

import os
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanobatch_client.cli.names import file_name
from nanobatch_client.models import Result
from nanobatch_gateway.adapters.links_hmac import HmacPictureLinks
from nanobatch_gateway.domain import Caller, LinkInvalidError
from nanobatch_gateway.file_names import extension, file_stem
from nanobatch_runtime.clock import ManualClock
from nanobatch_runtime.ids import new_id
from nanobatch_runtime.keyring import Keyring

BASE = "https://pictures.example"
OLD, NEW = os.urandom(32).hex(), os.urandom(32).hex()


def links(ring: str = OLD, clock: ManualClock | None = None) -> HmacPictureLinks:
    return HmacPictureLinks(Keyring.parse(ring).derive_all("picture-link"), clock or ManualClock(), BASE)


def taken_apart(address: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(address)
    return parts.path.removeprefix("/images/"), dict(parse_qsl(parts.query, keep_blank_values=True))


CALLER = Caller(new_id(), admin=False)


def test_an_address_says_whose_picture_it_is_and_for_how_long() -> None:
    clock = ManualClock()
    clock.advance(timedelta(hours=5))
    image_id, query = taken_apart(links(clock=clock).sign(CALLER, new_id(), "001-a-fox"))
    link = links(clock=clock).open(image_id, query)
    assert (link.caller.user_id, link.caller.admin, link.name) == (CALLER.user_id, False, "001-a-fox")
    assert link.seconds_left == 43 * 3600


@given(st.data())
def test_any_changed_character_is_refused(data: st.DataObject) -> None:
    address = links().sign(CALLER, new_id(), "001-a-fox")
    image_id, query = taken_apart(address)
    everything = {"image_id": image_id, **query}
    part = data.draw(st.sampled_from(sorted(everything)))
    value = everything[part]
    place = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda char: char != value[place]))
    everything[part] = value[:place] + other + value[place + 1 :]
    changed_id = everything.pop("image_id")
    with pytest.raises(LinkInvalidError):
        links().open(changed_id, everything)


@given(st.text(), st.dictionaries(st.sampled_from(["user", "role", "name", "expires", "signature"]), st.text()))
def test_nonsense_is_refused(image_id: str, query: dict[str, str]) -> None:
    with pytest.raises(LinkInvalidError):
        links().open(image_id, query)


def test_a_client_cannot_become_an_admin() -> None:
    image_id, query = taken_apart(links().sign(CALLER, new_id(), "001-a-fox"))
    with pytest.raises(LinkInvalidError):
        links().open(image_id, query | {"role": "admin"})


def test_gateways_in_the_middle_of_a_rotation_accept_each_others_addresses() -> None:
    before, after = links(f"{OLD},{NEW}"), links(f"{NEW},{OLD}")
    for signer in (before, after):
        image_id, query = taken_apart(signer.sign(CALLER, new_id(), "001-a-fox"))
        for opener in (before, after):
            assert opener.open(image_id, query).caller == CALLER
    image_id, query = taken_apart(after.sign(CALLER, new_id(), "001-a-fox"))
    with pytest.raises(LinkInvalidError):
        links(OLD).open(image_id, query)


@given(
    st.text(max_size=200), st.integers(0, 99), st.integers(0, 3), st.sampled_from(["image/png", "image/jpeg", "x/y"])
)
def test_names_are_those_of_the_command_line(prompt: str, index: int, variation: int, kind: str) -> None:
    result = Result.__new__(Result)
    for name, value in (("batch_index", index), ("variation", variation), ("prompt_text", prompt), ("mime_type", kind)):
        object.__setattr__(result, name, value)
    name = f"{file_stem(index, variation, prompt)}.{extension(kind)}"
    assert name == file_name(result)
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
