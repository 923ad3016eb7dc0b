from __future__ import annotations

from types import SimpleNamespace

import pytest

from nanobatch_storage.adapters.leases_sql import Asked, _together, dealt_among


def lease(name: str, crashes: int = 0):
    return SimpleNamespace(name=name, result=SimpleNamespace(crashes=crashes))


def names(hands):
    return [[one.name for one in hand] for hand in hands]


def test_few_results_come_to_many():
    asked = [Asked(10, 0), Asked(10, 0), Asked(10, 0)]
    assert names(dealt_among(asked, [lease(n) for n in "abcd"])) == [["a", "d"], ["b"], ["c"]]


def test_nobody_gets_more_than_they_asked_for():
    asked = [Asked(1, 0), Asked(3, 0)]
    assert names(dealt_among(asked, [lease(n) for n in "abcd"])) == [["a"], ["b", "c", "d"]]


def test_suspects_come_only_to_those_who_take_them_whoever_has_slots():
    asked = [Asked(3, 0), Asked(2, 1), Asked(2, 2)]
    dealt = names(dealt_among(asked, [*(lease(n) for n in "abcd"), *(lease(n, crashes=2) for n in "xyz")]))
    assert not set(dealt[0]) & set("xyz")
    assert len(set(dealt[1]) & set("xyz")) == 1
    assert len(set(dealt[2]) & set("xyz")) == 2
    assert sorted(map(len, dealt)) == [2, 2, 3]


@pytest.mark.parametrize(
    ("slots", "parts"),
    [([8, 8, 8], [3]), ([60, 60, 30], [1, 2]), ([100, 100], [1, 1]), ([1] * 32, [32]), ([40, 60, 1], [2, 1])],
)
def test_a_transaction_leases_no_more_than_one_could_ask_for(slots, parts):
    assert [len(part) for part in _together([Asked(count, 0) for count in slots])] == parts
