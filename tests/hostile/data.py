"""Data sets that must be refused with one line."""

from tests.hostile.case import Case, Inputs

PAIRS = ["plan=completion", "~plan.start", "~plan.stride", "evaluation.evaluators=[]"]


def pairs(name: str, content: str | bytes, *more: str):
    """Overrides that read a file of this content with the columns q and a."""

    def make(inputs: Inputs) -> list[str]:
        file = inputs.write(name, content)
        columns = ["data=files", f"data.path={file}", "data.prompt=q", "data.completion=a"]
        return [*columns, *PAIRS, *more]

    return make


CASES = [
    Case("an empty file", pairs("empty.jsonl", ""), "empty.jsonl: the file is empty"),
    Case("a line cut off", pairs("cut.jsonl", '{"q": "", "a": ""}\n{"q":'), "line 2 is not JSON"),
]
