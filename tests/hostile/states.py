# ruff: noqa: E501 — a case is one line
"""Damaged run folders, checkpoints and studies that must be refused with one line."""

import json
import os
import shutil
from pathlib import Path

from ebft.checkpoints.folder import Checkpoints
from ebft.checkpoints.manifest import MANIFEST, write_manifest
from ebft.checkpoints.snapshot import Snapshot
from ebft.config.about import About
from ebft.study.report.make import write_report
from tests.conftest import RECIPES
from tests.hostile.case import Case, Inputs
from tests.tiny import plain_policy, tiny_tokenizer
from tests.unit.report.studies import arm, write_study

FIGURE = {
    "step": 0, "name": "x", "unit": "nats", "mean": 1.0, "half_width_95": None, "set": "held-out",
    "at": None, "documents_digest": "abc", "values": [2.0, 0.5], "weights": [1.0, 1.0],
    "clusters": [0, 1],
}  # fmt: skip
STATE = {
    "optimizer": {}, "lr_scheduler": {}, "parts": {}, "random": {}, "micro_batch_tokens": 1,
    "metrics": [], "history": {},
}  # fmt: skip
ANY_RECIPE = (
    "checkpoint.may_differ=[seed,model,data,documents,plan,sampler,feature_map,transforms,reward,"
    "baseline,require_unbiased,objective,evaluation,optimizer,lr_scheduler,training,parallel,method,"
    "recipe]"
)
SHA = "0" * 64
# Closed, so that a Python whose parser goes so deep finds no other mistake.
NESTED = "[" * 5000 + "]" * 5000
OTHERS = "it is a folder, a pipe or a device"


def compared(line: str | bytes):
    """`ebft compare` of a run with this second line of figures."""

    def make(inputs: Inputs) -> list[str]:
        good = json.dumps(FIGURE) + "\n"
        text = line if isinstance(line, bytes) else line.encode()
        first = inputs.write("a/evaluations.jsonl", good)
        other = inputs.write("b/evaluations.jsonl", good.encode() + text + b"\n")
        return ["compare", str(first), str(other)]

    return make


def figure(**changed: object):
    return compared(json.dumps({**FIGURE, **changed}))


def checkpoint(damage, *, whole: bool = False):
    """A run that resumes from a checkpoint to which `damage` was done; `whole`: with the right
    checksums."""

    def make(inputs: Inputs) -> list[str]:
        about = About(1, {"seed": 0}, {})
        snapshot = Snapshot(plain_policy(), tiny_tokenizer(), about, STATE)
        folder = Checkpoints(inputs.folder / "checkpoints", keep=1).save(snapshot, step=1)
        damage(folder)
        if whole:
            (folder / MANIFEST).unlink()
            write_manifest(folder)
        return [f"checkpoint.resume={folder}", ANY_RECIPE]

    return make


def writes(name: str, content: str | bytes, *, whole: bool = True):
    """A checkpoint with another file of this name."""

    def damage(folder: Path) -> None:
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)

    return checkpoint(damage, whole=whole)


def says(name: str, **changed: object):
    """A checkpoint whose file in JSON says something else."""

    def damage(folder: Path) -> None:
        file = folder / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))

    return checkpoint(damage, whole=True)


def lists(line: str):
    """A checkpoint with another line in its manifest."""

    def damage(folder: Path) -> None:
        with (folder / MANIFEST).open("a") as file:
            file.write(line + "\n")

    return checkpoint(damage)


def _pipe_for_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


def _link_to_a_device(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/dev/zero")


def _link_elsewhere(folder: Path) -> None:
    other = shutil.copy(folder / "config.json", folder.parent / "other.json")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(other)
    other.write_text("{}")


def reported(name: str, content: str | bytes | None = None, **changed: object):
    """`ebft report` of a study with another file of this name, or one that says something else."""

    def make(inputs: Inputs) -> list[str]:
        arms = [arm("n=2", sampler__n="2")]
        runs = {"one": (arms, 0, {"effect": 0.1})}
        folder = write_study(inputs.folder, runs, factors={"sampler.n": ["2"]})
        file = folder / name
        if content is None:
            file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
        else:
            file.unlink()
            inputs.write(name, content)
        return ["report", str(folder)]

    return make


def recorded(name: str, old: str, new: str):
    """`ebft report` of a study's record one of whose files has `new` in the place of `old`."""

    def make(inputs: Inputs) -> list[str]:
        runs = {"one": ([arm("n=2", sampler__n="2")], 0, {"effect": 0.1})}
        write_report(write_study(inputs.folder / "study", runs, factors={"sampler.n": ["2"]}))
        file = inputs.folder / "study" / "record" / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))
        return ["report", str(file.parent)]

    return make


