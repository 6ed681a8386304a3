"""The deployment kit is held to the code: image, options, routes, ports, times, rights, and the bundle that is served.

Nothing is built or applied here; docs/deployment.md says what was tried. Of alerts: ``test_deploy_alerts.py``.
"""

import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.core import ParameterSource
from packaging.requirements import Requirement

from genrec import __version__
from genrec_runtime import BundleCorrupt
from genrec_runtime.cli_serve import serve
from genrec_runtime.serve.app import Api
from genrec_runtime.serve.metrics import Metrics
from genrec_runtime.serve.server import LAST_HANDSHAKES, LAST_WORDS
from genrec_runtime.serve.service import Service
from genrec_runtime.serve.settings import Settings
from kit import FILES, KIT, OPTIONS, PAGES, ROOT, read
from tiny import Tiny

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
KNOWN = {f"GENREC_{parameter.name}".upper() for parameter in serve.params}
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def read_dockerfile() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, continued lines joined."""
    text = (KIT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.partition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, argument) for name, _, argument in lines]


def pins(path: Path) -> dict[str, str]:
    """The versions of a file of constraints, by the packages' names as pip compares them."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {plain(name): version for name, _, version in (line.partition("==") for line in lines)}


def plain(name: str) -> str:
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


DOCKERFILE = read_dockerfile()
STAGES = [place for place, (name, _) in enumerate(DOCKERFILE) if name == "FROM"]
BUILD, LAST = DOCKERFILE[STAGES[0] : STAGES[1]], dict(DOCKERFILE[STAGES[1] :])
COPIED = [source for name, argument in BUILD if name == "COPY" for source in argument.split()[:-1]]
ACCELERATORS = dict(re.findall(r"(\w+)\) extra=([\w-]+) ;;", " ".join(argument for _, argument in BUILD)))
DEPLOYMENT = read("kubernetes/deployment.yaml")
POD = DEPLOYMENT["spec"]["template"]["spec"]
(SERVER,) = POD["containers"]
PINNED = {entry["name"]: entry["value"] for entry in SERVER["env"]}


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> click.Context:
    """What the command understands of the environment that the Deployment gives it."""
    for name, value in {**OPTIONS, "GENREC_BUNDLE": "/store/1"}.items():
        monkeypatch.setenv(name, value)
    return serve.make_context("serve", [])


@pytest.fixture
def settings(context: click.Context) -> Settings:
    """The same, as the server gets it."""
    return settings_of(context)


def settings_of(context: click.Context) -> Settings:
    fields = {field: context.params[field] for field in Settings.__dataclass_fields__ if field in context.params}
    return Settings(**fields | {"threads": context.params["parallel"]})


