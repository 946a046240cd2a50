"""The records that flow through one EBFT step, in the order in which they arise.

`Document → Contexts → Rollouts → Features → Terms → Scored`; each is immutable and points back at
what it was made from. Shape letters, here and everywhere:

    B documents   S document tokens (padded)   P contexts of all B documents   n rollouts a context
    G tokens a rollout   m references a context   D features
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Bool, Float, Int

from ebft.lazy import Tensor, torch
from ebft.rollout.transfer import move


@dataclass(frozen=True, slots=True)
class Document:
    """A token sequence of ground truth: raw text, or a prompt with its completion.

    `name` says where it comes from ("json/decoder.py:3"), for messages and for the random stream
    of its rollouts, so it must be unique in a data set. `prompt_length` is the number of leading
    tokens that belong to the prompt: 0 for raw text. `check` is what a verifier compares a rollout
    with. `cluster` names what the document is a part of, such as a file; empty if nothing.
    Documents of a cluster are not independent, so intervals are clustered by it. `begins` is the
    number of leading tokens that the tokenizer puts before every text, such as a
    beginning-of-sequence token: they are never predicted. `turns` are the tokens of the assistant's
    turns in a conversation, each from its start up to its end, in order; a turn ends with the
    end-of-sequence token. It is empty for other documents. `stop` are texts that end a completion
    in the benchmark that the document is from.
    """

    name: str
    tokens: Int[Tensor, " S"]
    prompt_length: int = 0
    check: str = ""
    cluster: str = ""
    begins: int = 0
    turns: tuple[tuple[int, int], ...] = ()
    stop: tuple[str, ...] = ()

    @property
    def completions(self) -> tuple[tuple[int, int], ...]:
        """The start and the end of each span of tokens that is no prompt: the turns of a
        conversation, or everything after the prompt."""
        return self.turns or ((self.prompt_length, self.tokens.numel()),)


@dataclass(frozen=True, slots=True)
class Contexts:
    """P contexts of B documents: context p is `tokens[row[p], :anchor[p]]`, the whole prefix.

    Contexts of one document are adjacent, and rows ascend. `reference` holds the document's own
    next G tokens after each anchor; `reference_mask` is False where the document or the turn ends
    earlier.
    `stop_at_eos` says whether a rollout ends with the end-of-sequence token, as the reference does.
    `micro_batches` is the number of documents of each micro-batch; None: all in one.
    """

    documents: tuple[Document, ...]
    tokens: Int[Tensor, "B S"]
    lengths: Int[Tensor, " B"]
    row: Int[Tensor, " P"]
    anchor: Int[Tensor, " P"]
    reference: Int[Tensor, "P G"]
    reference_mask: Bool[Tensor, "P G"]
    stop_at_eos: bool
    micro_batches: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return self.row.numel()

    @property
    def rollout_length(self) -> int:
        return self.reference.shape[1]

    @property
    def reach(self) -> int:
        """Tokens of the longest context with a rollout: the context length that a model needs."""
        return int(self.anchor.max()) + self.rollout_length

    @property
    def farthest(self) -> Document:
        """The document that has the longest context."""
        return self.documents[int(self.row[self.anchor.argmax()])]

    def ending_after(self, tokens: int) -> Contexts:
        """The same contexts of documents that end so many tokens after their last anchor, or where
        they end anyway. Contexts, rollouts and references of that length see nothing after it."""
        last = torch.zeros_like(self.lengths).scatter_reduce(0, self.row, self.anchor, "amax")
        # A trunk has at least one token, without contexts too.
        return replace(self, lengths=(last + tokens).clamp(min=1).minimum(self.lengths))

    def to(self, device: torch.device) -> Contexts:
        """The same contexts with their tensors on `device`; the documents stay where they are."""
        names = ("tokens", "lengths", "row", "anchor", "reference", "reference_mask")
        moved: dict[str, Any] = {name: move(getattr(self, name), device) for name in names}
        return replace(self, **moved)

    def divided(self, documents: Sequence[int]) -> Contexts:
        """The same contexts in micro-batches; number i has `documents[i]` documents, in order."""
        assert sum(documents) == len(self.documents), (documents, len(self.documents))
        return replace(self, micro_batches=tuple(documents))

    def one_by_one(self) -> Contexts:
        """The same contexts with one document in each micro-batch."""
        return self.divided([1] * len(self.documents))

    def split(self) -> Iterator[tuple[slice, Contexts]]:
        """The micro-batches, each with its place in the P dimension."""
        B, start = len(self.documents), 0
        begins = torch.searchsorted(self.row, torch.arange(B + 1, device=self.row.device))
        # Together: the host waits for the device once.
        on_host: list[int] = torch.cat([begins, self.lengths]).tolist()
        for count in self.micro_batches or (B,):
            rows = slice(start, start + count)
            place = slice(on_host[rows.start], on_host[rows.stop])
            longest = max(on_host[B + 1 + rows.start : B + 1 + rows.stop])
            yield (
                place,
                replace(
                    self,
                    documents=self.documents[rows],
                    tokens=self.tokens[rows, :longest],
                    lengths=self.lengths[rows],
                    row=self.row[place] - start,
                    anchor=self.anchor[place],
                    reference=self.reference[place],
                    reference_mask=self.reference_mask[place],
                    micro_batches=None,
                ),
            )
            start = rows.stop


@dataclass(frozen=True, slots=True)
class Rollouts:
    """n rollouts of at most G tokens after each context.

    `log_probs` are under the distribution that was sampled from (temperature included). `mask` is
    True for the tokens that belong to a rollout: all of them, unless it ended early with the
    end-of-sequence token, which still belongs to it. Values outside the mask are undefined.
    """

    contexts: Contexts
    tokens: Int[Tensor, "P n G"]
    log_probs: Float[Tensor, "P n G"]
    mask: Bool[Tensor, "P n G"]
    temperature: float

    def to(self, device: torch.device) -> Rollouts:
        """The same rollouts and contexts with their tensors on `device`."""
        tokens, log_probs, mask = (
            move(tensor, device) for tensor in (self.tokens, self.log_probs, self.mask)
        )
        return Rollouts(self.contexts.to(device), tokens, log_probs, mask, self.temperature)

    @property
    def longest(self) -> int:
        """Tokens of the longest rollout, at most G."""
        number = torch.arange(1, self.mask.shape[-1] + 1, device=self.mask.device)
        return int((self.mask.any((0, 1)) * number).max())

    @property
    def within(self) -> Bool[Tensor, "P n G"]:
        """True up to the last token of each rollout that is in the mask."""
        return self.mask.flip(-1).cumsum(-1).flip(-1) > 0

    def split(self) -> Iterator[tuple[slice, Rollouts]]:
        """The micro-batches, each with its place in the P dimension."""
        for place, contexts in self.contexts.split():
            yield place, self.of(contexts, place)

    def without_tails(self) -> Rollouts:
        """The same rollouts of documents that end with their last reference: what features read."""
        contexts = self.contexts
        return replace(self, contexts=contexts.ending_after(contexts.rollout_length))

    def first(self, length: int) -> Rollouts:
        """Rollouts and references cut to their first `length` tokens."""
        c = self.contexts
        return replace(
            self,
            contexts=replace(
                c,
                reference=c.reference[:, :length],
                reference_mask=c.reference_mask[:, :length],
            ),
            tokens=self.tokens[..., :length],
            log_probs=self.log_probs[..., :length],
            mask=self.mask[..., :length],
        )

    def of(self, contexts: Contexts, place: slice) -> Rollouts:
        """The rollouts of `contexts`, which are those at `place` in the P dimension."""
        return replace(
            self,
            contexts=contexts,
            tokens=self.tokens[place],
            log_probs=self.log_probs[place],
            mask=self.mask[place],
        )


@dataclass(frozen=True, slots=True)
class Features:
    """φ of the rollouts and of the references (m = 1 for a document's own continuation).

    `layers` is the number of equal blocks in the D features (one for each concatenated layer), for
    transforms that treat layers separately. `stacked` means that these blocks are features of their
    own (`combine: stack`), which the authors' whitening and a cosine treat one by one. `paired`
    means that reference j belongs to rollout j alone (m = n), as after one of the whitenings.
    `per_token` means that D has one block for each of the G tokens, and that each token has its own
    reward.
    """

    samples: Float[Tensor, "P n D"]
    references: Float[Tensor, "P m D"]
    layers: int = 1
    paired: bool = False
    per_token: bool = False
    stacked: bool = False

    def in_float32(self) -> Features:
        """The features in float32 at least. Rewards compare inner products of rollouts, which can
        differ by less than bfloat16's rounding error."""
        dtype = torch.promote_types(self.samples.dtype, torch.float32)
        samples, references = self.samples.to(dtype), self.references.to(dtype)
        return replace(self, samples=samples, references=references)

    def by_token(self, tokens: int) -> Features:
        """Each of the G `tokens` as a row: [P·G, n, D/G], a context's tokens one after another."""

        def split(x: Float[Tensor, "P n D"]) -> Float[Tensor, "R n d"]:
            by_token = x.view(*x.shape[:2], tokens, -1)
            return by_token.transpose(1, 2).flatten(0, 1)

        return replace(
            self,
            samples=split(self.samples), references=split(self.references), per_token=False,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Terms:
    """A reward in parts: r_j = u_j + 1/(n−1) Σ_{j'≠j} k_jj'.

    The terms are not summed because a baseline for rollout j must leave out every term that touches
    j. The diagonal of `pairwise` must be zero.

    >>> unary = torch.tensor([[1.0, 2.0, 3.0]])
    >>> pairwise = torch.tensor([[[0.0, -1.0, -1.0], [-1.0, 0.0, -4.0], [-1.0, -4.0, 0.0]]])
    >>> Terms(unary, pairwise).reward()
    tensor([[ 0.0000, -0.5000,  0.5000]])
    """

    unary: Float[Tensor, "P n"]
    pairwise: Float[Tensor, "P n n"]

    @classmethod
    def of_unary(cls, unary: Float[Tensor, "P n"]) -> Terms:
        """Terms of a reward that scores each rollout by itself."""
        return cls(unary, unary.new_zeros(*unary.shape, unary.shape[1]))

    def reward(self) -> Float[Tensor, "P n"]:
        """r_j, the total reward of each rollout."""
        others = max(self.unary.shape[1] - 1, 1)
        return self.unary + self.pairwise.sum(-1) / others


@dataclass(frozen=True, slots=True)
class Scored:
    """A step's rollouts with their features, reward terms and advantages.

    `features` are the reward's input; None if it uses none. If rewards are per token, features and
    terms have a row for each token, R = P·G, and each token has an advantage.
    """

    rollouts: Rollouts
    features: Features | None
    terms: Terms
    advantages: Float[Tensor, "P n"] | Float[Tensor, "P n G"]

    @property
    def rows_per_context(self) -> int:
        """G if rewards are per token, else 1."""
        return self.terms.unary.shape[0] // len(self.rollouts.contexts)

    def reward(self) -> Float[Tensor, "P n"]:
        """The total reward of each rollout, summed over its tokens if rewards are per token."""
        reward = self.terms.reward()
        return reward.view(-1, self.rows_per_context, reward.shape[1]).sum(1)
