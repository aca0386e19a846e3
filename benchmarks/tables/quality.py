"""Tables of what the fused vector, the alignments and the heads are worth."""

import textwrap
from typing import Any

from benchmarks.result_files import Result
from benchmarks.tables.blocks import block, gap_of, interval, last, number, points, table, with_source

_CONDITIONS = (
    ("complete", "concat", "concatenation"),
    ("complete", "best single input", "best single input"),
    ("without text", "image", "picture alone"),
    ("without image", "text", "text alone"),
)


@block
def emoji() -> str:
    """What the report of the emoji job says."""
    return _gaps(last("emoji"))


@block
def demo() -> str:
    """What the report of the demo says."""
    return _gaps(last("demo"))


@block
def demo_said() -> str:
    """What the demo's report says, as a paragraph."""
    run = last("demo")
    best, concat = (_of(run, "complete", against) for against in ("best single input", "concat"))
    text, picture = _of(run, "without image", "text"), _of(run, "without text", "image")
    said = f"""`make demo` draws {run.figures["rows"]:,} pictures with captions whose label needs both. Out of fold,
        near-copies kept together, the fused vector is {_percent(run.figures["accuracy"]["fused"])} accurate. Against
        the best single input that is {interval(best)}, against concatenation {interval(concat)}. Without text it is
        {interval(picture)} against the picture alone, without the picture {interval(text)} against the text alone.
        All tables: [measured](docs/measured.md)."""
    return textwrap.fill(" ".join(said.split()), 120, break_on_hyphens=False)


@block
def paired() -> str:
    """Emoji, with every choice made inside each training part."""
    run = last("paired")
    accuracy, gaps = run.figures["accuracy"], run.figures["gaps"]
    rows = []
    for condition in ("complete", "without text", "without image"):
        gap = next(each for each in gaps if each["condition"] == condition)
        rival = f"{gap['against']} {_percent(accuracy[gap['against']])}"
        rows.append([condition, _percent(accuracy[f"fused {condition}"]), rival, interval(gap)])
    head = [f"{run.figures['n']:,} rows", "fused", "best of the others", "fused against it"]
    return with_source(table(head, rows), run)


@block
def retrieval() -> str:
    """How often an emoji finds its partner among the ten nearest."""
    run = last("paired")
    found = run.figures["retrieval_r10"]
    rows = [[f"{unit} held out", *(f"{value:.3f}" for value in values.values())] for unit, values in found.items()]
    return with_source(table(["partner among the ten nearest", *found["rows"]], rows), run)


@block
def digits() -> str:
    """UCI digits: fused, at half the columns, against the concatenation."""
    run = last("multiview")
    found = run.figures
    rows = [
        [f"{found['pairs']} pairs of views", "complete", points(found["fused_minus_concat"], 2)],
        ["", "one missing, gaps filled in", points(found["fused_minus_concat_imputed_one_missing"], 2)],
        ["three views and six", "complete", points(found["more_views_fused_minus_concat"], 2)],
        ["", "one missing, gaps filled in", points(found["more_views_one_missing"], 2)],
    ]
    head = ["views", "rows", "fused less concatenation, points, the mean"]
    return with_source(table(head, rows), run)


@block
def heads() -> str:
    """Accuracy of every head, beside the linear head on the text alone."""
    run = last("heads")
    rows = []
    for corpus, found in run.figures.items():
        mean, gain, deviation = found["linear"], found["gain"], found["sd of gain"]
        cells = [f"{mean + gain[kind]:.1f} ({points(gain[kind] / 100)} ± {deviation[kind]:.1f})" for kind in gain]
        rows.append([corpus, f"{found['text alone']:.1f}", f"{mean:.1f}", *cells])
    kinds = [f"{kind} (less linear, its deviation)" for kind in next(iter(run.figures.values()))["gain"]]
    return with_source(table(["accuracy, %", "text alone", "linear on the average", *kinds], rows), run)


@block
def learned() -> str:
    """The trained alignments on emoji."""
    run = last("learned")
    found, gaps = run.figures, run.figures["autoencoder_gaps"]
    contrastive, less = found["contrastive_r10"], found["contrastive_minus_cca"]
    shuffled = found["shuffled"]["contrastive_r10"]
    rows = [
        [f"contrastive, {way}: partner among the ten nearest", f"{contrastive[way]:.3f}",
         f"ridge CCA {contrastive[way] - less[way]:.3f}", f"{shuffled[way]:.3f}"]
        for way in contrastive
    ]  # fmt: skip
    rivals = {"complete": "text", "without text": "image", "without image": "text"}
    for condition, rival in rivals.items():
        mean, control = found["accuracy"][condition], found["shuffled"]["autoencoder"][condition]
        against = f"{rival} alone {_percent(mean - gaps[condition])}"
        rows.append([f"autoencoder, {condition}: accuracy", _percent(mean), against, _percent(control)])
    head = ["2,008 emoji", "figure", "beside it", "trained on shuffled pairs"]
    return with_source(table(head, rows), run)


@block
def mnist() -> str:
    """Split MNIST: the sum of held-out correlations."""
    run = last("alignment")
    found = run.figures["mnist_dev"]
    rows = [[name, number(value)] for name, value in found.items()]
    rows.append(["Deep CCA, as its paper (Andrew et al. 2013) gives it", "39.7"])
    return with_source(table(["split MNIST, 50 components", "sum of held-out correlations"], rows), run)


def _gaps(run: Result) -> str:
    rows = [[condition, f"against the {name}", interval(_of(run, condition, against))]
            for condition, against, name in _CONDITIONS]  # fmt: skip
    found = run.figures
    n = f"{found['labeled']:,} labeled rows" if "labeled" in found else f"{found['rows']:,} rows"
    return with_source(table([f"{n}, out of fold", "", "fused (95 % interval)"], rows), run)


def _of(run: Result, condition: str, against: str) -> Any:
    return gap_of(run.figures["gaps"], condition, against)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


@block
def noise() -> str:
    """How often the report finds a signal in noise."""
    run = last("noise")
    rows = []
    for how in ("out of fold", "held out"):
        for size in sorted({case["rows"] for case in run.figures["cases"]}):
            cases = [case for case in run.figures["cases"] if (case["how"], case["rows"]) == (how, size)]
            drawn, signals = (sum(case[name] for case in cases) for name in ("drawn", "signals"))
            rows.append([how, f"{size:,}", str(drawn), f"{signals} ({100 * signals / drawn:.1f} %)"])
    return with_source(table(["scored", "rows", "data sets of noise", "called a signal"], rows), run)
