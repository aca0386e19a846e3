import json
import re
from pathlib import Path

from barycenter.infra.ray import metrics

DASHBOARD = Path(__file__).resolve().parents[3] / "infra" / "deploy" / "grafana.json"


def test_the_dashboard_asks_for_metrics_that_exist():
    dashboard = json.loads(DASHBOARD.read_text())
    asked = {
        name for panel in dashboard["panels"] for name in re.findall(r"ray_(barycenter_\w+)", str(panel["targets"]))
    }
    exported = set(re.findall(r'"(barycenter_\w+)"', Path(metrics.__file__).read_text()))
    assert {name.removesuffix("_total") for name in asked} == exported
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert len({(place["x"], place["y"]) for place in places}) == len(places)
