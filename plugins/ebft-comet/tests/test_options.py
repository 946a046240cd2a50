"""What needs no environment: sources in prompts, names of models, and what is missing."""

import sys
from pathlib import Path

import pytest
from ebft_comet import environment
from ebft_comet.environment import VARIABLE
from ebft_comet.evaluator import Comet
from ebft_comet.reward import CometReward

from ebft.data.test_set import TranslationTestSet
from ebft.errors import UserError
from ebft.verifiers.attempts import Attempt

THIS = Path(sys.executable)  # ebft's Python, which has no unbabel-comet


@pytest.fixture
def no_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    environment.version_in.cache_clear()


def prompt(text):
    template = TranslationTestSet.model_fields["template"].default
    names = {"source": "German", "target": "English"}
    return template.format(**names, text=text)


def attempt(context):
    return Attempt(context, " Yes. \n", " Of course. ", "", "set:7")


@pytest.mark.parametrize(
    "text", ["Ja.", "Er sagte: ja", "a\u2028b", "10: 20\tx", "German: Ja.", "Translate this:"]
)
def test_the_source_is_the_sentence_in_the_prompt(text):
    (segment,) = Comet().segments([attempt(prompt(text))])
    assert segment == (text, "Yes.", "Of course.")


def test_the_source_after_examples_is_the_last(no_variable):
    shots = f"{prompt('Nein.')} No.\n\n{prompt('Ja.')}"
    assert Comet().segments([attempt(shots)])[0].source == "Ja."


def test_a_source_of_ones_own():
    part = CometReward(source=r"<de>(.*)</de>")
    assert part.segments([attempt("Say <de>Ja.</de> in English: ")])[0].source == "Ja."


def test_a_prompt_without_a_sentence_names_the_document():
    with pytest.raises(UserError) as error:
        Comet().segments([attempt("def f():")])
    said = str(error.value)
    assert "matches nothing in the prompt of document set:7, which ends with 'def f():'" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("pattern", "says"), [("(", "is no regular expression"), ("German", "has no group")]
)
def test_a_pattern_that_finds_nothing_ever_is_refused(pattern, says):
    with pytest.raises(ValueError, match=says):
        Comet(source=pattern)


class TestWhatIsMissing:
    def said(self, part):
        with pytest.raises(UserError) as error:
            part.scorer()
        message = str(error.value)
        assert message == f"comet: {part.missing()}"
        assert "\n" not in message
        return message

    def test_no_environment(self, no_variable):
        said = self.said(Comet())
        assert "python3 -m venv comet-env && comet-env/bin/pip install unbabel-comet==" in said

    def test_no_python(self, no_variable, tmp_path, monkeypatch):
        assert "no such file; run: python3 -m venv" in self.said(Comet(python=tmp_path / "python"))
        monkeypatch.setenv(VARIABLE, str(tmp_path / "other"))
        assert f"python = {tmp_path / 'other'}: there is no such file" in self.said(CometReward())

    def test_no_comet(self, no_variable):
        said = self.said(Comet(python=THIS))
        assert f"has no unbabel-comet; run: {THIS} -m pip install unbabel-comet" in said

    def test_a_file_that_is_no_python(self, no_variable, tmp_path):
        file = tmp_path / "python"
        file.write_text("not a program")
        file.chmod(0o755)
        assert "has no unbabel-comet" in self.said(Comet(python=file))

    def test_no_model(self, no_variable, tmp_path):
        said = self.said(Comet(python=THIS, model=str(tmp_path)))
        assert f"there is no file {tmp_path / 'checkpoints' / 'model.ckpt'}" in said
        assert "there is no file nowhere.ckpt" in self.said(Comet(model="nowhere.ckpt"))

    def test_what_translation_lacks(self, no_variable, monkeypatch):
        monkeypatch.setattr("ebft_comet.options.lacks", lambda python: None)
        assert "needs MeCab" in Comet(tokenize="ko-mecab").missing()
        assert Comet().missing() is None
        assert CometReward().missing() is None


def test_names_of_models(tmp_path):
    file = tmp_path / "mine" / "checkpoints" / "model.ckpt"
    file.parent.mkdir(parents=True)
    file.touch()
    assert Comet().model_name() == "wmt22-comet-da"
    assert Comet(model=str(tmp_path / "mine")).model_name() == "mine"
    assert Comet(model=str(file)).model_name() == "mine"


def test_only_float32_is_claimed_to_be_unbiased():
    assert CometReward().claim().unbiased
    assert not CometReward(dtype="float16").claim().unbiased
