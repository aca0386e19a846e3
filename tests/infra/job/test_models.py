import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from barycenter.infra.job.models import Job


def contents(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "corpus": {"path": "data/rows.jsonl", "key": "id", "keep": ["label"]},
        "inputs": {
            "text": {"kind": "text", "column": "text", "encoder": "builtin/hashing"},
            "image": {"kind": "image", "column": "image", "encoder": "torchvision/mobilenet_v2"},
        },
        "output": {"path": "out"},
    }
    return {**data, **changes}


def test_the_defaults_are_those_of_the_contract() -> None:
    values = Job.model_validate(contents()).model_dump(mode="json", by_alias=True)
    assert values["alignment"] == {"method": "auto", "dim": 256, "regularization": "auto", "folds": 5, "from": None}
    assert (values["corpus"]["rows_per_shard"], values["corpus"]["on_duplicate"]) == (4096, "first")
    output = {"path": "out", "partition_by": [], "dtype": "float32", "keep_aligned": False}
    assert values["output"] == output | {"reuse": [], "promote": "auto", "busy": "wait"}
    assert values["limits"]["deadline"] is None
    assert values["limits"]["max_pixels"] == 50_000_000
    assert {"EPS", "WMF"}.isdisjoint(values["limits"]["formats"])
    assert len(values["limits"]["formats"]) == 17
    assert values["ray"] == {
        "address": "local",
        "workers": "auto",
        "threads_per_worker": "auto",
        "gpus_per_worker": "auto",
        "start_timeout": 1800.0,
    }
    flags = {"recheck": False, "retry_bad": False, "refit": False, "adopt": False, "as_of": None}
    empty = {"schedule": None, "timezone": None, "tags": [], "work_pool": None, "job_variables": {}}
    assert values["deployment"] == empty | {"parameters": flags}
    assert (values["on_bad_input"], values["train"], values["seed"]) == ("keep", None, 0)


def test_every_key_is_described_for_the_form() -> None:
    schema = Job.model_json_schema(by_alias=True)
    for part in [schema, *schema["$defs"].values()]:
        for key, field in part["properties"].items():
            assert field.get("description"), key
            assert field.get("title"), key


def test_a_job_is_frozen() -> None:
    job = Job.model_validate(contents())
    with pytest.raises(ValidationError):
        job.corpus.path = "elsewhere"  # type: ignore[misc]


def test_order_of_inputs_is_kept() -> None:
    assert list(Job.model_validate(contents()).inputs) == ["text", "image"]


def test_a_kept_key_is_no_second_column() -> None:
    job = Job.model_validate(contents(corpus={"path": "a.csv", "key": "id", "keep": ["id", "label"]}))
    assert job.corpus.keep == ["label"]


def test_target_may_not_be_left_out_of_keep_but_groups_may_be_the_key() -> None:
    job = Job.model_validate(contents(train={"target": "label", "group_by": "id"}))
    assert job.train is not None
    assert job.train.group_by == "id"


def test_numbers_may_be_written_with_an_exponent() -> None:
    job = Job.model_validate(contents(alignment={"regularization": "1e-3"}))
    assert job.alignment.regularization == 0.001


def test_weights_of_inputs_left_out_are_one() -> None:
    job = Job.model_validate(contents(average={"method": "weighted", "weights": {"image": 0.5}}))
    assert job.input_weights == {"text": 1.0, "image": 0.5}


def test_columns_that_other_sections_name_are_kept_after_those_of_corpus_keep() -> None:
    corpus = {"path": "a.csv", "key": "id", "keep": ["b"]}
    train = {"target": "label", "split": "b", "group_by": "id"}
    output = {"path": "out", "partition_by": ["day", "label"]}
    job = Job.model_validate(contents(corpus=corpus, train=train, output=output))
    assert job.corpus.keep == ["b", "label", "day"]
    named = contents(corpus=corpus | {"keep": ["b", "label", "day"]}, train=train, output=output)
    assert Job.model_validate(named).fingerprint() == job.fingerprint()


