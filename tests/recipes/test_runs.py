"""Whole runs through the command line, on a tiny model."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ebft.config.load import load_recipe
from ebft.errors import UserError
from ebft.runs.finetune import FineTuning
from ebft.runs.folder import OutputFolder
from ebft.training.loop import train

ROWS = [{"question": f"a b {c}", "answer": f"{c} d = {c} e"} for c in "abcdefghijklmnopqrs"]


@pytest.fixture
def pairs(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def checkpoints(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_a_folder_of_python_files(ebft, tiny_run, tmp_path):
    status, out, err = ebft(*tiny_run())
    assert status == 0, err
    run = tmp_path / "run"
    assert "before → after" in out
    assert "held-out CE" in out
    assert "held-out CFM" in out
    assert "step 1: rollouts" in out
    assert checkpoints(run) == ["step-000002", "step-000003"]
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 0, 2, 2, 3, 3]
    assert (run / "training.png").read_bytes().startswith(b"\x89PNG")
    logged = (run / "metrics.jsonl").read_text()
    assert all(name in logged for name in ("cfm", "ce", "alignment", "diversity", "grad_norm"))
    # The recipe that was saved says how to run the same again.
    assert load_recipe(run / "recipe.yaml").options.training.steps == 3


def test_checkpoints_load_with_transformers_alone(ebft, tiny_run, tiny_model, tmp_path):
    assert ebft(*tiny_run())[0] == 0
    folder = tmp_path / "run" / "checkpoints" / "step-000003"
    trained, base = (AutoModelForCausalLM.from_pretrained(f) for f in (folder, tiny_model))
    assert trained.dtype == torch.float32
    tokens = AutoTokenizer.from_pretrained(folder)("a b c", return_tensors="pt")
    assert not torch.equal(trained(**tokens).logits, base(**tokens).logits)


def test_pairs_of_prompt_and_completion(ebft, tiny_run, pairs, tmp_path):
    columns = ["data=files", f"data.path={pairs}", "data.prompt=question", "data.completion=answer"]
    plan = ["plan=completion", "plan.rollout_length=6"]
    status, out, err = ebft(*tiny_run(*columns, *plan, without="plan."))
    assert status == 0, err
    assert "before → after" in out
    assert "plan: completion instead of strided; options of strided dropped" in err
    assert checkpoints(tmp_path / "run") == ["step-000002", "step-000003"]


def test_one_run_at_a_time_in_a_folder(ebft, tiny_run, tmp_path):
    folder = OutputFolder(tmp_path / "run")
    with folder.locked(overwrite=False):
        status, _, err = ebft(*tiny_run("overwrite=true"))
    assert status == 2
    assert "another process is writing into it" in err
    status, _, err = ebft(*tiny_run("training.steps=1"))
    assert status == 0, err
    before = sorted((tmp_path / "run" / "checkpoints").iterdir())
    with folder.locked(overwrite=False):  # the run has released it
        status, _, err = ebft(*tiny_run("training.steps=1", "checkpoint.resume=auto"))
    assert status == 2
    assert "another process is writing into it" in err
    assert sorted((tmp_path / "run" / "checkpoints").iterdir()) == before


def steps_of(arguments):
    """The steps of a run, and the policy's weights after them."""
    _, file, *overrides = arguments
    recipe = load_recipe(Path(file), overrides)
    with FineTuning(recipe.options, recipe.registry, source=recipe.source) as run:
        steps = list(train(run.prepared.loop, range(recipe.options.training.steps)))
        weights = {k: v.clone() for k, v in run.prepared.loop.policy.state_dict().items()}
    return steps, weights


def test_the_same_seed_gives_the_same_run(tiny_run):
    first, weights = steps_of(tiny_run())
    second, same_weights = steps_of(tiny_run("overwrite=true"))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.scored.rollouts.tokens, b.scored.rollouts.tokens)
        assert torch.equal(a.scored.rollouts.log_probs, b.scored.rollouts.log_probs)
        assert (a.losses, a.grad_norm) == (b.losses, b.grad_norm)
    assert all(torch.equal(weights[name], same_weights[name]) for name in weights)
    third, _ = steps_of(tiny_run("overwrite=true", "seed=1"))
    assert not torch.equal(first[0].scored.rollouts.tokens, third[0].scored.rollouts.tokens)


def test_documents_on_demand(ebft, tiny_run, tmp_path):
    status, out, err = ebft(*tiny_run("documents.on_demand=true"))
    assert status == 0, err
    assert "before → after" in out
    assert checkpoints(tmp_path / "run") == ["step-000002", "step-000003"]


def test_micro_batches_change_nothing_but_memory(tiny_run):
    whole, _ = steps_of(tiny_run("training.micro_batch=4"))
    parts, _ = steps_of(tiny_run("training.micro_batch=1", "overwrite=true"))
    chosen, _ = steps_of(tiny_run("training.micro_batch=auto", "overwrite=true"))
    for a, b in [*zip(whole, parts, strict=True), *zip(whole, chosen, strict=True)]:
        assert torch.equal(a.scored.rollouts.tokens, b.scored.rollouts.tokens)
        assert a.losses.cross_entropy == pytest.approx(b.losses.cross_entropy, rel=1e-4)
        losses = (step.losses.policy_gradient.loss for step in (a, b))
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
        assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-4)


