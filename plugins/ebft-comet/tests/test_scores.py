"""Scores of a tiny model by unbabel-comet itself, in its own environment."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ebft_comet
import psutil
import pytest
import torch
from ebft_comet.evaluator import Comet
from ebft_comet.reward import CometReward
from ebft_comet.scorer import Segment

from ebft.errors import EngineError
from ebft.evaluation.translation import Translation
from ebft.plans.completion import Completion
from ebft.testing import (
    check_evaluator,
    check_reward,
    tiny_documents,
    tiny_resources,
    tiny_rollouts,
    write_tiny_model,
)
from tests.conftest import RECIPES

ANY = r"(?s)\A(.*)\Z"  # the whole prompt: the tiny tokenizer has no line breaks
SEGMENTS = [
    Segment("der Hund bellt", "the dog barks", "the dog is barking"),
    Segment("die Katze", "the cat", "the cat"),
    Segment("aber die Katze schläft und der Hund bellt laut", "but the cat", "but the cat sleeps"),
    Segment("laut", "loud", "loudly"),
    Segment("und", "on the mat", "sat"),
    Segment("der", "", "the"),
    *(Segment(f"Hund {i} bellt", f"dog {i * i}", f"dog {i} barks") for i in range(30)),
]
LIBRARY = """
import json, sys
from comet import load_from_checkpoint
model = load_from_checkpoint(sys.argv[1])
samples = [dict(zip(("src", "mt", "ref"), one)) for one in json.loads(sys.argv[2])]
found = model.predict(samples, batch_size=5, gpus=0, progress_bar=False)
print(json.dumps(found.scores))
"""


@pytest.fixture(scope="module")
def options(comet_python, tiny_comet):
    return {"python": comet_python, "model": str(tiny_comet), "start_timeout": 600}


@pytest.fixture
def command_line(comet_python, tiny_comet, tmp_path, offline):
    """What `comet-score` writes for segments: the score of each, and of all."""

    def score(segments):
        files = []
        for option, lines in zip(("-s", "-t", "-r"), zip(*segments, strict=True), strict=True):
            file = tmp_path / f"text{option}"
            file.write_text("".join(f"{line}\n" for line in lines))
            files += [option, str(file)]
        found = tmp_path / "scores.json"
        done = subprocess.run(
            [comet_python.parent / "comet-score", *files, "--gpus", "0", "--quiet",
             "--model", tiny_comet / "checkpoints" / "model.ckpt", "--to_json", found],
            env=offline, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (rows,) = json.loads(found.read_text()).values()
        return [row["COMET"] for row in rows], float(done.stdout.split("score: ")[-1].split()[0])

    return score


def test_in_float16_they_are_the_command_lines(options, command_line):
    theirs, of_all = command_line(SEGMENTS)
    ours = CometReward(**options, dtype="float16").scorer()(SEGMENTS)
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert len({round(score, 3) for score in ours}) > 20, "they differ from each other"
    assert sum(ours) / len(ours) == pytest.approx(of_all, abs=6e-5), "it prints four digits"
    precise = CometReward(**options).scorer()(SEGMENTS)
    assert precise == pytest.approx(theirs, abs=5e-3)


def test_in_float32_they_are_the_librarys_however_they_are_batched(
    options, comet_python, tiny_comet, offline
):
    done = subprocess.run(
        [comet_python, "-I", "-c", LIBRARY, tiny_comet / "checkpoints" / "model.ckpt",
         json.dumps(SEGMENTS)],
        env=offline, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.splitlines()[-1])
    scorer = Comet(**options).scorer()
    assert scorer(SEGMENTS) == pytest.approx(theirs, abs=1e-6)
    one_by_one = [score for segment in SEGMENTS[:9] for score in scorer([segment])]
    assert one_by_one == pytest.approx(theirs[:9], abs=1e-6)
    assert scorer([]) == []


def test_parts_with_the_same_options_share_one_process(options):
    first = Comet(**options).scorer()
    assert CometReward(**options).scorer() is first
    assert Comet(**options, metrics=("chrf",)).scorer() is first
    other = Comet(**options, batch_size=3).scorer()
    assert other is not first
    process = psutil.Process(other._process.pid)
    del other
    assert not process.is_running(), "it ends with the last part that uses it"


class TestParts:
    def test_the_evaluator_keeps_to_the_contract(self, options):
        check_evaluator(Comet(**options, rollout_length=6, source=ANY), tolerance=1e-6)

    def test_the_reward_keeps_to_the_contract(self, options):
        check_reward(CometReward(**options, source=ANY))

    def test_it_measures_what_translation_measures_and_comet(self, options):
        resources = tiny_resources()
        documents = [*tiny_documents([14, 9, 20], prompt_length=4), *tiny_documents([8])]
        part = Comet(**options, rollout_length=6, source=ANY)
        *others, comet = part.build(resources)(resources.policy, documents)
        theirs = Translation(rollout_length=6).build(resources)
        for one, other in zip(others, theirs(resources.policy, documents), strict=True):
            assert one.name == other.name
            assert torch.equal(one.statistics, other.statistics)
        assert (comet.name, comet.unit) == ("COMET", "tiny-comet")
        assert comet.weight.tolist() == [1, 1, 1, 0], "one has no prompt"
        attempts = theirs.translate(resources.policy, documents).attempts
        scores = part.scorer()(
            [Segment(it.context.strip(), it.rollout, it.reference.strip()) for it in attempts]
        )
        assert comet.value[:3].tolist() == pytest.approx(scores, abs=1e-6)

    def test_the_reward_is_each_rollouts_score(self, options):
        contexts = Completion(rollout_length=5)(tiny_documents([14, 9], prompt_length=4))
        rollouts, resources = tiny_rollouts(contexts, n=3), tiny_resources()
        part = CometReward(**options, source=ANY, stop=("a",))
        terms = part.build(resources)(rollouts, None)
        assert terms.unary.shape == (2, 3)
        assert terms.pairwise is None or not terms.pairwise.any()
        decode = resources.tokenizer.decode
        tokens, mask = rollouts.tokens[1, 2], rollouts.mask[1, 2]
        document = contexts.documents[1].tokens
        expected = Segment(
            decode(document[:4]).strip(),
            decode([t for t in tokens[mask].tolist() if t != 1]).strip().partition("a")[0].strip(),
            decode([t for t in document[4:].tolist() if t != 1]).strip(),
        )
        assert float(terms.unary[1, 2]) == pytest.approx(part.scorer()([expected])[0], abs=1e-6)


class TestFaults:
    @pytest.fixture
    def scorer(self, options):
        return Comet(**options, batch_size=7, timeout=5).scorer()

    def test_a_process_that_dies_is_an_error_that_leaves_the_policy_intact(self, scorer):
        os.kill(scorer._process.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="COMET's process was killed by signal 9"):
            scorer(SEGMENTS)

    def test_one_that_hangs_is_ended(self, scorer):
        os.kill(scorer._process.pid, signal.SIGSTOP)
        since = time.perf_counter()
        with pytest.raises(EngineError, match=r"`score` within 5 s .* raise timeout"):
            scorer(SEGMENTS)
        assert time.perf_counter() - since < 30

    def test_a_model_that_cannot_be_loaded_is_one_line(self, options, tmp_path):
        file = tmp_path / "bad" / "checkpoints" / "model.ckpt"
        file.parent.mkdir(parents=True)
        file.write_text("nothing")
        with pytest.raises(EngineError) as error:
            Comet(**options | {"model": str(file)}).scorer()
        assert "COMET's process failed at `start`: RuntimeError: model = " in str(error.value)
        assert "\n" not in str(error.value)


def test_a_recipe_measures_and_trains_with_it(options, tmp_path, offline):
    path = os.pathsep.join(
        [str(Path(ebft_comet.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    )
    model = write_tiny_model(tmp_path / "model")
    rows = [{"q": f"{a} {b} =", "a": f" {b} {a}"} for a in "abcdefgh" for b in "abc"]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    comet = f"_component_: comet, python: {options['python']}, model: {options['model']}"
    done = subprocess.run(
        [sys.executable, "-m", "ebft.cli.main", "run",
         str(RECIPES / "paper" / "rlvr_translation_llama3.2_1b.yaml"), "plugins=[ebft_comet]",
         f"model.path={model}", "model.device=cpu", "model.precision=float32",
         "data=files", f"data.path={file}", "data.prompt=q", "data.completion=a",
         "data.held_out=0.25", "documents.mean_length=null", "documents.length=24",
         f"reward={{{comet}, source: '(.*)'}}", "plan.rollout_length=4", "training.steps=2",
         "training.documents_per_step=2", "training.micro_batch=2", "evaluation.documents=3",
         f"evaluation.evaluators=[{{{comet}, source: '(.*)', rollout_length: 4}}]",
         "evaluation.every=null", f"output_dir={tmp_path / 'run'}"],
        capture_output=True, text=True, env={**offline, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()
    figures = [json.loads(line) for line in lines]
    assert {"held-out BLEU", "held-out chrF", "held-out COMET"} <= {it["name"] for it in figures}
    assert {it["unit"] for it in figures if it["name"] == "held-out COMET"} == {"tiny-comet"}
