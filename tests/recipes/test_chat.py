"""Conversations through the command line: runs of two steps, their checkpoints, and a second look
at what was trained."""

import json
import re

import pytest
from transformers import AutoTokenizer, GenerationConfig

from tests.chat import FAMILIES, conversation, write_chat_model
from tests.conftest import RECIPES

STEPS = ["training.steps=2", "plan.rollout_length=4", "documents.length=500"]


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


FORMS = ("messages", "prompt and completion", "system", "reasoning")


def talks(form, count=12):
    system = "Be kind." if form == "system" else None
    return [conversation(i, 1 + i % 3, system, think=form == "reasoning") for i in range(count)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_of(ebft, tiny_run, tmp_path, family, form):
    # Gemma's tokenizer ends texts with a token that its template does not write.
    is_gemma = family == "Gemma"
    model = write_chat_model(tmp_path / "model", family, eos="<eos>" if is_gemma else None)
    rows = [{"messages": it} for it in talks(form)]
    columns = ["data.messages=messages"]
    if form == "prompt and completion":
        rows = [{"prompt": it[:-1], "completion": it[-1:]} for it in talks(form)]
        columns = ["data.prompt=prompt"]
    arguments = tiny_run(
        *STEPS, f"model.path={model}", "data=files", *columns,
        f"data.path={write(tmp_path / 'chat.jsonl', rows)}",
        *(["model.eos_token=<end_of_turn>"] if is_gemma else []),
        recipe="ebft_completion", without="plan",
    )  # fmt: skip
    status, _, err = ebft(*arguments)
    if is_gemma and form == "system":
        (line,) = [it for it in err.splitlines() if "the chat template refuses" in it]
        assert "chat.jsonl:1, chat.jsonl:2, " in line
        assert "(System role not supported); change its messages, or leave the row out" in line
        assert status == 2
        return
    assert status == 0, err
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    assert sum("cfm" in line for line in lines) == 2
    checkpoint = tmp_path / "run/checkpoints/step-000002"
    end = FAMILIES[family].eos
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert tokenizer.eos_token == end
    assert tokenizer.chat_template == FAMILIES[family].template
    assert GenerationConfig.from_pretrained(checkpoint).eos_token_id == tokenizer.eos_token_id


def test_the_same_rows_from_python(tmp_path):
    import ebft

    model = write_chat_model(tmp_path / "model", "ChatML")
    rows = [{"messages": it, "prompt_id": i} for i, it in enumerate(talks("messages"))]
    run = ebft.finetune(
        "ebft_completion",
        model=str(model),
        data=rows,
        output_dir=tmp_path / "run",
        overrides={
            "training.steps": 1,
            "plan.rollout_length": 4,
            "documents.length": 400,
            "evaluation.documents": 2,
        },
    )
    assert run.recipe["data"]["messages"] == "messages"
    assert run.steps["cfm"].notna().any()


def look(ebft, arguments):
    status, out, err = ebft("validate", *arguments[1:], "--data")
    assert status == 0, err
    return out


def test_the_data_are_shown_without_the_weights(ebft, tiny_run, tmp_path):
    model = write_chat_model(tmp_path / "model", "ChatML")
    (model / "model.safetensors").unlink()
    rows = [{"messages": it} for it in talks("system")]
    arguments = tiny_run(
        f"model.path={model}", "data=files", "data.messages=messages",
        f"data.path={write(tmp_path / 'chat.jsonl', rows)}", "documents.length=400",
        recipe="ebft_completion", without="plan",
    )  # fmt: skip
    out = look(ebft, arguments)
    assert re.search(r"^train: 9 documents, 19 anchors, [0-9,]+ tokens, \d+ of", out, re.M)
    assert re.search(r"^held-out: 3 documents", out, re.M)
    shown = re.findall(r"^chat.jsonl:(\d+): \d+ tokens, (\d+) in the cross-entropy", out, re.M)
    assert len(shown) == 3
    for number, trained in shown:
        answers = [it["content"] for it in talks("system")[int(number) - 1][2::2]]
        # Of the bytes' tokens, "in" and " the" are merged; and each turn has its end.
        ids = AutoTokenizer.from_pretrained(model)(answers).input_ids
        assert int(trained) == sum(len(it) + 1 for it in ids)
    assert out.count("▼┃I┃t┃ ┃i┃s") == sum(1 + (int(it) - 1) % 3 for it, _ in shown)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ([], "train: 18 documents, 63 anchors, 630 tokens, 612 of them in the cross-entropy"),
        (["documents.on_demand=true"], "train: 9 documents"),
    ],
)
def test_raw_text_is_shown(ebft, tiny_run, more, says):
    out = look(ebft, tiny_run(*more))
    assert f"{says}\n" in out
    heads = re.findall(r"^file\d+\.py#\d: (\d+) tokens, (\d+) in the cross-entropy", out, re.M)
    assert len(heads) == 3
    assert all(int(tokens) == int(trained) + 1 for tokens, trained in heads)
    assert out.count("▼") > 3


def test_an_evaluation_shows_what_is_held_out(ebft, tiny_model, tmp_path):
    rows = [{"q": f"ab{letter}", "a": "cd"} for letter in "abcdef"]
    file = write(tmp_path / "rows.jsonl", rows)
    out = look(ebft, [
        "eval", str(RECIPES / "evaluate.yaml"), f"model.path={tiny_model}", "data=files",
        f"data.path={file}", "data.prompt=q", "data.completion=a", "plan=completion",
        "evaluation.evaluators=[{_component_: cross_entropy}]",
        f"data.held_out_path={file}", f"output_dir={tmp_path / 'run'}",
    ])  # fmt: skip
    assert "held-out: 6 documents, 6 anchors, 36 tokens, 18 of them in the cross-entropy" in out
    assert "│a│b│a▼┃c┃d┃<eos>" in out


def test_a_study_has_no_data_of_its_own(ebft):
    status, _, err = ebft("validate", str(RECIPES / "ablations/baselines.yaml"), "--data")
    assert status == 2
    assert "recipe = study: has no data of its own" in err
