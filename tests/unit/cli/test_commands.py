"""The commands that print: help, ls, cp, validate, doctor, run --dry-run."""

import errno
import os
import re
import subprocess
import sys

import pytest
import yaml

from ebft.cli import doctor
from ebft.cli.main import COMMANDS
from ebft.config.load import load_recipe
from ebft.parts.packages import TESTED
from ebft.parts.registry import load_registry
from tests.conftest import RECIPES


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_a_command_is_for(ebft, name):
    status, out, _ = ebft(name, "--help")
    assert status == 0
    assert out.startswith(f"usage: ebft {name}")
    assert len(out.split("\n\n")[1]) > 10, "a description follows the usage"


def test_help_lists_every_command_with_an_example(ebft):
    status, out, _ = ebft("--help")
    assert status == 0
    for name in COMMANDS:
        assert re.search(rf"^    {name}\s+\S", out, re.M), name
    assert "examples:" in out


def test_no_command_and_an_unknown_one(ebft):
    assert ebft()[0] == 2
    status, _, err = ebft("trian")
    assert status == 2
    assert "invalid choice: 'trian'" in err
    assert ebft("validate", "x.yaml", "--what")[0] == 2


def test_help_does_not_wait_for_torch():
    code = (
        "import sys, ebft.cli.main as m\ntry: m.main(['run', '--help'])\nexcept SystemExit: pass\n"
    )
    code += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


class TestAReaderThatIsGone:
    @pytest.fixture(autouse=True)
    def gone(self, monkeypatch):
        def write(*_, **__):
            raise BrokenPipeError

        monkeypatch.setattr("ebft.cli.run.run", write)
        monkeypatch.setattr("ebft.cli.main.give_up", lambda stream: None)

    def test_ends_a_command_that_prints(self, ebft):
        assert ebft("run", "x.yaml", "--dry-run")[0] == 0

    def test_is_no_success_of_one_that_runs(self, ebft):
        with pytest.raises(BrokenPipeError):
            ebft("run", "x.yaml")

    def test_leaves_nothing_to_fail_at_the_end(self):
        read, write = os.pipe()
        os.close(read)
        command = [sys.executable, "-m", "ebft.cli.main", "ls"]
        with os.fdopen(write) as stdout:
            done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


class TestLs:
    def test_every_part_with_every_option(self, ebft):
        status, out, _ = ebft("ls")
        assert status == 0
        for kind, named in load_registry().kinds().items():
            assert f"\n{kind}\n" in out
            for name, registered in named.items():
                assert f"\n  {name}    from ebft (" in out
                for option, field in registered.part.model_fields.items():
                    assert f"\n    - {option}: " in out
                    assert field.description, f"{name}.{option} has no description"

    def test_defaults_and_bounds(self, ebft):
        _, out, _ = ebft("ls", "samplers")
        assert "- n: int ≥ 1 = 4" in out
        assert "- temperature: float > 0 = 1.0" in out
        assert "rewards" not in out

    def test_one_part_with_the_options_inside_its_options(self, ebft):
        status, out, _ = ebft("ls", "verifiable")
        assert status == 0
        assert out.startswith("rewards\n  verifiable    from ebft")
        assert "\n          - cpu_seconds: int > 0 = 5\n" in out
        assert "feature_matching" not in out

    def test_recipes(self, ebft):
        _, out, _ = ebft("ls", "recipes")
        for file in RECIPES.glob("*.yaml"):
            assert f"\n  {file.stem} " in out

    def test_claims(self, ebft):
        _, out, _ = ebft("ls", "baselines")
        assert "unbiased: yes, b_j leaves out every term that touches rollout j" in out

    def test_a_plug_in_s_parts(self, ebft, tmp_path):
        plugin = tmp_path / "mine.py"
        plugin.write_text(
            'import ebft\n\n\nclass Zero(ebft.BaselinePart):\n    """Nothing."""\n\n\n'
            '@ebft.hookimpl\ndef register_baselines():\n    return {"zero": Zero}\n'
        )
        _, out, _ = ebft("ls", "baselines", "--plugin", str(plugin))
        assert f"  zero    from {plugin}" in out

    def test_an_unknown_kind(self, ebft):
        status, _, err = ebft("ls", "reward")
        assert status == 2
        assert err.strip() == "no part and no kind is named 'reward'; did you mean 'rewards'?"


