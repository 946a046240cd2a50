"""The equality probe: before a run, on the real model, a tree must equal independent rows.

Nothing else would show that an architecture reads masks, positions or windows in a way of its own,
or attends to the previous document of a row: the losses would be finite, but wrong.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ebft.errors import NumericalError, UserError, first_line, is_out_of_memory
from ebft.models.attention import on_tree, own_attention
from ebft.models.forward import decode
from ebft.models.tree_log_probs import TreeLogProbs, tree_log_probs
from ebft.models.whole import whole
from ebft.parts.interfaces import Plan
from ebft.rollout.contexts import make_contexts
from ebft.rollout.records import Contexts, Document, Rollouts
from ebft.rollout.tree import grow

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DOCUMENTS = 64
CONTEXTS = 3
"""Contexts that are probed: the first, the middle, the last; of a tried policy not the middle."""
TOLERANCE = 2e-3
"""Nats. float32 rounding makes about 1e-5; a mask or position that is off by one makes 0.1."""
INFLUENCE = 1e-4
"""Of the size of hidden states. Rounding makes about 1e-6 where experts are computed in groups of
tokens, and else nothing; a recurrent layer with weights of 3e-4 makes 1e-3."""
ENDS = 128
"""Tokens at the beginning and at the end of a document whose log-probs are compared."""
LONGEST = 200
"""Characters of what another library says."""

log = logging.getLogger("ebft")


@torch.no_grad()
def probe_tree(
    policy: PreTrainedModel, documents: Sequence[Document], plan: Plan, *, tried: bool = False
) -> float:
    """Returns the largest |log p(tree) − log p(rows)| of any token, in nats, without autocast.

    It probes the shortest and the longest of the first `DOCUMENTS` documents, because later ones
    may not be tokenised yet; of a policy that `models.layout` has `tried` only the longest. Raises
    `NumericalError` if the gap is more than `TOLERANCE` or not finite, and `UserError` if this
    architecture raises anything: such a model cannot be trained or measured.
    """
    first = [documents[place] for place in range(min(DOCUMENTS, len(documents)))]
    first.sort(key=lambda document: document.tokens.numel())
    probed = first[-1:] if tried or len(first) == 1 else [first[0], first[-1]]
    contexts = _few(plan(probed), CONTEXTS - 1 if tried else CONTEXTS).to(policy.device)
    # Any tokens can serve as rollouts: here the reference, and the reference reversed.
    tokens = torch.stack([contexts.reference, contexts.reference.flip(-1)], 1)
    who = type(policy).__name__
    remedy = "set model.attention=rows" if on_tree(policy) else "give another model"
    rollouts = as_rollouts(contexts, tokens)
    gap = gap_or_reason(lambda: largest_gap(policy, rollouts))
    if isinstance(gap, str):
        raise UserError(f"model.path: {who} cannot be trained or measured, because {gap}; {remedy}")
    name = " and ".join(document.name for document in contexts.documents)
    if not math.isfinite(gap):
        raise NumericalError(
            f"before anything is computed: log-probs of {name} are not finite; look for NaN or "
            f"infinity in the weights of {who}"
        )
    if gap > TOLERANCE:
        raise NumericalError(
            f"{who} does not compute {'over a tree' if on_tree(policy) else 'on rows'} what it "
            f"computes over single texts: log-probs of tokens in {name} are off by {gap:.2g} nats, "
            f"more than {TOLERANCE:g}; {remedy}"
        )
    if not tried and (mixed := mixes_branches(policy, rollouts)):
        raise NumericalError(f"{who} cannot be computed over a tree: {mixed}; {remedy}")
    return gap


def check_layout(
    policy: PreTrainedModel, documents: Sequence[Document], plan: Plan, *, tried: bool
) -> None:
    """Compares the policy's log-probs with those of single texts, and logs the largest difference.

    `tried`: its layout was chosen by trying it. Call it before the weights are cast. Raises
    as `probe_tree` does.
    """
    log.info("comparing log-probs of documents with those of single texts …")
    gap = probe_tree(policy, documents, plan, tried=tried)
    layout = "a tree" if on_tree(policy) else "rows of a batch"
    log.info("log-probs in %s and of single texts differ by at most %.1g nats", layout, gap)


def mixes_branches(policy: PreTrainedModel, rollouts: Rollouts) -> str | None:
    """Returns why the policy mixes the branches of its tree, as the end of a sentence; None if it
    does not, or is on rows.

    The tokens of a context's first rollout are replaced, which may change no other hidden state. A
    layer that mixes tokens without a mask, such as a recurrent one, changes them. While its weights
    are small, as in a new model, log-probs hardly show it, and they do later.
    """
    if not on_tree(policy):
        return None
    others = rollouts.tokens.clone()
    others[:, 0] = rollouts.tokens[:, 1]
    before, after = _hidden(policy, rollouts), _hidden(policy, replace(rollouts, tokens=others))
    influence = float((after - before).abs().max() / before.abs().max())
    if not influence > INFLUENCE:  # NaN is reported by the log-probs
        return None
    return f"tokens of one rollout change the states of others, by {influence:.1g} of their size"


@torch.no_grad()
def _hidden(policy: PreTrainedModel, rollouts: Rollouts) -> Float[Tensor, "M d"]:
    """The hidden states of the tree, without those of the first branches."""
    tree = grow(rollouts, steps=rollouts.tokens.shape[-1])
    hidden = whole(policy, decode, policy, tree.tokens, tree.positions, tree.mask)
    kept = torch.ones(tree.tokens.shape[1], dtype=torch.bool, device=tree.tokens.device)
    kept[tree.rollout_at[:, 0]] = False
    return hidden[0, kept]


def gap_or_reason(measure: Callable[[], float]) -> float | str:
    """Returns a gap in nats; if measuring it raises, why the architecture cannot be used, as the
    end of a sentence. A lack of memory is raised: it says nothing of the architecture.
    """
    try:
        return measure()
    except UserError as error:  # without its key and its remedy, which the caller says
        return first_line(error).removeprefix("model.path: ").removesuffix("; give another model")
    except Exception as error:  # an architecture's own code may raise any error
        if is_out_of_memory(error):
            raise
        log.debug("the model was tried, and raised", exc_info=True)
        return f"its own code raises {type(error).__name__}: {first_line(error)[:LONGEST]}"


def as_rollouts(contexts: Contexts, tokens: Int[Tensor, "P n G"]) -> Rollouts:
    """Returns rollouts with these tokens, all of which belong to them, without log-probs."""
    nothing = torch.zeros(tokens.shape, device=tokens.device)
    return Rollouts(contexts, tokens, nothing, torch.ones_like(tokens, dtype=torch.bool), 1.0)


@torch.no_grad()
def largest_gap(policy: PreTrainedModel, rollouts: Rollouts) -> float:
    """Returns the largest difference of the rollouts' log-probs on this layout (`gap_to_rows`)."""
    return gap_to_rows(policy, rollouts, tree_log_probs(policy, rollouts))


