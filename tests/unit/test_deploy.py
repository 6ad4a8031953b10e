"""What the project is deployed with, as far as it can be checked without a container engine."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from daram.cli.app import cli
from daram.settings import variables

ROOT = Path(__file__).resolve().parents[2]
KNOWN = {variable.name for variable in variables().values()}
COMPOSE = ROOT / "compose.yaml"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text("utf-8"))


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """Those of the Dockerfile, comments and line breaks gone."""
    lines = [
        line for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if not line.lstrip().startswith("#")
    ]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        name, _, rest = line.partition(" ")
        found.append((name, " ".join(rest.split())))
    return found


# --- the image ---


def test_the_image_runs_as_nobody_in_particular(instructions: list[tuple[str, str]]) -> None:
    names = [name for name, _ in instructions]
    users = [rest for name, rest in instructions if name == "USER"]
    assert users == ["10001:10001"]
    assert names.index("USER") < names.index("CMD")
    assert names.count("CMD") == names.count("HEALTHCHECK") == 1
    assert dict(instructions)["CMD"] == '["daram", "serve"]'
    assert "serve" in cli.commands


def test_the_image_is_built_from_what_is_there(instructions: list[tuple[str, str]]) -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    copied = [rest.split()[:-1] for name, rest in instructions if name == "COPY" and "--from=" not in rest]
    assert copied
    for path in (path for paths in copied for path in paths):
        assert (ROOT / path).exists(), path
        assert f"!{path.removeprefix('./')}" in ignored, path
    bases = [rest.split()[0] for name, rest in instructions if name == "FROM"]
    assert len(set(bases)) == 1  # what was built fits where it runs
    assert all(re.fullmatch(r"[\w./-]+:\d[\w.-]*", base) for base in bases), "a base without a version"


def test_the_image_installs_extras_that_there_are_and_is_small(instructions: list[tuple[str, str]]) -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    (chosen,) = [rest.partition("=")[2] for name, rest in instructions if name == "ARG"]
    assert set(chosen.split(",")) <= set(extras)
    for _, script in (pair for pair in instructions if pair[0] == "RUN" and "apt-get install" in pair[1]):
        assert "--no-install-recommends" in script
        assert "rm -rf /var/lib/apt/lists" in script
        assert "libgomp1" in script
    environment = " ".join(rest for name, rest in instructions if name == "ENV")
    assert set(re.findall(r"\b(DARAM_\w+)=", environment)) <= KNOWN
    assert not re.search(r"(?i)password|secret|api_key", environment)


# --- compose ---


def test_compose_names_what_there_is(compose: dict[str, Any]) -> None:
    services, volumes = compose["services"], set(compose["volumes"])
    assert {"app1", "app2", "balancer", "postgres", "redis"} == set(services)
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services)
        assert re.search(r":\d", service["image"]) or service.get("build") == ".", f"{name}: an image without a version"
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            assert (ROOT / source).exists() if source.startswith("./") else source in volumes, mount
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} is open to everybody"


def test_the_processes_are_configured_by_settings_that_there_are(compose: dict[str, Any]) -> None:
    environment = compose["services"]["app1"]["environment"]
    assert compose["services"]["app2"] == compose["services"]["app1"]
    assert set(environment) <= KNOWN
    assert environment["DARAM_STORE"] != environment["DATABASE_URL"]
    postgres = compose["services"]["postgres"]["environment"]
    assert environment["DARAM_STORE"].endswith(f"@postgres/{postgres['POSTGRES_DB']}")
    accounts = (ROOT / "deploy" / "accounts.sql").read_text("utf-8")
    assert f"CREATE DATABASE {environment['DATABASE_URL'].rpartition('/')[2]};" in accounts
    assert not re.search(r"(?i)password: [^$\s]", COMPOSE.read_text("utf-8"))


def test_the_balancer_keeps_the_page_with_one_process_and_nothing_else(compose: dict[str, Any]) -> None:
    text = (ROOT / "deploy" / "Caddyfile").read_text("utf-8")
    assert text.count("{") == text.count("}")
    proxies = re.findall(r"reverse_proxy (@page )?(.*?) \{(.*?)\n\t\}", text, re.DOTALL)
    assert len(proxies) == 2
    for matcher, upstreams, body in proxies:
        assert {upstream.partition(":")[0] for upstream in upstreams.split()} == {"app1", "app2"}
        assert ("lb_policy cookie" in body) is bool(matcher)
        assert "health_uri /readyz" in body
    assert "@page path /chat /chat/*" in text
    published = compose["services"]["balancer"]["ports"][0].rpartition(":")[2]
    assert f"\n:{published} {{" in text


# --- systemd ---


def test_the_unit_starts_what_there_is_and_gives_it_time_to_end() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their capitals
    unit.read(ROOT / "deploy" / "daram.service")
    service = unit["Service"]
    assert service["ExecStart"].endswith("/bin/daram serve")
    assert set(re.findall(r"(DARAM_\w+)=", service["Environment"])) <= KNOWN
    assert int(service["TimeoutStopSec"]) > float(variables()["drain"].default.strip("`"))
    assert service["DynamicUser"] == "yes"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "daram.service").read_text("utf-8")
    unit = tmp_path / "daram.service"
    unit.write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=120, check=False
    )
    assert "daram.service" not in done.stderr + done.stdout
