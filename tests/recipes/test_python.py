"""The Python interface: the same runs as the command line's, of objects and of files."""

import json
import logging
from io import BytesIO
from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict
from jaxtyping import Float
from pandas import DataFrame, read_parquet
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import ebft
from ebft.api.given import write_rows
from ebft.baselines.leave_one_out import LeaveOneOut
from ebft.errors import PluginError, UserError
from ebft.testing.tiny import CONFIG
from tests.conftest import RECIPES

ROWS = [
    {"id": i, "prompt": f"add {i} and {i + 1} then stop: ", "completion": f"result {2 * i + 1}"}
    for i in range(24)
]
SMALL = {
    "documents.length": 48,
    "plan.rollout_length": 4,
    "training.steps": 2,
    "training.documents_per_step": 4,
    "training.micro_batch": 2,
    "evaluation.documents": 4,
    "evaluation.every": 1,
    "checkpoint.every": 1,
}
TIMES = {"seconds", "tokens_per_second", "memory_gib"}


class Longer(ebft.RewardPart):
    """Rewards a rollout for each of its tokens."""

    scale: float = Field(1.0, description="reward of a token")

    def __call__(self, rollouts, features) -> ebft.Terms:
        length: Float[Tensor, "P n"] = self.scale * rollouts.mask.sum(-1).float()
        return ebft.Terms(length, torch.zeros(*length.shape, length.shape[1]))

    def uses_features(self) -> bool:
        return False


class TakesOne(Longer):
    """A reward that forgets the features."""

    def __call__(self, rollouts) -> ebft.Terms:
        return super().__call__(rollouts, None)


class TakesNone(ebft.BaselinePart):
    """A baseline without a call."""


class Fails(Longer):
    """A reward with a mistake in it."""

    def __call__(self, rollouts, features) -> ebft.Terms:
        raise KeyError("score")


class Stops(Longer):
    """A reward that takes from an iterator that is empty."""

    def __call__(self, rollouts, features) -> ebft.Terms:
        return next(iter([]))


@pytest.fixture(autouse=True)
def _no_handlers():
    yield
    logging.getLogger("ebft").handlers = []
    logging.getLogger("ebft").propagate = True


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    return [{k: v for k, v in line.items() if not TIMES & set(k.split("/"))} for line in lines]


