# ruff: noqa: E501 — a mutant is one line
"""Breaks each formula and each guard once, on purpose, and says which test notices.

`make mutants` runs all of them. Each mutant is one replacement in one file, run in a copy of the
repository against `TESTS`, or the tests that it names, until the first failure.
A mutant that survives is something that nothing checks.
"""

import argparse
import multiprocessing
import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
# Before torch: its threads would spin while another test process has the core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Importing these takes longer than most tests; a process that is forked has them already.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "torch",
        "transformers.models.llama",
        "datasets",
        "pandas",
        "scipy.stats",
        "pydantic",
        "hypothesis",
        "pytest",
        "beartype",
        "rich.console",
    ]
)
TESTS = [
    "tests/property",
    "tests/hostile",
    "tests/unit/config",
    "tests/unit/runs/test_trial.py",
    "tests/golden",
    *(
        f"tests/unit/{part}"
        for part in ("baselines", "rewards", "models", "samplers", "features", "data", "verifiers")
    ),
    "tests/unit/sandbox",
    "tests/security",
]
FORMULAS = ("baselines", "plans", "rewards", "rollout", "scoring", "training", "transforms")
"""Packages whose mutants the property tests are likely to notice; of others it is the hostile."""
LOOP, CONTRACT = (f"tests/unit/training/test_{name}.py" for name in ("loop", "contract"))
AHEAD = "tests/unit/training/test_ahead.py"
COST = "tests/unit/test_cost.py"
DOCUMENTS, SPLIT, CONVERSATIONS = (
    f"tests/unit/data/test_{name}.py" for name in ("documents", "split", "conversations")
)
MERGE = "tests/property/test_merge.py"
ARCHITECTURES = "tests/unit/models/test_architectures.py"
LAYOUT, LOG_PROBS = (f"tests/unit/models/test_{name}.py" for name in ("layout", "log_probs"))
TOKEN_WEIGHTS = "tests/unit/training/test_token_weights.py"
USUAL = "tests/unit/config/test_usual.py"
ROWS = "tests/distributed/test_rows.py"
METRICS_LOG = "tests/unit/runs/test_metrics_log.py"
PAGE, SAMPLES = (f"tests/unit/report/test_{name}.py" for name in ("run_page", "samples"))
WAITS = "tests/gpu/test_waits.py"
MULTIPL_E, EVALPLUS = (f"tests/unit/data/test_{name}.py" for name in ("multipl_e", "evalplus"))
PROGRAMS = "tests/unit/sandbox/test_programs.py"
CORPUS = "tests/unit/evaluation/test_corpus.py"


class Mutant(NamedTuple):
    """`tests` are where to look for the one that notices: `TESTS`, if it is not said."""

    file: str
    formula: str
    broken: str
    tests: str = ""