def test_ctrl_c_finishes_the_step_and_saves(ebft, tiny_run, tmp_path, monkeypatch):
    from ebft.runs.progress import Progress

    show = Progress.step

    def interrupt_in_the_first_step(self, step, metrics):
        show(self, step, metrics)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Progress, "step", interrupt_in_the_first_step)
    before = signal.getsignal(signal.SIGINT)
    status, _, err = ebft(*tiny_run("training.steps=50"))
    assert status == 130
    assert "stopped after step 1" in err
    assert checkpoints(tmp_path / "run") == ["step-000001"]
    AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "checkpoints" / "step-000001")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_is_not_overwritten_by_accident(ebft, tiny_run, tmp_path):
    assert ebft(*tiny_run("training.steps=1"))[0] == 0
    status, _, err = ebft(*tiny_run("training.steps=1"))
    assert status == 2
    assert err.strip().endswith(
        "choose another with output_dir=…, set checkpoint.resume=auto to resume that run, "
        "or overwrite=true"
    )
    assert ebft(*tiny_run("training.steps=2", "overwrite=true"))[0] == 0
    assert checkpoints(tmp_path / "run") == ["step-000002"]
    assert len((tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()) == 4


class Unreachable:
    """A metric logger whose service does not answer, with an error of its own."""

    def __init__(self):
        raise type("ServiceError", (Exception,), {})("no key")

    def log_dict(self, payload, step): ...

    def close(self): ...


class LineLogger:
    """A metric logger that writes the number of each step it gets."""

    def __init__(self, log_dir: str):
        self.file = Path(log_dir, "log.txt")
        self.file.parent.mkdir(exist_ok=True)
        self.file.touch()

    def log_dict(self, payload, step):
        with self.file.open("a") as file:
            file.write(f"{step} {len(payload)}\n")

    def close(self): ...


LINE_LOGGER = f"_component_: {__name__}.LineLogger"


def test_a_run_is_not_overwritten_by_one_without_its_loggers(ebft, tiny_run, tmp_path):
    """What is deleted for a run is deleted when nothing can keep it from starting."""
    run = tmp_path / "run"
    assert ebft(*tiny_run("training.steps=1"))[0] == 0
    kept = [run / name for name in ("recipe.yaml", "evaluations.jsonl", "metrics.jsonl")]
    before = [file.read_bytes() for file in kept]
    loggers = f"{{{LINE_LOGGER}, log_dir: {run}}}, {{_component_: {__name__}.Unreachable}}"
    plugins = f"plugins=[{__name__}]"
    status, _, err = ebft(*tiny_run("overwrite=true", plugins, f"metric_loggers=[{loggers}]"))
    assert status == 2
    assert err.strip().splitlines()[-1] == (
        f"metric_loggers.1 = {__name__}.Unreachable: cannot be created (ServiceError: no key); "
        "fix that, or leave it out"
    )
    assert "Traceback" not in err
    assert checkpoints(run) == ["step-000001"]
    assert [file.read_bytes() for file in kept] == before


def test_the_log_of_an_overwritten_run_is_removed_and_other_loggers_files_stay(
    ebft, tiny_run, tmp_path
):
    """What a logger of the recipe gets is what the run itself logs."""
    run = tmp_path / "run"
    logger = f"metric_loggers=[{{{LINE_LOGGER}, log_dir: {run / 'logs'}}}]"
    more, logged = [logger, f"plugins=[{__name__}]", "overwrite=true"], []
    for steps in (3, 1):
        assert ebft(*tiny_run(*more, f"training.steps={steps}"))[0] == 0
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if "ce" in line] == list(range(1, steps + 1))
        logged += [f"{line['step']} {len(line) - 1}" for line in lines]
    assert (run / "logs" / "log.txt").read_text().splitlines() == logged


def test_a_folder_where_nothing_came_of_a_run_is_free(ebft, tiny_run, tmp_path):
    with OutputFolder(tmp_path / "run").locked(overwrite=False) as folder:
        folder.take("recipe: finetune\n")
        log = tmp_path / "run" / "logs" / "log.txt"
        log.parent.mkdir()
        log.touch()
        folder.check()
        log.write_text("a line")
        with pytest.raises(UserError, match="there is a run in that folder already"):
            folder.check()


def test_checkpoints_without_a_recipe_are_not_taken_for_the_run_s_own(ebft, tiny_run, tmp_path):
    saved = tmp_path / "run" / "checkpoints"
    for step in (2, 7):
        (saved / f"step-{step:06d}").mkdir(parents=True)
    status, _, err = ebft(*tiny_run("training.steps=2"))
    assert status == 2
    assert "there is a run in that folder already" in err
    status, _, err = ebft(*tiny_run("training.steps=2", "overwrite=true"))
    assert status == 0, err
    assert checkpoints(tmp_path / "run") == ["step-000002"]
    AutoModelForCausalLM.from_pretrained(saved / "step-000002")


def test_a_document_that_a_step_has_twice_has_rollouts_of_its_own_each_time(tiny_run):
    [step], _ = steps_of(tiny_run("training.documents_per_step=20", "training.steps=1"))
    contexts, tokens = step.contexts, step.scored.rollouts.tokens
    places = {document.name: i for i, document in enumerate(contexts.documents)}
    again = [name for name in places if name.endswith(" (2)")]
    assert again
    for name in again:
        first, second = (
            contexts.row == places[which] for which in (name.removesuffix(" (2)"), name)
        )
        assert torch.equal(contexts.reference[first], contexts.reference[second])
        assert not torch.equal(tokens[first], tokens[second])


def test_a_step_larger_than_the_data_is_said(ebft, tiny_run):
    status, _, err = ebft(*tiny_run("training.documents_per_step=100", "training.steps=1"))
    assert status == 0, err
    assert "training.documents_per_step = 100: there are" in err
    assert "a step repeats some of them" in err
    assert "EBFT: step 1 of 1  CFM" in err, "off a terminal, a line in place of the bar"
