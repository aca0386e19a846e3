import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from barycenter.fusion.alignment import KernelCCA
from barycenter.fusion.errors import JobError
from barycenter.fusion.moments import FoldMoments
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.infra.job.models import Job
from barycenter.infra.ray.connection import connect
from barycenter.infra.ray.training import train
from barycenter.tasks.align.limits import check_alignment
from barycenter.tasks.align.moments import reduce_rows
from barycenter.tasks.align.stage import fit_alignment
from barycenter.tasks.align.trained import new_alignment
from barycenter.tasks.align.training import ShardBatches, train_on_shards
from barycenter.tasks.align.worker import InputMoments
from barycenter.tasks.data.alignment_files import load_alignment
from barycenter.tasks.data.rows import RowReader
from barycenter.tasks.embed.stage import embed_input
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.workers import THIS_PROCESS

WIDTHS = {"left": 5, "right": 3}


def write_rows(path, rows, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, 2))
    left = z @ np.random.default_rng(1).normal(size=(2, 5)) + 0.1 * rng.normal(size=(rows, 5))
    right = np.stack([z[:, 0] ** 2, z[:, 1], z[:, 0]], axis=1) + 0.1 * rng.normal(size=(rows, 3))
    columns = {"left": [*left.tolist()[:-3], None, None, None], "right": right.tolist()}
    table = {name: pa.array(values, pa.list_(pa.float32())) for name, values in columns.items()}
    pq.write_table(pa.table({"id": [f"{path.stem}{row}" for row in range(rows)], **table}), path)


def job_of(folder, method="joint", **alignment):
    return Job.model_validate(
        {
            "name": "learn",
            "corpus": {"path": str(folder / "rows"), "key": "id", "rows_per_shard": 50},
            "inputs": {name: {"kind": "vector", "column": name, "batch": 64} for name in WIDTHS},
            "alignment": {"method": method, **alignment},
            "output": {"path": str(folder / "out")},
            "ray": {"workers": 1, "threads_per_worker": 1},
        }
    )


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """A folder with rows in it and their embeddings."""
    folder = tmp_path_factory.mktemp("learn")
    (folder / "rows").mkdir()
    write_rows(folder / "rows" / "a.parquet", 400)
    run = Run(job_of(folder))
    for name in run.inputs:
        embed_input(run, name, THIS_PROCESS)
    return folder


def fitted(folder, method, cluster=THIS_PROCESS, **alignment):
    run = Run(job_of(folder, method, **alignment))
    return run, fit_alignment(run, cluster)[0]


def test_kernel_cca_in_workers_is_kernel_cca_in_memory(embedded, monkeypatch):
    monkeypatch.setattr("barycenter.tasks.align.trained.FEATURES", 200)
    run, found = fitted(embedded, "kernel-cca", dim=2, folds=3)
    rows = RowReader.of(run).read_all(run.shards)
    params = found.alignment.get_params()
    assert params["n_features"] == 100
    memory = KernelCCA(**params).fit(rows.train, groups=rows.train_groups)
    assert found.summary["method"] == "kernel-cca"
    assert found.summary["heldout_correlations"][0] > 0.8
    np.testing.assert_allclose(found.alignment.fuse(rows.train), memory.fuse(rows.train), atol=1e-3)
    loaded = load_alignment(run.storage, found.alignment_id)
    assert np.array_equal(loaded.fuse(rows.train), found.alignment.fuse(rows.train))


def test_a_trained_alignment_learns_from_shards_and_is_found_again(ray_session, embedded):
    """On Ray as in this process; what another run has trained already, the number of epochs, is not trained again."""
    run, here = fitted(embedded, "contrastive", dim=2, folds=3)
    run.storage.remove([path for path in run.storage.list("alignment") if "-inner/" not in path])
    with connect("local") as cluster:
        run, found = fitted(embedded, "contrastive", cluster, dim=2, folds=3)
    assert found.alignment_id == here.alignment_id
    rows = RowReader.of(run).read_all(run.shards)
    assert np.array_equal(found.alignment.fuse(rows.views), here.alignment.fuse(rows.views))
    assert found.summary["dim"] == 2
    assert min(found.alignment.history_) < found.alignment.history_[0]
    assert len(run.storage.list("alignment/training")) >= 1
    assert np.isfinite(found.alignment.fuse(rows.views)).all()
    assert np.isfinite(found.alignment.fuse({"left": rows.views["left"][:50]})).all()
    _, again = fitted(embedded, "contrastive", dim=2, folds=3)
    assert again.alignment_id == found.alignment_id


def test_two_ranks_train_on_their_own_shards(ray_session, embedded):
    run = Run(job_of(embedded, "autoencoder", dim=2, folds=3))
    alignment = new_alignment(run).set_params(epochs=2)
    moments = FoldMoments(reduce_rows(run, THIS_PROCESS, InputMoments(run.widths, 3))[:3])
    data = ShardBatches(RowReader.of(run), run.shards, 3, 32, 0, ranks=2)
    parts = [np.concatenate([b.groups for b in data.training(rank, 0)]) for rank in (0, 1)]
    held = np.concatenate([b.groups for rank in (0, 1) for b in data.held_out(rank)])
    everything = np.concatenate([*parts, held])
    assert len(np.unique(everything)) == len(everything) == (~RowReader.of(run).read_all(run.shards).test).sum()
    trained = train(
        train_on_shards,
        {
            "network": alignment.start(alignment.inner(moments)),
            "settings": alignment.settings(),
            "data": data,
            "steps": 4,
        },
        allocation=WorkerAllocation(2, 1, cpus_per_worker=0.5),
        storage=run.storage,
        folder="test-ranks",
    )
    assert len(trained.state["history"]) == 3


def test_a_rank_without_rows_of_its_own_takes_all(embedded):
    run = Run(job_of(embedded))
    data = ShardBatches(RowReader.of(run), run.shards[:1], 3, 32, 0, ranks=2)
    assert sum(len(b.groups) for b in data.training(1, 0)) == sum(len(b.groups) for b in data.training(0, 0)) > 0


def test_what_a_learned_method_cannot_do_is_reported_before_it_starts(tmp_path):
    with pytest.raises(JobError, match=r"alignment\.regularization: must be above 0"):
        check_alignment(job_of(tmp_path, "kernel-cca", regularization=0), WIDTHS, 2)
    with pytest.raises(JobError, match=r"alignment\.dim: 4 is above the 3"):
        check_alignment(job_of(tmp_path, "contrastive", dim=4), WIDTHS, 2)
