"""What is changed, and the tests that must notice."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """Files that share their tests.

    Attributes:
        name: For the table.
        files: Relative to the repository.
        tests: Files and folders, without Ray and Prefect: a process of them starts in a second.
    """

    name: str
    files: tuple[str, ...]
    tests: tuple[str, ...]


TARGETS = (
    Target(
        "moments",
        ("fusion/moments/sums.py", "fusion/moments/paired.py", "fusion/moments/folds.py"),
        ("tests/fusion/moments", "barycenter/fusion/moments"),
    ),
    Target(
        "solvers",
        (
            "fusion/ridge.py",
            "fusion/alignment/eigenproblems.py",
            "fusion/alignment/linear_base.py",
            "fusion/alignment/_projection.py",
            "fusion/alignment/imputation.py",
            "fusion/alignment/target_fill.py",
        ),
        (
            "tests/fusion/test_ridge.py",
            "tests/fusion/alignment/test_eigenproblems.py",
            "tests/fusion/alignment/test_spectrum.py",
            "tests/fusion/alignment/test_linear.py",
            "tests/fusion/alignment/test_linear_limits.py",
            "tests/fusion/alignment/test_imputation.py",
            "tests/fusion/alignment/test_invariance.py",
            "tests/fusion/alignment/test_constant.py",
            "tests/fusion/alignment/test_joint.py",
            "tests/fusion/alignment/test_target_fill.py",
            "tests/fusion/alignment/test_base.py",
            "tests/fusion/alignment/test_significance.py",
            "tests/fusion/test_scale.py",
            "barycenter/fusion/alignment",
        ),
    ),
    Target(
        "dataset",
        (
            "fusion/dataset/schema.py",
            "fusion/dataset/reader.py",
            "fusion/dataset/row_ranges.py",
            "fusion/dataset/batches.py",
            "fusion/dataset/torch_dataset.py",
            "fusion/dataset/neighbors.py",
        ),
        (
            "tests/fusion/dataset",
            "tests/fusion/test_resume.py",
            "tests/fusion/test_columns.py",
            "barycenter/fusion/dataset",
        ),
    ),
    Target(
        "versions",
        (
            "infra/versions/lease.py",
            "infra/versions/commit.py",
            "infra/versions/garbage.py",
            "infra/versions/manifests.py",
            "infra/versions/embedding_files.py",
            "infra/versions/history.py",
        ),
        ("tests/infra/versions", "barycenter/infra/versions"),
    ),
    Target(
        "dispatch",
        (
            "infra/dispatch/scheduler.py",
            "infra/dispatch/pool.py",
            "infra/dispatch/retry.py",
            "infra/dispatch/units.py",
            "infra/dispatch/poison_search.py",
            "infra/dispatch/in_process.py",
            "infra/dispatch/executor.py",
            "infra/dispatch/api.py",
        ),
        (
            "tests/infra/dispatch/test_simulated.py",
            "tests/infra/dispatch/test_charging.py",
            "tests/infra/dispatch/test_poison_search.py",
            "tests/infra/dispatch/test_in_process.py",
            "barycenter/infra/dispatch",
        ),
    ),
    Target("storage errors", ("infra/storage/errors.py",), ("tests/infra/storage/test_errors.py",)),
)
