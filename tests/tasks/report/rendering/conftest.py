import base64
import io

import numpy as np
import pytest
from PIL import Image

from barycenter.tasks.report.rendering.figures import plots


def thumbnail(color):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()


def candidates(text, image, fused, concat):
    return {
        "text": {"complete": text, "without text": 0.1, "without image": text},
        "image": {"complete": image, "without text": image, "without image": 0.1},
        "naive_mean": {"complete": image, "without text": 0.2, "without image": 0.2},
        "concat": {"complete": concat, "without text": 0.25, "without image": 0.2},
        "fused": {"complete": fused, "without text": image, "without image": text},
    }


def curve_point(name, size, score, best):
    loss = {
        "mean": best - score,
        "low": best - score - 0.02 * (score < best),
        "high": best - score + 0.02 * (score < best),
    }
    return {name: size, "complete": score, "low": score - 0.02, "high": score + 0.02, "loss": loss}


def whole():
    """A report with every part."""
    scores = candidates(0.24, 0.307, 0.701, 0.711)
    return {
        "name": "shop",
        "version": "3f9ac21b77",
        "rows": {
            "read": 2000,
            "written": 1999,
            "rejected": 1,
            "missing": {"text": 81, "image": 112},
            "bad": {"null": 181, "not_an_image": 3},
        },
        "split": {"by": None, "group_by": "design", "rows": "labeled rows", "train": 1452, "test": 363, "other": 0},
        "alignment": {
            "method": "joint",
            "dim": 256,
            "most_dim": 512,
            "regularization": 0.01,
            "heldout_correlations": [0.96, 0.9, 0.5, 0.1, None],
            "test_correlations": [0.95, 0.88, 0.4, 0.1, 0.0],
            "noise_edge": 0.17,
            "n_significant": 3,
            "chosen_by": "held-out retrieval",
            "tried": [{"method": "cca", "dim": 64}, {"method": "joint", "dim": 256, "score": 0.7, "chosen": True}],
        },
        "retrieval": {
            "n": 363,
            "text->image": {"r1": 0.21, "r5": 0.61, "r10": 0.79, "mrr": 0.391},
            "image->text": {"r1": 0.19, "r5": 0.58, "r10": 0.775, "mrr": 0.37},
            "chance_r10": 0.0275,
        },
        "probe": {
            "metric": "accuracy",
            "n_test": 363,
            "baseline": 0.108,
            "candidates": scores,
            "signal": {"candidate": "concat", "mean": 0.6, "low": 0.5, "found": True},
            "ceiling": {"score": 0.95, "rows": 52},
            "dimensions": [
                curve_point("dim", dim, score, 0.701) for dim, score in ((16, 0.45), (64, 0.655), (256, 0.701))
            ],
            "learning": [
                curve_point("rows", rows, score, 0.701) for rows, score in ((363, 0.5), (726, 0.65), (1452, 0.701))
            ],
            "cross_validated": {
                "metric": "accuracy",
                "n_test": 1815,
                "candidates": scores,
                "intervals": {"fused": {"complete": [0.68, 0.72]}},
                "signal": {"candidate": "concat", "mean": 0.6, "low": 0.58, "found": True},
                "gaps": {
                    "complete": {"against": "concat", "mean": -0.01, "low": -0.018, "high": 0.002},
                    "complete, best input": {"against": "image", "mean": 0.394, "low": 0.37, "high": 0.42},
                    "without text": {"against": "image", "mean": 0.0, "low": -0.008, "high": 0.01},
                },
                "baseline": 0.11,
                "worth": {
                    "text": {"mean": 0.394, "low": 0.37, "high": 0.42},
                    "image": {"mean": 0.461, "low": 0.43, "high": 0.49},
                },
            },
        },
        "mistakes": {
            "task": "classification",
            "how": "out of fold",
            "n": 1815,
            "wrong": 543,
            "classes": [
                {"label": "winter dots", "n": 900, "predicted": 850, "recall": 0.7, "precision": 0.741},
                {"label": "party", "n": 915, "predicted": 965, "recall": None, "precision": 0.66},
            ],
            "confusion": {"labels": ["party", "winter dots"], "counts": [[642, 273], [270, 630]]},
            "pairs": [{"label": "party", "predicted": "winter dots", "n": 273}],
            "worst": [{"key": "item-9", "label": "party", "predicted": "winter dots", "certainty": 0.991}],
            "doubtful": {
                "n": 31,
                "rows": [{"key": "item-9", "label": "party", "predicted": "winter dots", "probability": 0.004}],
            },
        },
        "neighbors": {"n": 300, "share": 0.62, "good": 150, "bad": 20},
        "speed": {
            "embed text": {"rows": 2000, "seconds": 19, "rows_per_s": 105.26, "limited_by": "tokenizing"},
            "embed vec": {"rows": 2000, "seconds": 0.5, "rows_per_s": 4000, "limited_by": "storage"},
            "fit": {
                "rows": 0,
                "seconds": 0,
                "rows_per_s": 0,
                "before": {"rows": 2000, "seconds": 95, "rows_per_s": 21.05},
            },
        },
        "lineage": {"number": 1, "alignment_id": "9a8b7c", "encoders": {"text": "builtin/hashing"}},
        "warnings": ["alignment.dim 300 was clipped to 256, the rank of the data"],
    }


def shown():
    """The rows that the report shows."""
    rng = np.random.default_rng(1)
    return {
        "map": {"x": rng.normal(size=60).tolist(), "y": rng.normal(size=60).tolist(), "label": ["a", "b", None] * 20},
        "neighbors": [
            {
                "key": "item-1",
                "text": "a red plate",
                "label": "winter dots",
                "thumbnail": thumbnail("red"),
                "good": True,
                "neighbors": [
                    {"key": "item-2", "text": "a crimson dish", "thumbnail": thumbnail("brown"), "similarity": 0.91}
                ],
            },
            {"key": "item-3", "text": None, "good": False, "neighbors": [{"key": "item-4", "text": "a kite"}]},
        ],
        "errors": [
            {
                "key": "item-9",
                "text": "a plate in the snow",
                "label": "party",
                "predicted": "winter dots",
                "certainty": 0.991,
                "thumbnail": thumbnail("white"),
            },
        ],
        "residuals": {"predicted": rng.normal(size=40).tolist(), "residual": rng.normal(size=40).tolist()},
    }


@pytest.fixture
def report():
    return whole()


@pytest.fixture
def samples():
    return shown()


@pytest.fixture(scope="session")
def images():
    """The pictures of the whole report."""
    return plots(whole(), shown())
