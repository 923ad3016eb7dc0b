"""The metrics that the docs tell of are those that the code has."""

from __future__ import annotations

from told import metrics_told

from nanobatch_runtime import metrics


def test_every_metric_stands_in_the_table_and_no_other():
    assert metrics_told().keys() == metrics.types().keys()


def test_their_labels_are_those_of_the_code():
    assert {name: told.labels for name, told in metrics_told().items()} == metrics.labels()
