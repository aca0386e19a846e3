import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barycenter.infra.logs import bound
from barycenter.infra.names import identifier, printable
from barycenter.infra.ray.metrics import StageMetrics

NAMES = ["Möbel", "日本 2024", "émoji/v2 100%", "a" * 300, "line\nend", "\ud800"]


@pytest.mark.parametrize("name", NAMES)
def test_metrics_of_any_job_have_tags_that_ray_takes(name):
    with bound(run=name):
        tags = StageMetrics("embed text")._tags
    assert all(value.isascii() and value.isprintable() for value in tags.values())
    assert tags["stage"] == "embed text"


@given(st.text(min_size=1), st.text(min_size=1))
def test_names_stay_plain_and_apart(one, other):
    for make, allowed in ((identifier, r"[A-Za-z0-9_-]{1,67}"), (printable, r"[ -~]+")):
        assert re.fullmatch(allowed, make(one))
        assert one == other or make(one) != make(other)


def test_a_plain_name_is_itself():
    assert identifier("emoji-2_b") == printable("emoji-2_b") == "emoji-2_b"
