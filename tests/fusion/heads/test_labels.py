import datetime
import json
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from barycenter.fusion.heads.labels import Reading, TargetError, find_reading
from barycenter.fusion.heads.targets import Targets
from barycenter.fusion.splits import split_of

DAY = datetime.date(2024, 1, 1)
MANY = [f"{n / 4:.2f}" for n in range(60)]


@pytest.mark.parametrize(
    ("kind", "values", "task", "labels"),
    [
        (pa.float64(), [0.0, 1.0, None, float("nan"), 3.0], "classification", [0, 1, None, None, 3]),
        (pa.float32(), [0.5, 1.0, float("inf")], "regression", [0.5, 1.0, None]),
        (pa.int32(), [0, 1, None], "classification", [0, 1, None]),
        (pa.decimal128(9, 2), [Decimal("1.00"), Decimal("2.00"), None], "regression", [1.0, 2.0, None]),
        (pa.decimal128(9, 0), [Decimal(1), Decimal(2)], "classification", [1, 2]),
        (pa.bool_(), [True, False, None], "classification", [True, False, None]),
        (pa.date32(), [DAY, None, DAY], "classification", ["2024-01-01", None, "2024-01-01"]),
        (pa.string(), ["a", "", " ", "NA"], "classification", ["a", None, None, "NA"]),
        (pa.string(), ["1.5", "NA", "-", " 2", "n/a", ""], "regression", [1.5, None, None, 2.0, None, None]),
        (pa.string(), ["1.0", "1", "NA", "2"], "classification", ["1.0", "1", None, "2"]),
        (pa.string(), [f"0{n}" for n in range(60)], "classification", [f"0{n}" for n in range(60)]),
        (pa.large_string(), ["a", "b"], "classification", ["a", "b"]),
        (pa.dictionary(pa.int8(), pa.string()), ["a", "b"], "classification", ["a", "b"]),
        (pa.list_(pa.string()), [["a", "b"], [], None, ["a", None]], "multilabel", [["a", "b"], [], None, ["a"]]),
        (pa.list_(pa.int64()), [[3, 5], [3]], "multilabel", [[3, 5], [3]]),
        (pa.string(), MANY, "regression", [n / 4 for n in range(60)]),
        (pa.int64(), list(range(290)), "regression", [float(n) for n in range(290)]),
    ],
)
def test_a_target_is_what_its_values_are(kind, values, task, labels):
    found = find_reading("y", kind, values)
    assert found.reading.task == task
    assert repr(found.reading.labels(values)) == repr(labels)
    assert found.labeled == sum(label is not None for label in labels)


def test_what_is_left_out_is_counted_and_said():
    found = find_reading("price", pa.string(), [*MANY, *["NA"] * 8, "-"])
    assert found.left_out == {"NA": 8, "-": 1}
    assert found.notes() == ["train.target: rows whose `price` is no label are left out: 'NA' 8, '-' 1"]
    assert found.said() == "target `price`: regression (numbers with fractions)"


@pytest.mark.parametrize("task", ["auto", "regression"])
def test_a_number_column_with_a_strange_word_is_refused_by_the_word(task):
    with pytest.raises(TargetError, match="`price` holds numbers, but also 'about 30' 1"):
        find_reading("price", pa.string(), [*MANY, "about 30"], task)
    assert find_reading("price", pa.string(), [*MANY, "about 30"], "classification").reading.task == "classification"


def test_codes_of_digits_and_letters_are_classes():
    found = find_reading("grade", pa.string(), [*"123456789" * 3, "K"])
    assert (found.reading.task, found.distinct) == ("classification", 10)


@pytest.mark.parametrize(
    ("kind", "values", "task", "words"),
    [
        (pa.struct([("a", pa.int64())]), [{"a": 1}], "auto", "is struct<a: int64>, which no head learns"),
        (pa.timestamp("us"), [datetime.datetime(2024, 1, 1)], "auto", r"timestamp\[us\], which no head learns"),
        (pa.binary(), [b"a"], "auto", "is binary"),
        (pa.list_(pa.float32()), [[0.5]], "auto", "lists of labels are lists of text or of whole numbers"),
        (pa.list_(pa.list_(pa.string())), [[["a"]]], "auto", "lists of text or of whole numbers"),
        (pa.list_(pa.int64()), [[0, 1, 1], [1, 0, 0]], "auto", "rows of 0 and 1"),
        (pa.date32(), [DAY], "regression", "holds dates"),
        (pa.string(), ["a", "b"], "regression", "holds no numbers but 'a' 1, 'b' 1"),
        (pa.string(), ["a"], "multilabel", "holds single values, and multilabel needs lists of labels"),
        (pa.list_(pa.string()), [["a"]], "classification", "holds lists, and classification needs single values"),
    ],
)
def test_what_no_head_learns_is_refused_by_name(kind, values, task, words):
    with pytest.raises(TargetError, match=f"`y` .*{words}"):
        find_reading("y", kind, values, task)