def test_it_is_the_run_of_the_command_line(ebft, tiny_run, tmp_path):
    import ebft as package

    _, _, *overrides = tiny_run()
    assert ebft(*tiny_run())[0] == 0
    keys = dict(override.split("=", 1) for override in overrides)
    values = {k: v if "/" in v else json.loads(v) for k, v in keys.items() if k != "output_dir"}
    run = package.finetune("ebft_full", output_dir=tmp_path / "again", overrides=values)
    shell = package.Run(tmp_path / "run")
    assert (run.folder / "evaluations.jsonl").read_bytes() == (
        shell.folder / "evaluations.jsonl"
    ).read_bytes()
    assert run.steps.drop(columns=TIMES & {*run.steps}).equals(
        shell.steps.drop(columns=TIMES & {*shell.steps})
    )
    weights = [load_file(it.checkpoint / "model.safetensors") for it in (run, shell)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_objects_in_place_of_the_recipe(tiny_model, tmp_path):
    """The policy, rows, and a part that is registered nowhere; the shell resumes the run."""
    import ebft as package

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    call = {
        "model": model,
        "tokenizer": AutoTokenizer.from_pretrained(tiny_model),
        "data": Dataset.from_list(ROWS),
        "output_dir": tmp_path / "run",
        "reward": Longer(scale=0.5),
        "feature_map": None,
        "baseline": LeaveOneOut(),
    }
    held_out = {"evaluation.evaluators": [{"_component_": "cross_entropy"}]}
    run = package.finetune("ebft_completion", **call, overrides={**SMALL, **held_out})
    assert run.recipe["reward"] == {"_component_": f"{__name__}.Longer", "scale": 0.5}
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    assert list(run.steps.index) == [0, 1, 2]
    assert run.steps["reward"].dropna().between(0.5, 2.0).all()
    frame = run.evaluations.set_index(["name", "step"])
    assert frame.loc[("held-out CE", 0), "change"] == 0
    moved = frame.loc[("held-out CE", 2)]
    first = frame.loc[("held-out CE", 0)]
    assert moved["change"] == pytest.approx(moved["mean"] - first["mean"], abs=1e-6)
    assert moved["documents"] == 2  # a tenth of the rows
    assert run.plot().axes[0].get_title(loc="left") == "held-out CE"
    text = run.tokenizer("add 1", return_tensors="pt")
    assert run.policy.generate(**text, max_new_tokens=3).shape[1] > text["input_ids"].shape[1]

    more = {**SMALL, **held_out, "checkpoint.resume": "auto", "training.steps": 3}
    more["checkpoint.may_differ"] = ["training.steps", "lr_scheduler"]
    longer = package.finetune("ebft_completion", **call, overrides=more)
    assert list(longer.steps.index) == [0, 1, 2, 3]


def test_texts_and_the_base_of_a_mapping(tiny_model, tmp_path):
    recipe = {
        "base": str(RECIPES / "sft_full.yaml"),
        "model": {"path": str(tiny_model)},
        "training": {"steps": 1, "documents_per_step": 2, "micro_batch": 2},
    }
    small = {
        "documents.length": 24, "plan.start": 4, "plan.stride": 8, "plan.rollout_length": 4,
        "evaluation.documents": 2, "checkpoint.every": None,
    }  # fmt: skip
    texts = [f"def f{i}(x): return x + {i} - {i * i}  # {'.' * i}" for i in range(12)]
    run = ebft.finetune(
        recipe, data=texts, held_out=texts[:2], output_dir=tmp_path / "sft", overrides=small
    )
    assert [json.loads(line)["text"] for line in (run.folder / "given/train.jsonl").open()] == texts
    assert run.evaluations["documents"].max() == 2

    measured = ebft.evaluate(
        model=run.checkpoint, held_out=texts, output_dir=tmp_path / "eval",
        overrides={"documents.length": 64, "model.base": str(tiny_model), "plan": small_plan(),
                   "evaluation.evaluators": [{"_component_": "cross_entropy"}]},
    )  # fmt: skip
    assert measured.evaluations["documents"].max() == 12
    assert set(ebft.compare(run, measured)["run"]) == {"sft", "eval"}
    for call, says in (
        (lambda: ebft.compare(run), "compare: needs two runs or more, and got 1"),
        (lambda: ebft.compare(run, 5), "5: not a run; give the path of its output_dir"),
        (lambda: ebft.Run(5), "5: not a run; give the path of its output_dir"),
    ):
        with pytest.raises(UserError, match=says):
            call()


def small_plan():
    return {"_component_": "strided", "start": 4, "stride": 8, "rollout_length": 4}


def local_part():
    class Hidden(Longer):
        """A class without a name that can be imported."""

    return Hidden()


CIRCLE: list = []
CIRCLE.append(CIRCLE)
MISTAKES = {
    "no such recipe": ({"recipe": "ebft_ful"}, "ebft_full"),
    "a model without a tokenizer": (
        {"model": AutoModelForCausalLM.from_config(CONFIG)},
        "tokenizer: missing",
    ),
    "a class in a function": ({"reward": local_part()}, "reward: local_part.<locals>.Hidden"),
    "another object as a model": (
        {"model": torch.nn.Linear(1, 1), "tokenizer": "t"},
        "model: is a Linear; give a name",
    ),
    "a tokenizer that would be ignored": ({"tokenizer": "t"}, "tokenizer: is used only with a"),
    "overrides as texts": ({"overrides": ["training.steps=3"]}, "overrides: is ['training"),
    "an object in an override": (
        {"overrides": {"model.precision": torch.float32}},
        "model.precision: is a dtype;",
    ),
    "a class as a part": ({"reward": Longer}, "reward: is the class Longer; pass an object of it"),
    "a function as a part": (
        {"reward": len},
        "reward: is a builtin_function_or_method; a recipe has",
    ),
    "no recipe": ({"recipe": None}, "recipe: is a NoneType; give the name"),
    "a data frame": (
        {"data": DataFrame(ROWS)},
        (
            "data: is a DataFrame; give a datasets.Dataset, a list of dicts or a list of texts; "
            "of a data frame Dataset.from_pandas(frame)"
        ),
    ),
    "splits": (
        {"data": DatasetDict(train=Dataset.from_list(ROWS))},
        (
            "data: is a DatasetDict; give a datasets.Dataset, a list of dicts or a list of texts; "
            "of one row [row], of splits one of them"
        ),
    ),
    "a text among rows": (
        {"data": [*ROWS, "a text"]},
        (
            f"data: row {len(ROWS) + 1} is a text, and the first has prompt and completion; give "
            "all rows the same columns"
        ),
    ),
    "rows without columns": ({"data": [{}]}, "data: rows have no columns; name them prompt"),
    "a check that the first row lacks": (
        {"data": [{"text": "a"}, {"text": "b", "check": "c"}]},
        "data: row 2 has 'check', which",
    ),
    "a file as data": (
        {"data": "rows.jsonl"},
        "data: is a str; give a datasets.Dataset, a list of dicts or a list of texts; of a file",
    ),
    "no rows": ({"data": []}, "data: has no rows"),
    "other columns": ({"data": [{"question": "?"}]}, "data: rows have the columns 'question'"),
    "a row that differs": ({"data": [{"text": "a"}, {"txt": "b"}]}, "data: row 2 has no 'text'"),
    "rows of numbers": ({"data": [1, 2]}, "data: row 1 is a int"),
    "a text of bytes": ({"data": [{"text": b"a"}]}, "data: row 1, text: Object of type bytes"),
    "a row in itself": ({"data": [{"text": CIRCLE}]}, "data: row 1, text: Circular reference"),
    "a completion beside later messages": (
        {"data": [{"messages": []}, {"messages": [], "completion": "a"}]},
        "data: row 2 has 'completion', which the first lacks",
    ),
    "a prompt that the first row lacks": (
        {"data": [{"completion": "a"}, {"prompt": "b", "completion": "c"}]},
        "data: row 2 has 'prompt', which the first lacks; give all rows the same columns",
    ),
    "two completions": (
        {"data": [{"prompt": "a", "completion": "b", "text": "ab"}]},
        "data: rows have completion and text; leave one of them out",
    ),
    "conversations and texts": (
        {"data": [{"messages": [], "text": "a"}]},
        "data: rows have messages and text; leave one of them out",
    ),
    "a conversation without messages": ({"data": [{"messages": []}]}, "train.jsonl, row 1 has"),
    "a number as text": ({"data": [{"text": 7}]}, "train.jsonl, row 1"),
    "two forms": (
        {"data": ROWS, "held_out": ["a text"]},
        "held_out: its columns are not those of data",
    ),
    "a mistake in a value": ({"overrides": {"sampler.n": 0}}, "in the call: sampler.n = 0"),
    "a null character": (
        {"model": "a\0b", "data": ROWS},
        r"model.path = 'a\x00b': has a null character; remove it",
    ),
    "a kind that trains nothing": ({"recipe": "evaluate"}, "recipe = evaluate"),
    "a part of another kind": ({"reward": LeaveOneOut()}, "none of the rewards is named"),
}


@pytest.mark.parametrize(("call", "says"), MISTAKES.values(), ids=list(MISTAKES))
def test_mistakes_are_one_line(call, says, tiny_model, tmp_path):
    call = {"recipe": "ebft_completion", "model": str(tiny_model), "output_dir": tmp_path, **call}
    with pytest.raises(UserError) as error:
        ebft.finetune(**call)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_the_rows_of_a_run_that_is_there_stay_as_they_are(tiny_model, tmp_path):
    given = tmp_path / "given/train.jsonl"
    given.parent.mkdir()
    given.write_text("before")
    (tmp_path / "metrics.jsonl").write_text("{}")
    call = {"model": str(tiny_model), "data": ROWS, "output_dir": tmp_path}
    with pytest.raises(UserError, match="there is a run in that folder already"):
        ebft.finetune("ebft_completion", **call)
    with pytest.raises(UserError, match="unknown key"):
        ebft.finetune("ebft_completion", **call, overrides={"training.stps": 3, "overwrite": True})
    assert given.read_text() == "before"
    assert [it.name for it in given.parent.iterdir()] == ["train.jsonl"]


@pytest.mark.parametrize(("folder", "says"), [("", "is empty"), (" ", "is empty"), ("a\0", "null")])
def test_a_folder_without_a_name_is_refused_before_anything_is_written(
    folder, says, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"output_dir.*{says}"):
        ebft.finetune("ebft_completion", data=ROWS, output_dir=folder)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "part", "says"),
    [
        (
            "reward", TakesOne(),
            "reward: TakesOne takes (rollouts), and the run calls it with (rollouts, features)",
        ),
        (
            "baseline", TakesNone(),
            "baseline: TakesNone has no __call__; the run calls it with (terms)",
        ),
    ],
)  # fmt: skip
def test_a_part_that_cannot_be_called_is_refused_before_a_step(
    key, part, says, tiny_model, tmp_path
):
    folder = tmp_path / "run"
    with pytest.raises(PluginError) as error:
        ebft.finetune(
            "ebft_completion", model=tiny_model, data=ROWS, output_dir=folder,
            overrides=SMALL, **({"reward": Longer()} | {key: part}),
        )  # fmt: skip
    assert str(error.value) == says
    assert not (folder / "evaluations.jsonl").exists()


