"""The three things that read what others have written. Each must do so, or raise `UserError`."""

import logging
import shutil
import warnings
from pathlib import Path

from hypothesis import strategies as st

from ebft.checkpoints.folder import Checkpoints
from ebft.checkpoints.manifest import write_manifest
from ebft.checkpoints.resume import find_resumption
from ebft.checkpoints.snapshot import Snapshot
from ebft.checkpoints.state import gather_state
from ebft.config.about import About
from ebft.config.dump import plain_options
from ebft.config.load import load_recipe
from ebft.data.files import Files
from ebft.data.python_files import PythonFiles
from ebft.errors import UserError
from ebft.rollout.micro_batches import MicroBatch
from ebft.runs.setup import depth_of, make_documents, make_loop_parts, make_resources
from ebft.testing import write_tiny_model, write_tiny_texts
from ebft.training.parts import LoopParts
from tests.conftest import RECIPES
from tests.fuzz.mutate import mutated

CORPUS = Path(__file__).parent / "corpus"
OVERRIDES = [b"sampler.n=8", b"reward=kernel", b"~seed", b"plan.start=1"]


def corpus(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((CORPUS / folder).iterdir())}


class RecipeTarget:
    """A recipe file and overrides."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "recipe.yaml"
        recipes = [path.read_bytes() for path in sorted(RECIPES.glob("*.yaml"))]
        self.inputs = st.tuples(
            mutated([*corpus("recipe").values(), *recipes]),
            st.lists(mutated(OVERRIDES), max_size=2),
        )

    def __call__(self, given: tuple[bytes, list[bytes]]) -> None:
        content, overrides = given
        self._file.write_bytes(content)
        load_recipe(self._file, [text.decode(errors="replace") for text in overrides])


class DataTarget:
    """A file of rows, or of code."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "data"
        seeds = corpus("data")
        self.inputs = st.sampled_from(sorted(seeds)).flatmap(
            lambda name: st.tuples(st.just(name), mutated([seeds[name]]))
        )

    def __call__(self, given: tuple[str, bytes]) -> None:
        name, content = given
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        file = self._folder / name
        file.write_bytes(content)
        if name.endswith(".py"):
            PythonFiles(path=self._folder)()
        else:
            Files(path=file, prompt="q", completion="a")()


class CheckpointTarget:
    """A checkpoint with a file that is not what was written, whose checksum is right."""

    def __init__(self, folder: Path) -> None:
        model, texts = write_tiny_model(folder / "model"), write_tiny_texts(folder / "texts")
        overrides = [
            f"model.path={model}", f"data.path={texts}", "documents.length=40", "plan.start=8",
            "plan.stride=8", "plan.rollout_length=4", "transforms=[{_component_: whiten_running}]",
            "baseline=moving_average", "data.held_out=0.25",
        ]  # fmt: skip
        recipe = load_recipe(RECIPES / "ebft_full.yaml", overrides)
        self._options, self._recipe = recipe.options, plain_options(recipe.options, recipe.registry)
        self._resources = make_resources(
            self._options.model, seed=self._options.seed, depth=depth_of(self._options)
        )
        self._plan = self._options.plan.build(self._resources)
        documents = make_documents(
            self._options.data, self._options.documents, self._resources, self._plan
        )
        self._documents = documents.train.documents
        loop = self._loop()
        state = {
            **gather_state(loop), "micro_batch_tokens": 0, "metrics": [], "history": {},
        }  # fmt: skip
        about = About(2, self._recipe, {"base": "", "train": "", "held_out": ""})
        snapshot = Snapshot(self._resources.policy, self._resources.tokenizer, about, state)
        whole = Checkpoints(folder / "whole", keep=1).save(snapshot, step=2)
        self._whole, self._folder = whole, folder / "checkpoints"
        seeds = {
            name: (whole / name).read_bytes()
            for name in (
                "manifest.sha256", "run/about.json", "run/state.json", "run/state.safetensors",
                "config.json", "model.safetensors",
            )
        }  # fmt: skip
        self.inputs = st.sampled_from(sorted(seeds)).flatmap(
            lambda name: st.tuples(st.just(name), mutated([seeds[name]]))
        )

    def __call__(self, given: tuple[str, bytes]) -> None:
        name, content = given
        shutil.rmtree(self._folder, ignore_errors=True)
        damaged = self._folder / "step-000002"
        shutil.copytree(self._whole, damaged)
        (damaged / "manifest.sha256").unlink()
        (damaged / name).write_bytes(content)
        if name != "manifest.sha256":
            write_manifest(damaged)
        found = find_resumption(
            "auto", Checkpoints(self._folder, keep=1), self._recipe,
            may_differ=("seed", "training", "optimizer"), overwrite=False,
        )  # fmt: skip
        assert found is not None, "there is a checkpoint, so it is taken or refused"
        found.load_weights(self._resources.policy)
        found.restore_loop(self._loop())

    def _loop(self) -> LoopParts:
        return make_loop_parts(
            self._options, self._resources, self._plan, self._documents, MicroBatch(2),
            keep_logits=False,
        )  # fmt: skip


TARGETS = {"recipe": RecipeTarget, "data": DataTarget, "checkpoint": CheckpointTarget}


def holds(target, given) -> bool:
    """Whether the target took the input; False if it refused it, in one clear way."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target(given)
    except UserError as error:
        if not str(error).strip():
            raise AssertionError("an error says what is wrong") from error
        return False
    finally:
        logging.disable(logging.NOTSET)
    return True
