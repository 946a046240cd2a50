"""The two models of `ebft sample`: a checkpoint, and the model that it was trained from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebft.checkpoints.folder import Checkpoints
from ebft.config.about import ABOUT, read_about
from ebft.errors import UserError
from ebft.models.attention import on_tree
from ebft.models.load import load_frozen, load_tokenizer
from ebft.models.lora import has_adapter
from ebft.parts.part import Resources
from ebft.runs.folder import OutputFolder
from ebft.runs.options import ModelRecipeOptions
from ebft.runs.setup import depth_of, make_resources

if TYPE_CHECKING:
    from ebft.models.options import ModelOptions


def find_checkpoint(path: str) -> str:
    """Returns the path; of a run's output_dir, its newest checkpoint.

    Raises `UserError` for a run that has none.
    """
    folder = Path(path).expanduser()
    saved = OutputFolder(folder).checkpoints
    if not saved.is_dir() or (folder / "config.json").exists():
        return path
    if not (found := Checkpoints(saved, keep=1).saved()):
        raise UserError(f"{path}: has no checkpoint yet; wait for the first, or give another run")
    return str(found[-1])


def recipe_of(checkpoint: str) -> dict[str, Any]:
    """Returns the recipe that a checkpoint was trained by, without the permission to run code from
    its folder, which may come from somebody else.

    Raises `UserError` for a folder that is no checkpoint of a run.
    """
    folder = Path(checkpoint).expanduser()
    if not (folder / ABOUT).is_file():
        raise UserError(
            f"{checkpoint}: is no checkpoint of a run, because it has no {ABOUT}; add --recipe, a "
            "recipe with the data, and with the base model as its model.path"
        )
    try:
        recipe = dict(read_about(folder).recipe)
    except ValueError as error:
        raise UserError(f"{checkpoint}: {error}") from error
    if isinstance(recipe.get("model"), Mapping):
        recipe["model"] = {**recipe["model"], "trust_remote_code": False}
    return recipe


def load_both(options: ModelRecipeOptions, checkpoint: str, base: str | None) -> Resources:
    """Loads the checkpoint as the policy, and the base model when it is asked for.

    The base of an adapter is the policy without it. Raises `UserError` for a base with other
    tokens.
    """
    model = options.model.model_copy(update={"lora": None})
    if base is not None:
        changed = {"path": base, "base": None, "revision": None, "from_config": None}
        model = model.model_copy(update=changed)
    policy = model.model_copy(
        update={
            "path": checkpoint, "base": model.base or model.path, "revision": None,
            "from_config": None,
        }
    )  # fmt: skip
    resources = make_resources(
        policy, seed=options.seed, depth=depth_of(options), merge_adapter=False
    )
    if has_adapter(resources.policy):
        return resources
    attention = model.attention if on_tree(resources.policy) else "rows"
    model = model.model_copy(update={"attention": attention})
    _check_tokens(model, resources)
    return replace(resources, load_base=cache(partial(load_frozen, model, resources.precision)))


def _check_tokens(base: ModelOptions, resources: Resources) -> None:
    if base.from_config is not None:
        return
    if load_tokenizer(base).get_vocab() != resources.tokenizer.get_vocab():
        raise UserError(
            f"--base {base.path}: its tokens are not those of the checkpoint; give the model that "
            "it was trained from"
        )
