"""A user's mistakes, through the command line: one clear line, status 2, no traceback."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from ebft.checkpoints.folder import Checkpoints
from ebft.models.export import save_policy
from ebft.parts.kinds import BASES
from tests.tiny import plain_policy, tiny_tokenizer

OWN_COPY = Path(__file__).parents[1] / "own_copy.py"
COMPLETION = ["plan=completion", "~plan.start", "~plan.stride", "evaluation.evaluators=[]"]


@pytest.fixture
def refused(ebft, tiny_run, tmp_path):
    """Runs a command line that must end with status 2 and one line on stderr; returns the line."""

    def run(*overrides: str, **options: str) -> str:
        status, out, err = ebft(*tiny_run(*overrides, **options))
        assert status == 2, (out, err)
        assert "Traceback" not in err
        assert not (tmp_path / "run" / "recipe.yaml").exists()
        return last_line(err)

    return run


def last_line(err: str) -> str:
    return err.rstrip().splitlines()[-1]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "sampler.m=8",
            "command line: sampler.m = 8: unknown key; there are: keep_weights, n, temperature",
        ),
        ("trainin.steps=8", "unknown key; did you mean 'training'?"),
        ("sampler.n=0", "command line: sampler.n = 0: must be greater than or equal to 1"),
        ("sampler.n=four", "sampler.n = four: must be a valid integer"),
        ("sampler.temperature=0", "sampler.temperature = 0: must be greater than 0"),
        ("objective.gamma=.inf", "objective.gamma = inf: must be a finite number"),
        ("feature_map.pooling=lats", "did you mean 'last'?"),
        ("feature_map.depths=[0.5,1.5]", "feature_map.depths.1 = 1.5: must be less than or equal"),
        ("reward=feature_machting", "did you mean 'feature_matching'?"),
        ("recipe=finetun", "no such recipe; did you mean 'finetune'?"),
        ("optimizer._component_=torch.optim.AdamV", "did you mean 'Adam'?"),
        ("optimizer.learning_rate=1", "optimizer.learning_rate = 1: unknown key"),
        ("plugins=[nowhere.py]", "plugins: nowhere.py: no such file; looked for"),
        ("transforms=[{_component_:l2}]", "needs `_component_: NAME`, with the space, and that"),
        ("sampler.n=1", "sampler.n = 1: the reward compares a context's rollouts with each other"),
        ("seed=5000000000", "seed = 5000000000: must be less than 2147483648"),
        ("documents.length=100000", "documents.length = 100000: the model reads 2048 tokens"),
        (
            COMPLETION,
            "without a prompt): plan completion needs a prompt",
        ),
        (["reward=kernel", "reward.bandwidth=0"], "reward.bandwidth"),
        (
            ["reward=kernel", "reward.kernel=energy", "reward.bandwidth=2.0"],
            "kernel energy has none",
        ),
        (["reward.alignment=0", "reward.diversity=0"], "nothing is left of the reward"),
        (
            ["sampler.n=1", "reward=token_overlap", "baseline=group_mean"],
            "sampler.n = 1: the baseline GroupMean needs 2 rollouts of a context or more",
        ),
        (
            ["require_unbiased=true", "objective.importance.level=token"],
            "objective: does not keep the gradient unbiased (importance.level = token",
        ),
        (
            [
                "require_unbiased=true",
                "objective.importance.level=sequence",
                "objective.importance.cap=null",
            ],
            "(importance.level = sequence weighs one rollout of each pair alone)",
        ),
        (["require_unbiased=true", "reward=kernel"], "reward: KernelScore does not keep the"),
        ("baseline=null", "baseline: missing, but the recipe has sampler, reward; give sampler,"),
        ("reward=null", "reward: missing, but the recipe has sampler, baseline; give sampler,"),
        (
            "feature_map=null",
            "evaluation.evaluators.1.feature_map = null: needs `_component_:",
        ),
        ("documents.length=11", "documents.length = 11: leaves no anchor"),
        ("plan.rollout_length=40", "documents.length = 40: leaves no anchor"),
        ("plan.stride=0", "plan.stride = 0: must be greater than or equal to 1"),
        ("training.sample_ahead=2", "training.sample_ahead = 2: must be 1"),
        (
            ["training.sample_ahead=1", "objective.importance.level=sequence"],
            "training.sample_ahead = 1: the sampler HfTree computes with the policy's own weights",
        ),
        (
            [f"plugins=[{OWN_COPY}]", "sampler=own_copy", "training.sample_ahead=1"],
            "rollouts are sampled from older weights than are trained; set objective.importance",
        ),
        ("model.path=./nowhere", "model.path = ./nowhere: no such folder; give"),
        ("model.device=cuda:99", "model.device = cuda:99"),
        ("model.device=gpu", "model.device = gpu: no such device; give auto, cpu, cuda"),
        ("optimizer.lr=fast", "optimizer.lr = fast: must be a valid number"),
        ("optimizer.lr=-1", "Invalid learning rate: -1"),
        ("optimizer.betas=[0.9]", "optimizer.betas = [0.9]: has too few values, 1"),
        ("optimizer=adamw", "give a dotted path, such as torch.optim.AdamW"),
        ("lr_scheduler.num_warmup_steps=x", "num_warmup_steps = x: must be a valid integer"),
        (
            "metric_loggers=[{_component_: ebft.report.loggers.TensorBoardLogger}]",
            "metric_loggers.0: ebft.report.loggers.TensorBoardLogger(): missing a required",
        ),
        ("transforms=l2", "transforms = l2: must be a list: [l2]"),
        (
            "~plan",
            "evaluation.evaluators[1].plan: refers to ${plan}, which does not exist; set plan,",
        ),
        ("data.path=./nowhere", "data.path = nowhere: no such folder"),
        ("seed", "'seed': an override is key=value, or ~key to delete a key"),
        ("~sampler.q", "there is no 'q'"),
        ("~objective.gamma", "objective.gamma: missing; it has no default"),
        ("data.path=${nope}", "nope"),
    ],
)
def test_a_mistake_in_a_value(refused, override, says):
    assert says in refused(*([override] if isinstance(override, str) else override))


def test_a_part_whose_module_is_broken(refused, tmp_path, monkeypatch):
    (tmp_path / "broken_parts").mkdir()
    (tmp_path / "broken_parts" / "__init__.py").touch()
    (tmp_path / "broken_parts" / "one.py").write_text("class Broken(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    says = refused("plugins=[broken_parts]", "reward=broken_parts.one.Broken")
    assert "reward._component_ = broken_parts.one.Broken: cannot be imported: " in says
    assert "one.py, line 1: " in says


RETURNS = [
    ("rewards", "rollouts, features", "rollouts.tokens.float()[..., 0]", "return Terms; Terms"),
    ("feature_maps", "rollouts", "rollouts.tokens.float()", "feature_map: returned Tensor, and"),
    ("baselines", "terms", "0", "baseline: returned int, and must return Tensor"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "arguments", "value", "says"), RETURNS)
def test_a_part_that_returns_another_type(ebft, tiny_run, tmp_path, kind, arguments, value, says):
    plugin = tmp_path / "other.py"
    plugin.write_text(
        f"import ebft\n\n\nclass Other(ebft.{BASES[kind].__name__}):\n"
        "    def pairwise(self):\n        return False\n\n"
        f"    def __call__(self, {arguments}):\n        return {value}\n\n\n"
        f"@ebft.hookimpl\ndef register_{kind}():\n    return {{'other': Other}}\n"
    )
    key = kind.removesuffix("s")
    status, _, err = ebft(*tiny_run(f"plugins=[{plugin}]", f"{key}=other"))
    assert status == 2
    assert says in err
    assert "Traceback" not in err


def test_prompts_need_an_end(refused, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "endless")
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / file).exists():
            content = json.loads((folder / file).read_text())
            content.pop("eos_token", None)
            (folder / file).write_text(json.dumps({**content, "pad_token": "<unk>"}))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"q": "def f(x):", "a": " return {i}"}}\n' for i in range(20)))
    columns = ["data=files", f"data.path={rows}", "data.prompt=q", "data.completion=a"]
    says = refused(*columns, f"model.path={folder}", *COMPLETION)
    assert "its tokenizer has no end-of-sequence token" in says


def test_flex_attention_is_not_compiled_twice(refused):
    says = refused("training.compile=true", "model.attention=flex")
    assert "training.compile = true: cannot be combined with model.attention = flex" in says


def test_an_override_is_known_from_the_file(ebft, tmp_path, tiny_run):
    file = tmp_path / "recipe.yaml"
    source = Path(tiny_run()[1]).read_text()
    file.write_text(source.replace("sampler:\n", "sampler:\n  temprature: 1\n"))
    status, _, err = ebft("validate", str(file))
    assert status == 2
    assert err.strip() == (
        f"{file}: sampler.temprature = 1: unknown key; did you mean 'temperature'?"
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        ("recipe: [", "not YAML"),
        ("- a\n- b\n", "a recipe is a mapping"),
        ("recipe: ${x}\n", "x"),
        ("", "missing"),
    ],
)
def test_a_file_that_is_no_recipe(ebft, tmp_path, content, says):
    file = tmp_path / "recipe.yaml"
    if content is not None:
        file.write_text(content)
    status, _, err = ebft("run", str(file))
    assert status == 2
    assert says in err
    assert all(line.startswith(f"{file}: ") for line in err.splitlines())


def test_a_misspelt_file_names_the_near_one(ebft, tiny_run):
    file = tiny_run()[1].replace("full", "ful")
    assert last_line(ebft("validate", file)[2]).endswith(f"did you mean '{tiny_run()[1]}'?")


class TestData:
    def test_every_document_too_short(self, refused, tmp_path):
        for number in range(4):
            (tmp_path / f"{number}.py").write_text("ab" + "c" * number)
        line = refused(f"data.path={tmp_path}")
        assert "none of 3 train documents can be used (3 too short for the plan)" in line
        assert "the plan needs 12 tokens or more" in line

    def test_short_documents_are_dropped_and_counted(self, ebft, tiny_run, tmp_path):
        folder = tmp_path / "python"
        folder.mkdir()
        for number in range(8):
            (folder / f"long{number}.py").write_text("abc = d " * 4 + "abcdefgh"[number])
            (folder / f"short{number}.py").write_text("abcdefgh"[number])
        status, _, err = ebft(*tiny_run(f"data.path={folder}", "training.steps=1"))
        assert status == 0
        assert "too short for the plan" in err

    def test_pairs_need_a_prompt(self, refused):
        assert "train documents can be used" in refused("plan=completion", without="plan.")


class TestNumbers:
    """NaN or infinity stops the run, names the step and the document, and overwrites nothing."""

    @pytest.fixture
    def fails(self, ebft, tiny_run, tmp_path):
        def run(*overrides: str) -> str:
            status, _, err = ebft(*tiny_run("evaluation.evaluators=[]", *overrides))
            assert status == 1
            assert "Traceback" not in err
            assert not list((tmp_path / "run").glob("checkpoints/*"))
            return last_line(err)

        return run

    def test_in_features_and_weights(self, fails, tmp_path):
        policy = plain_policy()
        with torch.no_grad():
            policy.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
        folder = tmp_path / "nan"
        folder.mkdir()
        save_policy(policy, tiny_tokenizer(), folder)
        line = fails(f"model.path={folder}")
        assert line.startswith("error: before anything is computed: log-probs of ")
        assert ".py#" in line
        assert "in the weights of LlamaForCausalLM" in line

    @pytest.mark.parametrize(
        ("kind", "returns", "says"),
        [
            ("rewards", "Terms.of_unary(u * 0 / (u - u))", "step 1: rewards have NaN"),
            ("baselines", "terms.reward() / 0", "step 1: advantages have NaN"),
        ],
    )
    def test_in_rewards_and_baselines(self, fails, tmp_path, kind, returns, says):
        call = {
            "rewards": "rollouts, features):\n        u = features.samples.sum(-1)",
            "baselines": "terms):\n        pass",
        }[kind]
        plugin = tmp_path / "broken.py"
        plugin.write_text(
            f"import ebft\nfrom ebft import Terms\n\n\nclass Broken(ebft.{BASES[kind].__name__}):\n"
            f"    def pairwise(self):\n        return True\n\n    def __call__(self, {call}\n"
            f"        return {returns}\n\n\n@ebft.hookimpl\ndef register_{kind}():\n"
            '    return {"broken": Broken}\n'
        )
        line = fails(f"plugins=[{plugin}]", f"{kind.removesuffix('s')}=broken")
        assert says in line
        assert ".py#1" in line

    def test_in_the_gradient(self, fails):
        assert "step 2: " in fails("optimizer.lr=1e30", "lr_scheduler.num_warmup_steps=0")


def test_a_full_disk_leaves_the_checkpoint_before(ebft, tiny_run, tmp_path, monkeypatch):
    save = Checkpoints.save

    def full_after_the_first(self, contents, **more):
        if self.saved():
            monkeypatch.setattr("ebft.checkpoints.snapshot.save_policy", no_space)
        return save(self, contents, **more)

    def no_space(policy, tokenizer, folder, **_):
        (folder / "model.safetensors").write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Checkpoints, "save", full_after_the_first)
    status, _, err = ebft(*tiny_run("checkpoint.every=1"))
    assert status == 1
    folder = tmp_path / "run" / "checkpoints"
    line = last_line(err)
    assert "cannot save the checkpoint of step 2" in line
    assert "No space left on device" in line
    assert f"the checkpoint before it is whole: {folder / 'step-000001'}" in line
    assert [path.name for path in folder.iterdir()] == ["step-000001"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_that_cannot_be_written(ebft, tiny_run, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    status, _, err = ebft(*tiny_run(f"output_dir={tmp_path / 'locked' / 'run'}"))
    assert status == 2
    assert "cannot be written: Permission denied" in last_line(err)


def test_an_output_folder_that_is_a_file(ebft, tiny_run, tmp_path):
    (tmp_path / "file").write_text(json.dumps({}))
    status, _, err = ebft(*tiny_run(f"output_dir={tmp_path / 'file'}"))
    assert status == 2
    assert f"output_dir = {tmp_path / 'file'}: cannot be written" in last_line(err)


@pytest.mark.parametrize("processes", ["2", "8"])
def test_more_than_one_process(ebft, tiny_run, monkeypatch, processes):
    monkeypatch.setenv("WORLD_SIZE", processes)
    status, _, err = ebft(*tiny_run())
    assert status == 2
    assert f"WORLD_SIZE = {processes}: several processes are started by torchrun" in err
