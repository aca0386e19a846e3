"""Ray: the cluster a run works on, submitted jobs, distributed training, metrics."""