@pytest.mark.parametrize(
    ("values", "words"),
    [([None, ""], "no row has a `y`"), (["a", "a", None], "every labeled row has the same `y`")],
)
def test_nothing_to_learn_is_said(values, words):
    found = find_reading("y", pa.string(), values)
    assert not found.learnable
    assert words in found.notes()[0]


def test_what_a_sample_does_not_show_may_be_there():
    found = find_reading("y", pa.string(), ["a", "a"], whole=False)
    assert found.learnable
    assert found.notes() == ["train.target: every labeled row has the same `y`, as far as a sample shows"]


def test_a_class_for_every_row_is_worth_a_warning():
    found = find_reading("y", pa.string(), [f"{n},50" for n in range(60)])
    assert "60 classes among 60 labeled rows" in found.notes()[0]


@given(st.lists(st.one_of(st.none(), st.floats(), st.integers()), min_size=1))
def test_labels_of_numbers_are_finite_numbers_or_left_out(values):
    found = find_reading("y", pa.float64(), values)
    kept = [label for label in found.reading.labels(values) if label is not None]
    finite = [v for v in values if v is not None and abs(v) < float("inf")]
    assert kept == [float(v) for v in finite] if found.reading.task == "regression" else kept == finite


@given(st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**6), max_value=10**6))
def test_numbers_that_went_through_text_are_the_same(value):
    digits, number = (Reading("y", "regression", form) for form in ("digits", "number"))
    assert digits.label(str(value)) == number.label(str(value)) == number.label(value) == float(value)


@pytest.mark.parametrize(
    ("value", "side"),
    [("train", "train"), (" Training", "train"), ("TEST", "test"), ("val", "other"), ("dev", "other"), (None, "other")],
)
def test_validation_rows_are_on_no_side(value, side):
    assert split_of(value) == side


KINDS = [
    pa.null(), pa.bool_(), pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.decimal128(5, 2),
    pa.decimal256(40, 0), pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.binary(4),
    pa.large_binary(), pa.date32(), pa.date64(),
    pa.time32("s"), pa.time64("us"), pa.timestamp("s"), pa.timestamp("ns", "UTC"), pa.duration("ms"),
    pa.month_day_nano_interval(), pa.list_(pa.string()), pa.large_list(pa.int32()), pa.list_(pa.int8(), 3),
    pa.list_(pa.bool_()), pa.list_(pa.struct([("a", pa.string())])), pa.struct([("a", pa.int8())]),
    pa.map_(pa.string(), pa.int8()), pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int8(), pa.float32()),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("task", ["auto", "classification", "multilabel", "regression"])
def test_a_column_of_any_type_has_labels_that_json_holds_or_is_refused_by_name(kind, task):
    for values in ([None, None], list(SAMPLES.get(str(kind), []))):
        try:
            found = find_reading("y", kind, values, task)
        except TargetError as refused:
            said, labels = str(refused), []
        else:
            said, labels = "", found.reading.labels(values)
            assert json.loads(json.dumps(labels)) == labels
            assert Targets.of([label for label in labels if label is not None], found.reading.task) is not None
        assert said.startswith("`y` ") or not said


def test_decimals_beyond_a_double_stay_apart():
    found = find_reading("y", pa.decimal256(40, 0), [Decimal(10**39), Decimal(10**39 + 1)])
    assert found.distinct == 2


SAMPLES = {
    "bool": [True, False], "int8": [1, 2], "uint64": [2**64 - 1, 0], "halffloat": [0.5, 2.0], "double": [1e300, -0.0],
    "decimal128(5, 2)": [Decimal("1.25")], "decimal256(40, 0)": [Decimal(10**39), Decimal(1)], "string": ["a", "1"],
    "large_string": ["1", "2.5"], "string_view": ["x"], "binary": [b"a"], "date32[day]": [DAY], "date64[ms]": [DAY],
    "timestamp[s]": [datetime.datetime(2024, 1, 1)], "list<item: string>": [["a"], []],
    "large_list<item: int32>": [[1, 2]],
    "fixed_size_list<item: int8>[3]": [[1, 2, 3]], "list<item: bool>": [[True]], "struct<a: int8>": [{"a": 1}],
    "dictionary<values=string, indices=int8, ordered=0>": ["a", "b"],
    "dictionary<values=float, indices=int8, ordered=0>": [0.5, 1.0],
}  # fmt: skip
