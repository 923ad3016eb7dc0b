"""An overlay as kustomize renders it, and what its pods would find: environment, secrets, who may speak to whom."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "deploy/k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
OURS = ("gateway", "generator", "storage", "web")

OUTSIDE = "outside"
"""Every address that is no pod of ours."""
MONITORING = "monitoring"
"""Pods of the namespace that collects metrics; they ask, and are asked nothing."""

Object = dict[str, Any]
Call = tuple[str, str, int]
"""Who, whom, on which port; by component."""


@dataclass(frozen=True)
class Workload:
    """A Deployment, StatefulSet or Job with one container."""

    object: Object

    @property
    def component(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def pod(self) -> Object:
        return self.object["spec"]["template"]["spec"]

    @property
    def labels(self) -> dict[str, str]:
        return self.object["spec"]["template"]["metadata"]["labels"]

    @property
    def container(self) -> Object:
        (container,) = self.pod["containers"]
        return container

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.container.get("ports", [])}

    @property
    def secrets(self) -> dict[str, list[str]]:
        """The names of the files of mounted Secrets, by where they are mounted."""
        mounts = {each["name"]: each["mountPath"] for each in self.container.get("volumeMounts", [])}
        return {
            mounts[volume["name"]]: [item["path"] for item in volume["secret"].get("items", [])]
            for volume in self.pod["volumes"]
            if "secret" in volume
        }


@dataclass(frozen=True)
class Rendered:
    """All objects of an overlay."""

    objects: list[Object]

    def of(self, *kinds: str) -> list[Object]:
        return [each for each in self.objects if each["kind"] in kinds]

    def workloads(self) -> list[Workload]:
        return [Workload(each) for each in self.of("Deployment", "StatefulSet", "Job")]

    def workload(self, component: str) -> Workload:
        return next(each for each in self.workloads() if each.component == component)

    def environment(self, workload: Workload) -> dict[str, str]:
        """Return the variables that a pod's container is started with."""
        maps = {each["metadata"]["name"]: each["data"] for each in self.of("ConfigMap")}
        found: dict[str, str] = {}
        for source in workload.container.get("envFrom", []):
            found |= maps[source["configMapRef"]["name"]]
        return found | {each["name"]: each["value"] for each in workload.container.get("env", [])}

    def behind(self, service: Object) -> list[Workload]:
        wanted = service["spec"]["selector"].items()
        return [each for each in self.workloads() if wanted <= each.labels.items()]

    def service(self, name: str) -> Object | None:
        return next((each for each in self.of("Service") if each["metadata"]["name"] == name), None)

    def allowed(self) -> set[Call]:
        """Return the calls over TCP that NetworkPolicies let pass, from and to the outside included."""
        sent, taken = self.granted("egress"), self.granted("ingress")
        inside = {call for call in sent & taken if OUTSIDE not in call}
        asked = {call for call in taken if call[0] in {OUTSIDE, MONITORING}}
        return inside | {call for call in sent if call[1] == OUTSIDE} | asked

    def granted(self, direction: str) -> set[Call]:
        """Return the calls that one side's policies let pass; a call needs both sides, or one where the other is outside."""
        pods = {each.component: each.labels for each in self.workloads()}
        return {call for name in pods for call in self._sides(name, pods, direction)}

    def _sides(self, name: str, pods: dict[str, dict[str, str]], direction: str) -> Iterator[Call]:
        for policy in self.of("NetworkPolicy"):
            if not _selects(policy["spec"]["podSelector"], pods[name]):
                continue
            for rule in policy["spec"].get(direction, []):
                others = rule.get("to" if direction == "egress" else "from")
                ports = [each["port"] for each in rule["ports"] if each["protocol"] == "TCP"]
                for other in _peers(others, pods):
                    for port in ports:
                        yield (name, other, port) if direction == "egress" else (other, name, port)


def _peers(peers: list[Object] | None, pods: dict[str, dict[str, str]]) -> set[str]:
    if peers is None:
        return {*pods, OUTSIDE}
    found: set[str] = set()
    for peer in peers:
        if "podSelector" in peer and "namespaceSelector" not in peer:
            found |= {name for name, labels in pods.items() if _selects(peer["podSelector"], labels)}
        else:
            name = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
            found.add(MONITORING if name == MONITORING else OUTSIDE)
    return found


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In", expression
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


@cache
def render(overlay: str) -> Rendered:
    """Return an overlay. Skips where neither kubectl nor kustomize is installed: `make deploy-check` fails there."""
    return _built(K8S / "overlays" / overlay)


def render_with(folder: Path, *, components: Sequence[str] = (), patches: Sequence[Object] = ()) -> Rendered:
    """Return the overlay prod with more components and patches, as an overlay in ``folder``. Skips as above."""
    here = folder.resolve()
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "nanobatch",
        "resources": [os.path.relpath(K8S / "overlays/prod", here)],
        "components": [os.path.relpath(K8S / "components" / each, here) for each in components],
        "patches": list(patches),
    }
    (here / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return _built(here)


def _built(folder: Path) -> Rendered:
    program = shutil.which("kubectl") or shutil.which("kustomize")
    if program is None:
        pytest.skip("Neither kubectl nor kustomize is installed, so no overlay can be rendered.")
    words = [program, "kustomize" if program.endswith("kubectl") else "build", str(folder)]
    built = subprocess.run(words, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return Rendered(list(yaml.safe_load_all(built.stdout)))


@cache
def made_secrets(*words: str, **environment: str) -> dict[str, dict[str, bytes]]:
    """Return what the script makes, by Secret and key."""
    made = subprocess.run(
        [K8S / "make-secrets.sh", "--print", *words],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    objects = [each for each in yaml.safe_load_all(made.stdout) if each]
    return {
        each["metadata"]["name"]: {key: base64.b64decode(value) for key, value in each["data"].items()}
        for each in objects
    }


def lay_out(folder: Path, workload: Workload, secrets: dict[str, dict[str, bytes]] | None = None) -> Path:
    """Write a pod's secrets into a folder as they would be mounted; ``secrets``: those that the script makes."""
    secrets = secrets or made_secrets("--trial")
    for volume in workload.pod["volumes"]:
        for item in volume.get("secret", {}).get("items", []):
            (folder / item["path"]).write_bytes(secrets[volume["secret"]["secretName"]][item["key"]])
    return folder
