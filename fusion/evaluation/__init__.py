"""Did fusing help: linear probes on held-out rows, baselines, intervals, the cost of fewer dimensions."""
