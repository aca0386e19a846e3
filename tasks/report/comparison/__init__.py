"""Two versions or outputs beside each other: settings, data, figures, rows; from storage, in bounded memory.

Start with :func:`~barycenter.tasks.report.comparison.compare.compare`.
"""