class TestCp:
    def test_a_recipe_is_copied_and_not_replaced(self, ebft, tmp_path):
        assert ebft("cp", "ebft_full", str(tmp_path))[0] == 0
        copy = tmp_path / "ebft_full.yaml"
        assert copy.read_bytes() == (RECIPES / "ebft_full.yaml").read_bytes()
        copy.write_text("mine")
        status, _, err = ebft("cp", "ebft_full", str(tmp_path))
        assert status == 2
        assert "--force replaces it" in err
        assert copy.read_text() == "mine"
        assert ebft("cp", "ebft_full", str(copy), "--force")[0] == 0
        load_recipe(copy)

    def test_a_study_finds_its_recipes_from_anywhere(self, ebft, tmp_path):
        for name in ("ablations/baselines", "studies/methods"):
            assert ebft("cp", name, str(tmp_path))[0] == 0
            copy = tmp_path / f"{name.split('/')[1]}.yaml"
            status, _, err = ebft("validate", str(copy))
            assert status == 0, err

    def test_into_a_new_folder_and_by_its_path(self, ebft, tmp_path):
        status, _, err = ebft("cp", "recipes/ebft_full.yaml", f"{tmp_path}/new/folder/")
        assert status == 0, err
        copy = tmp_path / "new" / "folder" / "ebft_full.yaml"
        assert copy.read_text() == (RECIPES / "ebft_full.yaml").read_text()

    def test_an_unknown_recipe(self, ebft, tmp_path):
        status, _, err = ebft("cp", "ebft_ful", str(tmp_path))
        assert status == 2
        assert "did you mean 'ebft_full'?" in err


class TestDryRun:
    def test_it_prints_a_recipe_that_loads(self, ebft, tiny_run, tmp_path):
        status, out, _ = ebft(*tiny_run("sampler.n=3"), "--dry-run")
        assert status == 0
        assert yaml.safe_load(out)["sampler"]["n"] == 3
        file = tmp_path / "again.yaml"
        file.write_text(out)
        assert load_recipe(file).options.sampler.n == 3
        assert not (tmp_path / "run").exists()

    def test_it_counts_tokens(self, ebft, tiny_run):
        # 40 tokens, anchors 8, 16, 24, 32, each with 4 rollouts of 4 tokens.
        _, out, _ = ebft(*tiny_run(), "--dry-run")
        assert "# A document of 40 tokens has 4 anchors, each with 4 rollouts of 4 tokens." in out
        assert re.search(r"# sampling +80 ", out)  # 32 + 4·4·3: up to the last anchor
        assert re.search(r"# features +100 ", out)  # 36 + 4·4·4: up to the last reference's end
        assert re.search(r"# training +88 ", out)  # 40 + 4·4·3

    def test_it_says_whose_sampling_it_counts(self, ebft, tiny_run):
        _, out, _ = ebft(*tiny_run("sampler=hf_generate"), "--dry-run")
        assert re.search(r"# sampling \* +80 ", out)
        assert "# * with hf_tree" in out

    def test_a_model_that_is_not_here_leaves_the_recipe(self, ebft, tiny_run):
        status, out, _ = ebft(*tiny_run("model.path=someone/something"), "--dry-run")
        assert status == 0
        assert "# no estimate: model.path = someone/something: cannot be loaded (" in out
        assert "; its configuration must be on this machine" in out


def test_options_may_stand_between_overrides(ebft, tiny_run):
    arguments = tiny_run()
    status, out, _ = ebft(arguments[0], "--dry-run", *arguments[1:])
    assert status == 0
    assert "sampler:" in out


def test_validate_says_what_is_not_here(ebft, tiny_run):
    _, *arguments = tiny_run("data.path=/nowhere", "model.path=/nowhere/either")
    status, out, _ = ebft("validate", *arguments)
    assert status == 0
    assert "valid, but not on this machine:" in out
    assert "data.path = /nowhere: no such file or folder" in out
    assert "model.path = /nowhere/either: no such folder" in out


SUMS = (
    "{name: Sums, length: 99, data: {_component_: arithmetic_traces}, "
    "evaluators: [{_component_: cross_entropy}]}"
)
CHECKED = "  checked: the keys and values of the recipe, and that its parts fit together"


