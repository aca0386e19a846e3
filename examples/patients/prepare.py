"""Writes scikit-learn's diabetes data as JSON Lines: a note in words, a list of blood values, and a number to predict.

442 patients (Efron, Hastie, Johnstone and Tibshirani 2004). Age, sex, body mass index and blood pressure become a
note as a doctor might write it; the six blood values are standardized; the target is how far the disease has
gone a year later, from 25 to 346.
"""

import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_diabetes

HERE = Path(__file__).parent
STEPS = {
    "age": ((35, "young"), (50, "middle-aged"), (60, "older"), (200, "old")),
    "bmi": ((21, "thin"), (25, "normal weight"), (28, "somewhat heavy"), (32, "overweight"), (99, "very overweight")),
    "bp": (
        (80, "low blood pressure"),
        (95, "usual blood pressure"),
        (110, "raised blood pressure"),
        (999, "high blood pressure"),
    ),
}


def word(measure: str, value: float) -> str:
    """The word for a value."""
    return next(name for edge, name in STEPS[measure] if value < edge)


def note(age: float, sex: float, bmi: float, pressure: float) -> str:
    """What a doctor might write."""
    return f"{word('age', age)}, sex {'one' if sex == 1 else 'two'}, {word('bmi', bmi)}, {word('bp', pressure)}"


def main(folder: Path = HERE) -> None:
    """Writes data/patients.jsonl in ``folder``."""
    patients = load_diabetes(scaled=False)
    blood = patients.data[:, 4:]
    blood = (blood - blood.mean(0)) / blood.std(0)
    lines = [
        json.dumps(
            {
                "id": f"p{number:03d}",
                "note": note(*measures[:4]),
                "blood_vector": np.round(values, 4).tolist(),
                "progression": progression,
            }
        )
        for number, (measures, values, progression) in enumerate(
            zip(patients.data.tolist(), blood, patients.target.tolist(), strict=True)
        )
    ]
    path = folder / "data" / "patients.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} patients in {path}")


if __name__ == "__main__":
    main()