def test_required_columns_stand_by_their_key() -> None:
    job = Job.model_validate(contents())
    assert job.required_columns() == {
        "corpus.key": ["id"],
        "corpus.keep": ["label"],
        "inputs.text.column": ["text"],
        "inputs.image.column": ["image"],
    }


class TestExplicit:
    def test_says_given_from_default(self) -> None:
        job = Job.model_validate(contents(alignment={"dim": 256}))
        assert job.explicit("alignment.dim")
        assert not job.explicit("alignment.folds")
        assert not job.explicit("average.method")
        assert job.explicit("inputs.text.encoder")
        assert not job.explicit("inputs.text.weights")
        assert not job.explicit("inputs.audio.kind")
        assert not job.explicit("no.such.key")

    def test_uses_the_names_of_the_file(self) -> None:
        job = Job.model_validate(contents(alignment={"from": "other"}))
        assert job.explicit("alignment.from")
        assert not job.explicit("alignment.from_")

    def test_survives_resolving_and_pickling(self, tmp_path: Path) -> None:
        job = pickle.loads(pickle.dumps(Job.model_validate(contents()).resolved(tmp_path)))  # noqa: S301
        assert not job.explicit("alignment.dim")
        assert not job.explicit("inputs.text.weights")
        assert job.explicit("corpus.path")


class TestResolved:
    def test_local_paths_become_absolute(self, tmp_path: Path) -> None:
        inputs = {"image": {"kind": "image", "column": "i", "encoder": "torchvision/x", "weights": "w.safetensors"}}
        job = Job.model_validate(contents(inputs=inputs, alignment={"from": "../old"})).resolved(tmp_path / "jobs")
        assert job.corpus.path == str(tmp_path / "jobs/data/rows.jsonl")
        assert job.output.path == str(tmp_path / "jobs/out")
        assert job.alignment.from_ == str(tmp_path / "old")
        assert job.inputs["image"].weights == str(tmp_path / "jobs/w.safetensors")
        assert job.resolved(tmp_path / "elsewhere") == job

    def test_uris_stay(self, tmp_path: Path) -> None:
        job = Job.model_validate(contents(corpus={"path": "s3://bucket/*.parquet"}, output={"path": "s3://bucket/out"}))
        assert job.resolved(tmp_path).corpus.path == "s3://bucket/*.parquet"
        assert job.resolved(tmp_path).output.path == "s3://bucket/out"

    @pytest.mark.parametrize(
        ("encoder", "resolved"),
        [
            ("model", "{base}/model"),
            ("./absent", "{base}/absent"),
            ("org/model", "org/model"),
            ("builtin/hashing", "builtin/hashing"),
        ],
    )
    def test_encoders_that_are_folders(self, tmp_path: Path, encoder: str, resolved: str) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "builtin/hashing").mkdir(parents=True)
        job = Job.model_validate(contents(inputs={"text": {"kind": "text", "column": "t", "encoder": encoder}}))
        assert job.resolved(tmp_path).inputs["text"].encoder == resolved.format(base=tmp_path)


class TestFingerprint:
    def test_leaves_out_where_it_runs_and_where_results_go(self) -> None:
        job = Job.model_validate(contents())
        deployment = {"schedule": "0 2 * * *", "parameters": {"as_of": "2024-01-31"}}
        moved = Job.model_validate(contents(output={"path": "elsewhere"}, ray={"workers": 7}, deployment=deployment))
        assert job.fingerprint() == moved.fingerprint()

    @pytest.mark.parametrize(
        "change", [{"seed": 1}, {"alignment": {"dim": 8}}, {"output": {"path": "out", "dtype": "float16"}}]
    )
    def test_changes_with_everything_else(self, change: dict[str, Any]) -> None:
        assert Job.model_validate(contents()).fingerprint() != Job.model_validate(contents(**change)).fingerprint()

    def test_does_not_tell_given_from_default(self) -> None:
        given = json.loads(Job.model_validate(contents()).model_dump_json())
        assert Job.model_validate(given).fingerprint() == Job.model_validate(contents()).fingerprint()
