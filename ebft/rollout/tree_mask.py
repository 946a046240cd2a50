"""The attention mask of a row of trees, as intervals instead of a dense mask.

A row holds the trees of some documents, their trunks first, then their branches:

    | trunk of document 0 | trunk of document 1 | … | branch 0: G tokens | branch 1: G tokens | …

Every token sees two intervals of the row: its document's trunk before its anchor, and its own trunk
or branch up to itself. No token sees another document.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from jaxtyping import Bool, Float, Int

from ebft.lazy import Tensor, torch
from ebft.rollout.transfer import numbers


class GroupSize(NamedTuple):
    """Query tokens of a group of branches; `newest`: when only the newest token of each branch is a
    query.

    Small groups compute fewer masked scores. Large ones use larger matrix products, and launch
    fewer kernels, which is what a GPU waits for otherwise.
    """

    queries: int
    newest: int


ON_CPU, ON_GPU = GroupSize(128, 32), GroupSize(1024, 1024)
WASTE = 1.5
"""Trunks are padded to one length for sampling if that makes them at most so many times as long."""


def group_size(device: torch.device) -> GroupSize:
    """Returns the size of groups on a device."""
    return ON_CPU if device.type == "cpu" else ON_GPU


class Intervals(NamedTuple):
    """What each query sees: the keys [first, until) and [own, itself], as columns of the row."""

    first: Int[Tensor, " T"]
    until: Int[Tensor, " T"]
    own: Int[Tensor, " T"]
    itself: Int[Tensor, " T"]


class Group(NamedTuple):
    """Consecutive branches of one document, and the trunk's keys that any of them sees.

    All of them see the first `shared` keys. `mask` is added to the scores of the other keys: −∞
    where a query of a branch does not see one, else 0. Without a window, that is the same for all
    queries of a branch. `least` is the smallest anchor.
    """

    branches: slice
    keys: slice
    shared: int
    mask: Float[Tensor, "Q 1 K"] | Float[Tensor, "Q G K"]
    least: int

    def parts(self, p: Float[Tensor, "H Q R P"], steps: int) -> tuple[Tensor, ...]:
        """Splits probabilities into those of the trunk's keys, of `steps` tokens of each branch,
        and of a sink if there is one."""
        keys = self.keys.stop - self.keys.start
        return torch.split(p, [keys, steps, p.shape[-1] - keys - steps], -1)


class NewestGroups(NamedTuple):
    """What is the same at every token that is sampled, and is computed once."""

    starts: Int[Tensor, " Q"]
    groups: list[Group]
    hidden: Bool[Tensor, "B b K"] | None


class Merged(NamedTuple):
    """The queries of a row when those with the same prefix are computed once (`rollout.merge`).

    `spread` has the number of the computed token for each query of the row, and `kept` the number
    of the query that is computed.
    """

    spread: Int[Tensor, " Q"]
    kept: Int[Tensor, " N"]


@dataclass(frozen=True, eq=False)  # compared by identity: it is the key of a cache
class TreeMask:
    """The attention mask of a row of trees.

    Document i has `trunks[i]` tokens and `branches[i]` branches of `steps` tokens each. Branch q
    sees the first `anchors[q]` tokens of its trunk. Keys are all tokens of the row. Queries are all
    tokens too, unless `newest` is set (while branches are sampled): then they are token number
    `newest` of every branch. `prepared` is set by `at`. `known` are the anchors as Python's
    numbers, if they have been read from the device already. If some tokens are `merged`, only
    those kept are computed, and attention spreads them out to this row. `width` is set by
    `padded`.
    """

    trunks: tuple[int, ...]
    branches: tuple[int, ...]
    anchors: Int[Tensor, " Q"]
    steps: int
    newest: int | None = None
    prepared: NewestGroups | None = None
    known: tuple[int, ...] | None = None
    merged: Merged | None = None
    width: int | None = None

    @property
    def trunk(self) -> int:
        """Tokens of all trunks: the column of the first branch."""
        return sum(self.trunks)

    @property
    def columns(self) -> int:
        """Tokens of the row."""
        return self.trunk + self.anchors.numel() * self.steps

    @cached_property
    def reach(self) -> int:
        """The most tokens that any token sees."""
        branch = max(self._on_host) + self.steps if self._on_host else 0
        return max(*self.trunks, branch)

    @cached_property
    def _on_host(self) -> tuple[int, ...]:
        return tuple(self.anchors.tolist()) if self.known is None else self.known

    @property
    def documents(self) -> list[slice]:
        """The columns of each trunk."""
        return _consecutive(self.trunks)

    def at(self, step: int, merged: Merged | None = None) -> TreeMask:
        """The same row; the only queries are token number `step` of every branch."""
        return replace(self, newest=step, prepared=self._for_newest, merged=merged)

    @cached_property
    def _for_newest(self) -> NewestGroups:
        one = replace(self, newest=0)
        if self.width is not None:
            return NewestGroups(one.starts, [], one.hidden_within(None))
        return NewestGroups(one.starts, one.groups, None)

    def padded(self) -> TreeMask:
        """The same row, if that is worthwhile with keys of all trunks padded to one length while
        branches are sampled.

        The branches of all documents then attend together instead of document by document. It is
        not if lengths or the numbers of branches differ much, or if a document has so many branches
        that they attend in groups.
        """
        B, width = len(self.trunks), max(self.trunks)
        alike = len(set(self.branches)) == 1 and self.branches[0] > 0
        few = self.branches[0] <= group_size(self.anchors.device).newest
        if not (B > 1 and alike and few and B * width <= WASTE * self.trunk):
            return self
        return replace(self, width=width)

    @property
    def cached_trunk(self) -> int:
        """Columns of all trunks in the cache: the column of the first branch there."""
        return self.trunk if self.width is None else len(self.trunks) * self.width

    @property
    def cached_columns(self) -> int:
        """Columns of the cache."""
        return self.cached_trunk + self.columns - self.trunk

    @cached_property
    def cached_trunk_at(self) -> slice | Int[Tensor, " N"]:
        """The columns of the cache that the trunks' tokens are written to."""
        if self.width is None:
            return slice(self.trunk)
        device = self.anchors.device
        lengths = numbers(self.trunks, device)
        padding = torch.arange(len(self.trunks), device=device) * self.width
        padding -= lengths.cumsum(0) - lengths
        each = padding.repeat_interleave(lengths, output_size=self.trunk)
        return torch.arange(self.trunk, device=device) + each

    def hidden_within(self, window: int | None) -> Bool[Tensor, "B b K"]:
        """True for the keys of a padded trunk that the newest token of a branch does not see."""
        if window is None and self.prepared is not None:
            assert self.prepared.hidden is not None
            return self.prepared.hidden
        assert self.width is not None
        assert self.newest is not None
        key = torch.arange(self.width, device=self.anchors.device)
        anchors = self.anchors.view(len(self.trunks), -1, 1)
        hidden = key >= anchors
        return hidden if window is None else hidden | (key <= anchors + self.newest - window)

    def trunks_only(self) -> TreeMask:
        """The trunks of the same row, without their branches."""
        return trunk_mask(self.trunks, self.anchors.device)

    @cached_property
    def starts(self) -> Int[Tensor, " Q"]:
        """The column where each branch's own trunk begins."""
        if self.prepared is not None:
            return self.prepared.starts
        device = self.anchors.device
        starts = numbers([d.start for d in self.documents], device)
        branches = numbers(self.branches, device)
        return starts.repeat_interleave(branches, output_size=sum(self.branches))

    @cached_property
    def groups(self) -> list[Group]:
        """All branches, in groups of about `group_size` query tokens."""
        if self.prepared is not None:
            return self.prepared.groups
        size = group_size(self.anchors.device)
        branches = -(-size.queries // self.steps) if self.newest is None else size.newest
        return list(self._groups(branches))

    def groups_within(self, window: int | None) -> list[Group]:
        """The same, with trunks seen through a sliding window: a token sees keys of at most
        `window` positions, its own included. None: all keys."""
        if window is None:
            return self.groups
        if window not in self._windowed:
            self._windowed[window] = [self._through(group, window) for group in self.groups]
        return self._windowed[window]

    @cached_property
    def _windowed(self) -> dict[int, list[Group]]:
        return {}

    def _through(self, group: Group, window: int) -> Group:
        anchors, device = self.anchors[group.branches, None, None], self.anchors.device
        # The positions of the queries.
        if self.newest is None:
            at = anchors + torch.arange(self.steps, device=device)[:, None]
        else:
            at = anchors + self.newest
        most = group.keys.stop - group.keys.start
        first = max(0, group.least - window + 1)
        key = torch.arange(first, most, device=device)
        hidden = (key >= anchors) | (key <= at - window)
        keys = slice(group.keys.start + first, group.keys.stop)
        return Group(group.branches, keys, 0, _additive(hidden), group.least)

    def _groups(self, size: int) -> Iterator[Group]:
        anchors, device = self._on_host, self.anchors.device
        for document, branches in zip(self.documents, _consecutive(self.branches), strict=True):
            for at in range(branches.start, branches.stop, size):
                part = slice(at, min(at + size, branches.stop))
                shared, most = min(anchors[part]), max(anchors[part])
                keys = slice(document.start, document.start + most)
                rest = torch.arange(shared, most, device=device)
                hidden = rest >= self.anchors[part, None, None]
                yield Group(part, keys, shared, _additive(hidden), shared)

    @cached_property
    def intervals(self) -> Intervals:
        """The mask as four numbers for each query."""
        device = self.anchors.device
        branch = torch.arange(self.anchors.numel(), device=device) * self.steps + self.trunk
        until = self.starts + self.anchors
        if self.newest is not None:
            return Intervals(self.starts, until, branch, branch + self.newest)
        trunks = numbers(self.trunks, device)
        first = (trunks.cumsum(0) - trunks).repeat_interleave(trunks, output_size=self.trunk)
        column = torch.arange(self.columns, device=device)
        # A trunk token sees its own trunk alone, so its first interval is empty.
        starts, until, own = (
            torch.cat([first, below.repeat_interleave(self.steps)])
            for below in (self.starts, until, branch)
        )
        return Intervals(starts, until, own, column)

    @cached_property
    def dense(self) -> Bool[Tensor, "1 1 T K"]:
        """The mask itself, True where the query (row) sees the key (column)."""
        first, until, own, itself = (x[:, None] for x in self.intervals)
        key = torch.arange(self.columns, device=first.device)
        return (((first <= key) & (key < until)) | ((own <= key) & (key <= itself)))[None, None]

    def dense_within(self, window: int | None) -> Bool[Tensor, "1 1 T K"]:
        """The mask itself, with every token seen through a sliding window (`groups_within`)."""
        if window is None:
            return self.dense
        position = self.positions
        at = position[self.intervals.itself, None]
        return self.dense & (position > at - window)

    @cached_property
    def positions(self) -> Int[Tensor, " K"]:
        """The position of each token of the row in its own text."""
        device = self.anchors.device
        trunks = [torch.arange(length, device=device) for length in self.trunks]
        branches = self.anchors[:, None] + torch.arange(self.steps, device=device)
        return torch.cat([*trunks, branches.flatten()])


def trunk_mask(lengths: Sequence[int], device: torch.device) -> TreeMask:
    """Causal attention over documents side by side, without branches."""
    nothing = torch.zeros(0, dtype=torch.long, device=device)
    return TreeMask(tuple(lengths), (0,) * len(lengths), nothing, steps=0, known=())


def _additive(hidden: Bool[Tensor, "*N K"]) -> Float[Tensor, "*N K"]:
    return torch.zeros_like(hidden, dtype=torch.float32).masked_fill_(hidden, float("-inf"))


def _consecutive(lengths: Sequence[int]) -> list[slice]:
    ends = list(accumulate(lengths))
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
