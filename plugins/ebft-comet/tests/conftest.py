"""unbabel-comet's own environment, and a tiny model that its own classes make there."""

import os
import subprocess
from pathlib import Path

import pytest
from ebft_comet.environment import MAKE, VARIABLE, python_of, version_in

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def offline():
    """The variables of processes that may ask nothing of the network."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@pytest.fixture(scope="session")
def comet_python():
    """The Python that has unbabel-comet."""
    python = python_of(None)
    if python is None:
        pytest.skip(f"{VARIABLE} is not set; `make test-comet` sets it, or: {MAKE}")
    if version_in(python) is None:
        pytest.fail(f"{VARIABLE} = {python}: has no unbabel-comet")
    return python


@pytest.fixture(scope="session")
def tiny_comet(comet_python, tmp_path_factory, offline):
    """The folder of a tiny COMET model: an XLM-R of two layers with random weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny-comet"
    subprocess.run(
        [comet_python, "-I", HERE / "make_tiny_model.py", folder], check=True, env=offline
    )
    return folder