@torch.no_grad()
def gap_to_rows(policy: PreTrainedModel, rollouts: Rollouts, found: TreeLogProbs) -> float:
    """Returns the largest |log p(found) − log p(row)|, in nats: of the first and last `ENDS` tokens
    of the documents, of each context's last rollout, and of rollouts that are what the document
    itself continues with.

    A row is the model's own forward over a single text: a document, or a prefix with one rollout.
    Rows also show whether a token's log-prob depends on later tokens. The last rollout is the one
    that others of its context could leak into.
    """
    with own_attention(policy):  # the reference shares no code with the tree
        return whole(policy, _gap, policy, rollouts, found)


def _gap(policy: PreTrainedModel, rollouts: Rollouts, found: TreeLogProbs) -> float:
    gaps = [
        gap
        for document in range(len(rollouts.contexts.documents))
        for gap in _gaps(policy, rollouts, found, document)
    ]
    return float(torch.cat(gaps).abs().max())


def _gaps(
    policy: PreTrainedModel, rollouts: Rollouts, found: TreeLogProbs, document: int
) -> Iterator[Float[Tensor, " k"]]:
    """The differences in a document and after its contexts."""
    contexts = rollouts.contexts
    text = contexts.tokens[document, : int(contexts.lengths[document])]
    within = range(1, len(text))
    # Log-probs of tokens that the document's own row has, and the place of the first.
    pieces = [
        (found.documents[document, part.start : part.stop], part.start)
        for part in (within[:ENDS], within[-ENDS:])
    ]
    for context in (contexts.row == document).nonzero()[:, 0].tolist():
        anchor = int(contexts.anchor[context])
        follows = text[anchor : anchor + contexts.rollout_length]
        branches, log_probs = rollouts.tokens[context], found.rollouts[context]
        for branch, of_branch in zip(branches, log_probs, strict=True):
            if torch.equal(branch[: len(follows)], follows):
                pieces.append((of_branch[: len(follows)], anchor))
        alone = torch.cat([text[:anchor], branches[-1]])
        yield log_probs[-1] - _alone(policy, alone, range(anchor, len(alone)))
    places = sorted({place for values, at in pieces for place in range(at, at + len(values))})
    expected = found.documents.new_zeros(len(text))
    expected[places] = _alone(policy, text, places)
    for values, at in pieces:
        yield values - expected[at : at + len(values)]


def _few(contexts: Contexts, count: int) -> Contexts:
    every = len(contexts) - 1
    chosen = sorted({every * i // (count - 1) for i in range(count)})
    row, anchor = contexts.row[chosen], contexts.anchor[chosen]
    return make_contexts(
        contexts.documents,
        [anchor[row == i] for i in range(len(contexts.documents))],
        rollout_length=contexts.rollout_length,
        stop_at_eos=contexts.stop_at_eos,
    )


def _alone(
    policy: PreTrainedModel, text: Int[Tensor, " N"], places: Sequence[int]
) -> Float[Tensor, " k"]:
    """log p of the tokens at `places`, from the model's own forward over one plain row."""
    at = torch.tensor(places, device=text.device)
    before = at - 1
    # Not a number: some architectures then skip the other tokens in their last layers.
    some = "logits_to_keep" in inspect.signature(policy.forward).parameters
    only = {"logits_to_keep": before} if some else {}
    logits = policy(input_ids=text[None], use_cache=False, **only).logits[0]
    logits = logits if some else logits[before]
    log_probs: Tensor = logits.log_softmax(-1).gather(1, text[at, None])[:, 0]
    return log_probs
