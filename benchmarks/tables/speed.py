"""Tables of reading, fitting, starting, and running again."""

import statistics

from benchmarks.result_files import load
from benchmarks.tables.blocks import block, last, number, spread, table, times, with_source

_SHUFFLES = {
    "scan": ("in order", "bare pyarrow scan, no tensors"),
    "FusedDataset sequential": ("in order", "**FusedDataset**"),
    "Lance sequential": ("in order", "Lance"),
    "datasets mapped sequential": ("in order", "Hugging Face datasets, memory-mapped"),
    "datasets streaming sequential": ("in order", "Hugging Face datasets, streaming"),
    "Ray Data sequential": ("in order", "Ray Data"),
    "FusedDataset shuffled": ("in a buffer of 65,536 rows", "**FusedDataset**"),
    "datasets streaming shuffled": ("in a buffer of 65,536 rows", "Hugging Face datasets, streaming"),
    "Ray Data shuffled": ("in a buffer of 65,536 rows", "Ray Data"),
    "FusedDataset permuted": ("as one permutation", "**FusedDataset**, its buffer as large as the data"),
    "datasets mapped shuffled": ("as one permutation", "Hugging Face datasets, memory-mapped"),
    "Lance shuffled": ("as one permutation", "Lance"),
}
"""What each contender of the reader benchmark does; a permutation of all rows is more work than a buffer."""


@block
def reader() -> str:
    """Seconds to read all rows, every round's range shown."""
    run = last("reader")
    ours = {
        _SHUFFLES[name][0]: statistics.median(run.samples[name])
        for name in ("FusedDataset sequential", "FusedDataset shuffled", "FusedDataset permuted")
        if name in run.samples
    }
    buffered = _SHUFFLES["FusedDataset shuffled"][0]
    rows = []
    for name, (order, shown) in _SHUFFLES.items():
        if name in run.samples:
            seconds = run.samples[name]
            batches = run.figures["rows"] / run.figures["batch"] / statistics.median(seconds)
            factor = statistics.median(seconds) / ours.get(order, ours[buffered])
            rows.append([order, shown, spread(seconds, 2), number(batches), "" if "**" in shown else times(factor)])
    head = ["order", "reader", "seconds (range)", "batches/s", "FusedDataset is so many times as fast"]
    text = table(head, rows)
    if "FusedDataset permuted" not in run.samples:
        text += "\n\nThe readers that follow one permutation are set against FusedDataset's buffer, which does less."
    return with_source(text, run)


@block
def cca() -> str:
    """CCA's fit beside cca-zoo's, in both precisions."""
    run = last("alignment")
    found = run.figures["cca_zoo"]
    seconds, held = found["seconds"], found["sum_dev"]
    rows = []
    for precision, end in (("float64", ""), ("float32", ", float32")):
        ours, theirs = f"barycenter{end}", f"cca-zoo{end}"
        rows.append(
            [precision, f"{seconds[ours]:.2f} s", f"{seconds[theirs]:.2f} s", times(seconds[theirs] / seconds[ours]),
             f"{held[ours]:.2f}", f"{held[theirs]:.2f}"]
        )  # fmt: skip
    head = ["CCA without a ridge, split MNIST", "ours", "cca-zoo", "times as fast"]
    text = table([*head, "held-out sum of correlations, ours", "cca-zoo's"], rows)
    text += (
        f"\n\nIn float64 the correlations of the rows that were fitted differ by {found['correlation_difference']:.0e},"
        f" those of held-out rows by up to {found['correlation_difference_dev']:.0e}."
    )
    return with_source(text, run)


@block
def moments() -> str:
    """The pass over the data beside the matrix product that it needs."""
    run = last("alignment")
    peaks = run.figures["peak_mb"]
    rows = [["rate of the moments, of that of the bare float32 product", f"{run.figures['moments_vs_gemm']:.2f}"]]
    rows += [[f"peak memory, {int(n):,} rows", f"{peak:,} MB"] for n, peak in peaks.items()]
    rows.append(
        ["largest difference of cross-validation from refitting", f"{run.figures['cv_vs_refit_max_error']:.0e}"]
    )
    return with_source(table(["2,000,000 rows of 384 + 512 dimensions", ""], rows), run)


@block
def startup() -> str:
    """Seconds until the first rows are embedded."""
    runs = load("startup")
    shown = {"bare": "bare `ray.init` and model load", "server": "`barycenter run`, a Prefect server running"}
    shown["no server"] = "`barycenter run`, which starts a Prefect server"
    rows = []
    for name, what in shown.items():
        bare = [statistics.median(run.samples["bare"]) for run in runs]
        cells = [
            spread(run.samples[name]) + (f", {times(statistics.median(run.samples[name]) / least)}" if least else "")
            for run, least in zip(runs, bare if name != "bare" else [0.0] * len(runs), strict=True)
        ]
        rows.append([what, *cells])
    head = ["until the first rows are embedded", *(f"run {n + 1}: seconds (range), of bare" for n in range(len(runs)))]
    return with_source(table(head, rows), *runs)


@block
def changes() -> str:
    """What a second run does after each kind of change."""
    run = next(run for run in load("again") if run.figures["changes"])
    rows = [
        [found["change"], found["rows"], found["texts to the model"], found["pictures encoded"],
         "yes" if found["vectors equal"] and found["features equal"] else "NO"]
        for found in run.figures["changes"]
    ]  # fmt: skip
    head = ["2,008 emoji, then", "rows", "texts to the model", "pictures encoded", "same bytes as in an empty folder"]
    return with_source(table(head, rows), run)


@block
def one_row() -> str:
    """One row more in a corpus of 200,000."""
    run = next(run for run in reversed(load("again")) if run.figures.get("one_row"))
    found = run.figures["one_row"]
    rows = [["the first run", f"{found['first_seconds']:.0f} s", f"{found['rows']:,}"]]
    for name, shown in (("ray", "with one row more"), ("no ray", "with one row more, without Ray")):
        rows.append([shown, f"{found[name]['seconds']:.0f} s", str(found[name]["texts_to_the_model"])])
    head = [f"{found['rows']:,} rows of eight words", "the whole run", "rows through the model"]
    return with_source(table(head, rows), run)


@block
def side_by_side() -> str:
    """Two inputs embedded side by side and one after another."""
    run = next(run for run in reversed(load("elastic")) if "makespans" in run.figures)
    found = run.figures["makespans"]
    rows = [
        [where, *(spread(run.samples[f"{where}, {way}"]) for way in ("one after another", "side by side")),
         f"{found[where]['ratio']:.2f}"]
        for where in ("two cores", "four nodes")
    ]  # fmt: skip
    head = ["two inputs", "one after another, s (range)", "side by side, s (range)", "of the time"]
    text = table(head, rows) + "\n\nOn two cores: emoji. On four nodes of an autoscaler: imagined work, ideally "
    return with_source(f"{text}{found['ideal on four nodes']:.0f} s.", run)
