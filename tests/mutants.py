# ruff: noqa: E501 — a mutant is one line
"""Breaks each formula once, on purpose, and says which test notices: `make mutants`.

Each mutant is one replacement in one file, run in a copy of the repository against the property
and golden tests until the first failure. A mutant that survives is a formula nothing checks.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TESTS = [
    "tests/property",
    "tests/golden",
    *(f"tests/unit/{part}" for part in ("baselines", "rewards", "models", "samplers", "features")),
]


class Mutant(NamedTuple):
    """`tests` are where to look for the one that notices: `TESTS`, if it is not said."""

    file: str
    formula: str
    broken: str
    tests: str = ""


MUTANTS = [
    Mutant("rollout/records.py", "pairwise.sum(-1) / others", "pairwise.mean(-1)"),
    Mutant("rewards/similarity.py", "-2 * diversity", "-1 * diversity"),
    Mutant("rewards/similarity.py", "2 * alignment *", "alignment *"),
    Mutant("rewards/similarity.py", "diagonal(dim1=1, dim2=2).zero_()", "diagonal(dim1=1, dim2=2)"),
    Mutant("kernels.py", "features.references).mean(-1)", "features.references)[..., 0]"),
    Mutant("kernels.py", "if features.paired:", "if False:"),
    Mutant("importance.py", ".where(mask, 0)", ""),
    Mutant("rewards/weighted_sum.py", "weight * terms.pairwise", "terms.pairwise"),
    Mutant("rewards/token_overlap.py", "available > occurrence", "available > 0"),
    Mutant("baselines/leave_one_out.py", "(terms.unary.sum(1, keepdim=True) - terms.unary)",
           "terms.unary.sum(1, keepdim=True)"),
    Mutant("baselines/leave_one_out.py", "- touching", "- touching / 2"),
    Mutant("baselines/leave_one_out.py", "((n - 1) * (n - 2))", "((n - 1) * (n - 1))"),
    Mutant("baselines/plain_rloo.py", "- reward) / others", ") / (others + 1)"),
    Mutant("baselines/group_mean.py", "reward.mean(1, keepdim=True)", "reward.mean()"),
    Mutant("baselines/group_normalised.py", "reward.shape[1] - 1).sqrt()", "reward.shape[1]).sqrt()"),
    Mutant("baselines/moving_average.py", "advantages = reward - self.value",
           "advantages = reward - reward.mean()"),
    Mutant("kernels.py", "x @ y.mT\n\n\ndef cosine", "(x @ y.mT).abs()\n\n\ndef cosine"),
    Mutant("kernels.py", "normalize(x, dim=-1) @", "x @"),
    Mutant("kernels.py", "square() / (-2 * bandwidth**2)", "square() / (2 * bandwidth**2)"),
    Mutant("kernels.py", "squared / (-2 *", "-squared / (-2 *"),
    Mutant("kernels.py", "torch.exp(-distance(x, y) / bandwidth)", "-distance(x, y).square()"),
    Mutant("kernels.py", "return -distance(x, y)\n", "return distance(x, y)\n"),
    Mutant("kernels.py", "+ offset) ** degree", "- offset) ** degree"),
    Mutant("kernels.py", "torch.pdist(points).median()", "torch.pdist(points).mean()"),
    Mutant("scoring/interval.py", "if share and variance < ROUNDING", "if variance < ROUNDING"),
    Mutant("scoring/interval.py", "** (1 / C), C)", "/ C, C)"),
    Mutant("objective.py", "return -per_rollout", "return per_rollout"),
    Mutant("objective.py", ".mean(1).sum() / contexts", ".mean(1).mean()"),
    Mutant("objective.py", "/ mask.sum(-1)", "/ mask.shape[-1]"),
    Mutant("objective.py", "(log_probs * mask).sum() / tokens", "(log_probs * mask).sum() / mask.sum()"),
    Mutant("objective.py", "* log_probs * mask).sum(-1)", "* log_probs).sum(-1)"),
    Mutant("objective.py", "by_token.flip(-1).cumsum(-1).flip(-1)", "by_token"),
    Mutant("objective.py", "by_token.flip(-1).cumsum(-1).flip(-1)", "by_token.cumsum(-1)"),
    Mutant("rollout/records.py", "by_token.transpose(1, 2).flatten(0, 1)", "by_token.flatten(1, 2).view(-1, *by_token.shape[1:2], by_token.shape[-1])"),
    Mutant("importance.py", "(trainer - sampler)", "(sampler - trainer)"),
    Mutant("importance.py", "difference.sum(-1, keepdim=True)", "difference.mean(-1, keepdim=True)"),
    Mutant("importance.py", "ratio.clamp(max=options.cap)", "ratio"),
    Mutant("objective.py", "log_probs * weights.detach()", "log_probs * weights.detach().clamp(max=1)"),
    Mutant("scoring/cfm.py", "(n * (n - 1))", "(n * n)"),
    Mutant("scoring/cfm.py", "2 * alignment", "alignment"),
    Mutant("scoring/cfm.py", "- samples.square().sum((1, 2))", ""),
    Mutant("scoring/kernel_score.py", "- 2 * alignment", "- alignment"),
    Mutant("scoring/kernel_score.py", "(n * (n - 1))", "(n * n)"),
    Mutant("scoring/interval.py", "index_add(0, numbers, part)", "index_add(0, torch.arange(len(part)) % C, part)"),
    Mutant("training/loop.py", "of_rollouts.loss + loss", "of_rollouts.loss - loss"),
    Mutant("training/loop.py", "objective.gamma * of_documents", "of_documents"),
    Mutant("scoring/interval.py", "* C / (C - 1)", "* (C - 1) / C"),
    Mutant("scoring/interval.py", "stats.t.ppf((1 + level) / 2, C - 1)", "stats.t.ppf(level, C - 1)"),
    Mutant("scoring/interval.py", "share * (value - mean)", "share * value"),
    Mutant("scoring/interval.py", "part += sign * parts", "part += parts"),
    Mutant("scoring/seeds.py", "2 * self.variance / seeds", "2 * self.variance"),
    Mutant("scoring/gradient_noise.py", "K * mean_squared_norm - one", "mean_squared_norm - one / K"),
    Mutant("scoring/entropy_drift.py", "spread = centred.square()", "spread = centred.abs()"),
    Mutant("scoring/entropy_drift.py", "/ tokens.clamp(min=1)", "/ mask[0].numel()"),
    Mutant("scoring/pass_at_k.py", "comb(n - passed, k)", "comb(n - passed, k - 1)"),
    Mutant("scoring/interval.py", "weight > 0 for", "weight >= 0 for"),
    Mutant("transforms/gram.py", "kept = tolerance * S.amax(-1, keepdim=True) < S", "kept = S > -1"),
    Mutant("transforms/gram.py", ".clamp(min=0).sqrt()", ".clamp(min=0)"),
    Mutant("transforms/whiten_context_paper.py", "** 3", "** 2"),
    Mutant("transforms/whiten_context_paper.py", "root_n * (U", "(U"),
    Mutant("transforms/whiten_context_authors.py", "W.sum(-1, keepdim=True)", "W.mean(-1, keepdim=True)"),
    Mutant("transforms/whiten_running.py", "values.rsqrt()", "values.reciprocal()"),
    Mutant("transforms/whiten_running.py", "features.references.flatten(0, 1)",
           "features.samples.flatten(0, 1)"),
    Mutant("transforms/l2.py", "/ sqrt(blocks)", "/ blocks"),
    Mutant("transforms/project.py", "/ sqrt(columns)", "/ columns"),
    Mutant("models/log_probs.py", "sub_(normalizers[rows, None]).exp_()", "exp_()"),
    Mutant("models/log_probs.py", "z.div_(temperature)\n            normalizer", "pass\n            normalizer"),
    Mutant("models/log_probs.py", "grad[rows, None] / temperature", "grad[rows, None]"),
    Mutant("rollout/tree_mask.py", "(key < until)", "(key <= until)"),
    Mutant("rollout/tree_mask.py", "(own <= key)", "(first <= key)"),
    Mutant("rollout/tree_mask.py", "branch + self.newest", "branch + self.steps"),
    Mutant("rollout/tree_mask.py", "rest >= self.anchors", "rest > self.anchors"),
    Mutant("models/attention.py", ".triu(1)", ".triu(2)"),
    Mutant("models/attention.py", ".sub(mean[:, part])", ""),
    Mutant("models/attention.py", "(dp_own - mean)", "dp_own"),
    Mutant("samplers/draw.py", "before[..., None] + inside", "inside"),
    Mutant("samplers/draw.py", "target[..., None]).sum(-1)", "target[..., None]).sum(-1) + 1"),
    Mutant("samplers/draw.py", "scaled = logits / temperature", "scaled = logits * temperature"),
    Mutant("rollout/tree.py", "trunk_end = context_at[:, None, None]", "trunk_end = context_at[:, None, None] + 1"),
    Mutant("rollout/tree.py", "anchor[:, None, None] + step", "anchor[:, None, None] + 0 * step"),
    Mutant("rollout/strided.py", "self.rollout_length + 1, self.stride", "self.rollout_length, self.stride"),
    Mutant("features/hidden_states.py", "/ sqrt(len(layers))", ""),
    Mutant("models/shape.py", "int(layers * depth)", "round(layers * depth) + 1"),
    Mutant("features/bag_of_tokens.py", "mask.to(counts.dtype)", "torch.ones_like(mask, dtype=counts.dtype)"),
    Mutant("features/concat.py", "(sqrt(m.weight), m.f", "(m.weight, m.f"),
    Mutant("features/next_token_log_probs.py", ".log_softmax(-1)", ".softmax(-1)"),
    Mutant("samplers/hf_generate.py", "position >= 0", "position > 0"),
    Mutant("rollout/contexts.py", "ends.cumsum(-1) - ends.long() == 0", "ends.cumsum(-1) == 0"),
    Mutant("samplers/hf_generate.py", "model.generation_config = GenerationConfig()", "pass"),
    Mutant("features/pooling.py", "masked.sum(-2) / mask.sum(-1, keepdim=True)", "masked.mean(-2)"),
    Mutant("printable.py", "if letter.isprintable() or letter in keep", "if True", "tests/unit/test_printable.py"),
    Mutant("printable.py", "if len(line) <= most", "if True", "tests/unit/test_printable.py"),
    Mutant("errors.py", "printable(line)", "line", "tests/unit/test_printable.py"),
    Mutant("console.py", "print(printable(line),", "print(line,", "tests/unit/test_printable.py"),
    Mutant("console.py", "markup=False", "markup=True", "tests/unit/test_printable.py"),
    Mutant("console.py", "emoji=False", "emoji=True", "tests/unit/test_printable.py"),
    Mutant("console.py", "text if control else printable(text, keep=\"\\n\")", "text", "tests/unit/test_printable.py"),
    Mutant("console.py", "printable(shown[key] or \"\")", "shown[key]", "tests/unit/test_printable.py"),
    Mutant("console.py", 'printable(self.format(record), keep="\\n" if record.exc_info else "")', "self.format(record)", "tests/unit/test_printable.py"),
    Mutant("study/report/page.py", "finalize=_shown,", "", "tests/unit/report/test_study.py -k labels"),
    Mutant("study/report/page.py", "autoescape=True", "autoescape=False", "tests/unit/report/test_study.py -k labels"),
    Mutant("study/report/page.py", "ENTITIES.get(letter, letter)", "letter", "tests/unit/report/test_study.py -k labels"),
    Mutant("study/report/page.py", "ESCAPED.sub(r\"\\\\\\g<0>\", printable(text))", "printable(text)", "tests/unit/report/test_study.py -k labels"),
    Mutant("study/report/make.py", "if file in written:", "if False:", "tests/unit/report/test_study.py -k slashes"),
    Mutant("study/report/effects.py", "all(unlike(found[0], other) is None for other in found)", "True", "tests/unit/report/test_study.py -k paired"),
    Mutant("reading.py", "if not stat.S_ISREG(file.stat().st_mode):", "if False:", "tests/unit/test_reading.py"),
    Mutant("reading.py", "Field(ge=0, lt=2**63)", "Field(ge=0)", "tests/unit/test_reading.py"),
    Mutant("reading.py", "Field(ge=0, lt=2**63)", "Field(lt=2**63)", "tests/unit/test_reading.py"),
    Mutant("reading.py", "range(DEEPEST)", "range(100 * DEEPEST)", "tests/unit/test_reading.py"),
    Mutant("reading.py", "[: SHOWN - 1]", "", "tests/unit/test_reading.py"),
    Mutant("evaluation/lines.py", "if not 0 <= number < count:", "if False:", "tests/unit/evaluation/test_lines.py"),
    Mutant("evaluation/lines.py", "if not weight >= 0:", "if False:", "tests/unit/evaluation/test_lines.py"),
    Mutant("evaluation/lines.py", "if not 0 < sum(weights) < inf:", "if False:", "tests/unit/evaluation/test_lines.py"),
    Mutant("evaluation/lines.py", "if weight > 0 and not isfinite(value):", "if False:", "tests/unit/evaluation/test_lines.py"),
    Mutant("checkpoints/manifest.py", 'or ".." in path.parts', "", "tests/hostile -k manifest"),
    Mutant("checkpoints/manifest.py", "path.is_absolute() or", "", "tests/hostile -k manifest"),
    Mutant("checkpoints/manifest.py", "    check_regular(file)\n", "", "tests/hostile -k pipe"),
    Mutant("study/contents.py", 'if "/" in name or', "if", "tests/hostile -k plan"),
    Mutant("study/contents.py", "Annotated[Count, Field(ge=1)]", "Count", "tests/hostile -k steps"),
    Mutant("study/folder.py", "if file.exists() and not file.is_file():", "if False:", "tests/unit/study/test_folder.py"),
    Mutant("runs/output.py", "if self.evaluations.exists() and not _is_empty(self.evaluations):", "if False:", "tests/hostile -k pipe"),
]  # fmt: skip


def main() -> int:
    """0 if every mutant is killed."""
    with tempfile.TemporaryDirectory() as folder:
        if failed := first_failure(Path(folder)):
            sys.exit(f"without any mutant, {failed}: whatever it kills proves nothing")
    survivors = 0
    for number, mutant in enumerate(MUTANTS, 1):
        with tempfile.TemporaryDirectory() as folder:
            killer = first_failure(Path(folder), mutant)
        survivors += killer is None
        what = f"{mutant.file}: {mutant.formula!r} → {mutant.broken!r}"
        print(f"{number:>3}. {what}\n     {killer or 'SURVIVES'}", flush=True)
    print(f"{len(MUTANTS) - survivors} of {len(MUTANTS)} killed")
    return int(survivors > 0)


def first_failure(folder: Path, mutant: Mutant | None = None) -> str | None:
    """The first test that fails in a copy of the repository, with the mutant in place."""
    for part in ("ebft", "tests", "recipes", "docs", "pyproject.toml"):
        source = ROOT / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / part)
    if mutant is not None:
        file = folder / "ebft" / mutant.file
        text = file.read_text()
        assert text.count(mutant.formula) >= 1, f"{mutant.file} has no {mutant.formula!r}"
        file.write_text(text.replace(mutant.formula, mutant.broken, 1))
    tests = TESTS if mutant is None or not mutant.tests else mutant.tests.split()
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    # The copy has to come before the installed package.
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return None
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].partition(" - ")[0] if failed else f"exit status {done.returncode}"


if __name__ == "__main__":
    sys.exit(main())
