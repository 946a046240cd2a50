"""Every block and command of README, docs/ and the plug-ins' READMEs runs, or would."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import invalidate_caches
from itertools import takewhile
from pathlib import Path
from shutil import copytree
from types import ModuleType
from typing import get_args

import pytest
import yaml

from docs.generate.commands import help_text
from ebft.config.load import load_recipe
from ebft.config.read import read_yaml
from ebft.parts.registry import KINDS, load_registry
from ebft.runs.options import FineTuneOptions
from tests.docs.commands import TARGETS, check, command_lines
from tests.docs.pages import PAGES, ROOT, blocks, inline_code, links, name_of

RECIPES = sorted(ROOT.glob("recipes/**/*.yaml"))
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
STARTS = {"plugins/ebft-example/README.md": "ebft-example"}
"""Where a page's reader is, if not in the folder of a checkout."""
INSTALLED = {
    "plugins/ebft-sentence-transformers/README.md": ["ebft_sentence_transformers"],
    "plugins/ebft-comet/README.md": ["ebft_comet"],
}
"""Plug-ins that a page has told its reader to install, so that no `plugins:` names them."""
LANGUAGES = {"python", "yaml", "yml", "toml", "sh", "bash", "text", ""}
"""`yaml` is for ebft and `sh` for a terminal; `yml` and `bash` are for a cluster's scheduler."""

each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


@pytest.fixture
def desk(tmp_path, tiny_model, monkeypatch):
    """A folder in which a reader would type what a page says: a checkout, and one finished run."""
    for name in ("recipes", "plugins", "tests", "docs", "ebft"):
        (tmp_path / name).symlink_to(ROOT / name)
    checkpoint = tmp_path / "runs" / "ebft_full" / "checkpoints" / "step-000030"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.symlink_to(tiny_model)
    monkeypatch.chdir(tmp_path)
    copytree(ROOT / "plugins" / "ebft-example", tmp_path / "ebft-example")
    for folder in (*PLUGINS, tmp_path, tmp_path / "my-features"):
        monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def quick(tiny_model, monkeypatch):
    """Python blocks train the tiny model for a step, in place of the model that a page names."""
    import ebft

    def small(recipe, *, overrides=None, **given):
        few = {"documents_per_step": 2, "micro_batch": 2, "steps": 1}
        values = {
            **(overrides or {}), "plan.rollout_length": 4, "evaluation.documents": 2,
            **{f"training.{key}": value for key, value in few.items()},
        }  # fmt: skip
        return finetune(recipe, **{**given, "model": tiny_model}, overrides=values)

    finetune = ebft.finetune
    monkeypatch.setattr(ebft, "finetune", small, raising=False)


@each_page
def test_blocks(page, desk, ebft, quick, monkeypatch):
    os.chdir(desk / STARTS.get(name_of(page), "."))
    monkeypatch.setitem(sys.modules, "page", module := ModuleType("page"))
    names = vars(module)
    installed = INSTALLED.get(name_of(page), [])
    more = [f"plugins=[{','.join(installed)}]"] if installed else []
    for block in blocks(page):
        where = f"{name_of(page)}:{block.line}"
        assert block.language in LANGUAGES, f"{where}: {block.language!r}"
        if block.title:
            Path(block.title).write_text(block.text)
            invalidate_caches()
        match block.language:
            case "python":
                exec(compile(block.text, where, "exec"), names)
            case "yaml":
                validate(block.text)
            case "yml":
                commands = list(container_commands(yaml.safe_load_all(block.text)))
                assert commands, where
                for words in commands:
                    check(words, more)
            case "bash":
                subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
                for words in command_lines(block.text):
                    if words[0] == "srun":
                        check([os.path.expandvars(word) for word in words[1:]], more)
            case "toml":
                tomllib.loads(block.text)
            case "sh" | "":
                for words in command_lines(block.text):
                    check(words, more)


