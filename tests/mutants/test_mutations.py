"""What is changed and what is left, and that the list of equivalent changes is of changes that are made."""

from pathlib import Path

from tests.mutants.equivalents import Equivalents
from tests.mutants.mutations import mutants_of, mutants_of_source
from tests.mutants.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
_MOST_EQUIVALENT = 0.08


def changes(source):
    return {(mutant.before, mutant.after) for mutant in mutants_of_source(source, "a.py")}


def test_comparisons_numbers_and_branches_are_changed():
    assert changes("def f(n):\n    if n < 2 and not n:\n        return n + 1\n    return 0.5\n") == {
        ("if n < 2 and (not n):", "if not (n < 2 and (not n)):"),
        ("if n < 2 and (not n):", "if n < 2 or not n:"),
        ("if n < 2 and (not n):", "if n <= 2 and (not n):"),
        ("if n < 2 and (not n):", "if n >= 2 and (not n):"),
        ("if n < 2 and (not n):", "if n < 3 and (not n):"),
        ("if n < 2 and (not n):", "if n < 1 and (not n):"),
        ("if n < 2 and (not n):", "if n < 2 and n:"),
        ("return n + 1", "return None"),
        ("return n + 1", "return n - 1"),
        ("return n + 1", "return n + 2"),
        ("return n + 1", "return n + 0"),
        ("return 0.5", "return None"),
        ("return 0.5", "return 1.0"),
    }


def test_statements_are_dropped_where_what_is_left_still_runs():
    source = "def f(x):\n    y = g(x)\n    y = h(y)\n    x.z = y\n    x += y\n    raise y\n"
    dropped = {before for before, after in changes(source) if after == "pass"}
    assert dropped == {"y = h(y)", "x.z = y", "x += y", "raise y"}


def test_messages_types_and_log_lines_are_left():
    source = (
        'from typing import Literal\n"""A docstring."""\nKind = Literal["a"]\n__all__ = ["f"]\n'
        'def f(x: "int" = None) -> "str":\n    log.info("said %d", 3)\n    assert x, "text"\n    return f"{x} of {1}"\n'
    )
    assert changes(source) == {("return f'{x} of {1}'", "return None")}


def test_a_changed_file_runs_as_changed_and_the_source_stays():
    source = "def f(n):\n    return n + 1\n"
    names = {}
    (mutant,) = [each for each in mutants_of_source(source, "a.py") if each.after == "return n - 1"]
    for code in (mutant.compiled(), mutant.compiled()):
        exec(code, names)
        assert names["f"](5) == 4
    assert mutant.line == 2
    assert len(mutants_of_source(source, "a.py")) == 4


def test_files_and_tests_are_there():
    for target in TARGETS:
        for path in (*target.files, *target.tests):
            assert (ROOT / path).exists(), path


def test_equivalent_changes_are_made_have_a_reason_and_are_few():
    listed = Equivalents.read().changes
    made = [mutant.change for target in TARGETS for file in target.files for mutant in mutants_of(ROOT, file)]
    assert set(listed) <= set(made)
    assert all(len(reason) > 10 for reason in listed.values())
    assert len(listed) <= _MOST_EQUIVALENT * len(made)
