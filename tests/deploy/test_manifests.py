"""Every overlay against the code: what is in the manifests is what the services read, listen on and call."""

import re
from urllib.parse import urlsplit

import pytest
import yaml
from deploy.rendered import (
    K8S,
    MONITORING,
    OURS,
    OUTSIDE,
    OVERLAYS,
    ROOT,
    Rendered,
    Workload,
    lay_out,
    made_secrets,
    render,
    render_with,
)

from nanobatch_catalog.models import CATALOG_DATE, list_models
from nanobatch_gateway.http.forms import MAX_BODY_BYTES
from nanobatch_gateway.settings import GatewaySettings
from nanobatch_generator.settings import GeneratorSettings
from nanobatch_runtime.rpc.server import LIVE
from nanobatch_runtime.settings import SECRETS_DIR_VARIABLE, Settings, load
from nanobatch_storage.settings import StorageSettings
from nanobatch_web.door import HEALTH
from nanobatch_web.settings import WebSettings

SETTINGS: dict[str, type[Settings]] = {
    "gateway": GatewaySettings,
    "generator": GeneratorSettings,
    "storage": StorageSettings,
    "web": WebSettings,
    "migrate": StorageSettings,
}
LISTENS = {
    "gateway": {"grpc": "NANOBATCH_GATEWAY_GRPC", "http": "NANOBATCH_GATEWAY_HTTP"},
    "generator": {"grpc": "NANOBATCH_GENERATOR_GRPC"},
    "storage": {"grpc": "NANOBATCH_STORAGE_GRPC"},
    "web": {"http": "NANOBATCH_WEB"},
}
# What must never stand in a ConfigMap or an environment.
SECRET = re.compile(r"KEY|TOKEN|PASSWORD|_DATABASE_URL|_REDIS_URL")
POSTGRES, REDIS = 5432, 6379
METRICS = "NANOBATCH_METRICS"


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Rendered:
    return render(request.param)


def variables(component: str) -> set[str]:
    """Return the variables that a service reads."""
    own = {str(field.validation_alias) for field in SETTINGS[component].model_fields.values()}
    return own | {SECRETS_DIR_VARIABLE}


def ours(overlay: Rendered) -> list[Workload]:
    return [each for each in overlay.workloads() if each.component in SETTINGS]


# Pods


