"""The report as people see it: a table on the terminal, Markdown, pictures and one HTML page, from plain data alone.

Everything here reads the dictionary of report.json, with its fixed keys (``rows``, ``alignment``, ``retrieval``,
``probe``, ``speed``). Whatever is absent is left out of the rendering. More is shown where the report has it:

- ``name``, ``version``; ``warnings``: sentences; ``lineage``: a dictionary, nested ones included.
- ``alignment.noise_edge``: the correlation that noise alone reaches; ``alignment.average``;
  ``alignment.tried``: a list of flat dictionaries, one a setting, ``chosen: true`` in the one taken.
- ``probe.baseline``: score of the most frequent label or of the mean; ``probe.intervals``: {NAME: {condition:
  [low, high]}}; ``probe.dimensions``: [{dim, complete, low, high}]; ``probe.cross_validated``: ``n_test``,
  ``candidates`` and ``intervals`` of the same shapes, and ``gaps``: {condition: {against, mean, low, high}} of fused
  minus another candidate. The verdict prefers cross-validated scores.
- ``map``: {x: [..], y: [..], label: [..]}, points in the plane.
- ``neighbors``: [{key, text, label, image_png_base64, good: bool, neighbors: [{key, text, label, image_png_base64}]}].
- ``speed.STAGE.limited_by``: a word; ``speed.STAGE.before``: figures of the run that did the work.
"""

from tasks.rendering.figures import plots
from tasks.rendering.judgement import judge, verdict
from tasks.rendering.page import html
from tasks.rendering.tables import markdown, terminal_table

__all__ = ["html", "judge", "markdown", "plots", "terminal_table", "verdict"]
