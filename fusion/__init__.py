"""Mathematics and models: encoders, alignments, averages, heads, evaluation; no Ray, no Prefect, no pydantic."""