def recorded_without(name: str):
    """The same of a record that lacks a file."""

    def make(inputs: Inputs) -> list[str]:
        command = recorded(name, "", "")(inputs)
        (inputs.folder / "study" / "record" / name).unlink()
        return command

    return make


def reported_pipe(inputs: Inputs) -> list[str]:
    command = reported("plan.json", "")(inputs)
    (inputs.folder / "plan.json").unlink()
    os.mkfifo(inputs.folder / "plan.json")
    return command


def run_folder(name: str, *more: str):
    """A run whose folder has a pipe of this name; with more overrides, also figures."""

    def make(inputs: Inputs) -> list[str]:
        run = inputs.folder / "other"
        run.mkdir()
        if more:
            (run / "evaluations.jsonl").write_text("{}\n")
        os.mkfifo(run / name)
        return [f"output_dir={run}", *more]

    return make


def labelled(inputs: Inputs) -> list[str]:
    base = RECIPES / "ebft_full.yaml"
    study = f"recipe: study\nbase_recipe: {base}\noutput_dir: {inputs.folder / 'study'}\n"
    study += 'grid: {"sampler.\\e[31mtemperature/x": [1, 2]}\n'
    return ["study", str(inputs.write("study.yaml", study))]


def measured(name: str, content: str):
    """`ebft eval` of a checkpoint's folder with another file of this name."""

    def make(inputs: Inputs) -> list[str]:
        folder = shutil.copytree(inputs.model, inputs.folder / "step-000001")
        inputs.write(f"step-000001/{name}", content)
        return [f"model.path={folder}", f"model.base={inputs.model}"]

    return make