def test_a_data_frame_as_a_data_set_has_lists_and_empty_cells(tmp_path):
    talk = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": talk, "tools": None}, {"messages": talk, "tools": [{"name": "f"}]}]
    DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    stream = BytesIO()
    write_rows(Dataset.from_pandas(read_parquet(tmp_path / "rows.parquet")), stream, key="data")
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == rows


def test_a_call_that_is_refused_leaves_no_folder(tiny_model, tmp_path):
    for mistake in ({"data": [{"question": "?"}]}, {"overrides": {"training.stps": 3}}):
        call = {"model": tiny_model, "data": ROWS, "output_dir": tmp_path / "runs/first"}
        with pytest.raises(UserError):
            ebft.finetune("ebft_completion", **(call | mistake))
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("reward", "raises"), [(Fails(), KeyError), (Stops(), RuntimeError)], ids=["Fails", "Stops"]
)
def test_a_reward_that_raises_is_named_where_no_part_uses_features(
    reward, raises, tiny_model, tmp_path
):
    with pytest.raises(raises) as raised:
        ebft.finetune(
            "ebft_completion", model=tiny_model, data=ROWS, output_dir=tmp_path / "run",
            reward=reward, overrides=SMALL,
        )  # fmt: skip
    [note] = raised.value.__notes__
    assert note.startswith("ebft: this was raised after 0 steps, in reward = ")
    assert type(reward).__name__ in note


