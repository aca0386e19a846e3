"""What each figure and table of the report means: one plain line, for readers who see it for the first time."""

MEANINGS = {
    "scores": (
        "Each line is one way to make a vector of a row. Each column says which inputs the row had. The thin line is "
        "the 95 % interval: drawn again, such rows would score in it 95 times in 100."
    ),
    "gaps": (
        "Above zero the fused vector is better. Where an interval holds zero, these rows cannot tell which is better."
    ),
    "tried": (
        "The settings of the alignment that were compared on training rows alone. Most of them replace a simpler one "
        "only if they are ahead by more than a standard error, so the one taken need not be the first."
    ),
    "retrieval": (
        "Each held-out row's input looks up its other input among all held-out rows: the longer the bar, the more "
        "often it is found. The dashed line is chance."
    ),
    "retrieval table": (
        "R@10: how often a row's other input is among the ten nearest of all held-out rows. MRR: the mean of 1 / rank."
    ),
    "rows": (
        "Read are the rows of the corpus. Written are those with at least one good input. In rejects/ is a line for "
        "each input that is bad or not there."
    ),
    "speed": "What each stage took, and what it waited for most.",
    "dimensions": (
        "The score with the first components of the fused vector alone. Where the curve is flat, fewer dimensions do."
    ),
    "learning": (
        "The score of a head that learns from a part of the labeled rows. Where the curve still rises, more rows help."
    ),
    "correlations": (
        "How strongly the inputs agree in each component. What is above the dashed line is more than chance."
    ),
    "map": "Each point is a row. Rows that are near each other have similar fused vectors.",
    "residuals": (
        "Each point is a row: across what was predicted, up how much more the true value is. A good model leaves a "
        "flat band around zero."
    ),
    "confusion": (
        "A line for each true label, a column for each predicted one; the diagonal is right. A cell is the number of "
        "rows, the darker the larger its share of the line."
    ),
    "labels": (
        "Recall: of the rows that have the label, how many got it. Precision: of the rows that got it, how many do."
    ),
    "pairs": "The confusions that occur most often, the largest first.",
    "errors": (
        "The wrong predictions that the model was surest of. Either it learned something wrong, or the label is wrong."
    ),
    "largest residuals": "The rows whose true value is furthest from its prediction.",
    "doubtful": (
        "Rows where a model of the others is as sure of another label as it is of rows that have it. Their own label "
        "gets a tenth of that or less. Look at these: a model can be wrong, too."
    ),
    "doubtful values": "The values furthest from their prediction. Look at these: a model can be wrong, too.",
}