MUTANTS = [
    Mutant("training/ahead.py", "pending.step == step", "True", AHEAD),
    Mutant("training/ahead.py", "self._begin(step + 1))", "self._begin(step))", AHEAD),
    Mutant("training/ahead.py", "        self._wait()\n        waited", "        waited", AHEAD),
    Mutant("training/ahead.py", "self._pending = Pending(saved[\"step\"], samples)", "self._pending = None", AHEAD),
    Mutant("training/ahead.py", "saved[\"processes\"] != self._processes.size", "False", AHEAD),
    Mutant("training/ahead.py", "if len(tokens) != len(contexts):", "if False:", AHEAD),
    Mutant("training/ahead.py", "if isinstance(loop.plan, Stateful):", "if False:", AHEAD),
    Mutant("runs/checks.py", "if not sampler.has_own_weights(processes=1):", "if False:", "tests/recipes/test_bad_input.py"),
    Mutant("models/cost.py", "model.active_weights * tokens", "model.layer_weights * tokens", COST),
    Mutant("models/cost.py", "EXPERT_GRADIENTS * bytes_per_value", "bytes_per_value", COST),
    Mutant("models/cost.py", "2 * model.hidden * model.experts_per_token", "model.hidden * model.experts_per_token", COST),
    Mutant("models/shape.py", "self._attention_weights + self.experts_per_token", "self._attention_weights + self.experts", COST),
    Mutant("models/shape.py", "self.hidden * self.experts if", "0 if", COST),
    Mutant("models/shape.py", "experts > 1 and len(set(weights)) > 1", "False", COST),
    Mutant("runs/estimate.py", "or self.model.is_mixture", "or False", "tests/benchmarks/test_scale.py"),
    Mutant("rollout/records.py", "pairwise.sum(-1) / others", "pairwise.mean(-1)"),
    Mutant("rewards/similarity.py", "-2 * diversity", "-1 * diversity"),
    Mutant("rewards/similarity.py", "2 * alignment *", "alignment *"),
    Mutant("rewards/similarity.py", "diagonal(dim1=1, dim2=2).zero_()", "diagonal(dim1=1, dim2=2)"),
    Mutant("scoring/kernels.py", "features.references).mean(-1)", "features.references)[..., 0]"),
    Mutant("scoring/kernels.py", "if features.paired:", "if False:"),
    Mutant("training/objective.py", ".where(mask, 0)", ""),
    Mutant("rewards/weighted_sum.py", "weight * terms.pairwise", "terms.pairwise"),
    Mutant("rewards/reverse_kl.py", "torch.cat(parts) - rollouts.log_probs", "rollouts.log_probs - torch.cat(parts)", "tests/property/test_reverse_kl.py"),
    Mutant("rewards/reverse_kl.py", "gain.transpose(1, 2).flatten(0, 1)", "gain.reshape(-1, gain.shape[1])", "tests/property/test_reverse_kl.py"),
    Mutant("rewards/reverse_kl.py", ".where(rollouts.mask, 0)", "", "tests/property/test_reverse_kl.py"),
    Mutant("features/teacher_references.py", "resources.seed + STREAM", "resources.seed", "tests/unit/features/test_teacher_references.py"),
    Mutant("models/teacher.py", "own.get_vocab() != tokenizer.get_vocab()", "False", "tests/recipes/test_teachers.py"),
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
    Mutant("scoring/kernels.py", "x @ y.mT\n\n\ndef cosine", "(x @ y.mT).abs()\n\n\ndef cosine"),
    Mutant("scoring/kernels.py", "square() / (-2 * bandwidth**2)", "square() / (2 * bandwidth**2)"),
    Mutant("scoring/kernels.py", "squared / (-2 *", "-squared / (-2 *"),
    Mutant("scoring/kernels.py", "torch.exp(-distance(x, y) / bandwidth)", "-distance(x, y).square()"),
    Mutant("scoring/kernels.py", "return -distance(x, y)\n", "return distance(x, y)\n"),
    Mutant("scoring/kernels.py", "+ offset) ** degree", "- offset) ** degree"),
    Mutant("scoring/kernels.py", "torch.pdist(points).median()", "torch.pdist(points).mean()"),
    Mutant("scoring/kernels.py", "normalize(z.reshape(*z.shape[:-1], blocks, -1), dim=-1)", "z.reshape(*z.shape[:-1], blocks, -1)"),
    Mutant("scoring/kernels.py", "x @ y.mT / blocks", "x @ y.mT"),
    Mutant("rewards/feature_matching.py", "features.layers if features.stacked", "features.layers if False"),
    Mutant("transforms/whiten_context_authors.py", "features.layers if features.stacked", "features.layers if True"),
    Mutant("transforms/whiten_context_authors.py", "features.layers if features.stacked", "features.layers if False"),
    Mutant("scoring/interval.py", "if share and C > 1", "if C > 1"),
    Mutant("scoring/interval.py", "** (1 / C), C)", "/ C, C)"),
    Mutant("training/objective.py", "return -per_rollout", "return per_rollout"),
    Mutant("training/objective.py", ".mean(1).sum() / contexts", ".mean(1).mean()"),
    Mutant("training/objective.py", "/ mask.sum(-1)", "/ mask.shape[-1]"),
    Mutant("training/objective.py", "(log_probs * mask).sum() / tokens", "(log_probs * mask).sum() / mask.sum()"),
    Mutant("training/objective.py", "* log_probs * mask).sum(-1)", "* log_probs).sum(-1)"),
    Mutant("training/objective.py", "by_token.flip(-1).cumsum(-1).flip(-1)", "by_token"),
    Mutant("training/objective.py", "by_token.flip(-1).cumsum(-1).flip(-1)", "by_token.cumsum(-1)"),
    Mutant("rollout/records.py", "by_token.transpose(1, 2).flatten(0, 1)", "by_token.flatten(1, 2).view(-1, *by_token.shape[1:2], by_token.shape[-1])"),
    Mutant("training/objective.py", "(trainer - sampler)", "(sampler - trainer)"),
    Mutant("training/objective.py", "difference.sum(-1, keepdim=True)", "difference.mean(-1, keepdim=True)"),
    Mutant("training/objective.py", "ratio.clamp(max=options.cap)", "ratio"),
    Mutant("training/objective.py", "log_probs * weights.detach()", "log_probs * weights.detach().clamp(max=1)"),
    Mutant("scoring/kernel_scores.py", "(n * (n - 1))", "(n * n)"),
    Mutant("scoring/kernel_scores.py", "2 * alignment", "alignment"),
    Mutant("scoring/kernel_scores.py", "- samples.square().sum((1, 2))", ""),
    Mutant("scoring/kernel_scores.py", "- 2 * alignment + own", "- alignment + own"),
    Mutant("scoring/kernel_scores.py", "(n * (n - 1)) - 2 * alignment + own", "(n * n) - 2 * alignment + own"),
    Mutant("training/loop.py", "pg_loss + loss", "pg_loss - loss"),
    Mutant("training/loop.py", "objective.gamma * ce_loss", "ce_loss"),
    Mutant("scoring/interval.py", "index_add(0, numbers, share * (value", "index_add(0, torch.arange(len(share)) % C, share * (value"),
    Mutant("scoring/interval.py", "(1 - h).sqrt()", "1"),
    Mutant("scoring/interval.py", "stats.t.ppf((1 + level) / 2,", "stats.t.ppf(level,"),
    Mutant("scoring/interval.py", "share * (value - mean)", "share * value"),
    Mutant("scoring/interval.py", "part += sign * u", "part += u"),
    Mutant("scoring/interval.py", "- ratio.square().sum() ", ""),
    Mutant("scoring/interval.py", "h.square() / (1 - h)\n", "h.square()\n"),
    Mutant("scoring/interval.py", "< FEWEST:", "< 1:"),
    Mutant("scoring/interval.py", "(1 - h).sqrt() / len(group)", "(1 - h).sqrt()"),
    Mutant("scoring/interval.py", "m / len(group)", "m"),
    Mutant("scoring/interval.py", "/ S**0.5", "/ S"),
    Mutant("scoring/interval.py", "ddof=1", "ddof=0"),
    Mutant("scoring/interval.py", "2 * self.variance / seeds", "2 * self.variance"),
    Mutant("scoring/estimators.py", "K * mean_squared_norm - one", "mean_squared_norm - one / K"),
    Mutant("scoring/estimators.py", "spread = centred.square()", "spread = centred.abs()"),
    Mutant("scoring/estimators.py", "/ tokens.clamp(min=1)", "/ mask[0].numel()"),
    Mutant("scoring/estimators.py", "comb(n - passed, k)", "comb(n - passed, k - 1)"),
    Mutant("scoring/pairs.py", "jackknife - C / (C - 2) * of_pairs", "jackknife", "tests/property/test_pairs.py"),
    Mutant("scoring/pairs.py", "return 2 * float(total)", "return float(total)", "tests/property/test_pairs.py"),
    Mutant("scoring/pairs.py", "self.pairs - self.pairs.diagonal().diag()", "self.pairs", "tests/property/test_pairs.py"),
    Mutant("scoring/pairs.py", "(self._between().sum() - pairs) / between", "(self._between().sum() - pairs) / left.square()", "tests/property/test_pairs.py"),
    Mutant("scoring/pairs.py", "covariance = (both - vx - vy) / 2", "covariance = 0.0", "tests/property/test_pairs.py"),
    Mutant("scoring/gradient_signal.py", "(same.sum((0, 1)) - H * squared) / (H * (H - 1))", "same.mean((0, 1))", "tests/property/test_gradient_signal.py"),
    Mutant("scoring/gradient_signal.py", "both - signal, halves.rollouts", "both, halves.rollouts", "tests/property/test_gradient_signal.py"),
    Mutant("scoring/gradient_signal.py", "1 / (n * (n - 1)) * self.double", "1 / n**2 * self.double", "tests/property/test_gradient_signal.py"),
    Mutant("scoring/within_contexts.py", "v.prod(1)", "v.mean(1).square()", "tests/property/test_within_contexts.py"),
    Mutant("scoring/within_contexts.py", "sqrt(ours * theirs)", "ours", "tests/property/test_within_contexts.py"),
    Mutant("training/sketch.py", "start = self._rotations[piece] + place", "start = place", "tests/unit/training/test_sketch.py"),
    Mutant("rollout/rows.py", "column == 0, column != 0", "column == 0, column == 0", "tests/distributed/test_equality.py -k lora_rows"),
    Mutant("training/gradients.py", "documents**2 * it", "it", "tests/distributed/test_same_figures.py"),
    Mutant("training/gradients.py", "_squared(total) / len(squared_norms) ** 2", "_squared(total)", "tests/unit/training/test_gradients.py"),
    Mutant("models/rows.py", "skipped = -before % step", "skipped = 0", ROWS),
    Mutant("models/rows.py", "place = (before + skipped) // step", "place = before // step", ROWS),
    Mutant("models/write_rows.py", "layout.starts[key] + before * tensor.element_size()", "layout.starts[key]", ROWS),
    Mutant("training/gradients.py", "len(contexts.documents) * loss(one, place)", "loss(one, place)", "tests/unit/training/test_gradients.py"),
    Mutant("diagnosis/costs.py", "max(1, round(length))", "contexts.rollout_length", "tests/unit/diagnosis"),
    Mutant("diagnosis/evidence.py", "scale * torch.stack(of_sets, 1)", "torch.stack(of_sets, 1)", "tests/unit/diagnosis"),
    Mutant("diagnosis/sets.py", "terms.unary.mean(1) + pairs / 2", "terms.unary.mean(1) + pairs", "tests/unit/diagnosis"),
    Mutant("diagnosis/figures.py", "ratio(policy.signal, cross_entropy.signal).root()", "ratio(policy.signal, cross_entropy.signal)", "tests/unit/diagnosis"),
    Mutant("diagnosis/effect.py", "weights / SIDE**2", "1.0", "tests/unit/diagnosis"),
    Mutant("diagnosis/advice.py", "max(parts.noise.value, 0.0) / documents_per_step", "max(parts.noise.value, 0.0)", "tests/unit/diagnosis"),
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
    Mutant("models/log_probs.py", "log_p.exp_().mul_(-each", "log_p.mul_(-each"),
    Mutant("models/log_probs.py", "kept, ctx.kept = ctx.kept, []", "kept = ctx.kept", LOG_PROBS),
    Mutant("models/log_probs.py", "-(log_p.exp() * log_p)", "(log_p.exp() * log_p)", TOKEN_WEIGHTS),
    Mutant("models/log_probs.py", "min(likeliest, log_p.shape[1])", "log_p.shape[1]", TOKEN_WEIGHTS),
    Mutant("training/objective.py", "log_probs * weights.detach()\n    return", "log_probs * weights\n    return", TOKEN_WEIGHTS),
    Mutant("training/objective.py", "return log_probs.exp() if", "return log_probs if", TOKEN_WEIGHTS),
    Mutant("training/objective.py", "entropies / log(LIKELIEST)", "entropies", TOKEN_WEIGHTS),
    Mutant("training/losses.py", "return CrossEntropyLoss(loss, nats.detach())", "return CrossEntropyLoss(loss, loss.detach())", TOKEN_WEIGHTS),
    Mutant("models/log_probs.py", "(z if temperature == 1 else z.div_(temperature))", "z"),
    Mutant("models/log_probs.py", "grad[rows] / temperature", "grad[rows]"),
    Mutant("rollout/tree_mask.py", "(key < until)", "(key <= until)"),
    Mutant("rollout/tree_mask.py", "at = anchors + self.newest", "at = anchors"),
    Mutant("rollout/records.py", "on_host[B + 1 + rows.start", "on_host[B + rows.start"),
    Mutant("rollout/records.py", "self.mask.any((0, 1)) * number", "self.mask.all(1).all(0) * number"),
    Mutant("rollout/tree.py", "begins.diff() * n", "begins.diff()"),
    Mutant("rollout/tree_mask.py", "hidden = key >= anchors\n        return", "hidden = key > anchors\n        return"),
    Mutant("rollout/tree_mask.py", "padding -= lengths.cumsum(0) - lengths", "padding -= lengths.cumsum(0)"),
    Mutant("rollout/tree_mask.py", "(key <= anchors + self.newest - window)", "(key <= anchors - window)", "tests/unit/models/test_attention.py"),
    Mutant("models/newest_attention.py", "sinks.expand(-1, Q, -1, -1)]\n    p", "sinks.expand(-1, Q, -1, -1) * 0]\n    p", "tests/unit/models/test_attention.py"),
    Mutant("features/pooling.py", "(first | ~is_end)", "~is_end"),
    Mutant("features/hidden_states.py", "reference_mask = without_end(", "reference_mask = (lambda mask, _: mask)(", "tests/unit/features/test_maps.py"),
    Mutant("diagnosis/shared_tokens.py", "comb(N - k, n) / comb(N, n)", "comb(N - k, n) / comb(N + 1, n)", "tests/unit/diagnosis/test_costs.py"),
    Mutant("diagnosis/shared_tokens.py", "** log2(n / N)", "* log2(n / N)", "tests/unit/diagnosis/test_costs.py"),
    Mutant("diagnosis/costs.py", "none[name] + share * (every[name] - none[name])", "share * every[name]", "tests/unit/diagnosis/test_costs.py"),
    Mutant("rollout/merge.py", "tokens.where(mask, -1)", "tokens", MERGE),
    Mutant("rollout/merge.py", ".cumprod(-1)\n        firsts", "\n        firsts", MERGE),
    Mutant("rollout/merge.py", "kept = mask & (first", "kept = (first", MERGE),
    Mutant("rollout/merge.py", "at < c.lengths[c.row, None], -1", "at < at + 1, -1", MERGE),
    Mutant("rollout/merge.py", "(same & rollouts.within[..., :steps]).cumprod(-1).bool()", "torch.zeros_like(same)", MERGE),
    Mutant("rollout/merge.py", "own = mask & ~follows_document(rollouts, steps)", "own = mask", MERGE),
    Mutant("rollout/merge.py", "(prefix << 32) | tokens", "tokens", "tests/property/test_tree.py"),
    Mutant("models/attention.py", "out.index_select(1, merged.kept)", "out[:, : len(merged.kept)]", MERGE),
    Mutant("samplers/hf_tree.py", "uniform(t)[kept // n]", "uniform(t)[prefix[kept]]", "tests/property/test_tree.py"),
    Mutant("samplers/hf_tree.py", "alike(prefix, last, ~ended)", "alike(prefix, last, ~ended | True)", "tests/unit/samplers/test_hf_tree.py"),
    Mutant("rollout/transfer.py", ".to(device, non_blocking=True)", ".to(device)", WAITS),
    Mutant("rollout/tree_mask.py", "ON_CPU if device.type == \"cpu\" else ON_GPU", "ON_CPU", WAITS),
    Mutant("rollout/tree_mask.py", "repeat_interleave(branches, output_size=sum(self.branches))", "repeat_interleave(branches)", WAITS),
    Mutant("samplers/hf_tree.py", "t % self._looks_every == 0 and ", "", WAITS),
    Mutant("models/tree_log_probs.py", "trunk_at.flatten()[at - 1]", "trunk_at.flatten()[at]"),
    Mutant("training/checks.py", "finite = finite & log_probs.rollouts", "finite = log_probs.documents", "tests/unit/training/test_finite.py"),
    Mutant("rollout/tree_mask.py", "(own <= key)", "(first <= key)"),
    Mutant("rollout/tree_mask.py", "branch + self.newest", "branch + self.steps"),
    Mutant("rollout/tree_mask.py", "rest >= self.anchors", "rest > self.anchors"),
    Mutant("models/branch_attention.py", "hidden = key > at", "hidden = key >= at + 2"),
    Mutant("models/newest_attention.py", "until = tree_mask.newest + 1", "until = tree_mask.newest + 2"),
    Mutant("models/newest_attention.py", "max(0, until - window)", "max(0, until - window + 1)"),
    Mutant("rollout/records.py", "lengths=(last + tokens)", "lengths=last"),
    Mutant("models/branch_attention.py", "hidden | (key <= at - options.window)", "hidden | (key < at - options.window)"),
    Mutant("models/attention.py", "seen &= key > at[:, None] - window", "seen &= key > at[:, None]"),
    Mutant("models/branch_attention.py", "1 - (capped / cap) ** 2", "1 - capped / cap"),
    Mutant("models/branch_attention.py", "d_sinks -= (p_sink", "d_sinks += (p_sink"),
    Mutant("rollout/tree_mask.py", "(key <= at - window)", "(key < at - window)"),
    Mutant("rollout/tree_mask.py", "group.least - window + 1", "group.least - window + 2"),
    Mutant("models/branch_attention.py", ".sub(mean[:, part])", ""),
    Mutant("models/branch_attention.py", "(dp_own - mean)", "dp_own"),
    Mutant("samplers/draw.py", "(share * summed[..., -1])", "summed[..., -1]"),
    Mutant("samplers/draw.py", "summed[..., -1])[..., None]).sum(-1)", "summed[..., -1])[..., None]).sum(-1) + 1"),
    Mutant("samplers/draw.py", "scaled = logits / temperature", "scaled = logits * temperature"),
    Mutant("rollout/tree.py", "trunk_end = context_at[:, None, None]", "trunk_end = context_at[:, None, None] + 1"),
    Mutant("rollout/tree.py", "anchor[:, None, None] + step", "anchor[:, None, None] + 0 * step"),
    Mutant("plans/strided.py", "document.tokens.numel() - G + 1, self.stride", "document.tokens.numel() - G, self.stride"),
    Mutant("features/hidden_states.py", "/ sqrt(len(layers))", ""),
    Mutant("models/shape.py", "int(layers * depth)", "round(layers * depth) + 1"),
    Mutant("features/bag_of_tokens.py", "mask.to(counts.dtype)", "torch.ones_like(mask, dtype=counts.dtype)"),
    Mutant("features/concat.py", "(sqrt(m.weight), m.f", "(m.weight, m.f"),
    Mutant("features/next_token_log_probs.py", ".log_softmax(-1)", ".softmax(-1)"),
    Mutant("samplers/hf_generate.py", "position >= 0", "position > 0"),
    Mutant("rollout/contexts.py", "ends.cumsum(-1) - ends.long() == 0", "ends.cumsum(-1) == 0"),
    Mutant("samplers/hf_generate.py", "model.generation_config = transformers.GenerationConfig()", "pass"),
    Mutant("features/pooling.py", "masked.sum(-2) / mask.sum(-1, keepdim=True)", "masked.mean(-2)"),
    Mutant("training/loop.py", "nn.utils.clip_grads_with_norm_(updated, largest, norm)", "pass", LOOP),
    Mutant("training/loop.py", "loop.policy.parameters(), loop.clip_grad_norm", "loop.policy.parameters(), 1e9", LOOP),
    Mutant("training/loop.py", "check_gradients(grad_norm, contexts, step=step)", "pass", LOOP),
    Mutant("training/checks.py", "if not torch.isfinite(norm)", "if False", LOOP),
    Mutant("training/loop.py", "optimizer.zero_grad(set_to_none=True)", "pass", LOOP),
    Mutant("training/loop.py", "loop.lr_scheduler.step()", "pass", LOOP),
    Mutant("training/loop.py", "check_log_probs(log_probs, micro_batch, step=step)", "pass", "tests/unit/training/test_accumulate_gradients.py"),
    Mutant("training/checks.py", "if features.paired and m != n", "if False", CONTRACT),
    Mutant("training/checks.py", "bool(terms.pairwise.diagonal(dim1=1, dim2=2).any())", "False", CONTRACT),
    Mutant("training/checks.py", "not bool(rollouts.mask[..., 0].all())", "False", CONTRACT),
    Mutant("training/checks.py", "rollouts.log_probs.where(rollouts.mask, 0)", "rollouts.log_probs", CONTRACT),
    Mutant("training/checks.py", 'self._check_finite("log-probs of what is sampled", sampled)', "pass", CONTRACT),
    Mutant("training/checks.py", 'self._check_finite("features of rollouts", features.samples)', "pass", CONTRACT),
    Mutant("training/checks.py", 'self._check_finite("features of references", features.references)', "pass", CONTRACT),
    Mutant("training/checks.py", 'self._check_finite("rewards", terms.reward())', "pass", CONTRACT),
    Mutant("training/checks.py", 'self._check_finite("advantages", advantages)', "pass", CONTRACT),
    Mutant("data/documents.py", "document.tokens.numel() > options.length", "False", DOCUMENTS),
    Mutant("data/documents.py", "document.tokens.numel() < options.shortest", "document.tokens.numel() <= options.shortest", DOCUMENTS),
    Mutant("data/documents.py", "document.tokens.numel() <= document.begins", "False", DOCUMENTS),
    Mutant("data/documents.py", "plan([document]).reach <= reads", "True", DOCUMENTS),
    Mutant("plans/strided.py", "return self.start + self.rollout_length", "return self.start", DOCUMENTS),
    Mutant("plans/strided.py", "numel() >= self._first", "numel() > self._first", DOCUMENTS),
    Mutant("plans/completion.py", "1 <= document.prompt_length <", "0 <= document.prompt_length <", DOCUMENTS),
    Mutant("plans/completion.py", "document.prompt_length < document", "document.prompt_length <= document", DOCUMENTS),
    Mutant("data/arithmetic_traces.py", "(left, right) % modulus", "(left, right)"),
    Mutant("data/arithmetic_traces.py", "rng.randrange(ready(tree))", "0"),
    Mutant("data/arithmetic_traces.py", "which - ready(left)", "which"),
    Mutant("data/arithmetic_traces.py", "ready(left) + ready(right) or 1", "ready(left) + ready(right) + 1"),
    Mutant("data/arithmetic_traces.py", "return has_unseen(left) or has_unseen(right)", "return False"),
    Mutant("data/arithmetic_traces.py", 'is_held_out(prompt) == (split == "train")', "False"),
    Mutant("data/arithmetic_traces.py", "has_unseen(tree) != unseen", "False"),
    Mutant("models/new.py", "torch.manual_seed(options.seed)", "torch.manual_seed(0)"),
    Mutant("models/new.py", "torch.random.fork_rng(devices=[])", "torch.random.fork_rng(enabled=False)"),
    Mutant("models/new.py", "vocab_size=size", "vocab_size=size + 1"),
    Mutant("models/new.py", "sorted(pre_tokenizers.ByteLevel.alphabet())", "sorted(pre_tokenizers.ByteLevel.alphabet())[1:]"),
    Mutant("data/split.py", "max(round(held_out * distinct), 1)", "round(held_out * distinct)", SPLIT),
    Mutant("data/split.py", "1), distinct - 1)", "1), distinct)", SPLIT),
    Mutant("data/split.py", "train = without_copies(examples, of=held_out)", "train = examples", SPLIT),
    Mutant("data/split.py", "if len(prompts) > 1:", "if True:", SPLIT),
    Mutant("data/split.py", "if len(prompts) > 1:", "if False:", SPLIT),
    Mutant("models/probe.py", "if gap > TOLERANCE", "if False", ARCHITECTURES),
    Mutant("models/probe.py", "TOLERANCE = 2e-3", "TOLERANCE = 2.0", ARCHITECTURES),
    Mutant("models/layout.py", "if mixed := mixes_branches(loaded.policy, short)", "if mixed := None", LAYOUT),
    Mutant("models/probe.py", "(mixed := mixes_branches(policy, rollouts))", "(mixed := None)", LAYOUT),
    Mutant("models/layout.py", "            del loaded\n", "", LAYOUT),
    Mutant("models/layout.py", "        try_backward(loaded.policy, short)\n", "", LAYOUT),
    Mutant("models/layout.py", "if isinstance(gap, float) and math.isnan(gap)", "if True", LAYOUT),
    Mutant("models/log_probs.py", "in before_head(model)", "in []", LOG_PROBS),
    Mutant("models/decoder.py", "            found.append(child)\n", "            pass\n", LOG_PROBS),
    Mutant("models/lora.py", "if weight.dim() == 3", "if weight.dim() == 9", "tests/unit/models/test_lora.py"),
    Mutant("models/lora.py", "if not isinstance(module, nn.Conv1d)", "if True", "tests/unit/models/test_lora.py"),
    Mutant("rollout/micro_batches.py", "ENOUGH // max(1, branches)", "TOGETHER", "tests/property/test_micro_batches.py"),
    Mutant("rollout/micro_batches.py", "if counts and size <= room", "if counts", "tests/property/test_micro_batches.py"),
    Mutant("rollout/micro_batches.py", "anchors * n * contexts", "anchors * contexts", "tests/property/test_micro_batches.py"),
    Mutant("checkpoints/state.py", "check_moments(loop.optimizer)", "pass", "tests/resume/test_resume.py"),
    Mutant("checkpoints/room.py", "if size > free:", "if False:", "tests/unit/checkpoints/test_room.py"),
    Mutant("checkpoints/folder.py", "[-keep:]", "", "tests/unit/checkpoints/test_folder.py"),
    Mutant("checkpoints/folder.py", "choose = min if", "choose = max if", "tests/unit/checkpoints/test_folder.py"),
    Mutant("evaluation/measure.py", "weight.isfinite() &", "", "tests/unit/evaluation/test_evaluators.py"),
    Mutant("evaluation/measure.py", "(value.isfinite() | (weight == 0))", "True", "tests/unit/evaluation/test_evaluators.py"),
    Mutant("training/losses.py", ".where(rollouts.mask, 0)", "", "tests/unit/training/test_accumulate_gradients.py"),
    Mutant("training/losses.py", "gap / counts.rollout_tokens", "gap", "tests/unit/training/test_accumulate_gradients.py"),
    Mutant("training/objective.py", "(ratio > cap)", "(ratio >= cap)", "tests/property/test_importance.py"),
    Mutant("training/objective.py", "ratio <= options.cap", "ratio < options.cap", "tests/property/test_importance.py"),
    Mutant("training/objective.py", "/ ratio.numel()", "", "tests/property/test_importance.py"),
    Mutant("training/objective.py", "document.begins, 1)", "document.begins)", "tests/unit/training/test_objective.py"),
    Mutant("training/objective.py", "1) : end]", "1) :]", "tests/unit/training/test_objective.py"),
    Mutant("rollout/records.py", "return self.turns or (", "return (", CONVERSATIONS),
    Mutant("plans/completion.py", "            ends=[span[:, 1] for span in spans],\n", "", CONVERSATIONS),
    Mutant("data/corpus.py", "if document.turns:", "if False:", CONVERSATIONS),
    Mutant("data/corpus.py", "place % len(self._documents)", "place", DOCUMENTS),
    Mutant("data/corpus.py", "ends.append(len(tokens))", "ends.append(len(document.tokens))", DOCUMENTS),
    Mutant("config/usual.py", "beta < 0.99999", "True", USUAL),
    Mutant("config/usual.py", "_is_number(value) and value <= 1.0", "_is_number(value)", USUAL),
    Mutant("config/usual.py", "self.required <= arguments.keys() <=", "arguments.keys() <=", USUAL),
    Mutant("config/component.py", "known is not None and known.accepts(self.arguments)", "known is not None", USUAL),
    Mutant("lazy.py", "with torch.no_grad():", "if True:", "tests/unit/test_lazy.py"),
    Mutant("data/conversations.py", "if called not in turn:", "if False:", "tests/hostile"),
    Mutant("data/conversations.py", "content=f\"{example.messages[place].content} 0\"", "content=f\"{example.messages[place].content} 0\", role=\"user\"", CONVERSATIONS),
    Mutant("data/tools.py", "parse_json(arguments) if arguments.strip() else {}", "{}", CONVERSATIONS),
    Mutant("data/conversations.py", "return found[-1]", "return found[0]", CONVERSATIONS),
    Mutant("data/conversations.py", "return found[-1]", "return found[-1] - 1", CONVERSATIONS),
    Mutant("data/conversations.py", "if turn[:first] != context:", "if False:", CONVERSATIONS),
    Mutant("data/conversations.py", " if list(tokens[:last]) == turn[:last] else None", "", CONVERSATIONS),
    Mutant("data/conversations.py", "cluster=example.cluster or example.name", "cluster=example.cluster", CONVERSATIONS),
    Mutant("verifiers/attempts.py", "tokens[anchor : ends[anchor]]", "tokens[anchor:]", CONVERSATIONS),
    Mutant("rollout/contexts.py", "flatten(1).all(1)", "flatten(1).any(1)", "tests/unit/training/test_finite.py"),
    Mutant("features/hidden_states.py", 'layers > 1 and self._options.combine == "stack"', "layers > 1", "tests/property/test_whitening.py"),
    Mutant("features/concat.py", "stacked=each[0][1].stacked if len(each) == 1 else False", "stacked=each[0][1].stacked", "tests/unit/features/test_maps.py"),
    Mutant("transforms/whiten_context_paper.py", "layers=1, stacked=False", "", "tests/property/test_whitening.py"),
    Mutant("scoring/interval.py", "torch.stack(leverages).mean(0)", "leverages[0]", "tests/property/test_clusters.py"),
    Mutant("data/values.py", "if not value.isascii():", "if False:"),
    Mutant("data/values.py", "there.count(column) > 1", "False"),
    Mutant("data/values.py", '"backslashreplace"', '"replace"'),
    Mutant("data/jsonl.py", "type(value) is not kind", "not isinstance(value, kind)"),
    Mutant("data/jsonl.py", "check_text(text, place)", "pass"),
    Mutant("data/formats.py", "column in row.repeated", "False"),
    Mutant("data/formats.py", "if len(record) != len(names):", "if len(record) < len(names):"),
    Mutant("data/formats.py", "if len(record) != len(names):", "if len(record) > len(names):"),
    Mutant("data/formats.py", "csv.reader(file, strict=True)", "csv.reader(file)"),
    Mutant("data/formats.py", "csv.field_size_limit(sys.maxsize)", "pass"),
    Mutant("data/stored.py", "\\n{content}", ""),
    Mutant("data/stored.py", "{path.suffix}", ""),
    Mutant("data/stored.py", "{sorted(columns.items())!r}", ""),
    Mutant("data/stored.py", "_digest(path, key) != content", "False"),
    Mutant("data/gettext.py", "if not re.fullmatch(", "if not re.search("),
    Mutant("data/python_functions.py", "(SyntaxError, RecursionError, MemoryError)", "SyntaxError"),
    Mutant("data/hub.py", "rows.select_columns(sorted(set(columns.values())))", "rows"),
    Mutant("data/on_demand.py", "{len(self)} documents on demand, {self._digest}", ""),
    Mutant("models/tokenizer.py", "skip_special_tokens=False", "skip_special_tokens=True"),
    Mutant("models/tokenizer.py", "clean_up_tokenization_spaces=False", "clean_up_tokenization_spaces=True"),
    Mutant("models/tokenizer.py", "tokens[:-1] if ends", "tokens[:-2] if ends"),
    Mutant("verifiers/attempts.py", "if self._ends:", "if True:"),
    Mutant("verifiers/attempts.py", ".rstrip(REPLACEMENT)", ""),
    Mutant("verifiers/numbers.py", "(?<![\\w.%)\\]}}])[{MINUS}]", "[{MINUS}]"),
    Mutant("verifiers/numbers.py", "number if count == 1", "number if count"),
    Mutant("verifiers/numbers.py", "or NOT_ALONE.match(text, found.end())", ""),
    Mutant("verifiers/numbers.py", "len(found[0]) > LONGEST or", ""),
    Mutant("verifiers/functions.py", "outcome.passed and is_worth", "outcome.passed"),
    Mutant("verifiers/functions.py", "(named := first.removeprefix(LANGUAGE)) != language", "False", MULTIPL_E),
    Mutant("verifiers/functions.py", "attempt.context + continuation_in(attempt.rollout)", "attempt.context + attempt.rollout", MULTIPL_E),
    Mutant("verifiers/answers.py", "len(fences) % 2 == 0", "False"),
    Mutant("verifiers/answers.py", "len(fences) % 2 == 0", "True"),
    Mutant("verifiers/answers.py", "if inside_string(before):", "if False:"),
    Mutant("verifiers/answers.py", ' and not inside_string("".join(lines[:number]))', ""),
    Mutant("verifiers/answers.py", "block if is_fenced and not before.strip() else before", "block if is_fenced else before"),
    Mutant("verifiers/attempts.py", "min(found, default=len(text))", "max(found, default=len(text))"),
    Mutant("verifiers/attempts.py", "attempt.stop if stop is None else stop", "stop or ()"),
    Mutant("data/multipl_e.py", "SPELLED.get(spelled, spelled)", "spelled", MULTIPL_E),
    Mutant("data/multipl_e.py", "if SPELLED.get(spelled, spelled) != self.language:", "if False:", MULTIPL_E),
    Mutant("data/multipl_e.py", ", FENCE),", ",),", MULTIPL_E),
    Mutant("data/humaneval_x.py", 'row["declaration"] if self.language == "rs" else ""', '""', MULTIPL_E),
    Mutant("data/humaneval_x.py", 'row["declaration"] if self.language == "rs" else ""', 'row["declaration"]', MULTIPL_E),
    Mutant("data/test_set.py", "files[0]", "files[-1]"),
    Mutant("data/test_set.py", '.rstrip("\\n").split("\\n")', ".splitlines()"),
    Mutant("data/test_set.py", "_lines(references), strict=True)", "_lines(references), strict=False)"),
    Mutant("data/test_set.py", "names[code] for code in", "code for code in"),
    Mutant("data/numpy_of_tests.py", "atol + rtol * size", "rtol * size", EVALPLUS),
    Mutant("data/numpy_of_tests.py", 'size < float("inf") and ', "", EVALPLUS),
    Mutant("data/numpy_of_tests.py", "and len(actual) == len(desired)", "", EVALPLUS),
    Mutant("data/numpy_of_tests.py", "raise ImportError(", "raise AttributeError(", EVALPLUS),
    Mutant("data/humaneval.py", "with_numpy(tests) if self.plus else tests", "tests", EVALPLUS),
    Mutant("data/mbpp.py", '[*row["test_imports"], row["test"]]', '[*row["test_imports"], *row["test_list"]]', EVALPLUS),
    Mutant("sandbox/languages.py", "for _ in range(closing):", "for _ in range(0):", PROGRAMS),
    Mutant("sandbox/languages.py", "console.assert = (ok) => {{ if (!ok) throw", "console.assert = (ok) => {{ if (ok) throw", PROGRAMS),
    Mutant("sandbox/programs.py", "if word.encode() not in ended.output:", "if False:", PROGRAMS),
    Mutant("evaluation/translation.py", "cut(one.rollout.strip(), self._stop).strip()", "one.rollout.strip()", CORPUS),
    Mutant("evaluation/translation.py", "of_documents[self.places] = rows", "of_documents[: len(rows)] = rows", CORPUS),
    Mutant("sandbox/two_processes.py", "[*IMPORT.findall(self.context + self.reference), self.context]", "[self.context]"),
    Mutant("sandbox/two_processes.py", "names.union(DEFINED.findall(self.context)[-1:])", "names"),
    Mutant("sandbox/calls.py", "not self._codec.is_own(target)", "False"),
    Mutant("sandbox/calls.py", "not _is_open(target, more[0])", "False"),
    Mutant("sandbox/calls.py", "class ProgramEnded(BaseException)", "class ProgramEnded(Exception)"),
    Mutant("sandbox/calls.py", 'return name not in ("eq", "instancecheck") and NotImplemented', "return one._ebft_peer.ask(name, one, other)"),
    Mutant("sandbox/values.py", "issubclass(found, Exception)", "issubclass(found, BaseException)"),
    Mutant("sandbox/checking.py", "if name in tested or not (name in space or hasattr(builtins, name))", "if True"),
    Mutant("sandbox/values.py", " or is_unittests(found)", ""),
    Mutant("sandbox/values.py", "except (ImportError, SystemExit):", "except ImportError:"),
    Mutant("sandbox/calls.py", 'isinstance(error, StopIteration) and what != "next"', "False"),
    Mutant("sandbox/calls.py", 'self._ebft_peer.ask("exit", self, kind, error)', 'return self._ebft_peer.ask("exit", self, kind, error)'),
    Mutant("sandbox/checking.py", "for name in dir(kind):", "for name in vars(kind):"),
    Mutant("sandbox/two_processes.py", "f\"program: {serving.result().error or 'left before its end'}\"", "serving.result().error"),
    Mutant("sandbox/child.py", 'whose = "program: " if is_programs else ""', 'whose = ""'),
    Mutant("sandbox/checking.py", "if end.code:", "if False:"),
    Mutant("sandbox/checking.py", "if not result.wasSuccessful():", "if False:"),
    Mutant("plans/strided.py", "- G + 1, self.stride", "- G, self.stride"),
    Mutant("sandbox/syscalls.py", "yield EQUAL, 1, 0, machine.audit", "yield EQUAL, 1, 1, machine.audit"),
    Mutant("sandbox/syscalls.py", "match no number\n", "match no number\n    yield AND, 0, 0, 0x3FFFFFFF\n"),
    Mutant("sandbox/syscalls.py", "8 * argument + 4), (EQUAL, 0, 1, 0)]", "8 * argument + 4), (EQUAL, 0, 0, 0)]"),
    Mutant("sandbox/syscalls.py", "[(EQUAL, 0, 3, 0), (LOAD", "[(EQUAL, 0, 0, 0), (LOAD"),
    Mutant("sandbox/syscalls.py", "0x3D0F00, 0x7D0F00)", "0x3D0B00, 0x3D0F00, 0x7D0F00)"),
    Mutant("sandbox/syscalls.py", "CLONE[machine.column], 0, [(EQUAL, 0, 1, thread)]", "CLONE[machine.column], 0, [(ANY_BIT, 0, 1, thread)]"),
    Mutant("sandbox/syscalls.py", "yield RETURN, 0, 0, ERRNO | errno.ENOSYS", "yield RETURN, 0, 0, ALLOW"),
    Mutant("sandbox/syscalls.py", "(ACCESS_MODE | TRUNCATE, 0))", "(ACCESS_MODE, 0))"),
    Mutant("sandbox/syscalls.py", "OPENING = (", "OPENING = ((ACCESS_MODE, 3), "),
    Mutant("sandbox/syscalls.py", "CREATE | UNNAMED)]", "CREATE)]"),
    Mutant("sandbox/syscalls.py", "CREATE | UNNAMED)]", "UNNAMED)]"),
    Mutant("sandbox/syscalls.py", "yield RETURN, 0, 0, ASK", "yield RETURN, 0, 0, ALLOW"),
    Mutant("sandbox/syscalls.py", "[(EQUAL, 0, 3, UNIX), (LOAD", "[(EQUAL, 0, 0, UNIX), (LOAD"),
    Mutant("sandbox/syscalls.py", "(EQUAL, 0, 1, kind)]", "(EQUAL, 0, 0, kind)]"),
    Mutant("sandbox/syscalls.py", "call[machine.column], argument, [(EQUAL, 0, 1, command)]", "call[machine.column], argument, [(EQUAL, 0, 0, command)]"),
    Mutant("sandbox/syscalls.py", "    yield from _if(SENDTO[machine.column], 4, _null(4))\n    yield refuse", "    yield from _if(SENDTO[machine.column], 4, _null(4))\n    yield RETURN, 0, 0, ALLOW"),
    Mutant("sandbox/syscalls.py", '"dup": (32, 23)', '"kill": (62, 129), "dup": (32, 23)'),
    Mutant("sandbox/syscalls.py", "self._threads < 0", "self._threads < -99"),
    Mutant("sandbox/syscalls.py", "self._files < 0", "self._files < -1"),
    Mutant("sandbox/syscalls.py", "0 if error else GO_ON", "GO_ON"),
    Mutant("sandbox/child.py", "libc.alarm(seconds)", "pass"),
    Mutant("sandbox/child.py", "call(libc.prctl, DEATH_SIGNAL, SIGKILL, 0, 0, 0)", "pass"),
    Mutant("sandbox/child.py", "if os.getppid() != parent:", "if False:"),
    Mutant("sandbox/child.py", "call(libc.prctl, NO_NEW_PRIVILEGES, 1, 0, 0, 0)", "pass"),
    Mutant("sandbox/child.py", "call(libc.syscall, CAPABILITIES[os.uname().machine], header, none)", "pass"),
    Mutant("sandbox/child.py", "call(libc.syscall, RESTRICT_SELF, ruleset, 0)", "pass"),
    Mutant("sandbox/child.py", 'add_filter(settings["filter"], 0, libc)', "pass"),
    Mutant("sandbox/child.py", "os.close(listener)", "pass"),
    Mutant("sandbox/child.py", "os.close(ruleset)", "pass"),
    Mutant("sandbox/child.py", "os.close(0)", "pass"),
    Mutant("sandbox/child.py", "(most, most))\n", "(most, resource.getrlimit(getattr(resource, f'RLIMIT_{name}'))[1]))\n"),
    Mutant("sandbox/child.py", 'failure = error_text(error) or "error"', 'failure = ""'),
    Mutant("sandbox/run.py", '("CPU", options.cpu_seconds),', ""),
    Mutant("sandbox/run.py", '("AS", options.memory_mib * MIB),', ""),
    Mutant("sandbox/run.py", "scratch // MOST_FILES if isolated", "scratch if isolated"),
    Mutant("sandbox/run.py", '("NOFILE", 64),', ""),
    Mutant("sandbox/run.py", '("CORE", 0),', ""),
    Mutant("sandbox/run.py", 'limits.append(("NPROC", 0))', "pass"),
    Mutant("sandbox/run.py", "env=ENVIRONMENT |", "env=os.environ | ENVIRONMENT |"),
    Mutant("sandbox/run.py", '"PYTHONHASHSEED": "0"', ""),
    Mutant("sandbox/run.py", '"-S", "-s", "-P"', '"-s", "-P"'),
    Mutant("sandbox/run.py", '"-P", "-B"', '"-P"'),
    Mutant("sandbox/run.py", "start_new_session=True", "start_new_session=False"),
    Mutant("sandbox/run.py", "os.killpg(process.pid, signal.SIGKILL)", "os.kill(process.pid, signal.SIGKILL)"),
    Mutant("sandbox/run.py", "stdout=subprocess.DEVNULL", "stdout=None"),
    Mutant("sandbox/run.py", "if report[:WORD] != word:", "if not report:"),
    Mutant("sandbox/run.py", "while left > 0:", "while True:"),
    Mutant("sandbox/run.py", "int(options.isolation == \"full\" and counter is None)", "int(counter is None)"),
    Mutant("sandbox/landlock.py", "(path, READ_FILE | (READ_DIR", "(path, READ_FILE | WRITE_FILE | (READ_DIR"),
    Mutant("sandbox/landlock.py", "max(v for v in RIGHTS if v <= known)", "1"),
    Mutant("sandbox/landlock.py", "own |= TRUNCATE & handled(known)", "own |= TRUNCATE"),
    Mutant("models/load.py", '"use_safetensors": True,', '"use_safetensors": None,', "tests/hostile -k code"),
    Mutant("runs/estimate.py", "trust_remote_code=False", "trust_remote_code=True"),
    Mutant("models/options.py", "trust_remote_code: bool = Field(\n        False", "trust_remote_code: bool = Field(\n        True"),
    Mutant("parts/named.py", 'f"{dotted}.".startswith(f"{it}.")', "dotted.startswith(it)"),
    Mutant("parts/named.py", "if importable is not None and", "if importable is None and"),
    Mutant("parts/modules.py", "sys.path[:] = before", "pass"),
    Mutant("parts/registry.py", "has_hooks or _forgets_to_mark(module)", "has_hooks"),
    Mutant("config/class_kinds.py", "isinstance(found, type) and issubclass(found, torch.optim.Optimizer)", "callable(found)"),
    Mutant("config/class_kinds.py", "found.__module__ in SCHEDULES", "True"),
    Mutant("config/class_kinds.py", '"schedule" in found.__name__', "True"),
    Mutant("config/class_kinds.py", "if not self._steps_by_number(type(schedule)):", "if False:"),
    Mutant("config/arguments.py", "if not _is_finite(value):", "if False:"),
    Mutant("config/arguments.py", "SchemaValidator(strict(adapter.core_schema))", "SchemaValidator(adapter.core_schema)"),
    Mutant("config/arguments.py", "if isinstance(kind, str):", "if False:"),
    Mutant("config/overrides.py", "if not value.strip():", "if False:"),
    Mutant("parts/registry.py", "if others and kind not in others:", "if False:"),
    Mutant("parts/registry.py", "if part in (Part, *BASES.values()):", "if False:"),
    Mutant("checkpoints/nested.py", "case Tensor() if type(value) in (Tensor, Parameter):", "case Tensor():"),
    Mutant("config/overrides.py", "word.value != value.strip() or isinstance", "isinstance"),
    Mutant("config/overrides.py", "case _ if comment:", "case _ if False:"),
    Mutant("config/explain.py", "message += _closest(value, message) if is_text else _quotes(value)", "message += _closest(str(value), message)"),
    Mutant("options.py", 'if kind in ("int", "float", "bool") else', 'if kind in ("float", "bool") else'),
    Mutant("options.py", 'if kind in ("int", "float", "bool") else', 'if kind in ("int", "bool") else'),
    Mutant("options.py", 'if kind in ("int", "float", "bool") else', 'if kind in ("int", "float") else'),
    Mutant("runs/trial.py", "            optimizer.step()\n", "            pass\n"),
    Mutant("runs/trial.py", "check_nested(optimizer.state_dict()[\"state\"])", "pass"),
    Mutant("runs/trial.py", "range(min(steps, MOST_STEPS))", "range(1)"),
    Mutant("runs/trial.py", "if steps > MOST_STEPS:", "if False:"),
    Mutant("runs/trial.py", "or not isfinite(rate)", ""),
    Mutant("runs/trial.py", "or rate < 0", ""),
    Mutant("verifiers/attempts.py", "if not stop:", "if False:"),
    Mutant("cli/main.py", "    try:\n        os.getcwd()", "    try:\n        pass"),
    Mutant("cli/main.py", 'if os.path.expanduser("~") == "~":', "if False:"),
    Mutant("models/refused.py", "if WHOLE not in files:", "if False:"),
    Mutant("models/weights.py", 'return f"its files lack {_some(missing)}; {remedy}"', "return None"),
    Mutant("models/weights.py", 'return kind == "weight" and', "return False and"),
    Mutant("models/weights.py", "parent not in outside", "True"),
    Mutant("models/weights.py", 'return isinstance(getattr(modules[parent], "weight", None), Tensor)', "return False"),
    Mutant("models/refused.py", "if how := section.get(key):", "if how := None:"),
    Mutant("models/lora.py", "loaded.unexpected_keys if name not in own", "own if name not in saved"),
    Mutant("models/lora.py", "if not torch.equal(own[name], saved[name].to(own[name]))", "if False"),
    Mutant("models/lora.py", "        _untie_if_adapted(model)\n", "        pass\n"),
    Mutant("models/refused.py", "isinstance(error, UserError) or is_out_of_memory(error)", "False"),
    Mutant("models/tokenizer.py", "number in put or number not in special", "number not in special"),
    Mutant("models/tokenizer.py", "number in put or number not in special", "number in put"),
    Mutant("data/documents.py", "int(document.tokens.max()) >= embeds", "int(document.tokens.max()) > embeds"),
    Mutant("data/documents.py", "if tokens[: len(start)] == start else tokens", "if False else tokens"),
    Mutant("data/documents.py", "completion[-1:] == [tokenizer.eos_token_id]", "False"),
    Mutant("models/tokenizer.py", "return whole[:at]", "return whole[max(at - 1, 0) : at]"),
    Mutant("plans/strided.py", "return max(self.start, document.begins)", "return self.start"),
    Mutant("training/objective.py", "max(start, document.begins, 1)", "max(start, 1)"),
    Mutant("checkpoints/differences.py", "(*SAME_MATHEMATICS, *same_results)", "SAME_MATHEMATICS", "tests/unit/checkpoints/test_differences.py"),
    Mutant("printable.py", "if letter.isprintable() or letter in keep", "if True", "tests/unit/test_printable.py"),
    Mutant("printable.py", "if len(line) <= most", "if True", "tests/unit/test_printable.py"),
    Mutant("errors.py", "printable(line)", "line", "tests/unit/test_printable.py"),
    Mutant("console.py", "print(printable(line),", "print(line,", "tests/unit/test_printable.py"),
    Mutant("console.py", "markup=False", "markup=True", "tests/unit/test_printable.py"),
    Mutant("console.py", "emoji=False", "emoji=True", "tests/unit/test_printable.py"),
    Mutant("console.py", "text if control else printable(text, keep=\"\\n\")", "text", "tests/unit/test_printable.py"),
    Mutant("console.py", "printable(shown[key] or \"\")", "shown[key]", "tests/unit/test_printable.py"),
    Mutant("console.py", 'printable(self.format(record), keep="\\n" if record.exc_info else "")', "self.format(record)", "tests/unit/test_printable.py"),
    Mutant("report/page.py", "finalize=_printable,", "", PAGE),
    Mutant("report/page.py", "autoescape=True", "autoescape=False", PAGE),
    Mutant("report/page.py", "not isinstance(value, Markup)", "True", PAGE),
    Mutant("report/rollouts_log.py", "context.step <= after", "context.step < after", PAGE),
    Mutant("report/rollouts_log.py", "key=lambda j: -rewards[j]", "key=lambda j: rewards[j]", PAGE),
    Mutant("report/rollouts_log.py", "[*order[:ENDS], *order[-ENDS:]]", "order[: 2 * ENDS]", PAGE),
    Mutant("report/run_page.py", "change.excludes_zero", "False", PAGE),
    Mutant("runs/page.py", ">= self._took / SHARE", ">= self._took", PAGE),
    Mutant("runs/folder.py", "\".lock\", self.environment.name)", "\".lock\")", "tests/recipes/test_page.py -k stopped"),
    Mutant("runs/folder.py", "cut_rollouts(folder.rollouts, after=self.step)", "pass", "tests/recipes/test_page.py -k repeats"),
    Mutant("report/samples.py", "if all(known):", "if True:", SAMPLES),
    Mutant("report/samples.py", "clusters=torch.tensor(clusters)", "clusters=None", SAMPLES),
    Mutant("data/prompts.py", "ends=[torch.tensor([end]) for _, end in spans],", "", "tests/unit/data/test_prompts.py"),
    Mutant("data/prompts.py", "if not example.messages[-1].is_target:", "if False:", "tests/unit/data/test_prompts.py"),
    Mutant("sample/two_models.py", '"trust_remote_code": False', '"trust_remote_code": True', "tests/recipes/test_sample.py -k allowed"),
    Mutant("sample/sampling.py", "sampler.sync(model, step=EVALUATION_STEP)", "pass", "tests/recipes/test_sample.py -k same_contexts"),
    Mutant("printable.py", "ENTITIES.get(letter, letter)", "letter", "tests/unit/report/test_study.py -k labels"),
    Mutant("printable.py", "ESCAPED.sub(r\"\\\\\\g<0>\", printable(text))", "printable(text)", "tests/unit/report/test_study.py -k labels"),
    Mutant("study/report/make.py", "if file in written:", "if False:", "tests/unit/report/test_study.py -k slashes"),
    Mutant("study/report/effects.py", "all(mismatch(found[0], other) is None for other in found)", "True", "tests/unit/report/test_study.py -k paired"),
    Mutant("files.py", "if not stat.S_ISREG(file.stat().st_mode):", "if False:", "tests/unit/test_reading.py"),
    Mutant("files.py", "Field(ge=0, lt=2**63)", "Field(ge=0)", "tests/unit/test_reading.py"),
    Mutant("files.py", "Field(ge=0, lt=2**63)", "Field(lt=2**63)", "tests/unit/test_reading.py"),
    Mutant("files.py", "range(DEEPEST)", "range(100 * DEEPEST)", "tests/unit/test_reading.py"),
    Mutant("printable.py", "[: most - 1]", "", "tests/unit/test_reading.py"),
    Mutant("evaluation/lines.py", "if not 0 <= number < count:", "if False:", "tests/unit/evaluation/test_lines.py"),
    Mutant("evaluation/lines.py", "if not weight >= 0:", "if False:", "tests/unit/evaluation/test_lines.py"),
    Mutant("evaluation/lines.py", "if not 0 < sum(weights) < inf:", "if False:", "tests/unit/evaluation/test_lines.py"),
    Mutant("evaluation/lines.py", "if weight > 0 and not isfinite(value):", "if False:", "tests/unit/evaluation/test_lines.py"),
    Mutant("checkpoints/publisher.py", "is_due or is_last or self._failed", "is_due or is_last", "tests/unit/checkpoints/test_publisher.py -k next_checkpoint"),
    Mutant("checkpoints/publisher.py", "(last.repo, last.state, last.manifest) == same", "False", "tests/unit/checkpoints/test_publisher.py -k twice"),
    Mutant("checkpoints/publisher.py", "(last.repo, last.state, last.manifest) == same", "last.repo == hub.repo", "tests/unit/checkpoints/test_publisher.py -k twice"),
    Mutant("checkpoints/publisher.py", "is_due = hub.every is None or step_of(checkpoint) % hub.every == 0", "is_due = True", "tests/unit/checkpoints/test_publisher.py -k only_due"),
    Mutant("checkpoints/folder.py", "for old in self._old - self._held:", "for old in self._old:", "tests/unit/checkpoints/test_publisher.py -k not_deleted"),
    Mutant("checkpoints/folder.py", "for old in released & self._old:", "for old in ():", "tests/unit/checkpoints/test_publisher.py -k not_deleted"),
    Mutant("checkpoints/upload.py", "delete_patterns=list(WEIGHTS),", "", "tests/unit/checkpoints/test_publisher.py -k other_weights"),
    Mutant("checkpoints/upload.py", "ignore_patterns=list(request.excluded),", "", "tests/unit/checkpoints/test_publisher.py -k other_weights"),
    Mutant("checkpoints/upload.py", "private=request.private,", "", "tests/unit/checkpoints/test_publisher.py"),
    Mutant("checkpoints/hub.py", "if is_offline_mode():", "if False:", "tests/unit/checkpoints/test_publisher.py -k lacks"),
    Mutant("checkpoints/hub.py", 'if "/" not in repo:', "if False:", "tests/unit/checkpoints/test_publisher.py -k repositories"),
    Mutant("runs/checks.py", "elif hub.every % saved:", "elif False:", "tests/hostile -k uploads"),
    Mutant("runs/folder.py", 'if re.fullmatch(r"[\\w-]{1,64}", found, re.ASCII) is None:', "if False:", "tests/unit/runs/test_run_id.py"),
    Mutant("runs/folder.py", "if not (resume and self._run_id.exists()):", "if True:", "tests/unit/runs/test_run_id.py"),
    Mutant("runs/memory.py", "if not largest.turns or tree.columns <= longest.columns:", "if True:", "tests/unit/runs/test_micro_batch.py"),
    Mutant("runs/memory.py", "+ of_turn * len(it.turns)", "", "tests/unit/runs/test_micro_batch.py"),
    Mutant("report/logged_tables.py", "paired_change(before, now)", "paired_change(now, before)", "tests/recipes/test_logged.py"),
    Mutant("evaluation/history.py", "interval.mean - interval.half_width", "interval.mean", "tests/recipes/test_logged.py"),
    Mutant("data/conversations.py", "    _check_used(example, place, up_to, up_to.removeprefix(asked))\n", "", "tests/unit/data/test_conversations.py"),
    Mutant("data/conversations.py", "{REASONING: it.reasoning} if it.reasoning else {}", "{}", "tests/unit/data/test_conversations.py"),
    Mutant("data/tools.py", "option == column == TOOLS and column not in there", "False", "tests/unit/data/test_conversations.py"),
    Mutant("data/conversations.py", "    _check_tools(example, text)\n    _check_answers(", "    _check_answers(", "tests/unit/data/test_prompts.py"),
    Mutant("data/mistakes.py", "partition(name) if name else", "partition(name) if False else", "tests/unit/data/test_conversations.py"),
    Mutant("samplers/hf_tree.py", "keeps = self._options.keep_weights or", "keeps =", "tests/distributed/test_gathers.py"),
    Mutant("data/conversations.py", "listed, tools=tools, tokenize", "listed, tokenize", "tests/unit/data/test_conversations.py"),
    Mutant("checkpoints/manifest.py", 'or ".." in path.parts', "", "tests/hostile -k manifest"),
    Mutant("checkpoints/manifest.py", "path.is_absolute() or", "", "tests/hostile -k manifest"),
    Mutant("checkpoints/manifest.py", "    check_regular(file)\n", "", "tests/hostile -k pipe"),
    Mutant("files.py", 'if not text.endswith("\\n"):', "if False:", "tests/unit/evaluation/test_tables.py"),
    Mutant("files.py", "if len(cells) != len(header):", "if False:", "tests/unit/evaluation/test_tables.py"),
    Mutant("files.py", "if name in columns[:number]:", "if False:", "tests/unit/evaluation/test_tables.py"),
    Mutant("evaluation/tables.py", "if row.document != len(others):", "if False:", "tests/unit/evaluation/test_tables.py"),
    Mutant("evaluation/tables.py", "if key in seen:", "if False:", "tests/unit/evaluation/test_tables.py"),
    Mutant("evaluation/tables.py", "in documents:\n            raise", "in ():\n            raise", "tests/unit/evaluation/test_tables.py"),
    Mutant("evaluation/tables.py", "if line.documents != row.documents:", "if False:", "tests/unit/evaluation/test_tables.py"),
    Mutant("evaluation/tables.py", "(line.step, line.name, number, *rest)", "(line.step, line.name, number, 1.0, 0)", "tests/unit/evaluation/test_tables.py"),
    Mutant("study/report/record_files.py", "if name not in runs:", "if False:", "tests/hostile -k record"),
    Mutant("study/contents.py", 'if "/" in name or', "if", "tests/hostile -k plan"),
    Mutant("study/contents.py", "Annotated[Count, Field(ge=1)]", "Count", "tests/hostile -k steps"),
    Mutant("study/folder.py", "                    check_regular(file)\n", "                    pass\n", "tests/unit/study/test_folder.py"),
    Mutant("runs/folder.py", "(self.evaluations, self.metrics)\n", "(self.metrics,)\n", "tests/hostile -k pipe"),
    Mutant("runs/folder.py", "(self.evaluations, self.metrics)\n", "(self.evaluations,)\n", "tests/hostile -k pipe"),
    Mutant("runs/folder.py", "stale = [self.evaluations, self.metrics]", "stale = [self.evaluations]", "tests/recipes/test_runs.py -k overwritten"),
    Mutant("runs/folder.py", "after=self.step", "after=self.step + 1", "tests/resume/test_resume.py -k twice"),
    Mutant("runs/metrics_log.py", "line.step <= after", "line.step < after", METRICS_LOG),
    Mutant("runs/metrics_log.py", "value if isfinite(value) else None", "value", METRICS_LOG),
]  # fmt: skip