def test_columns_that_are_null_or_not_read_may_differ():
    talk = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    more = {"messages": talk, "prompt": "u", "completion": None, "id": 3}
    stream = BytesIO()
    assert write_rows([{"messages": talk}, more], stream, key="data") == {"messages": "messages"}
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [{"messages": talk}] * 2


def test_tools_of_any_row_are_read():
    talk = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": talk}, {"messages": talk, "tools": [{"name": "f"}]}, {"messages": talk}]
    stream = BytesIO()
    found = write_rows(rows, stream, key="data")
    assert found == {"messages": "messages", "tools": "tools"}
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert lines == rows


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(UserError, match="there is no run in it"):
        ebft.Run(tmp_path)
    assert not list(Path(tmp_path).iterdir())


def test_samples_are_rows_of_both_models(tiny_model, tmp_path):
    run = ebft.finetune(
        "ebft_completion", model=tiny_model, data=ROWS, output_dir=tmp_path / "run",
        reward=Longer(), overrides=SMALL,
    )  # fmt: skip
    prompts = ["add 3", {"prompt": "add 4", "completion": "result"}]
    frame = run.sample(prompts, n=2, overrides={"plan.rollout_length": 3, "reward": Longer()})
    assert list(frame["model"]) == ["base", "base", "checkpoint", "checkpoint"] * 2
    assert set(frame["document"]) == {"prompts:1", "prompts:2"}
    # Without a reference nothing is scored.
    assert frame["reward"].isna().tolist() == [True] * 4 + [False] * 4
    with pytest.raises(UserError, match=r"^prompts, row 1 has no 'prompt'"):
        run.sample([{"question": "?"}])
    for wrong in ("a text", {"prompt": "add"}):
        with pytest.raises(UserError, match=r"^prompts: is a (str|dict); give"):
            run.sample(wrong)
    with pytest.raises(UserError, match=r"^contexts = 0: give a number of 1 or more"):
        run.sample(contexts=0)
