"""What the loop checks of parts in every step: shapes, and finite numbers.

A wrong shape seldom fails where it arises: it broadcasts, and the results are silently wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ebft.errors import NumericalError, PluginError
from ebft.parts.interfaces import check_returned
from ebft.rollout.contexts import not_finite_in
from ebft.rollout.records import Contexts, Features, Rollouts, Terms
from ebft.training.losses import LogProbs


def check_finite(
    what: str,
    values: Tensor,
    contexts: Contexts,
    *,
    step: int,
    row: Int[Tensor, " N"] | None = None,
) -> None:
    """Raises `NumericalError` naming the step and the first document with a bad value.

    `row` is that of `not_finite_in`.
    """
    listed = not_finite_in(values, contexts, row=row)
    if listed is not None:
        raise NumericalError(
            f"step {step + 1}: {what} have NaN or infinite values, in document {listed}; "
            "the run stops here and nothing has been overwritten"
        )


def check_log_probs(log_probs: LogProbs, contexts: Contexts, *, step: int) -> None:
    """Raises `NumericalError` naming the document if any log-prob is not finite."""
    finite = log_probs.documents.isfinite().all()
    if log_probs.rollouts is not None:
        finite = finite & log_probs.rollouts.isfinite().all()
    if bool(finite):  # the host waits for the device once in a micro-batch
        return
    if log_probs.rollouts is not None:
        check_finite("log-probs of rollouts", log_probs.rollouts, contexts, step=step)
    row = torch.arange(len(contexts.documents))
    check_finite("log-probs of documents", log_probs.documents, contexts, step=step, row=row)


def check_gradients(norm: Float[Tensor, ""], contexts: Contexts, *, step: int) -> None:
    """Raises `NumericalError` naming the step's documents if the gradients' norm is not finite."""
    if not torch.isfinite(norm):
        names = ", ".join(document.name for document in contexts.documents)
        raise NumericalError(f"step {step + 1}: the gradient norm is {norm}, in {names}")


@dataclass(frozen=True, slots=True)
class Contract:
    """The checks of one step: each method returns its argument as it is, or raises.

    It raises `PluginError` for another shape, and `NumericalError` for numbers that are not
    finite. `rows_per_context` is 1, or G where tokens are rewarded one by one.
    """

    contexts: Contexts
    n: int
    step: int
    rows_per_context: int = 1

    def rollouts(self, rollouts: Rollouts) -> Rollouts:
        """n rollouts of at least one token after each context."""
        check_returned("sampler", rollouts, Rollouts)
        tokens, log_probs, mask = rollouts.tokens, rollouts.log_probs, rollouts.mask
        _check_tensors("sampler", "rollouts", tokens=tokens, log_probs=log_probs, mask=mask)
        shape = (len(self.contexts), self.n, self.contexts.rollout_length)
        for name in ("tokens", "log_probs", "mask"):
            _check_shape("sampler", f"rollouts.{name}", getattr(rollouts, name), shape, "[P, n, G]")
        if not bool(rollouts.mask[..., 0].all()):
            raise PluginError("sampler: rollouts.mask is False at the first token of a rollout")
        # Tokens that are drawn from logits that are not finite are undefined.
        sampled = rollouts.log_probs.where(rollouts.mask, 0)
        self._check_finite("log-probs of what is sampled", sampled)
        return rollouts

    def features(self, features: Features, *, key: str) -> Features:
        """[P, n, D] and [P, m, D], in float32 if they came in less."""
        check_returned(key, features, Features)
        samples, references = features.samples, features.references
        _check_tensors(key, "features", samples=samples, references=references)
        P, n, D = self._rows, self.n, features.samples.shape[-1]
        m = features.references.shape[1] if features.references.ndim == 3 else 1
        _check_shape(key, "features.samples", features.samples, (P, n, D), "[P, n, D]")
        _check_shape(key, "features.references", features.references, (P, m, D), "[P, m, D]")
        if features.paired and m != n:
            raise PluginError(f"{key}: features are paired, with {m} references for {n} rollouts")
        self._check_finite("features of rollouts", features.samples)
        self._check_finite("features of references", features.references)
        return features.in_float32()

    def of_rows(self, terms: Terms) -> Contract:
        """The checks of these terms: they may have a row for each token where features have not."""
        check_returned("reward", terms, Terms)
        _check_tensors("reward", "terms", unary=terms.unary, pairwise=terms.pairwise)
        G = self.contexts.rollout_length
        by_token = len(terms.unary) == len(self.contexts) * G
        return replace(self, rows_per_context=G) if by_token else self

    def terms(self, terms: Terms) -> Terms:
        """[P, n] and [P, n, n], without a rollout's term with itself."""
        P, n = self._rows, self.n
        _check_shape("reward", "terms.unary", terms.unary, (P, n), "[P, n]")
        _check_shape("reward", "terms.pairwise", terms.pairwise, (P, n, n), "[P, n, n]")
        if bool(terms.pairwise.diagonal(dim1=1, dim2=2).any()):
            raise PluginError(
                "reward: the diagonal of terms.pairwise is not zero; a rollout's term with itself "
                "belongs to terms.unary"
            )
        self._check_finite("rewards", terms.reward())
        return terms

    def one_for_each(
        self, rewards: Float[Tensor, "R n"], advantages: Tensor
    ) -> Float[Tensor, "R n"]:
        """One advantage for each reward, of all processes' rollouts."""
        check_returned("baseline", advantages, Tensor)
        _check_shape("baseline", "advantages", advantages, rewards.shape, "[P, n]")
        return advantages

    def advantages(self, advantages: Float[Tensor, "P n"]) -> Float[Tensor, "P n"]:
        """Finite advantages of this process's own rollouts."""
        self._check_finite("advantages", advantages)
        return advantages

    @property
    def _rows(self) -> int:
        return len(self.contexts) * self.rows_per_context

    def _check_finite(self, what: str, values: Tensor) -> None:
        check_finite(what, values, self.contexts, step=self.step)


def sync_figures(returned: object) -> dict[str, float]:
    """Returns what a sampler's `sync` returned, with its values as Python floats.

    Raises `PluginError` if it is not a mapping of names to numbers.
    """
    if not isinstance(returned, Mapping):
        raise PluginError(
            f"sampler: sync returned {type(returned).__name__}, and must return a mapping of names "
            "to numbers; return {} if there is nothing to log"
        )
    figures = {}
    for name, value in returned.items():
        try:
            if not isinstance(name, str) or isinstance(value, str | bytes):
                raise TypeError
            figures[name] = float(value)
        except (TypeError, ValueError, RuntimeError) as error:  # tensors may raise RuntimeError
            raise PluginError(
                f"sampler: sync returned {{{name!r}: {value!r}}}, and must return a mapping of "
                "names to numbers"
            ) from error
    return figures


def _check_tensors(key: str, record: str, **fields: object) -> None:
    """Raises `PluginError` for a field that is no tensor, or a number without dimensions."""
    for name, value in fields.items():
        if not isinstance(value, Tensor):
            raise PluginError(f"{key}: {record}.{name} is a {type(value).__name__}, not a tensor")
        if value.ndim == 0:
            raise PluginError(f"{key}: {record}.{name} is a single number; it needs dimensions")


def _check_shape(key: str, name: str, value: Tensor, shape: Sequence[int], letters: str) -> None:
    if tuple(value.shape) != tuple(shape):
        raise PluginError(
            f"{key}: {name} has shape {list(value.shape)}; {letters} is {list(shape)}"
        )
