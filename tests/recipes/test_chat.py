"""Conversations through the command line: runs of two steps, their checkpoints, and a second look
at what was trained."""

import json

import pytest
from transformers import AutoTokenizer, GenerationConfig

from tests.chat import FAMILIES, conversation, write_chat_model

STEPS = ["training.steps=2", "plan.rollout_length=4", "documents.length=400"]


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def talks(family, count=12):
    system = None if family == "Gemma" else "Be kind."
    return [conversation(i, 1 + i % 3, system, think=family == "reasoning") for i in range(count)]


@pytest.mark.parametrize(
    ("family", "form"),
    [("ChatML", "messages"), ("Llama 3", "prompt"), ("Mistral", "messages"), ("Gemma", "messages"),
     ("reasoning", "messages")],
)  # fmt: skip
def test_two_steps(ebft, tiny_run, tmp_path, family, form):
    # Gemma's tokenizer ends texts with a token that its template does not write.
    is_gemma = family == "Gemma"
    model = write_chat_model(tmp_path / "model", family, eos="<eos>" if is_gemma else None)
    rows = [{"messages": it, "prompt": it[:-1], "completion": it[-1:]} for it in talks(family)]
    columns = ["data.messages=messages"] if form == "messages" else ["data.prompt=prompt"]
    arguments = tiny_run(
        *STEPS, f"model.path={model}", "data=files", *columns,
        f"data.path={write(tmp_path / 'chat.jsonl', rows)}",
        *(["model.eos_token=<end_of_turn>"] if is_gemma else []),
        recipe="ebft_completion", without="plan",
    )  # fmt: skip
    status, _, err = ebft(*arguments)
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
    rows = [{"messages": it, "prompt_id": i} for i, it in enumerate(talks("ChatML"))]
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
