"""Alerts and queries as Prometheus's own tool evaluates them. Debian's package `prometheus` brings it."""

import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from deploy.test_monitoring import alerts, load, queries, trigger

SCENARIOS = Path(__file__).with_name("alerts.yaml")


@pytest.fixture
def promtool(tmp_path):
    """Return what runs the tool in a folder of its own. Skips without it: `make deploy-check` installs it."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian's package prometheus), so no rule can be evaluated.")

    def run(*words: str, **files: object) -> str:
        for name, content in files.items():
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
        ended = subprocess.run([program, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    return run


def recorded(queries: dict[str, str]) -> dict[str, object]:
    """Return a file of rules that evaluates queries; Grafana's own variable is a time."""
    rules = [
        {"record": "query", "labels": {"where": where}, "expr": query.replace("$__rate_interval", "5m")}
        for where, query in queries.items()
    ]
    return {"groups": [{"name": "queries", "rules": rules}]}


def test_every_alert_has_a_scenario_where_it_fires_and_one_where_it_does_not():
    fires = defaultdict(set)
    for scenario in yaml.safe_load(SCENARIOS.read_text())["tests"]:
        for moment in scenario["alert_rule_test"]:
            fires[moment["alertname"]].add(bool(moment["exp_alerts"]))
    assert fires == {name: {True, False} for name in alerts()}


def test_alerts_fire_where_they_must_and_nowhere_else(promtool):
    rules = load("monitoring/rules.yaml")["spec"]
    assert f"{len(alerts())} rules found" in promtool("check", "rules", "rules.yaml", rules=rules)
    promtool("test", "rules", "alerts.yaml", alerts=yaml.safe_load(SCENARIOS.read_text()))


def test_every_query_of_dashboard_and_autoscaler_is_one_for_prometheus(promtool):
    assert f"{len(queries())} rules found" in promtool("check", "rules", "rules.yaml", rules=recorded(queries()))


@pytest.mark.parametrize(
    ("series", "seen"),
    [
        ({"queue_age_seconds": "5x20", 'queue_wanted{model="m"}': "40x20", 'queue_wanted{model="n"}': "8x20"}, [48]),
        ({"queue_age_seconds": "5x20"}, [0]),  # nothing is active
        ({"queue_age_seconds": "5x9 stale", 'queue_wanted{model="m"}': "40x9 stale", "slots": "32x20"}, []),
    ],
)
def test_generators_are_scaled_by_the_queue_and_by_nothing_where_its_figures_are_lost(promtool, series, seen):
    def named(name: str, pod: str) -> str:
        name, _, labels = name.rstrip("}").partition("{")
        return f'nanobatch_{name}{{namespace="nanobatch", pod="{pod}", {labels}}}'

    scenario = {
        "interval": "1m",
        "input_series": [
            {"series": named(name, pod), "values": values}
            for name, values in series.items()
            for pod in ("storage-1", "storage-2")  # both look at the same queue
        ],
        "promql_expr_test": [
            {
                "expr": "query",
                "eval_time": "15m",
                "exp_samples": [{"labels": 'query{where="autoscaler"}', "value": value} for value in seen],
            }
        ],
    }
    promtool(
        *("test", "rules", "scenario.yaml"),
        rules=recorded({"autoscaler": trigger()["query"]}),
        scenario={"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [scenario]},
    )
    # An empty answer is an error to KEDA then, and leaves the replicas as they are: else it counts as 0.
    assert trigger()["ignoreNullValues"] == "false"