def test_every_pod_is_restricted(overlay):
    for each in overlay.workloads():
        pod, container = each.pod["securityContext"], each.container["securityContext"]
        assert pod["runAsNonRoot"] is True, each.component
        assert pod["runAsUser"] > 0, each.component
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, each.component
        assert container["allowPrivilegeEscalation"] is False, each.component
        assert container["readOnlyRootFilesystem"] is True, each.component
        assert container["capabilities"] == {"drop": ["ALL"]}, each.component
        assert each.pod["automountServiceAccountToken"] is False, each.component
        assert each.pod["enableServiceLinks"] is False, each.component  # no variables beside those written here
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & each.pod.keys(), each.component
        kinds = {kind for volume in each.pod["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "secret", "persistentVolumeClaim"}, each.component
    (namespace,) = overlay.of("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_object_lives_in_one_namespace(overlay):
    (namespace,) = overlay.of("Namespace")
    others = {each["metadata"].get("namespace") for each in overlay.objects if each["kind"] != "Namespace"}
    assert others == {namespace["metadata"]["name"]}


def test_every_container_asks_for_resources_and_has_a_limit_of_memory(overlay):
    for each in overlay.workloads():
        resources = each.container["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys(), each.component
        assert "memory" in resources["limits"], each.component
        for volume in each.pod["volumes"]:
            assert "emptyDir" not in volume or "sizeLimit" in volume["emptyDir"], (each.component, volume)


def test_images_have_versions_and_ours_are_the_targets_of_the_dockerfile(overlay):
    targets = set(re.findall(r"^FROM .* AS (\w+)$", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE))
    for each in overlay.workloads():
        name, _, tag = each.container["image"].rpartition(":")
        assert name, each.container["image"]
        assert tag != "latest"
        if each.component in SETTINGS:
            folder, _, target = name.rpartition("/")
            assert folder.endswith("nanobatch"), name
            assert target in targets, name
            assert target == {"migrate": "storage"}.get(each.component, each.component)


def test_a_pod_writes_only_where_something_is_mounted(overlay):
    for each in ours(overlay):
        mounts = [mount["mountPath"] for mount in each.container["volumeMounts"] if not mount.get("readOnly")]
        assert "/tmp" in mounts, each.component  # noqa: S108  # HOME and TMPDIR of the images
        environment = overlay.environment(each)
        pictures = urlsplit(environment.get("NANOBATCH_BLOB_URL", ""))
        places = [environment.get("NANOBATCH_DATA_DIR"), pictures.path if pictures.scheme == "file" else None]
        assert all(place in mounts for place in places if place), each.component


# Environment and secrets


def test_every_variable_is_read_by_the_service_that_gets_it(overlay):
    for each in ours(overlay):
        files = {name for names in each.secrets.values() for name in names}
        assert overlay.environment(each).keys() | files <= variables(each.component), each.component


def test_secrets_come_as_files_and_only_to_whom_they_concern(overlay):
    for each in ours(overlay):
        environment = overlay.environment(each)
        assert not [name for name in environment if SECRET.search(name)], each.component
        assert "valueFrom" not in str(each.container), each.component
        wanted = {name for name in variables(each.component) if SECRET.search(name)}
        if each.component == "migrate":
            wanted = {"NANOBATCH_DATABASE_URL"}  # it writes no picture
        assert {name for names in each.secrets.values() for name in names} == wanted, each.component
        if wanted:
            assert each.secrets.keys() == {environment["NANOBATCH_SECRETS_DIR"]}, each.component


@pytest.mark.parametrize("component", SETTINGS)
def test_every_service_accepts_what_it_would_be_started_with(overlay, component, tmp_path, monkeypatch):
    workload = overlay.workload(component)
    environment = overlay.environment(workload)
    if workload.secrets:
        monkeypatch.setenv("NANOBATCH_SECRETS_DIR", str(lay_out(tmp_path, workload)))
        environment.pop("NANOBATCH_SECRETS_DIR")
    for name in variables(component) - {SECRETS_DIR_VARIABLE}:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = load(SETTINGS[component])
    if component in {"gateway", "web"}:
        assert settings.model_dump()["auth"] == "token"


def test_every_secret_that_a_pod_mounts_is_made(overlay):
    made = made_secrets("--trial")
    for each in overlay.workloads():
        for volume in each.pod["volumes"]:
            if "secret" in volume:
                keys = {item["key"] for item in volume["secret"].get("items", [])}
                assert keys <= made[volume["secret"]["secretName"]].keys(), each.component


# Ports, targets, probes


def test_services_listen_on_the_ports_that_the_manifests_name(overlay):
    for component, listens in LISTENS.items():
        workload = overlay.workload(component)
        environment = overlay.environment(workload)
        if METRICS in environment:
            assert environment[METRICS] == f"0.0.0.0:{workload.ports['metrics']}"
        for name, variable in listens.items():
            address = environment[variable]
            assert address == f"0.0.0.0:{workload.ports[name]}", variable
            field = next(
                field for field in SETTINGS[component].model_fields.values() if field.validation_alias == variable
            )
            assert str(field.default).rpartition(":")[2] == str(workload.ports[name]), variable
        assert workload.ports.keys() == listens.keys() | ({"metrics"} if METRICS in environment else set())


def test_every_service_leads_to_a_port_of_its_pods(overlay):
    for service in overlay.of("Service"):
        pods = overlay.behind(service)
        assert len(pods) == 1, service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            assert pods[0].ports[port["targetPort"]] == port["port"], service["metadata"]["name"]


def test_every_target_is_a_headless_service_of_the_same_overlay(overlay):
    seen = set()
    for each in ours(overlay):
        for name, value in overlay.environment(each).items():
            if name.endswith("_TARGET"):
                seen.add(name)
                host, _, port = value.removeprefix("dns:///").rpartition(":")
                service = overlay.service(host)
                assert service is not None, value
                # Callers go round all addresses of the name; behind one address they would stay with one replica.
                assert service["spec"].get("clusterIP") == "None", value
                assert int(port) in {each["port"] for each in service["spec"]["ports"]}, value
                wanted = name.removeprefix("NANOBATCH_").removesuffix("_TARGET").lower()
                assert overlay.behind(service)[0].component == wanted, value
    assert seen == {"NANOBATCH_GATEWAY_TARGET", "NANOBATCH_GENERATOR_TARGET", "NANOBATCH_STORAGE_TARGET"}


def test_probes_ask_what_the_services_answer(overlay):
    for component in OURS:
        workload = overlay.workload(component)
        probes = {name: workload.container[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
        for name, probe in probes.items():
            if component == "web":
                assert probe["httpGet"] == {"path": HEALTH, "port": "http"}, name
            else:
                # Alive is who answers; ready is who serves, and has met what it needs: the empty name.
                wanted = {"service": LIVE} if name != "readiness" else {}
                assert probe["grpc"] == {"port": workload.ports["grpc"], **wanted}, name
        # A process that waits for a database must not be killed for it, and a machine under load is slow.
        assert probes["liveness"]["periodSeconds"] * probes["liveness"]["failureThreshold"] >= 60
        assert probes["startup"]["periodSeconds"] * probes["startup"]["failureThreshold"] >= 60


# Stopping, replacing, scaling


def test_a_generator_is_given_the_time_that_its_longest_call_takes(overlay):
    workload = overlay.workload("generator")
    drain = float(overlay.environment(workload)["NANOBATCH_DRAIN_SECONDS"])
    longest = max(model.max_timeout for model in list_models(CATALOG_DATE)).total_seconds()
    before = workload.container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert drain >= longest + 10  # and its upload
    assert workload.pod["terminationGracePeriodSeconds"] == 345
    assert workload.pod["terminationGracePeriodSeconds"] >= before + drain + 20


def test_every_service_lets_its_address_be_forgotten_before_it_stops(overlay):
    for component in OURS:
        workload = overlay.workload(component)
        before = workload.container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert 5 <= before <= 15, component
        assert workload.pod["terminationGracePeriodSeconds"] >= before + 5 + 5, component


def test_a_new_pod_is_there_before_an_old_one_goes(overlay):
    for component in OURS:
        rolling = overlay.workload(component).object["spec"]["strategy"]
        assert rolling == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}, component


def test_nothing_fights_kubectl_scale(overlay):
    assert "replicas" not in overlay.workload("generator").object["spec"]


def test_budgets_and_spread_name_the_pods_of_their_service(overlay):
    budgets = {each["metadata"]["name"]: each["spec"] for each in overlay.of("PodDisruptionBudget")}
    assert budgets.keys() == set(OURS)
    for component in OURS:
        workload = overlay.workload(component)
        assert budgets[component]["selector"]["matchLabels"] == workload.object["spec"]["selector"]["matchLabels"]
        assert budgets[component]["maxUnavailable"] == 1  # a lone replica can be moved, two never go at once
        spread = {each["topologyKey"] for each in workload.pod["topologySpreadConstraints"]}
        assert spread == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        for each in workload.pod["topologySpreadConstraints"]:
            assert each["labelSelector"]["matchLabels"].items() <= workload.labels.items()
            assert each["whenUnsatisfiable"] == "ScheduleAnyway"


def test_several_storages_share_a_redis_and_an_object_store():
    prod = render("prod")
    storage = prod.workload("storage")
    assert storage.object["spec"]["replicas"] > 1
    assert any("NANOBATCH_REDIS_URL" in files for files in storage.secrets.values())
    assert prod.environment(storage)["NANOBATCH_BLOB_URL"].startswith("s3://")
    assert not prod.of("PersistentVolumeClaim")


def test_the_bucket_of_a_trial_is_a_folder_that_is_mounted():
    dev = render("dev")
    bucket = urlsplit(dev.environment(dev.workload("storage"))["NANOBATCH_BLOB_URL"]).netloc
    objects = dev.workload("objects").container
    mounts = [mount["mountPath"] for mount in objects["volumeMounts"]]
    assert f"{objects['args'][-1]}/{bucket}" in mounts


def test_storage_alone_has_an_account_that_a_role_can_be_given_to(overlay):
    assert {each.component: each.pod.get("serviceAccountName", "") for each in overlay.workloads()} == {
        each.component: "storage" if each.component == "storage" else "" for each in overlay.workloads()
    }
    (account,) = overlay.of("ServiceAccount")
    assert (account["metadata"]["name"], account["automountServiceAccountToken"]) == ("storage", False)


def test_the_docs_patches_for_a_role_fit_and_without_them_nobody_gets_to_the_nodes_addresses(tmp_path):
    section = (
        (ROOT / "docs/kubernetes.md").read_text().partition("### A role instead of a key")[2].partition("\n## ")[0]
    )
    account, way = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL))

    def role(overlay: Rendered) -> list[str]:
        return [role for each in overlay.of("ServiceAccount") for role in each["metadata"].get("annotations", {})]

    def ways(overlay: Rendered) -> list[str]:
        (policy,) = [each for each in overlay.of("NetworkPolicy") if each["metadata"]["name"] == "to-objects"]
        return [f"{rule['to'][0]['ipBlock']['cidr']}:{rule['ports'][0]['port']}" for rule in policy["spec"]["egress"]]

    prod, patched = render("prod"), render_with(tmp_path, patches=[*account, *way])
    assert (role(prod), ways(prod)) == ([], ["0.0.0.0/0:443"])
    assert (role(patched), ways(patched)) == (["eks.amazonaws.com/role-arn"], ["0.0.0.0/0:443", "169.254.170.23/32:80"])


# Who may speak to whom


def calls(overlay: Rendered) -> set[tuple[str, str, int]]:
    """Return the calls that are made, from what each service is told of others."""
    components = {each.component for each in overlay.workloads()}
    found = {(OUTSIDE, "gateway", 50051), (OUTSIDE, "gateway", 8080), (OUTSIDE, "web", 7860)}
    found.add(("generator", OUTSIDE, 443))  # providers
    for each in ours(overlay):
        found.add((each.component, OUTSIDE, 53))
        for name, value in overlay.environment(each).items():
            if name.endswith("_TARGET"):
                service = overlay.service(value.removeprefix("dns:///").rpartition(":")[0])
                found.add((each.component, overlay.behind(service)[0].component, int(value.rpartition(":")[2])))
        if METRICS in overlay.environment(each):
            found.add((MONITORING, each.component, int(overlay.environment(each)[METRICS].rpartition(":")[2])))
        files = {name for names in each.secrets.values() for name in names}
        for secret, server, port in (
            ("NANOBATCH_DATABASE_URL", "postgres", POSTGRES),
            ("NANOBATCH_REDIS_URL", "redis", REDIS),
        ):
            if secret in files:
                found.add((each.component, server if server in components else OUTSIDE, port))
        store = urlsplit(overlay.environment(each).get("AWS_ENDPOINT_URL", ""))
        if store.hostname:
            server = store.hostname if store.hostname in components else OUTSIDE
            found.add((each.component, server, store.port or 443))
    return found


def test_prod_shows_its_metrics_to_those_who_collect_them_and_nobody_else():
    prod = render("prod")
    assert {call for call in prod.allowed() if call[0] == MONITORING} == {(MONITORING, each, 9090) for each in OURS}
    assert not [call for call in prod.allowed() if call[2] == 9090 and call[0] != MONITORING]


def test_the_network_lets_pass_what_is_called_and_nothing_else(overlay):
    open_to_all = {("gateway", 50051), ("gateway", 8080), ("web", 7860)}
    # A door that is open to the outside is open to pods as well, but pods have no way out to it unless they call it.
    assert overlay.allowed() - {(name, OUTSIDE, 53) for name in ("postgres", "redis", "objects")} == calls(overlay)
    assert {call[1:] for call in overlay.allowed() if call[0] == OUTSIDE} == open_to_all


def test_neither_end_of_a_call_grants_more_than_the_other(overlay):
    taken = overlay.granted("ingress")
    public = {call[1:] for call in taken if call[0] == OUTSIDE}
    inside = {call for call in calls(overlay) if OUTSIDE not in call}
    asked = {call for call in inside if call[0] == MONITORING}
    assert {call for call in overlay.granted("egress") if OUTSIDE not in call} == inside - asked
    assert {call for call in taken if call[1:] not in public} == {call for call in inside if call[1:] not in public}


def test_what_is_not_named_is_refused(overlay):
    (deny,) = [each for each in overlay.of("NetworkPolicy") if each["metadata"]["name"] == "default-deny"]
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_providers_are_reached_and_inner_networks_are_not(overlay):
    policies = {each["metadata"]["name"]: each["spec"] for each in overlay.of("NetworkPolicy")}
    (out,) = [rule for rule in policies["generator"]["egress"] if "ipBlock" in rule["to"][0]]
    refused = {each for peer in out["to"] for each in peer["ipBlock"]["except"]}
    # RFC 1918, 6598, 3927 (metadata services), loopback; RFC 4193 and link-local of IPv6.
    assert refused == {
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8"),
        *("fc00::/7", "fe80::/10"),
    }


# The way in


def led_by_ingress(prod: Rendered) -> dict[str, tuple[str, str]]:
    """Return which name leads to which Service and port; each has its certificate."""
    led, covered = {}, set()
    for ingress in prod.of("Ingress"):
        covered |= {host for tls in ingress["spec"]["tls"] for host in tls["hosts"]}
        for rule in ingress["spec"]["rules"]:
            (path,) = rule["http"]["paths"]
            backend = path["backend"]["service"]
            service = prod.service(backend["name"])
            assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
            led[rule["host"]] = (backend["name"], backend["port"]["name"])
    assert covered == led.keys()
    return led


def test_the_ingress_leads_the_names_of_the_settings_to_their_ports():
    prod = render("prod")
    led = led_by_ingress(prod)
    web, gateway = (prod.environment(prod.workload(name)) for name in ("web", "gateway"))
    assert web["NANOBATCH_PUBLIC_URL"] == gateway["NANOBATCH_PUBLIC_URL"]
    assert led.pop(urlsplit(web["NANOBATCH_WEB_URL"]).netloc) == ("web", "http")
    assert led.pop(urlsplit(gateway["NANOBATCH_PUBLIC_URL"]).netloc) == ("gateway", "http")
    assert list(led.values()) == [("gateway", "grpc")]


def test_the_gateway_api_leads_the_same_names_to_the_same_ports():
    prod = render("prod")
    folder = K8S / "overlays/prod"
    assert "# - gateway-api.yaml" in (folder / "kustomization.yaml").read_text()
    gateway, *routes = yaml.safe_load_all((folder / "gateway-api.yaml").read_text())
    listeners = {each["name"]: each for each in gateway["spec"]["listeners"]}
    certificates = {tls["secretName"] for each in prod.of("Ingress") for tls in each["spec"]["tls"]}
    for listener in listeners.values():
        assert (listener["protocol"], listener["port"], listener["tls"]["mode"]) == ("HTTPS", 443, "Terminate")
        assert {each["name"] for each in listener["tls"]["certificateRefs"]} == certificates
    led = {}
    for route in routes:
        (parent,), (host,) = route["spec"]["parentRefs"], route["spec"]["hostnames"]
        assert parent["name"] == gateway["metadata"]["name"]
        assert listeners[parent["sectionName"]]["hostname"] == host
        ((backend,),) = (rule["backendRefs"] for rule in route["spec"]["rules"])
        (port,) = (each for each in prod.service(backend["name"])["spec"]["ports"] if each["port"] == backend["port"])
        led[host] = (backend["name"], port["name"])
        assert route["kind"] == ("GRPCRoute" if port["name"] == "grpc" else "HTTPRoute")
    assert led == led_by_ingress(prod)


def test_the_ingress_lets_the_largest_form_and_the_longest_watch_pass():
    annotations = {each["metadata"]["name"]: each["metadata"]["annotations"] for each in render("prod").of("Ingress")}
    prefix = "nginx.ingress.kubernetes.io"
    assert int(annotations["http"][f"{prefix}/proxy-body-size"].removesuffix("m")) * 2**20 >= MAX_BODY_BYTES
    longest = GatewaySettings.model_fields["watch_seconds"].default
    for each in annotations.values():
        assert int(each[f"{prefix}/proxy-read-timeout"]) > longest
    assert annotations["grpc"][f"{prefix}/backend-protocol"] == "GRPC"
