"""The kit's alerts are held to what a server's ``/metrics`` shows, to the options' limits, and to the runbook."""

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from genrec_runtime.cli import main
from genrec_runtime.cli_serve import serve
from genrec_runtime.serve.batcher import Overloaded
from genrec_runtime.serve.metrics import SECONDS
from genrec_runtime.serve.service import Service
from genrec_runtime.serve.settings import Settings
from kit import FILES, PAGES, ROOT, read
from serving import running
from tiny import Tiny

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
WORDS = {"sum", "rate", "increase", "count", "vector", "time", "max_over_time", "histogram_quantile"}
WORDS |= {"by", "on", "and", "or", "le", "digest", "instance"}  # of PromQL, and labels that are grouped by
ALERTS = {rule["alert"]: rule for rule in read("prometheus/alerts.yaml")["groups"][0]["rules"]}
CONFIGMAP = FILES["kubernetes/configmap.yaml"].read_text(encoding="utf-8")
AUTOSCALER = read("kubernetes/horizontalpodautoscaler.yaml")["spec"]
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^#{2,3} ", RUNBOOK, flags=re.MULTILINE)[1:]}
Samples = dict[str, list[dict[str, str]]]


@pytest.fixture(scope="module")
def exposed(tiny: Tiny) -> Samples:
    """The labels of every sample, by its name, of a server that was asked in every way that the alerts speak of."""

    def overloaded(*_: object) -> None:
        raise Overloaded(5, 1)

    with running(tiny.path, starts=False) as server, pytest.MonkeyPatch.context() as patch:
        assert server.recommend(history=[]).status == 503
        server.service.start()
        assert server.recommend(history=["item 03", "unknown"]).status == 200
        shape = {"name": "history", "datatype": "BYTES", "shape": [1, 1], "data": ["item 03"]}
        assert server.ask("POST", "/v2/models/sasrec/infer", {"inputs": [shape]}).status == 200
        patch.setattr(Service, "submit", overloaded)
        assert server.recommend(history=["item 03"]).status == 429
        text = server.ask("GET", "/metrics").body.decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def selectors(expression: str) -> dict[str, list[tuple[str, str, str]]]:
    """By metric the matchers of its labels: name, operator, value."""
    bare = re.sub(r'"[^"]*"|\[\w+\]', "", re.sub(r"\{[^}]*\}", "", expression))
    metrics = set(re.findall(r"\b[a-z]\w*\b", bare)) - WORDS
    found = {}
    for metric in metrics:
        braces = re.findall(rf"\b{metric}\{{([^}}]*)\}}", expression)
        found[metric] = [match for one in braces for match in re.findall(r'(\w+)(=~|=|!=|!~)"([^"]*)"', one)]
    return found


def numbers(name: str) -> list[float]:
    """The numbers in an alert's expression that stand by themselves."""
    return [float(number) for number in re.findall(r"(?<![\w.\[\"])\d+(?:\.\d+)?(?![\w.\]])", ALERTS[name]["expr"])]


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_asks_for_what_a_server_shows(name: str, exposed: Samples) -> None:
    asked = selectors(ALERTS[name]["expr"])
    assert asked
    for metric, matchers in asked.items():
        assert metric in exposed
        for label, operator, value in matchers:
            assert operator in ("=", "=~")
            for one in value.split("|") if operator == "=~" else [re.escape(value)]:
                assert any(re.fullmatch(one, labels.get(label, "")) for labels in exposed[metric]), f"{metric} {one}"
    for label in re.findall(r"\bby \((\w+)\)", ALERTS[name]["expr"]):
        assert all(label in labels for metric in asked for labels in exposed[metric])


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert (ROOT / page).read_text(encoding="utf-8") == RUNBOOK
    assert anchor == name.lower()
    assert all(f"**{part}.**" in SECTIONS[name] for part in ("Means", "Look", "Do"))


def test_the_runbook_has_no_section_for_an_alert_that_is_gone() -> None:
    assert {title for title in SECTIONS if title.startswith("Genrec")} == set(ALERTS)


def test_every_alert_fires_in_the_rules_own_test() -> None:
    text = FILES["prometheus/alerts_test.yaml"].read_text(encoding="utf-8")
    assert {name for name in ALERTS if f'alertname="{name}"' not in text} == set()
    assert read("prometheus/alerts_test.yaml")["rule_files"] == ["alerts.yaml"]


def test_the_runbook_names_metrics_and_commands_that_exist(exposed: Samples) -> None:
    named = set(re.findall(r"\b(?:genrec|process)_[a-z_]+\b", RUNBOOK)) - {"genrec_runtime"}
    assert {metric for metric in named if not {metric, f"{metric}_count"} & exposed.keys()} == set()  # or a histogram
    commands = set(re.findall(r"\bgenrec-runtime ([a-z]+)\b", RUNBOOK))
    assert commands >= {"verify"}
    assert commands <= {*main.commands, serve.name}


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([\w.-]*)#?([\w-]*)\)", page.read_text(encoding="utf-8")):
            text = page.with_name(target or page.name).read_text(encoding="utf-8")
            titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
            assert not anchor or anchor in {title.lower().replace(" ", "-") for title in titles}, (
                f"{page.name} {target}#{anchor}"
            )


def test_the_autoscaler_asks_for_the_queue_as_the_adapter_offers_it(exposed: Samples) -> None:
    (metric,) = AUTOSCALER["metrics"]
    name = metric["pods"]["metric"]["name"]
    (rule,) = read("prometheus/adapter.yaml")["rules"]
    (labels,) = exposed[name]
    assert re.match(r"\w+", rule["seriesQuery"])[0] == name == "genrec_queue_rows"
    assert labels == {}
    targets = {
        entry.get("target_label") for entry in read("prometheus/scrape.yaml")["scrape_configs"][0]["relabel_configs"]
    }
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"} <= targets
    assert int(metric["pods"]["target"]["averageValue"]) == Settings.max_batch


def test_limits_in_alerts_are_those_of_the_options() -> None:
    for alert, option in (("GenrecQueueNearFull", "MAX_QUEUE"), ("GenrecConnectionsNearFull", "MAX_CONNECTIONS")):
        assert f"genrec_{option}".lower() in ALERTS[alert]["expr"]  # by the limit that the server tells, whatever it is
        assert (
            f"the alert {alert} fires at {numbers(alert)[-1]:.0%} of it"
            in CONFIGMAP.partition(option)[2].partition("\n")[0]
        )
    assert numbers("GenrecTooFewReady") == [0, AUTOSCALER["minReplicas"] - 1]
    budget = read("kubernetes/poddisruptionbudget.yaml")["spec"]["maxUnavailable"]
    assert AUTOSCALER["minReplicas"] - budget >= numbers("GenrecTooFewReady")[-1]  # a drained node alerts nobody
    assert numbers("GenrecSlow")[-1] in SECONDS  # a bucket's bound: nothing is guessed between two
