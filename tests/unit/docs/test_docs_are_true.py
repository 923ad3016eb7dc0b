"""What the docs name, the code has, and the other way round."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import click
import pytest
import typer.main

from nanobatch_client.cli import plugins
from nanobatch_client.cli.exits import ExitCode
from nanobatch_client.cli.main import make_app
from nanobatch_embedded.settings import DoctorSettings, EmbeddedSettings
from nanobatch_gateway.settings import GatewaySettings
from nanobatch_generator.settings import GeneratorSettings
from nanobatch_runtime.errors import NanobatchError
from nanobatch_runtime.settings import Settings
from nanobatch_storage.settings import StorageSettings
from nanobatch_web.settings import WebSettings

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
SERVERS = [
    "nanobatch_runtime",
    "nanobatch_gateway",
    "nanobatch_generator",
    "nanobatch_storage",
    "nanobatch_embedded",
    "nanobatch_web",
]
SOURCES = [ROOT / "services", ROOT / "clients"]
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

# Read by libraries that we use, not by a line of ours.
READ_BY_LIBRARIES = {"HTTPS_PROXY", "NO_PROXY", "TMPDIR"}
# How variables, reasons and codes are written.
_WORD = re.compile(r"[A-Z][A-Z0-9_]+")


@cache
def sources() -> dict[Path, ast.Module]:
    files = [path for folder in SOURCES for path in folder.rglob("*.py") if "migrations" not in path.parts]
    return {path: ast.parse(path.read_text()) for path in files}


def nodes(part: str = "") -> Iterator[ast.AST]:
    for path, tree in sources().items():
        if part in path.as_posix():
            yield from ast.walk(tree)


@cache
def modules() -> list[ModuleType]:
    found = []
    for name in SERVERS:
        package = importlib.import_module(name)
        found.append(package)
        names = [each.name for each in pkgutil.walk_packages(package.__path__, f"{name}.")]
        # Migrations are programs that run when they are imported.
        found += [importlib.import_module(each) for each in names if "migrations" not in each]
    return found


def subclasses(of: type) -> set[type]:
    return {each for kind in of.__subclasses__() for each in {kind, *subclasses(kind)}}


def section(page: str, title: str) -> str:
    """Return the text under a heading, up to the next one of any level."""
    text = (DOCS / page).read_text()
    found = re.search(rf"^#+ {re.escape(title)}$\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/{page} has no section {title!r}"
    return found[1]


def first_cells(text: str) -> set[str]:
    """Return the code words in the first column of all tables of a text."""
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")]
    return {word for cell in rows for word in re.findall(r"`([^`]+)`", cell) if _WORD.fullmatch(word)}


def strings(node: ast.AST | None) -> set[str]:
    """Return the words that an expression may be: a constant, or either side of a condition."""
    match node:
        case ast.Constant(value=str(text)) if _WORD.fullmatch(text):
            return {text}
        case ast.IfExp(body=body, orelse=orelse):
            return strings(body) | strings(orelse)
    return set()


# Settings


def settings_variables() -> set[str]:
    modules()
    kinds = {kind for kind in subclasses(Settings) if kind.__module__.split(".")[0] in SERVERS}
    assert len(kinds) >= 4, kinds
    return {str(field.validation_alias) for kind in kinds for field in kind.model_fields.values()}


def other_variables() -> set[str]:
    """Return the variables that are read past the settings classes: the command line's, and some libraries'."""
    found: set[str] = set()
    constants: dict[str, str] = {}
    for node in nodes():
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                if name.endswith("_VARIABLE"):
                    constants[name] = text
            case ast.Call(
                func=ast.Attribute(value=ast.Attribute(attr="environ"), attr="get" | "setdefault"),
                args=[ast.Constant(value=str(text)), *_],
            ):
                found.add(text)
            case ast.Subscript(
                value=ast.Attribute(attr="environ"), slice=ast.Constant(value=str(text)), ctx=ast.Load()
            ):
                found.add(text)
            case ast.Call(func=ast.Attribute(attr="getenv"), args=[ast.Constant(value=str(text)), *_]):
                found.add(text)
    return found | set(constants.values())


def test_every_variable_that_is_read_stands_in_the_table():
    table = first_cells(section("operations.md", "Settings"))
    assert settings_variables() | other_variables() <= table


def test_every_variable_of_the_table_is_read():
    table = first_cells(section("operations.md", "Settings"))
    assert table <= settings_variables() | other_variables() | READ_BY_LIBRARIES


def test_the_defaults_in_the_table_are_those_of_the_settings():
    rows = [line.split("|") for line in section("operations.md", "Settings").splitlines() if line.startswith("| `")]
    defaults = {word: row[2] for row in rows for word in re.findall(r"`([^`]+)`", row[1])}
    kinds = {kind for kind in subclasses(Settings) if kind.__module__.split(".")[0] in SERVERS}
    for kind in kinds:
        for field in kind.model_fields.values():
            if isinstance(field.default, str | int | float) and field.default != "":
                wanted = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
                assert f"`{wanted}`" in defaults[str(field.validation_alias)], (kind, field.validation_alias)


# What `up` gives its services itself, whatever the environment says.
_OWN_OF_UP = {
    *("NANOBATCH_REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_DB", "NANOBATCH_GATEWAY_TARGET"),
    *("NANOBATCH_STORAGE_GRPC", "NANOBATCH_STORAGE_TARGET", "NANOBATCH_GENERATOR_GRPC", "NANOBATCH_GENERATOR_TARGET"),
}
_SERVICES = {
    "gateway": GatewaySettings, "generator": GeneratorSettings, "storage": StorageSettings, "web": WebSettings
}  # fmt: skip
_READERS: dict[str, set[type[Settings]]] = {
    **{name: {kind} for name, kind in _SERVICES.items()},
    "`doctor`": {DoctorSettings},
    "`up`": {EmbeddedSettings, *_SERVICES.values()},
}


@pytest.mark.parametrize("reader", _READERS)
def test_the_table_says_of_every_variable_who_reads_it(reader):
    rows = [line.split("|") for line in section("operations.md", "Settings").splitlines() if line.startswith("| `")]
    told = {name for row in rows if reader in row[3].strip().split(", ") for name in re.findall(r"`([^`]+)`", row[1])}
    read = {str(field.validation_alias) for kind in _READERS[reader] for field in kind.model_fields.values()}
    if reader == "`up`":
        read -= _OWN_OF_UP
    assert read <= told
    assert told - read <= other_variables() | READ_BY_LIBRARIES


def test_a_variable_anywhere_in_the_docs_is_one_of_the_table():
    table = first_cells(section("operations.md", "Settings"))
    for page in PAGES:
        named = set(re.findall(r"\bNANOBATCH_[A-Z_]+\b", page.read_text()))
        assert named <= table, page.name


# Reasons and codes


def error_reasons() -> set[str]:
    """Return every reason that an error of the servers may have."""
    modules()
    found = {kind.reason for kind in subclasses(NanobatchError)} | {NanobatchError.reason}
    for node in nodes("services/"):
        match node:
            case ast.Call(func=ast.Name(id=name), keywords=keywords) if name.endswith("Error"):
                for keyword in keywords:
                    if keyword.arg == "reason":
                        found |= strings(keyword.value)
            case ast.Call(func=ast.Attribute(attr="__init__"), keywords=keywords):
                for keyword in keywords:
                    if keyword.arg == "reason":
                        found |= strings(keyword.value)
    return found


def violation_reasons() -> set[str]:
    found: set[str] = set()
    for node in nodes("services/"):
        match node:
            case ast.Call(func=ast.Name(id="FieldViolation"), args=[_, _, reason]):
                found |= strings(reason)
            case ast.Call(func=ast.Attribute(attr="add"), args=[_, _, reason]):
                found |= strings(reason)
            case ast.ClassDef(name="FieldViolation", body=body):
                defaults = [line for line in body if isinstance(line, ast.AnnAssign)]
                found |= {word for line in defaults for word in strings(line.value)}
            case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="field_violations"), attr="add"), keywords=words):
                found |= {word for keyword in words if keyword.arg == "reason" for word in strings(keyword.value)}
    return found


def result_codes() -> set[str]:
    """Return every code that a failed call may have: a word behind its class, and those that storage writes itself."""
    found: set[str] = set()
    for node in nodes("services/"):
        parts: list[ast.expr] = []
        match node:
            case ast.Call(args=args):
                parts = args
            case ast.Tuple(elts=elements):
                parts = elements
        for kind, code in pairwise(parts):
            match kind:
                case ast.Attribute(value=ast.Name(id="FailureClass" | "_F")):
                    found |= strings(code)
        match node:
            case ast.Assign(targets=[ast.Attribute(attr="error_code")], value=value):
                found |= strings(value)
            case ast.Assign(targets=[ast.Name(id="code")], value=value):
                found |= strings(value)
    return found


def picture_reasons() -> set[str]:
    return set(importlib.import_module("nanobatch_runtime.pictures.errors").REASONS) | {"PICTURE_REFUSED"}


def test_every_reason_in_the_code_stands_in_the_api():
    listed = first_cells(section("api.md", "Error reasons")) | first_cells(
        section("api.md", "Reasons that stay inside")
    )
    assert error_reasons() <= listed


def test_every_reason_in_the_api_is_one_of_the_code():
    listed = first_cells(section("api.md", "Error reasons")) | first_cells(
        section("api.md", "Reasons that stay inside")
    )
    assert listed <= error_reasons()


def test_reasons_stand_beside_their_own_code():
    rows = [line.split("|") for line in section("api.md", "Error reasons").splitlines() if line.startswith("| `")]
    codes = {row[1].strip(" `"): row[2].strip(" `") for row in rows if row[1].count("`") == 2}
    modules()
    kinds = {kind.reason: kind.kind for kind in subclasses(NanobatchError) if not isinstance(kind.kind, property)}
    for reason, code in codes.items():
        if reason in kinds:
            assert kinds[reason].value == code, reason


def test_the_field_violations_in_the_api_are_those_of_the_code():
    assert first_cells(section("api.md", "Field violations")) == violation_reasons()


def test_the_result_codes_in_the_api_are_those_of_the_code():
    assert first_cells(section("api.md", "Result codes")) == result_codes() | picture_reasons()


def test_the_exit_codes_in_the_api_are_those_of_the_command():
    rows = re.findall(r"^\| (\d+) \|", section("api.md", "The command line"), re.MULTILINE)
    assert [int(row) for row in rows] == sorted(int(code) for code in ExitCode)


# Links, commands, targets


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        number = 0
        while (anchor := plain if not number else f"{plain}-{number}") in found:
            number += 1
        found.add(anchor)
    return found


def links(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_paths_named_in_code_spans_exist():
    ours = r"`((?:protos|services|clients|tests|scripts|docs|examples|requirements|deploy)/[\w./-]+)`"
    for page in PAGES:
        for path in re.findall(ours, page.read_text()):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def commands() -> dict[str, set[str]]:
    """Return each command of `nanobatch` with its options."""
    app = make_app()
    plugins.load(app, pytest.fail)
    group = typer.main.get_group(app)
    return {name: options_of(command) for name, command in group.commands.items()}


def options_of(command: click.Command) -> set[str]:
    """Return the options of a command, or of all that are in a group."""
    own = {opt for each in command.params for opt in [*each.opts, *each.secondary_opts]}
    return own.union(*(options_of(each) for each in getattr(command, "commands", {}).values()))


def spoken(page: Path) -> list[tuple[str, str]]:
    """Return the commands that a page tells to type: (name, what follows)."""
    text = page.read_text()
    typed = re.findall(r"`nanobatch ([^`]+)`", text) + re.findall(r"\.venv/bin/nanobatch ([^\n`#&]+)", text)
    return [(line.split()[0], line) for line in typed if not line.startswith(("-", "COMMAND"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_that_is_named_exists_with_its_options(page):
    known = commands()
    for name, line in spoken(page):
        assert name in known, line
        options = {word for word in line.split() if word.startswith("-") and word != "-"}
        assert options <= known[name] | {"--help", "-h"}, line


def test_every_command_that_exists_is_named():
    named = {name for page in PAGES for name, _ in spoken(page)}
    assert set(commands()) <= named


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_make_target_that_is_named_exists(page):
    named = set(re.findall(r"`make ([a-z-]+)[^`]*`", page.read_text()))
    named |= set(re.findall(r"^    make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert named <= targets()


def test_every_make_target_is_told_to_contributors():
    assert targets() <= set(re.findall(r"`make ([a-z-]+)[^`]*`", section("contributing.md", "Make")))