@pytest.mark.parametrize(
    ("more", "checked", "unread"),
    [
        ([], "", "the model, and the data, which --data reads"),
        (["--data"], "; the tokenizer; the data", "the weights of the model"),
        (
            ["--data", "documents.on_demand=true"],
            "; the tokenizer; the data",
            "most documents of train and held-out (on demand), the weights of the model",
        ),
        (
            ["--data", f"evaluation.sets=[{SUMS}]"],
            "; the tokenizer; the data",
            "the data of Sums (evaluation.sets), the weights of the model",
        ),
    ],
)
def test_validate_says_what_it_checked_and_what_not(ebft, tiny_run, more, checked, unread):
    _, *arguments = tiny_run()
    status, out, err = ebft("validate", *arguments, *more)
    assert status == 0, err
    head, said, not_said, *shown = out.splitlines()
    assert head.endswith("ebft_full.yaml: valid")
    assert said == CHECKED + checked
    assert not_said == f"  not checked: {unread}"
    assert bool(shown) == ("--data" in more)


def test_validate_of_a_study_names_no_option_that_it_lacks(ebft):
    _, out, _ = ebft("validate", str(RECIPES / "ablations" / "baselines.yaml"))
    assert out.splitlines()[1:] == [CHECKED, "  not checked: models and data"]


def test_validate_converts_nothing(ebft, tiny_run, monkeypatch, tmp_path):
    gguf = tmp_path / "weights.gguf"
    monkeypatch.setenv("EBFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ebft.models.embedded.find_gguf", lambda: gguf)
    _, *arguments = tiny_run("model.path=smollm2-135m-instruct")
    status, out, err = ebft("validate", *arguments)
    assert status == 0, err
    assert "ebft_full.yaml: valid\n" in out
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_without_permission_is_named(ebft, monkeypatch, number):
    def fail(folder):
        raise OSError(number, os.strerror(number), str(folder / "report"))

    monkeypatch.setattr("ebft.study.report.make.write_report", fail)
    status, _, err = ebft("report", "/theirs")
    assert status == 1
    assert err == (
        f"error: cannot use /theirs/report: {os.strerror(number)}; change its permissions, or "
        "choose another path\n"
    )


def test_only_the_file_is_required(ebft):
    _, _, err = ebft("run")
    assert "the following arguments are required: FILE\n" in err


class TestDoctor:
    @pytest.fixture
    def tune(self, tmp_path, monkeypatch):
        def install(text):
            file = tmp_path / "tune"
            if text is not None:
                file.write_text(text)
                file.chmod(0o755)
            monkeypatch.setenv("PATH", str(tmp_path))

        return install

    def test_versions_outside_the_tested_range_are_marked(self, ebft, tune, monkeypatch):
        tune("#!/usr/bin/python\nfrom ebft.cli.tune import main\n")
        found = {"torch": "99.1", "transformers": "1.0", "peft": f"{TESTED['peft'].newest}.3"}
        monkeypatch.setattr(doctor, "installed", found.get)
        status, out, _ = ebft("doctor")
        assert status == 0
        oldest, newest = TESTED["torch"]
        tested = f"not tested; tested: {oldest} to {newest}"
        assert f"99.1 (newer than {newest}, so {tested})" in out
        assert f"1.0 (older than {TESTED['transformers'].oldest}, so not tested; " in out
        assert re.search(rf"^peft +{found['peft']} \(tested: ", out, re.M)
        assert re.search(r"^wandb +not installed$", out, re.M)

    def test_our_tune(self, ebft, tune):
        tune("#!/usr/bin/python\nfrom ebft.cli.tune import main\n")
        status, out, _ = ebft("doctor")
        assert status == 0
        assert "(that of ebft" in out
        assert re.search(r"^torch +2\.", out, re.M)
        assert re.search(r"^device +\S", out, re.M)
        assert re.search(r"^threads +\d+ of \d+ cores$", out, re.M)

    def test_a_broken_torch_is_reported(self, ebft, tune, tmp_path, monkeypatch):
        tune("#!/usr/bin/python\nfrom ebft.cli.tune import main\n")
        tmp_path.joinpath("torch.py").write_text("raise OSError('libcudart is missing')")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        status, out, _ = ebft("doctor")
        assert status == 0
        assert "unknown, because torch cannot be imported: OSError: libcudart is missing" in out

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("from torchtune._cli.tune import main", "that of torchtune, not of ebft"),
            ("something else", "that of another program, not of ebft"),
            (None, "not on the PATH"),
        ],
    )
    def test_another_tune_is_an_error_with_the_repair(self, ebft, tune, text, says):
        tune(text)
        status, out, _ = ebft("doctor")
        assert status == 1
        assert says in out
        assert "pip install --force-reinstall --no-deps" in out


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m ebft.cli.main ls | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "recipes"
    assert done.stderr == ""
