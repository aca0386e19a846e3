"""The report as people see it: a table on the terminal, Markdown, pictures and one HTML page, from plain data alone.

Everything here reads the dictionaries of report.json, with its fixed keys (``rows``, ``alignment``, ``retrieval``,
``probe``, ``speed``), and of samples.json. Whatever is absent is left out of the rendering. More is shown where it is
there:

- ``name``, ``version``; ``warnings``: sentences, and ``history.warnings``, those that earlier versions give rise to;
  ``lineage``: a dictionary, nested ones included.
- ``alignment.test_correlations`` and ``alignment.noise_edge``, what randomly paired inputs reach on the same rows;
  ``alignment.average``;
  ``alignment.tried``: a list of flat dictionaries, one a setting, ``chosen: true`` in the one taken.
- ``probe.baseline``: score of the most frequent label or of the mean; ``probe.intervals``: {NAME: {condition:
  [low, high]}}; ``probe.gaps``: {condition: {against, mean, low, high}} of fused minus another candidate;
  ``probe.signal.found``: whether anything is above the baseline; ``probe.dimensions``: [{dim, complete, low, high}];
  ``probe.cross_validated``: the same shapes. The verdict prefers cross-validated scores. ``probe.worth``: {input:
  {mean, low, high}}, what fused loses without it; ``probe.learning``: [{rows, complete, low, high, loss}];
  ``probe.ceiling``: {score, rows}; ``probe.copies``: {rows, of, score}, scored rows with a copy that is learned from.
- ``encoders``: {input: encoder}, without ready vectors.
- ``split``: {by, group_by, rows, train, test, other}.
- ``mistakes``: what is predicted wrong, as :mod:`barycenter.tasks.report.mistakes` makes it.
- samples.json: ``map``: {x: [..], y: [..], label: [..]}, points in the plane; ``neighbors``: [{key, text, label,
  thumbnail, good, neighbors: [{key, text, label, thumbnail, similarity}]}], thumbnails JPEG in base64; of a target of
  numbers ``map.value``; ``errors``: [{key, text, label, thumbnail, predicted, certainty or residual}]; ``residuals``:
  {predicted: [..], residual: [..]}.
- ``speed.STAGE.limited_by``: a word; ``speed.STAGE.before``: figures of the run that did the work.
"""

from barycenter.tasks.report.rendering.answers import answers
from barycenter.tasks.report.rendering.judgment import judge, verdict
from barycenter.tasks.report.rendering.page import html
from barycenter.tasks.report.rendering.tables import markdown, terminal_table

__all__ = ["answers", "html", "judge", "markdown", "terminal_table", "verdict"]
