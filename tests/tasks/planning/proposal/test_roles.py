"""What names and values make of a column."""

import pytest

from barycenter.infra.job.models import CorpusJob, LimitsJob
from barycenter.tasks.planning.proposal.inputs import find_texts, find_vectors
from barycenter.tasks.planning.proposal.roles import find_groups, find_keys, find_split, find_targets
from barycenter.tasks.planning.proposal.sample import read_sample
from tests.flows.corpora import write_lines

ROWS = 60


@pytest.fixture
def sample(tmp_path):
    """The sample of a table whose columns are functions of the row."""

    def make(**columns):
        rows = [{name: value(row) for name, value in columns.items()} for row in range(ROWS)]
        return read_sample(CorpusJob(path=str(write_lines(tmp_path / "a.jsonl", rows))), LimitsJob(), {})

    return make


def names(options):
    return [option.name for option in options]


def test_keys_by_name_before_those_by_their_values(sample):
    good, bad = find_keys(
        sample(
            url=lambda n: f"https://a.example/{n}", user_id=lambda n: n % 7, imageId=lambda n: n, id=lambda n: f"k{n}",
            uid=lambda n: n or None, note=lambda n: f"a note {n}", ratio=lambda n: n / 7, paid=lambda n: f"p{n % 2}",
        )
    )  # fmt: skip
    assert names(good) == ["id", "imageId", "url"]
    assert [(option.name, option.why) for option in bad] == [
        ("uid", "empty in 1 of 60 rows read"),
        ("user_id", "values repeat: 7 different ones in 60 rows read"),
    ]


def test_a_split_is_known_by_its_values(sample):
    values = ("train", "Test", "val")
    assert find_split(sample(fold=lambda n: values[n % 3], kind=lambda n: "train"), ()).why == "'test', 'train', 'val'"
    assert find_split(sample(part=lambda n: values[n % 3], kind=lambda n: f"k{n % 3}"), ()).name == "part"
    assert (
        find_split(sample(part=lambda n: ("test", "dev")[n % 2], vehicle=lambda n: ("train", "bus")[n % 2]), ()) is None
    )


def test_targets_by_name_in_the_order_of_names(sample):
    columns = {
        "price": lambda n: n + 0.5,
        "main_category": lambda n: f"c{n % 4}",
        "label": lambda n: f"l{n}",
        "topic": lambda n: "one",
        "color": lambda n: f"c{n % 3}",
        "tags": lambda n: [f"t{n % 3}", "all"],
        "free": lambda n: f"f{n}",
        "y": lambda n: n % 2,
    }
    found, others = find_targets(sample(**columns), {"y"})
    assert names(found) == ["main_category", "tags", "price"]
    assert names(others) == ["color"]


def test_groups_by_name_and_ids_that_repeat(sample):
    made = sample(
        author=lambda n: f"a{n % 5}", shop_id=lambda n: n % 9, source=lambda n: "one", group=lambda n: f"g{n}"
    )
    assert names(find_groups(made, (), find_keys(made)[1])) == ["shop_id", "author"]


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("x", lambda n: f"a row of words about {n} things", True),
        ("x", lambda n: f"word{n}", False),
        ("caption", lambda n: f"red kite{chr(97 + n % 26)}", True),
        ("x", lambda n: ("a few words only", "and some other ones")[n % 2], False),
        ("text", lambda n: ("a few words only", "and some other ones")[n % 2], True),
        ("x", lambda n: f"紅色的風箏在藍天上飛{chr(0x4E00 + n)}", True),
        ("text", lambda n: f"{n} {n + 1} {n + 2} {n + 3}", False),
        ("text", lambda n: f"https://a.example/some words {n} here", False),
        ("text", lambda n: f"photos/red kite number {n}.JPG", False),
        ("text", lambda n: {"a": f"some words {n}"}, False),
        ("text", lambda n: f"550e8400-e29b-41d4-a716-4466554400{n:02d}", False),
        ("x", lambda n: [f"a list of texts {n}", "and one more of them"], True),
        ("x", lambda n: [f"tag{n}", "tag"], False),
    ],
)
def test_texts_say_something(sample, name, value, taken):
    assert [each.columns for each in find_texts(sample(**{name: value}), ())] == [(name,)] * taken


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("x", lambda n: [n / 7] * 8, True),
        ("box", lambda n: [n / 7] * 4, False),
        ("emb", lambda n: [n / 7] * 2, True),
        ("clip_embedding", lambda n: [n] * 2, True),
        ("x", lambda n: [n] * 9, False),
        ("x", lambda n: [n / 7] * (8 + n % 2), False),
        ("emb", lambda n: n / 7, False),
    ],
)
def test_vectors_are_of_one_length(sample, name, value, taken):
    assert [each.columns for each in find_vectors(sample(**{name: value}), ())] == [(name,)] * taken
