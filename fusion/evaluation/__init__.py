"""Did fusing help: linear probes on held-out rows, baselines, intervals, the cost of fewer dimensions.

Start with :func:`~barycenter.fusion.evaluation.probe.probe`; ``cross_validated_probe`` beside it fits everything again
inside each fold.
"""