def main() -> int:
    """0 if every mutant is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "files", nargs="*", help="only the mutants of files with this in their name"
    )
    parser.add_argument("--first", type=int, default=1, help="number of the first: to go on")
    parser.add_argument("--jobs", type=int, default=1, help="how many to run at a time")
    options = parser.parse_args()
    chosen = [
        (number, mutant)
        for number, mutant in enumerate(MUTANTS, 1)
        if number >= options.first
        and (not options.files or any(name in mutant.file for name in options.files))
    ]
    survivors = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        killers = pool.map(lambda it: first_to_notice(it[1]), chosen)
        for (number, mutant), killer in zip(chosen, killers, strict=True):
            if killer and fails_without_mutant(killer):
                killer = f"SURVIVES: {killer} fails without it as well"
            survivors += killer is None or killer.startswith("SURVIVES")
            what = f"{mutant.file}: {mutant.formula!r} → {mutant.broken!r}"
            print(f"{number:>3}. {what}\n     {killer or 'SURVIVES'}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} killed")
    return int(survivors > 0)


def first_to_notice(mutant: Mutant) -> str | None:
    """The first test that fails with this mutant. The likeliest to notice run first, by themselves:
    those of its own file, then of its package, for all take minutes."""
    if mutant.tests:
        return first_failure(mutant.tests.split(), mutant)
    file = Path("tests/unit", mutant.file)
    own = str(file.with_name(f"test_{file.name}"))
    likely = "tests/property" if mutant.file.startswith(FORMULAS) else "tests/hostile"
    stages = [[own], [str(file.parent)], [likely], TESTS]
    if file.parent == Path("tests/unit"):  # a module of no package
        del stages[1]
    existing = [stage for stage in stages if all(ROOT.joinpath(one).exists() for one in stage)]
    return next(filter(None, (first_failure(stage, mutant) for stage in existing)), None)


def fails_without_mutant(killer: str) -> bool:
    """If so, the test fails by chance, and says nothing about the mutant."""
    status, _, test = killer.partition(" ")
    return status in ("FAILED", "ERROR") and first_failure([test]) is not None


def first_failure(tests: Sequence[str], mutant: Mutant | None = None) -> str | None:
    """The first test that fails in a copy of the repository, with the mutant in place."""
    with TemporaryDirectory() as path:
        folder = Path(path)
        for part in ("ebft", "tests", "recipes", "docs", "plugins", "pyproject.toml"):
            source = ROOT / part
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / part)
        if mutant is not None:
            file = folder / "ebft" / mutant.file
            text = file.read_text()
            assert text.count(mutant.formula) >= 1, f"{mutant.file} has no {mutant.formula!r}"
            file.write_text(text.replace(mutant.formula, mutant.broken, 1))
        output = folder / "output.txt"
        process = PROCESSES.Process(target=run_pytest, args=(folder, tests, output))
        process.start()
        process.join()
        lines = output.read_text().splitlines() if output.exists() else []
    if process.exitcode in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return None
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return failed[0].partition(" - ")[0] if failed else f"exit status {process.exitcode}"


def run_pytest(folder: Path, tests: Sequence[str], output: Path) -> None:
    """In a process of its own: runs the tests of a copy, and exits with pytest's status."""
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for name in list(sys.modules):  # this module's package is not the copy's
        if name.partition(".")[0] in ("ebft", "tests"):
            del sys.modules[name]
    os.chdir(folder)
    sys.path.insert(0, str(folder))  # the copy has to come before the installed package
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    profile = "--hypothesis-profile=mutants"
    sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", profile, *tests]))


if __name__ == "__main__":
    sys.exit(main())