def container_commands(manifests):
    """The commands of all containers in Kubernetes manifests."""
    for manifest in manifests:
        template = manifest["spec"].get("template", {"spec": {"containers": []}})
        for container in template["spec"]["containers"]:
            yield [*container["command"], *container["args"]]


def validate(text):
    """A recipe, or sections that are put in the place of the default recipe's own."""
    content = yaml.safe_load(text)
    if "recipe" not in content:
        base = read_yaml(ROOT / "recipes" / "ebft_full.yaml")
        for key, section in content.items():
            part = not isinstance(section, dict) or "_component_" in section
            base[key] = section if part else base.get(key, {}) | section
        text = yaml.safe_dump(base)
    file = Path("block.yaml")
    file.write_text(text)
    load_recipe(file)


@pytest.mark.parametrize("file", RECIPES, ids=name_of)
def test_commands_in_the_head_of_a_recipe(file, desk):
    head = file.read_text().partition("\n\n")[0]
    text = re.sub(r"^# ?", "", head, flags=re.M).replace("\\\n", " ")
    lines = re.findall(r"^ +((?:tune|ebft|pip|make|python) .*)$", text, re.M)
    assert lines, "it says how to run it"
    for line in lines:
        (words,) = command_lines(re.split(" {3,}", line)[0])
        # What follows the overrides of a run says what they do.
        overrides = takewhile(lambda word: "=" in word or word[0] in "~-", words[3:])
        check([*words[:3], *overrides] if words[2].endswith(".yaml") else words, [])


@each_page
def test_links(page):
    for target in links(page):
        path, _, _ = target.partition("#")
        if not path.startswith("reference/") and "/reference/" not in path:  # made of the code
            assert (page.parent / path).exists(), target


@each_page
def test_files_that_it_names(page):
    for code in inline_code(page):
        if re.fullmatch(r"(ebft|tests|recipes|docs|plugins|constraints)/[\w./-]*", code):
            examples = ("my_",)
            assert (ROOT / code).exists() or any(it in code for it in examples), code


@each_page
def test_commands_that_it_names(page):
    for code in inline_code(page):
        program, _, rest = code.partition(" ")
        first = rest.partition(" ")[0]
        if program == "ebft" and not first.startswith("-") and first not in ("", "…"):
            assert help_text(first), code
        if program == "make" and first:
            assert first in TARGETS, code


@pytest.fixture
def registry(monkeypatch):
    """With the parts of this repository's plug-ins."""
    for folder in PLUGINS:
        monkeypatch.syspath_prepend(folder)
    return load_registry(folder.name.replace("-", "_") for folder in PLUGINS)


@each_page
def test_keys_that_it_names(page, registry):
    """`training.micro_batch` and the like are keys, with some part of the kind at least."""
    fields = FineTuneOptions.model_fields
    own = set(re.findall(r"^    (\w+): ", page.read_text(), re.M))  # of parts that the page writes
    for code in inline_code(page):
        key, _, _ = code.partition("=")
        section, dot, rest = key.partition(".")
        if dot and section in fields and re.fullmatch(r"(?!(?:png|csv)$)[a-z_.0-9]+", rest):
            assert rest in own or is_key(section, rest, registry), f"{name_of(page)}: {key}"


def is_key(section, rest, registry):
    annotation = FineTuneOptions.model_fields[section].annotation
    if hasattr(annotation, "model_fields") and annotation.model_fields:
        name, _, deeper = rest.partition(".")
        field = annotation.model_fields.get(name)
        if field is None or not deeper:
            return field is not None
        inner = get_args(field.annotation) or [field.annotation]  # a section, or none
        return any(deeper in it.model_fields for it in inner if hasattr(it, "model_fields"))
    kinds = {"plan": "plans", "data": "data"}
    kind = kinds.get(section, f"{section}s")
    if kind not in KINDS:
        return True  # arguments of another package's class, or a list
    parts = registry.kinds()[kind].values()
    return rest == "_component_" or any(rest in it.part.model_fields for it in parts)
