"""README's two tables: what sells, and where it loses or is level."""

import statistics
from collections.abc import Iterable

from benchmarks.result_files import Result, load
from benchmarks.tables.blocks import block, gap_of, interval, last, number, table, times

_PAGE = "docs/measured.md"


@block
def readme_better() -> str:
    """Where Barycenter is ahead."""
    embed = last("embed")
    chaos, s3, reader, demo = last("chaos"), last("s3"), last("reader"), last("demo")
    again = next(run for run in reversed(load("again")) if run.figures.get("one_row"))
    row = again.figures["one_row"]
    mnist, scale = last("alignment"), last("scale")
    sizes = scale.figures["sizes"]
    gap = gap_of(demo.figures["gaps"], "complete", "best single input")
    rows = [
        ["demo, 2,000 rows whose label needs text and picture: fused against the best single input",
         interval(gap), _link("the-demo", demo)],
        [f"{embed.figures['text']['rows']:,} texts, MiniLM, the whole stage: times as fast as OpenVINO, ONNX Runtime, "
         "sentence-transformers, Daft, Ray Data, each at its best batch",
         _ratios(embed, "text", ("OpenVINO", "ONNX Runtime", "sentence-transformers", "daft", "ray data")),
         _link("texts", embed)],
        [f"{embed.figures['image']['rows']:,} photographs, MobileNetV2, the whole stage: times as fast as DataLoader, "
         "Ray Data", _ratios(embed, "image", ("dataloader", "ray data")), _link("photographs", embed)],
        ["batches shuffled in a buffer of 65,536 rows: times as fast as Hugging Face's streaming reader, Ray Data",
         ", ".join(times(_seconds(reader, peer) / _seconds(reader, "FusedDataset shuffled"))
                   for peer in ("datasets streaming shuffled", "Ray Data shuffled")), _link("readers", reader)],
        [f"one row more in {row['rows']:,}: rows through the model; the second run, the first",
         f"{row['ray']['texts_to_the_model']}; {row['ray']['seconds']:.0f} s, {row['first_seconds']:.0f} s",
         _link("one-row-more", again)],
        ["a worker, node, driver or server killed at random, and run again: the same bytes",
         f"{chaos.figures['held']} of {chaos.figures['strikes']}", _link("kills", chaos)],
        ["the emoji job on S3 while requests fail: the same bytes as on disk",
         f"yes, {s3.figures['s3_faults_faults']:,} failed", _link("s3", s3)],
        ["split MNIST, sum of 50 held-out correlations, kernel CCA (Deep CCA's paper: 39.7)",
         number(max(mnist.figures["mnist_dev"].values())), _link("correlations", mnist)],
        [f"driver's memory at {sizes[0]['rows']:,} and {sizes[-1]['rows']:,} rows",
         f"{sizes[0]['driver_mb']:.0f} and {sizes[-1]['driver_mb']:.0f} MB", _link("rows", scale)],
    ]  # fmt: skip
    return table(["ahead", "figure", "commit"], rows)


@block
def readme_worse() -> str:
    """Where a peer is ahead, or where it makes no difference."""
    emoji, heads, reader, scale = last("emoji"), last("heads"), last("reader"), last("scale")
    slow = next(run for run in reversed(load("embed")) if run.machine.avx512 is False)
    startups, fits = load("startup"), last("alignment")
    noisy = heads.figures["emojitwo, noise pictures"]
    held, seconds = fits.figures["cca_zoo"]["sum_dev"], fits.figures["cca_zoo"]["seconds"]
    best = gap_of(emoji.figures["gaps"], "complete", "best single input")
    factor = seconds["cca-zoo, float32"] / seconds["barycenter, float32"]
    rows = [
        [f"{emoji.figures['labeled']:,} labeled emoji: fused against the best single input", interval(best),
         _link("emoji", emoji)],
        ["emoji, half of the pictures replaced by noise: `gated` on the average; the text alone",
         f"{noisy['linear'] + noisy['gain']['gated']:.1f} %; {noisy['text alone']:.1f} %", _link("heads", heads)],
        ["texts on a processor without AVX-512: of the rate of the bare model at its best",
         times(slow.figures["text"]["vs_ceiling"]), _link("texts", slow)],
        ["photographs, MobileNetV2: of the rate of the bare model compiled for its batch, pictures decoded before",
         _ratios(last("embed"), "image", ("bare model, compiled",)), _link("photographs", last("embed"))],
        ["batches in order: Lance is so many times as fast as `FusedDataset`",
         times(_seconds(reader, "FusedDataset sequential") / _seconds(reader, "Lance sequential")),
         _link("readers", reader)],
        ["fuse, two workers: of the rate of two processes that only copy",
         f"{scale.figures['fuse_vs_copy_per_core']:.2f}", _link("rows", scale)],
        ["`barycenter run` until the first rows are embedded, of bare `ray.init` and model load: with a Prefect "
         "server, without",
         "; ".join(" and ".join(times(_of_bare(run, name)) for run in startups) for name in ("server", "no server")),
         _link("start", *startups)],
        ["CCA in float32: times as fast as cca-zoo; held-out correlations, ours, cca-zoo's",
         f"{times(factor)}; {held['barycenter, float32']:.2f}, {held['cca-zoo, float32']:.2f}",
         _link("correlations", fits)],
    ]  # fmt: skip
    return table(["level or behind", "figure", "commit"], rows)


def _ratios(run: Result, kind: str, peers: Iterable[str]) -> str:
    """How many times as fast as each peer the stage was."""
    rates = run.figures[kind]["rates"]
    return ", ".join(times(rates["barycenter"] / rates[peer]) for peer in peers)


def _seconds(run: Result, name: str) -> float:
    return statistics.median(run.samples[name])


def _of_bare(run: Result, name: str) -> float:
    return _seconds(run, name) / _seconds(run, "bare")


def _link(section: str, *runs: Result) -> str:
    commits = dict.fromkeys(run.commit or f"before {run.kept_in}" for run in runs)
    return f"[{', '.join(commits)}]({_PAGE}#{section})"