CASES = [
    Case("a cluster of 10^12", figure(clusters=[0, 10**12]), "line 2: not a figure of an evaluation: clusters.1 = 1000000000000: it must be below 2", whole=True),
    Case("a cluster of -5", figure(clusters=[0, -5]), "clusters.1 = -5: it must be greater than", whole=True),
    Case("a cluster of true", figure(clusters=[0, True]), "clusters.1 = True: it must be a valid integer", whole=True),
    Case("a value that is NaN", figure(values=[float("nan"), 1]), "values.0 = nan: it must be finite", whole=True),
    Case("a mean that is NaN", figure(mean=float("nan")), "line 2: not a figure of an evaluation: mean = nan: it must be a finite number", whole=True),
    Case("a half-width that is NaN", figure(half_width_95=float("nan")), "half_width_95 = nan: it must be a finite number", whole=True),
    Case("a half-width below 0", figure(half_width_95=-1.0), "half_width_95 = -1.0: it must be greater than", whole=True),
    Case("a value beyond pictures", figure(values=[1e308, -1e308]), "values.0 = 1e+308: it must be within ±1e+300", whole=True),
    Case("a length of 0", figure(at=0), "at = 0: it must be greater than", whole=True),
    Case("a weight below 0", figure(weights=[2, -1]), "weights.1 = -1.0: it must not be below 0", whole=True),
    Case("weights of nothing", figure(weights=[0, 0]), "weights: the sum over all documents", whole=True),
    Case("no values", figure(values=None), "values = None: it must be a valid list", whole=True),
    Case("a step beyond columns", figure(step=10**30), "step = 1000000000000000000000000000000: it must be less than", whole=True),
    Case("a name that is none", figure(name=["x\x1b[31m"]), r"name = ['x\x1b[31m']: it must be a valid string", whole=True),
    Case("figures in no UTF-8", compared(b'{"name": "\xff"}'), "evaluations.jsonl: cannot be read: 'utf-8' codec", whole=True),
    Case("half a line of figures", compared('{"step": 1,'), "line 2: not a figure of an evaluation: Expecting property name", whole=True),
    Case("nested figures", compared(NESTED), "line 2: not a figure of an evaluation: it is nested more than 100", whole=True),
    Case("a device for a run", lambda inputs: ["compare", "/dev/zero", str(inputs.folder)], "/dev/zero: there is no evaluations.jsonl", whole=True),
    Case("a manifest with a device", lists(f"{SHA}  /dev/zero"), "manifest.sha256: line"),
    Case("a manifest that leads out", lists(f"{SHA}  run/../../x"), "names run/../../x, which is not in the checkpoint"),
    Case("a manifest with no checksum", lists("config.json"), "is not a checksum and a file's name"),
    Case("a manifest in no UTF-8", writes(MANIFEST, b"\xff", whole=False), "manifest.sha256: 'utf-8' codec"),
    Case("no manifest but a pipe", checkpoint(lambda it: ((it / MANIFEST).unlink(), os.mkfifo(it / MANIFEST))), f"manifest.sha256: {OTHERS}"),
    Case("a pipe for weights", checkpoint(_pipe_for_weights), f"model.safetensors: {OTHERS}"),
    Case("a link to a device", checkpoint(_link_to_a_device), f"model.safetensors: {OTHERS}"),
    Case("a link to another file", checkpoint(_link_elsewhere), "config.json is not what was written (2 bytes"),
    Case("a step below 0", says("run/about.json", step=-5), "about.json is not that of a checkpoint: step = -5: it must be"),
    Case("a recipe that is none", says("run/about.json", recipe=[1]), "recipe = [1]: it must be"),
    Case("micro-batches of none", says("run/about.json", micro_batch=0), "micro_batch = 0: it must be"),
    Case("a version that is none", says("run/about.json", format="3"), "format = '3': it must be"),
    Case("a nested recipe", writes("run/about.json", '{"a":' * 5000 + "1" + "}" * 5000), "about.json is not that of a checkpoint: it is nested"),
    Case("half an about.json", writes("run/about.json", '{"step"'), "about.json is not that of a checkpoint: Expecting"),
    Case("a nested state", writes("run/state.json", NESTED), "it is nested more than 100"),
    Case("a state of text", writes("run/state.json", '"x"'), "holds no state of a run: it must be an object"),
    Case("metrics that are none", says("run/state.json", metrics=[{"ce": "x"}]), "metrics.0.ce = 'x': it must be a valid number"),
    Case("no optimizer", says("run/state.json", optimizer=None), "optimizer = None: it must be"),
    Case("a state's header", writes("run/state.safetensors", b"\xff" * 64), "hold no state: SafetensorError"),
    Case("the weights' header", writes("model.safetensors", b"\x10" + b"\0" * 7 + b'{"a":{"dtype":1}'), "checkpoint.resume"),
    Case("a plan of nothing", reported("plan.json", "{}"), "plan.json is damaged: title is missing", whole=True),
    Case("a nested plan", reported("plan.json", NESTED), "plan.json is damaged: it is nested", whole=True),
    Case("a plan that leads out", reported("plan.json", runs=["one/../../x"]), "runs.0 = 'one/../../x': it must be the name of a folder", whole=True),
    Case("a plan with a device", reported("plan.json", runs=["/dev/zero"]), "runs.0 = '/dev/zero': it must be the name", whole=True),
    Case("a plan that is a pipe", reported_pipe, f"plan.json is damaged: {OTHERS}", whole=True),
    Case("a factor of other levels", reported("plan.json", factors={"sampler.n": ["\x1b[31m"]}), "factors: sampler.n has no value 2", whole=True),
    Case("a run of no arms", reported("runs/one/run.json", arms=[]), "run.json is damaged: arms = []: ", whole=True),
    Case("a run of no steps", reported("runs/one/run.json", steps=0), "run.json is damaged: steps = 0: it must be", whole=True),
    Case("a cost that is none", reported("runs/one/run.json", tflop=float("nan")), "tflop = nan: it must be", whole=True),
    Case("a level that is none", reported("runs/one/run.json", arms=[{"label": "a", "variant": "", "levels": {"x": 1}}]), "arms.0.levels.x = 1: it must be", whole=True),
    Case("a result that is none", reported("runs/one/result.json", status="maybe"), "result.json is damaged: status = 'maybe': it must be", whole=True),
    Case("a failure without a reason", reported("runs/one/result.json", status="failed"), "result.json is damaged: error must say", whole=True),
    Case("seconds without end", reported("runs/one/result.json", seconds=float("inf")), "seconds = inf: it must be", whole=True),
    Case("a step that is none", reported("runs/one/output/metrics.jsonl", '{"step": 1}\n{"ce": 1}\n'), "metrics.jsonl is damaged: line 2: step is missing", whole=True),
    Case("a step's figure in words", reported("runs/one/output/metrics.jsonl", '{"step": 1, "ce": "low"}\n'), "line 1: ce = 'low': it must be a valid number", whole=True),
    Case("a step's figure beyond pictures", reported("runs/one/output/metrics.jsonl", '{"step": 1, "ce": 1e308}\n'), "line 1: ce = 1e+308: it must be within", whole=True),
    Case("a run's cluster", reported("runs/one/output/evaluations.jsonl", json.dumps({**FIGURE, "clusters": [0, 2]}) + "\n"), "line 1: not a figure of an evaluation: clusters.1 = 2", whole=True),
    Case("a record's value in words", recorded("documents.csv", ",0,1.0,", ",0,high,"), "documents.csv is damaged: row 2: weight = 'high': it must be a valid number", whole=True),
    Case("a record's step below 0", recorded("steps.csv", "one,1,", "one,-1,"), "steps.csv is damaged: row 2: step = '-1': it must be", whole=True),
    Case("a record's figure in words", recorded("steps.csv", "one,1,2.0", "one,1,low"), "steps.csv is damaged: row 2: ce = 'low': it must be a valid number", whole=True),
    Case("a record's half a row", recorded("steps.csv", "one,4,-1.0,2.0\n", "one,4,-1.0"), "steps.csv is damaged: its last row was cut off", whole=True),
    Case("a record's run of no arms", recorded("runs.jsonl", '"seed": 0', '"seed": -1'), "runs.jsonl is damaged: line 1: description.seed = -1: it must be", whole=True),
    Case("a record's run that leads out", recorded("runs.jsonl", '"name": "one"', '"name": "../one"'), "runs.jsonl is damaged: line 1: name = '../one': it must be the name", whole=True),
    Case("a record's other run", recorded("runs.jsonl", '"name": "one"', '"name": "two"'), "runs.jsonl is damaged: the run one is missing", whole=True),
    Case("a record's nested plan", recorded("study.json", "{", f'{{"nested": {NESTED}, '), "study.json is damaged: it is nested", whole=True),
    Case("a record's other levels", recorded("study.json", '"2"', '"3"'), "study.json is damaged: factors: sampler.n has no value 2", whole=True),
    Case("a record without a table", recorded_without("steps.csv"), "steps.csv: cannot be read: No such file", whole=True),
    Case("a pipe for a run's recipe", run_folder("recipe.yaml", "checkpoint.resume=auto"), f"recipe.yaml: cannot be read: {OTHERS}"),
    Case("a pipe for a run's figures", run_folder("evaluations.jsonl"), "there is a run in that folder already"),
    Case("a pipe for a run's metrics", run_folder("metrics.jsonl"), "there is a run in that folder already"),
    Case("a factor's name", labelled, r"sampler.\x1b[31mtemperature/x", whole=True),
    Case("a measured checkpoint's recipe", measured("run/about.json", '{"recipe": {"model": {"lora": {"quantize_base": 1}}}}'), "about.json is damaged: recipe.model.lora.quantize_base = 1: it must be a valid boolean"),
    Case("half of a measured checkpoint's recipe", measured("run/about.json", '{"recipe": {'), "about.json is damaged: Expecting"),
]  # fmt: skip
