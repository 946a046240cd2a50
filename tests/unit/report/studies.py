"""Writes study folders whose figures are known, as runs would have written them."""

import json

from ebft.study.contents import ArmName, Description, Result, StudyPlan
from ebft.study.folder import StudyFolder

DOCUMENTS = 8
UNITS = {"held-out CE": "nats/token", "held-out CFM": "‖φ‖²"}
LENGTHS = {f"held-out CFM of {length} tokens": length for length in (8, 16)}


def write_run(folder, name, arms, seed, *, effect, steps=4, status="done", curve=()):
    """A run whose measures end `effect` lower on every document, before document noise."""
    run = folder.run(name)
    run.output.mkdir(parents=True)
    run.recipe.write_text(f"recipe: finetune\nseed: {seed}\n")
    run.write_description(
        Description(arms=arms, seed=seed, steps=steps, tflop=2.0, keep_checkpoints=False)
    )
    if status == "done":
        where = {"ebft": "0.1.0, commit abc"}
        run.write_result(Result(status="done", seconds=9.0, surroundings=where))
    elif status == "failed":
        run.write_result(Result(status="failed", seconds=9.0, error="step 3: NaN\nmore"))
    with run.evaluations.open("w") as file:
        for step in (0, 2, steps):
            for place, measure in enumerate([*UNITS, *curve]):
                values = [
                    place + document - effect * step / steps * (1 + 0.1 * document) + 0.01 * seed
                    for document in range(DOCUMENTS)
                ]
                line = {
                    "step": step,
                    "name": measure,
                    "unit": UNITS.get(measure, "‖φ‖²"),
                    "mean": sum(values) / DOCUMENTS,
                    "half_width_95": 1.0,
                    "documents": DOCUMENTS,
                    "set": "held-out",
                    "at": LENGTHS.get(measure),
                    "documents_digest": "d",
                    "values": values,
                    "weights": [1.0] * DOCUMENTS,
                    "clusters": list(range(DOCUMENTS)),
                }
                file.write(json.dumps(line) + "\n")
    with run.metrics.open("w") as file:
        for step in range(1, steps + 1):
            file.write(json.dumps({"step": step, "ce": 3.0 - step, "seconds": 2.0}) + "\n")


def write_study(path, runs, *, factors=None, reference="reference"):
    """`runs`: name → (arms, seed, options of `write_run`)."""
    folder = StudyFolder(path)
    for name, (arms, seed, options) in runs.items():
        write_run(folder, name, arms, seed, **options)
    folder.write_plan(
        StudyPlan(
            title="example",
            command="ebft study example.yaml",
            study="recipe: study\n",
            reference=reference,
            factors=factors or {},
            runs=list(runs),
        )
    )
    return path


def arm(label, variant="", **levels):
    named = {key.replace("__", "."): level for key, level in levels.items()}
    return ArmName(label, variant, named)


def grid_study(path, seeds=(0, 1)):
    """Two factors crossed, one of them also by itself; the reference is a corner."""
    runs = {}
    for seed in seeds:
        for n in ("2", "4"):
            for g in ("0", "1"):
                arms = [arm(f"n={n}, g={g}", sampler__n=n, objective__g=g)]
                if g == "1":
                    arms = [arm(f"n={n}", sampler__n=n), *arms]
                if (n, g) == ("4", "1"):
                    arms = [arm("reference"), *arms]
                effect = 0.1 * int(n) + 0.2 * int(g) + 0.01 * seed * int(n)
                runs[f"n{n}g{g}-{seed}"] = (arms, seed, {"effect": effect})
    return write_study(path, runs, factors={"sampler.n": ["2", "4"], "objective.g": ["0", "1"]})


def variants_study(path, seeds=(0, 1, 2), **options):
    """Three variants with a curve over lengths."""
    runs = {
        f"{name}-{seed}": (
            [arm(name, variant=name)],
            seed,
            {"effect": effect + 0.02 * seed, "curve": LENGTHS, **options},
        )
        for seed in seeds
        for name, effect in {"SFT": 0.1, "RLVR": -0.2, "EBFT": 0.3}.items()
    }
    return write_study(path, runs, reference="SFT")