def test_every_yaml_file_parses_without_a_key_twice() -> None:
    class Strict(yaml.SafeLoader):
        """Refuses what YAML's own loader overwrites in silence."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            assert len(keys) == len(set(keys)), f"{keys}{node.start_mark}"
            return super().construct_mapping(node, deep=True)

    found = {name: yaml.load(path.read_text(encoding="utf-8"), Strict) for name, path in FILES.items()}
    assert {name for name, value in found.items() if not isinstance(value, dict)} == set()
    assert len(found) == 10


# Options


def test_every_option_that_is_named_is_one_of_the_command() -> None:
    said = {}
    for path in [*FILES.values(), KIT / "Dockerfile", *PAGES]:
        for line in path.read_text(encoding="utf-8").splitlines():
            said |= dict.fromkeys(re.findall(r"\bGENREC_[A-Z_]+", line), f"{path.name}: {line}")
    assert {name: line for name, line in said.items() if name not in KNOWN} == {}
    assert {"GENREC_BUNDLE", "GENREC_HOST", *OPTIONS} <= set(said)


def test_the_command_takes_every_option_from_the_environment(context: click.Context) -> None:
    assert {name for name, value in OPTIONS.items() if not isinstance(value, str)} == set()
    sources = {name: context.get_parameter_source(name.removeprefix("GENREC_").lower()) for name in OPTIONS}
    assert {name for name, source in sources.items() if source is not ParameterSource.ENVIRONMENT} == set()


def test_a_pod_is_given_longer_than_the_server_takes_to_end(settings: Settings) -> None:
    ends = LAST_HANDSHAKES + LAST_WORDS + settings.drain + 1  # the second that uvicorn is given beyond
    assert POD["terminationGracePeriodSeconds"] >= 1.5 * (settings.linger + ends)
    assert settings.linger >= SERVER["readinessProbe"]["periodSeconds"]  # in place of a preStop hook
    assert settings.drain >= settings.timeout  # whoever was taken is waited for


def test_no_service_can_set_the_servers_options() -> None:
    name = read("kubernetes/service.yaml")["metadata"]["name"].upper()
    assert f"{name}_PORT" in KNOWN  # Kubernetes sets it to "tcp://..." where links are on
    assert POD["enableServiceLinks"] is False


# The bundle


def test_the_bundle_is_pinned_where_a_change_is_a_rollout() -> None:
    assert next(iter(PINNED)) == "BUNDLE_VERSION"  # a value may name those above it only
    assert PINNED["GENREC_BUNDLE"] == f"{SERVER['volumeMounts'][0]['mountPath']}/$(BUNDLE_VERSION)"
    assert not OPTIONS.keys() & PINNED.keys()


@pytest.mark.parametrize("is_right", [True, False], ids=["the digest", "another digest"])
def test_the_pod_serves_the_bundle_of_its_digest_and_no_other(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, is_right: bool
) -> None:
    right = "sha256:" + hashlib.sha256((tiny.path / "manifest.json").read_bytes()).hexdigest()
    given = PINNED | {"GENREC_BUNDLE": str(tiny.path)} | ({"GENREC_EXPECT_DIGEST": right} if is_right else {})
    for name, value in {**OPTIONS, **given}.items():
        monkeypatch.setenv(name, value)
    service = Service(settings_of(serve.make_context("serve", [])), Metrics())
    if is_right:
        service.start()
    else:
        with pytest.raises(BundleCorrupt, match=f"has {right}, expected {PINNED['GENREC_EXPECT_DIGEST']}"):
            service.start()
    assert service.state == ("ready" if is_right else "starting")
    assert service.close(10)


# Addresses, labels and rights


def test_probes_ask_addresses_that_the_application_has(tiny: Tiny) -> None:
    metrics = Metrics()
    api = Api(Service(Settings(tiny.path), metrics), metrics)
    routes = {route.path for route in api.routes() if "GET" in (route.methods or ())}
    start, ready, live = (SERVER[probe]["httpGet"]["path"] for probe in PROBES)
    assert {start, ready, live} <= routes
    assert (start, ready, live) == ("/v2/health/ready", start, "/v2/health/live")  # a pod that loads or ends lives
    assert set(re.findall(r"/v2/[a-z/]+", LAST["HEALTHCHECK"])) == {ready}


def test_ports_agree_from_the_service_to_the_server() -> None:
    (port,) = SERVER["ports"]
    assert str(port["containerPort"]) == OPTIONS["GENREC_PORT"] == LAST["EXPOSE"]
    assert f"GENREC_PORT={port['containerPort']}" in LAST["ENV"].split()
    named = [SERVER[probe]["httpGet"]["port"] for probe in PROBES]
    named += [entry["targetPort"] for entry in read("kubernetes/service.yaml")["spec"]["ports"]]
    named += [e["port"] for rule in read("kubernetes/networkpolicy.yaml")["spec"]["ingress"] for e in rule["ports"]]
    assert {*named} == {port["name"]}
    (job,) = read("prometheus/scrape.yaml")["scrape_configs"]
    assert job["relabel_configs"][0]["regex"] == f"{SERVER['name']};{port['name']}"


def test_everything_selects_the_deployments_pods() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    selectors = {
        "deployment": DEPLOYMENT["spec"]["selector"]["matchLabels"],
        "spread": POD["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
        "service": read("kubernetes/service.yaml")["spec"]["selector"],
        "budget": read("kubernetes/poddisruptionbudget.yaml")["spec"]["selector"]["matchLabels"],
        "network": read("kubernetes/networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"],
    }
    assert {name: selector for name, selector in selectors.items() if selector != labels} == {}
    target = read("kubernetes/horizontalpodautoscaler.yaml")["spec"]["scaleTargetRef"]
    assert target == {key: DEPLOYMENT[key] for key in ("apiVersion", "kind")} | {"name": DEPLOYMENT["metadata"]["name"]}
    config = read("kubernetes/configmap.yaml")["metadata"]["name"]
    assert SERVER["envFrom"] == [{"configMapRef": {"name": config}}]


def test_containers_are_confined() -> None:
    confined = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert SERVER["securityContext"] == confined
    assert POD["securityContext"] == {
        "runAsNonRoot": True,
        **dict(zip(("runAsUser", "runAsGroup"), map(int, LAST["USER"].split(":")), strict=True)),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert POD["automountServiceAccountToken"] is False
    assert {mount["readOnly"] for mount in SERVER["volumeMounts"]} == {True}  # and none of the node's, to be written


# The image


def test_images_are_pinned_and_of_this_version() -> None:
    assert SERVER["image"] == f"genrec:{__version__}-cpu"
    (base,) = [argument.partition("=")[2] for name, argument in DOCKERFILE if argument.startswith("PYTHON_IMAGE=")]
    assert {DOCKERFILE[place][1].split()[0] for place in STAGES} == {"${PYTHON_IMAGE}"}
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", base)
    assert base.startswith(f"python:{PROJECT['project']['requires-python'].removeprefix('>=')}-")
    assert f"genrec:{__version__}-cpu" in (KIT / "Dockerfile").read_text(encoding="utf-8")


def test_no_file_of_the_kit_names_a_moving_tag_or_a_host() -> None:
    for path in [*FILES.values(), *(KIT / "constraints").iterdir(), KIT / "Dockerfile"]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r":latest|https?://(?!127\.0\.0\.1)|index-url", text), path.name


def test_the_process_gets_signals_itself_and_the_commands_exist() -> None:
    (program,) = json.loads(LAST["ENTRYPOINT"])  # a list: no shell between
    assert program in PROJECT["project"]["scripts"]
    assert json.loads(LAST["CMD"]) == SERVER["args"] == [serve.name]
    assert "command" not in SERVER
    assert json.loads(LAST["HEALTHCHECK"].partition("CMD ")[2])[0] == "python"


def test_nothing_is_built_in_the_last_stage() -> None:
    assert not re.search(r"pip (install|wheel)|apt|gcc|make", LAST["RUN"])
    assert LAST["COPY"] == "--from=build /opt/genrec /opt/genrec"


def test_every_accelerator_has_its_extra_and_its_versions() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert set(ACCELERATORS) == {"cpu", "cuda12", "cuda13"}
    shared, bounds = pins(ROOT / "constraints.txt"), {}
    for accelerator, extra in ACCELERATORS.items():
        own = pins(KIT / "constraints" / f"{accelerator}.txt")
        assert not own.keys() & shared.keys()
        for requirement in map(Requirement, [*extras[extra], *extras["serve"]]):
            bounds[accelerator, requirement.name] = {**shared, **own}[plain(requirement.name)] in requirement.specifier
        nvidia = {name.rpartition("-")[2] for name in own if "cudnn" in name}
        assert nvidia == ({accelerator.replace("cuda", "cu")} if "cuda" in accelerator else set())
    assert len(bounds) == 3 * 6
    assert {which for which, holds in bounds.items() if not holds} == set()


def test_what_builds_the_wheel_is_pinned_and_copied() -> None:
    (backend,) = map(Requirement, PROJECT["build-system"]["requires"])
    assert pins(KIT / "constraints" / "build.txt")[backend.name] in backend.specifier
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    project = PROJECT["project"]
    wanted = {package.partition("/")[0] for package in packages} | {project["readme"], *project["license-files"]}
    assert wanted | {"pyproject.toml", "constraints.txt", "deploy/constraints"} == set(COPIED)
    assert {source for source in COPIED if not (ROOT / source).exists()} == set()


def test_what_is_copied_is_all_that_the_build_is_given() -> None:
    lines = (KIT / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(COPIED)
