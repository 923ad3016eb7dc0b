"""Dashboard, alerts and autoscaling against the metrics that the code has, and the docs against the alerts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from deploy.rendered import K8S, MONITORING, ROOT, Rendered, render_with

from nanobatch_generator.domain import Charged, FailureClass
from nanobatch_generator.running import Phase
from nanobatch_generator.settings import GeneratorSettings
from nanobatch_generator.tally import NOT_STORED
from nanobatch_runtime import metrics
from nanobatch_runtime.errors import Kind

COMPONENTS = K8S / "components"
NAME = re.compile(r"\b(?:nanobatch|process)_\w+")
OF_THE_TARGET = {"pod", "namespace", "le"}
"""Labels that the collector adds, or a histogram has."""
OF_THE_CLIENT = {"process_resident_memory_bytes"}


def load(path: str) -> Any:
    return yaml.safe_load((COMPONENTS / path).read_text())


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in load("monitoring/rules.yaml")["spec"]["groups"] for rule in group["rules"]}


def panels() -> list[dict[str, Any]]:
    found = json.loads((COMPONENTS / "monitoring/dashboard.json").read_text())["panels"]
    return [each for each in found if each["type"] != "row"]


def trigger() -> dict[str, str]:
    (only,) = load("autoscaling/generator.yaml")["spec"]["triggers"]
    return only["metadata"]


def queries() -> dict[str, str]:
    """Return every query by where it stands."""
    found = {name: rule["expr"] for name, rule in alerts().items()}
    for panel in panels():
        found |= {f"{panel['title']}.{target['refId']}": target["expr"] for target in panel["targets"]}
    return found | {"ScaledObject": trigger()["query"]}


def written() -> dict[str, str]:
    """Return the metric behind each name that a query may hold."""
    found: dict[str, str] = {}
    for name, kind in metrics.types().items():
        found |= {f"{name}{part}": name for part in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))}
    return found


@pytest.mark.parametrize("where", queries())
def test_a_query_asks_for_metrics_and_labels_that_there_are(where):
    query, known, labels = queries()[where], written(), metrics.labels()
    names = set(NAME.findall(query))
    assert names
    assert names <= known.keys() | OF_THE_CLIENT
    of_ours = {label for name in names & known.keys() for label in labels[known[name]]}
    asked = {word for group in re.findall(r"\bby \(([^)]*)\)", query) for word in re.split(r",\s*", group)}
    asked |= set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", query))
    assert asked <= of_ours | OF_THE_TARGET, query
    for name in names & known.keys():  # a counter is looked at by its rate, a gauge never is
        counts = metrics.types()[known[name]] != "gauge"
        assert counts == bool(re.search(rf"(?:rate|increase)\({name}\b", query)), name


def test_the_queue_is_never_summed_over_storages():
    for where, query in queries().items():
        assert not re.search(r"sum[^(]*\((?:nanobatch_queue|nanobatch_credentials)", query), where


def test_values_of_labels_are_those_of_the_code():
    said = {
        label: set(re.findall(rf'{label}[=!]~?"([^"]*)"', " ".join(queries().values())))
        for label in ("outcome", "charged", "phase", "code")
    }
    outcomes = {word for each in said["outcome"] for word in each.split("|")}
    assert outcomes <= {"COMPLETED", NOT_STORED, *FailureClass.__members__}
    assert said["charged"] <= set(Charged.__members__)
    assert said["phase"] <= set(Phase.__members__)
    assert said["code"] <= {"OK", *Kind.__members__}


def test_the_dashboard_shows_every_metric():
    shown = {written()[name] for panel in panels() for target in panel["targets"] for name in NAME.findall(target["expr"])
             if name in written()}  # fmt: skip
    assert shown == metrics.types().keys()


def test_every_alert_is_explained_and_no_other_is():
    told = re.findall(r"^\| `(Nanobatch\w+)` \|", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(alerts())
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}, name
        assert rule["annotations"]["summary"], name


def test_a_generator_is_added_before_the_others_are_full():
    assert int(trigger()["threshold"]) < GeneratorSettings.model_fields["concurrency"].default


def with_all(folder: Path) -> Rendered:
    """Return the prod overlay with everything that its comments offer."""
    return render_with(folder, components=["monitoring", "autoscaling", "traces"])


def test_spans_find_their_way_out_to_the_collector_and_nothing_else_does(tmp_path):
    prod = with_all(tmp_path)
    sent = set()
    for name in ("gateway", "generator", "storage", "web"):
        if endpoint := urlsplit(prod.environment(prod.workload(name)).get("OTEL_EXPORTER_OTLP_ENDPOINT", "")).netloc:
            host, _, port = endpoint.rpartition(":")
            assert host.partition(".")[2] == MONITORING
            sent.add((name, MONITORING, int(port)))
    assert {name for name, _, _ in sent} == {"gateway", "generator", "storage"}  # the page has no spans
    assert {call for call in prod.granted("egress") if call[1] == MONITORING} == sent


def test_what_is_collected_and_scaled_is_there(tmp_path):
    prod = with_all(tmp_path)
    (monitor,) = prod.of("PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    for name in ("gateway", "generator", "storage", "web"):
        workload = prod.workload(name)
        assert workload.ports[endpoint["port"]] == int(
            prod.environment(workload)["NANOBATCH_METRICS"].rpartition(":")[2]
        )
        (wanted,) = monitor["spec"]["selector"]["matchExpressions"]
        assert workload.component in wanted["values"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= workload.labels.items()
    (scaled,) = prod.of("ScaledObject")
    generator = prod.workload("generator").object
    assert scaled["spec"]["scaleTargetRef"]["name"] == generator["metadata"]["name"]
    assert "replicas" not in generator["spec"]  # what is applied must not undo what was scaled
    (namespace,) = prod.of("Namespace")
    assert f'namespace="{namespace["metadata"]["name"]}"' in trigger()["query"]
    (dashboard,) = [
        each for each in prod.of("ConfigMap") if each["metadata"].get("labels", {}).get("grafana_dashboard")
    ]
    assert json.loads(dashboard["data"]["nanobatch.json"])["title"] == "nanobatch"
    assert {each["metadata"]["namespace"] for each in (monitor, scaled, dashboard)} == {"nanobatch"}
