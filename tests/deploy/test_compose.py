"""The compose file and the images against the code."""

import re
import secrets
import tomllib

import pytest
import yaml
from deploy.dockerfile import DOCKERFILE, Image, images
from deploy.rendered import OURS, ROOT
from deploy.test_manifests import LISTENS, SETTINGS, variables
from image_requirements import image

from nanobatch_runtime.settings import load

BUILT = DOCKERFILE.read_text()
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
REQUIREMENTS = ROOT / "requirements"
SECRET = secrets.token_hex(32)


def filled_in(value: object) -> str:
    """Return a value as compose would give it: the default of a variable, or a secret."""
    return re.sub(r"\$\{\w+(:[-?])(.*?)\}", lambda found: found[2] if found[1] == ":-" else SECRET, str(value))


@pytest.mark.parametrize("service", OURS)
def test_every_service_accepts_what_compose_gives_it(service, monkeypatch):
    for name in variables(service):
        monkeypatch.delenv(name, raising=False)
    given = COMPOSE[service]["environment"]
    assert given.keys() <= variables(service)
    for name, value in given.items():
        monkeypatch.setenv(name, filled_in(value))
    load(SETTINGS[service])


def test_every_service_shows_its_metrics_inside_and_no_port_of_the_host_does():
    for service in OURS:
        address = COMPOSE[service]["environment"]["NANOBATCH_METRICS"]
        port = address.rpartition(":")[2]
        assert address == f"0.0.0.0:{port}"
        assert not [each for each in COMPOSE[service].get("ports", []) if each.endswith(f":{port}")], service


def test_the_bucket_in_compose_is_a_folder_of_the_object_store_that_is_kept():
    storage, objects = COMPOSE["storage"]["environment"], COMPOSE["objects"]
    bucket = storage["NANOBATCH_BLOB_URL"].removeprefix("s3://").partition("/")[0]
    assert f"pictures:{objects['command'][-1]}/{bucket}" in objects["volumes"]
    assert storage["AWS_ENDPOINT_URL"] == f"http://objects{objects['environment']['VGW_PORT']}"
    assert storage["AWS_ACCESS_KEY_ID"] == objects["environment"]["ROOT_ACCESS_KEY_ID"]
    assert storage["AWS_SECRET_ACCESS_KEY"] == objects["environment"]["ROOT_SECRET_ACCESS_KEY"]


@pytest.mark.parametrize("service", OURS)
def test_every_target_in_compose_is_another_service_where_it_listens(service):
    for name, value in COMPOSE[service]["environment"].items():
        if name.endswith("_TARGET"):
            host, _, port = str(value).removeprefix("dns:///").rpartition(":")
            assert COMPOSE[host]["environment"][LISTENS[host]["grpc"]] == f"0.0.0.0:{port}"
    assert COMPOSE[service]["build"]["target"] == service
    for port in COMPOSE[service].get("ports", []):
        assert port.startswith("127.0.0.1:"), "without TLS in front, only this machine may reach a port"


def test_a_generators_grace_in_compose_covers_its_drain():
    generator = COMPOSE["generator"]
    assert (
        int(generator["stop_grace_period"].removesuffix("s"))
        >= generator["environment"]["NANOBATCH_DRAIN_SECONDS"] + 20
    )


@pytest.mark.parametrize("service", OURS)
def test_an_image_starts_its_service_as_a_numbered_user(service):
    stages = re.split(r"^FROM ", BUILT, flags=re.MULTILINE)
    stage = next(each for each in stages if re.match(rf"common AS {service}\n", each))
    assert images(BUILT)[service] == Image(["nanobatch", "serve", service])
    exposed = re.search(r"^EXPOSE (.*)$", stage, re.MULTILINE)[1].split()
    fields = {str(field.validation_alias): str(field.default) for field in SETTINGS[service].model_fields.values()}
    assert exposed == [fields[variable].rpartition(":")[2] for variable in LISTENS[service].values()]
    common = next(each for each in stages if re.match(r"\S+ AS common\n", each))
    assert re.search(r"^USER 10001:10001$", common, re.MULTILINE)
    assert "USER" not in stage
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]+)"', common + stage))
    assert labels.pop("description")
    project = tomllib.loads(
        (ROOT / f"{'clients' if service == 'web' else 'services'}/{service}/pyproject.toml").read_text()
    )
    license_ = project["project"]["license"]
    assert labels == {
        "title": f"nanobatch {service}",
        "version": "${VERSION}",
        "licenses": license_,
        "vendor": "nanobatch",
    }


def test_a_pod_starts_what_its_image_and_its_manifest_say_together():
    built = images(
        'FROM scratch AS base\nCMD ["base"]\nFROM base AS plain\nENTRYPOINT ["serve", \\\n# all\n  "it"]\n'
        'FROM plain AS told\nCMD ["--quiet"]\n'
    )
    assert built["base"].words({}) == ["base"]
    assert built["plain"].words({}) == ["serve", "it"]
    assert built["told"].words({}) == ["serve", "it", "--quiet"]
    assert built["told"].words({"args": ["--loud"]}) == ["serve", "it", "--loud"]
    assert built["told"].words({"command": ["migrate"]}) == ["migrate"]
    assert built["told"].words({"command": ["migrate"], "args": ["now"]}) == ["migrate", "now"]


def pinned(name: str) -> dict[str, str]:
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    return dict(re.match(r"([\w.-]+)==([^\s;]+)", line).groups() for line in lines if re.match(r"[\w.-]+==", line))


@pytest.mark.parametrize("name", [*OURS, "build"])
def test_what_is_installed_in_images_is_what_the_tests_ran_with(name):
    assert pinned(name).items() <= pinned("dev").items()


@pytest.mark.parametrize("service", OURS)
def test_an_image_has_what_its_members_need_and_no_other_service(service):
    members, outside = image(service)
    canonical = {re.sub(r"[-_.]+", "-", name).lower() for name in pinned(service)}
    assert {re.sub(r"\[.*", "", name) for name in outside} <= canonical
    stage = re.search(rf"AS install-{service}\n(.*?)\n\n", BUILT, re.DOTALL)[1]
    stage = stage.replace("$COMMON", re.search(r'^ENV COMMON="(.*)"$', BUILT, re.MULTILINE)[1])
    wheels = set(re.findall(r"(nanobatch_\w+)-\*\.whl", stage))
    assert wheels == {name.replace("-", "_") for name in members}
    assert not wheels & {f"nanobatch_{other}" for other in OURS if other != service}


def test_no_requirement_carries_an_address():
    for path in REQUIREMENTS.iterdir():
        assert "://" not in path.read_text(), path.name
