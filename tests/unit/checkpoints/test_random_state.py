import random

import numpy as np
import torch

from ebft.checkpoints.nested import read_nested, write_nested
from ebft.checkpoints.state import gather_random, restore_random

CPU = torch.device("cpu")


def draw():
    return random.random(), np.random.rand(), float(torch.rand(()))


def test_every_generator_goes_on_where_it_was(tmp_path):
    draw()
    random.gauss(0, 1), np.random.randn()  # both keep a second number for the next call
    write_nested(gather_random(CPU), tmp_path / "state")
    expected = [draw() for _ in range(700)]  # more than the state of either has
    restore_random(read_nested(tmp_path / "state"), CPU)
    assert [draw() for _ in range(700)] == expected


def test_another_number_of_gpus_is_said(monkeypatch, caplog):
    state = {**gather_random(CPU), "cuda": [torch.get_rng_state()] * 3}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    restore_random(state, torch.device("cuda"))
    assert "there are 2 GPUs and there were 3" in caplog.text
