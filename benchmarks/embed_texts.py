"""Contenders for texts: MiniLM over short questions and long recipes mixed."""

import csv
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from benchmarks import embed_peers, harness
from benchmarks.embed_bare import a_core_each, batching
from benchmarks.embed_ray_data import Way, best_way, embed_column, text_ways
from benchmarks.embed_stage import Stage

SHORT = 1_000
BUDGETS = (512, 1024, 2048, 4096)
OPTIONAL = ("daft", embed_peers.ONNX, embed_peers.OPENVINO, embed_peers.FASTEMBED)


def mixed_texts() -> list[str]:
    """All recipes among a sample of the questions, in a fixed random order."""
    recipes = harness.shared("data/recipes/metadata.jsonl").read_text().splitlines()
    questions = next(iter(sorted(harness.shared("data/banking77").rglob("train.csv"))))
    with questions.open(newline="") as file:
        short = [row["text"] for row in csv.DictReader(file)]
    rng = random.Random(0)
    texts = [json.loads(line)["text"] for line in recipes] + rng.sample(short, SHORT)
    rng.shuffle(texts)
    return texts


class Texts:
    """The contenders and what they share."""

    def __init__(self, folder: Path, cores: int) -> None:
        self._model_folder, self._cores = harness.minilm(), cores
        self._texts = mixed_texts()
        self.rows = len(self._texts)
        corpus = folder / "texts.jsonl"
        corpus.write_text("".join(json.dumps({"id": str(n), "text": t}) + "\n" for n, t in enumerate(self._texts)))
        self.stage = Stage(
            folder,
            {"path": str(corpus), "key": "id", "rows_per_shard": 512},
            {"kind": "text", "column": "text", "encoder": str(self._model_folder)},
        )
        self._bare = AutoModel.from_pretrained(self._model_folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(self._model_folder)
        ids = tokenizer(self._texts, truncation=True, max_length=256)["input_ids"]
        self._sorted = sorted(ids, key=len, reverse=True)
        self._peers = embed_peers.encoders(self._model_folder, folder)
        self._expected: Any = None
        self._ways = {"bare model": batching, "bare model, a batch a core": a_core_each(cores)}
        self._budgets = {name: self._best_budget(name) for name in self._ways}
        some = self._texts[::4]
        self._batches = {name: embed_peers.best_batch(name, peer, some) for name, peer in self._peers.items()}
        self._way = best_way("ray data", text_ways(cores), lambda way: self._ray_data(some, way))
        self.settings = {
            "barycenter": "batch by its trial",
            "bare model": f"batches of {self._budgets['bare model']} tokens, all cores together",
            "bare model, a batch a core": f"batches of {self._budgets['bare model, a batch a core']} tokens",
            **{name: f"batches of {batch}" for name, batch in self._batches.items()},
            "ray data": str(self._way),
            "daft": "its defaults",
        }

    def contenders(self) -> dict[str, Callable[[], float]]:
        """Rows a second of each."""
        return {
            **{name: lambda n=name: self._bare_rate(self._sorted, self._budgets[n], n) for name in self._ways},
            "barycenter": self.stage.rate,
            **{name: lambda n=name: self._peer_rate(n) for name in self._peers},
            "ray data": lambda: self._ray_data(self._texts, self._way),
            "daft": self._daft,
        }

    def largest_difference(self) -> float:
        """Between the stage's vectors and those of sentence-transformers."""
        return float(np.abs(self.stage.vectors() - self._expected).max())

    def _best_budget(self, name: str) -> int:
        """Tokens a batch at which the bare model runs fastest on a tenth of the rows."""
        sample = self._sorted[::10]
        self._bare_rate(sample, BUDGETS[0], name)
        rates = {budget: max(self._bare_rate(sample, budget, name) for _ in range(2)) for budget in BUDGETS}
        best = max(rates, key=lambda budget: rates[budget])
        harness.note(f"{name}, tokens a batch: { ({b: round(r) for b, r in rates.items()}) }; {best} taken")
        return best

    def _bare_rate(self, rows: list[list[int]], budget: int, name: str) -> float:
        batches, start = [], 0
        while start < len(rows):
            stop = start + max(1, budget // len(rows[start]))
            batches.append(_padded(rows[start:stop]))
            start = stop
        begun = time.perf_counter()
        self._ways[name]([lambda b=batch: self._encode(*b) for batch in batches])
        return len(rows) / (time.perf_counter() - begun)

    @torch.inference_mode()
    def _encode(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = self._bare(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).float()
        return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)

    def _peer_rate(self, name: str) -> float:
        begun = time.perf_counter()
        vectors = self._peers[name](self._texts, self._batches[name])
        seconds = time.perf_counter() - begun
        if name == embed_peers.PYTORCH:
            self._expected = vectors
        return self.rows / seconds

    def _ray_data(self, texts: list[str], way: Way) -> float:
        return embed_column(texts, str(self._model_folder), self._cores, way)

    def _daft(self) -> float:
        import daft
        from daft.functions import embed_text

        frame = daft.from_pydict({"text": self._texts})
        begun = time.perf_counter()
        embedded = embed_text(daft.col("text"), provider="transformers", model=str(self._model_folder))
        rows = len(frame.with_column("vector", embedded).to_pydict()["vector"])
        return rows / (time.perf_counter() - begun)


def _padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = len(rows[0])
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = 1
    return ids, mask
