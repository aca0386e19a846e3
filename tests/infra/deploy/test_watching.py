"""The dashboard, the alerts and the page on watching: of metrics and messages that there are."""

import json
import re
from pathlib import Path

import promql_parser
import pytest
import yaml

from barycenter.infra.ray import metrics

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "infra" / "deploy"
BEGINNING = {"run", "stage"}
LABELS = {"seconds": {"part"}, "workers_lost": {"cause"}, "bad_inputs": {"reason"}}


def panels():
    found = json.loads((DEPLOY / "grafana.json").read_text())["panels"]
    return {panel["title"]: target["expr"] for panel in found for target in panel["targets"]}


def alerts():
    (group,) = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


EXPRESSIONS = panels() | {name: rule["expr"] for name, rule in alerts().items()}


@pytest.mark.parametrize("title", EXPRESSIONS)
def test_an_expression_is_promql_of_metrics_and_labels_that_there_are(title):
    expression = EXPRESSIONS[title].replace("$run", ".*")
    promql_parser.parse(expression)
    asked = {name.removesuffix("_total") for name in re.findall(r"ray_barycenter_(\w+)", expression)}
    exported = set(re.findall(r'"barycenter_(\w+)"', Path(metrics.__file__).read_text()))
    assert asked
    assert asked <= exported
    for name in asked:
        labels = set(re.findall(r"(\w+)(?:=|!=|=~)\"", expression))
        assert labels <= BEGINNING.union(*(LABELS.get(each, set()) for each in asked)), name


def test_every_metric_has_a_panel():
    exported = set(re.findall(r'"(barycenter_\w+)"', Path(metrics.__file__).read_text()))
    asked = set(re.findall(r"ray_(barycenter_\w+)", str(panels())))
    assert {name.removesuffix("_total") for name in asked} == exported


def test_every_alert_says_what_it_is_and_where_to_read_on():
    page = (ROOT / "docs" / "watching.md").read_text().lower()
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("warning", "critical"), name
        (place,) = re.findall(r'see "([^"]+)"', rule["annotations"]["description"])
        assert f"## {place}" in page, name


def test_the_messages_of_the_page_are_those_of_the_program():
    files = [path for part in ("infra", "tasks", "flows", "fusion") for path in sorted((ROOT / part).rglob("*.py"))]
    source = " ".join(path.read_text() for path in files)
    page = (ROOT / "docs" / "watching.md").read_text()
    seen = [row.split("|")[1] for row in page.splitlines() if row.startswith("| `")]
    assert seen
    for text in seen:
        for message in re.findall(r"`([^`]+)`", text):
            for words in re.split(r"\d[\d.]*|\.\.\.|\bN\b", message):
                if len(words.split()) > 1:
                    assert words.strip(" ,:;()") in source, message
