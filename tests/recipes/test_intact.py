"""A run that something beside the policy ends: the checkpoint it leaves has every update."""

import pytest
from transformers import AutoModelForCausalLM

PLUGIN = '''
from collections.abc import Mapping

import numpy as np

import ebft
from ebft.errors import SamplerMismatchError
from ebft.samplers.hf_tree import HfTree, HfTreeSampler


class Fragile(HfTree):
    """hf_tree, until it fails."""

    samples: int = 100
    syncs: int = 100

    def build(self, resources):
        return FragileSampler(self, resources)


class FragileSampler(HfTreeSampler):
    def __init__(self, options, resources):
        super().__init__(options, resources)
        self.options = options

    def __call__(self, contexts, *, step):
        if step >= self.options.samples:
            raise ebft.EngineError(f"the engine died in step {step}")
        return super().__call__(contexts, step=step)

    def sync(self, policy, *, step):
        if step >= self.options.syncs:
            raise SamplerMismatchError(f"step {step}: the weights did not arrive")
        return {"sync_gap": np.float32(0.25)}


@ebft.hookimpl
def register_samplers():
    return {"fragile": Fragile}
'''


@pytest.fixture
def fragile(tmp_path):
    file = tmp_path / "fragile.py"
    file.write_text(PLUGIN)
    return [f"plugins=[{file}]", "sampler=fragile", "evaluation.every=null"]


@pytest.mark.parametrize(
    ("option", "says", "saved"),
    [
        ("sampler.samples=1", "the engine died in step 1", ["step-000001"]),
        ("sampler.syncs=1", "step 1: the weights did not arrive", ["step-000002"]),
        ("sampler.samples=0", "the engine died in step 0", []),
    ],
)
def test_the_policys_last_weights_are_saved(ebft, tiny_run, fragile, tmp_path, option, says, saved):
    status, _, err = ebft(*tiny_run(*fragile, option))
    assert status == 1
    assert err.strip().splitlines()[-1] == f"error: {says}"
    assert "Traceback" not in err
    folder = tmp_path / "run" / "checkpoints"
    assert [f.name for f in sorted(folder.glob("*"))] == saved
    for name in saved:
        assert f"the policy is intact; checkpoint: {folder / name}" in err
        AutoModelForCausalLM.from_pretrained(folder / name)


def test_a_samplers_figures_are_logged(ebft, tiny_run, fragile, tmp_path):
    assert ebft(*tiny_run(*fragile))[0] == 0
    logged = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert logged.count('"sync_gap": 0.25') == 3
    assert (tmp_path / "run" / "checkpoints" / "step-000003").is_dir()  # metrics are in it
