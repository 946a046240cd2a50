"""The cost of a step, computed from the model's dimensions and the plan: tokens, FLOPs, memory.

Tokens are counted in the tree: the trunk once, every rollout token once, and each token attends to
the tokens that its mask lets it see. On rows (`model.attention`) every rollout has its whole prefix
once more, except while it is sampled. FLOPs are multiplications and additions, two for each weight
and token. Attention kernels on CPUs also compute masked entries, so a CPU does somewhat more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ebft.models.shape import ROWS as LOGIT_ROWS
from ebft.models.shape import ModelShape, layer_index
from ebft.rollout.tree_mask import ON_CPU, ON_GPU

# Training costs relative to a forward pass. Backward multiplies by each weight twice: for the
# gradient of the weight and for that of its input.
DECODER_PASSES = 3.0
"""Passes over the layers' weights: one forward, two backward."""
HEAD_PASSES = 3.0
"""Passes over the LM head, and one more if backward computes the logits again."""
OWN_GRADIENT = 1.0
"""The backward product that frozen weights do not need: their own gradient."""
ATTENTION_PASSES = 3.5
"""Passes of attention: two products in forward, five in backward, which recomputes the scores."""


@dataclass(frozen=True, slots=True)
class DocumentTree:
    """A document of `length` tokens with `n` rollouts of `rollout_length` (G) tokens per anchor.

    `on_rows`: whether features and training compute each rollout with its prefix.
    """

    length: int
    anchors: Sequence[int]
    n: int
    rollout_length: int
    on_rows: bool = False

    @property
    def rollouts(self) -> int:
        return len(self.anchors) * self.n

    @property
    def columns(self) -> int:
        """S + nPG: the different tokens. About as many are in memory, on rows too."""
        return self.length + self.rollouts * self.rollout_length

    @property
    def tokens(self) -> int:
        """What features forward: S + nPG, and on rows the n copies of each prefix."""
        return self.columns + (self.n * sum(self.anchors) if self.on_rows else 0)

    @property
    def predicting_tokens(self) -> int:
        """S + nP(G−1): the tokens that training forwards, and on rows the copies of each prefix.

        The last token of a rollout predicts nothing.
        """
        return self.tokens - self.rollouts

    @property
    def read(self) -> int:
        """Tokens of the document that sampling reads: those before its last anchor."""
        return max(self.anchors, default=0)

    @property
    def sampling_tokens(self) -> int:
        """read + nP(G−1): what sampling forwards, with a cache on rows too."""
        return self.read + self.rollouts * (self.rollout_length - 1)

    @property
    def for_features(self) -> DocumentTree:
        """The tree without the tokens after the last reference, which features do not read."""
        return replace(self, length=min(self.length, self.read + self.rollout_length))

    def pairs(self, rollout_tokens: int) -> int:
        """Pairs of a token and one that it attends to, with `rollout_tokens` of each rollout."""
        if not self.on_rows:
            return _seen(self.length) + self._branch_pairs(rollout_tokens)
        texts = (anchor + rollout_tokens for anchor in self.anchors)
        return _seen(self.length) + self.n * sum(map(_seen, texts))

    def sampling_pairs(self, rollout_tokens: int) -> int:
        """What sampling attends to, on a cache, which has each prefix once."""
        return _seen(self.read) + self._branch_pairs(rollout_tokens)

    def _branch_pairs(self, rollout_tokens: int) -> int:
        own = _seen(rollout_tokens)
        return self.n * sum(anchor * rollout_tokens + own for anchor in self.anchors)


def _seen(length: int) -> int:
    """Pairs of a token of a text and itself or an earlier one."""
    return length * (length + 1) // 2


@dataclass(frozen=True, slots=True)
class Flops:
    """FLOPs of one document."""

    sampling: float
    features: float
    training: float


def flops(
    model: ModelShape,
    tree: DocumentTree,
    *,
    depth: float = 1.0,
    gradient_checkpointing: bool = False,
    adapter: int = 0,
    trains_documents: bool = True,
    keep_logits: bool = False,
) -> Flops:
    """FLOPs of a document; `depth` is the fraction of layers that the features need, 0 for none.

    The LM head is counted for each token that needs logits: the sampled ones, and in training all
    tokens of the document and of the rollouts. The cross-entropy of the document has no backward
    unless `trains_documents`. Unless `keep_logits`, backward computes them again. Features need no
    head. Gradient checkpointing computes the layers'
    forward again; so does training on rows, a batch of them at a time. With an adapter, only its
    `adapter` weights are trained.
    """
    G = tree.rollout_length
    deepest = layer_index(depth, model.layers) if depth > 0 else 0
    frozen = OWN_GRADIENT if adapter else 0.0
    sampled = len(tree.anchors) + tree.rollouts * (G - 1)
    tokens, pairs = tree.predicting_tokens, tree.pairs(G - 1)
    weights = _weights(model, tokens, model.layers)
    adapted = 2.0 * adapter * tokens
    attention = _attention(model, pairs, model.layers)
    head = 2.0 * model.head_weights
    head_passes = HEAD_PASSES - frozen + (0.0 if keep_logits else 1.0)
    checkpointed = 0.0
    if gradient_checkpointing:
        # All of a layer except its last product, whose result backward does not need.
        of_mlp = model.experts_per_token * model.hidden * model.intermediate
        last = 0.0 if adapter else of_mlp / model.active_weights
        checkpointed = weights * (1 - last) + adapted + attention
    if tree.on_rows and tree.rollouts:
        checkpointed += weights + adapted + attention
    return Flops(
        sampling=_weights(model, tree.sampling_tokens, model.layers)
        + _attention(model, tree.sampling_pairs(G - 1), model.layers)
        + 2.0 * adapter * tree.sampling_tokens
        + head * sampled,
        features=_weights(model, tree.for_features.tokens, deepest)
        + _attention(model, tree.for_features.pairs(G), deepest),
        training=(DECODER_PASSES - frozen) * weights
        + DECODER_PASSES * adapted
        + ATTENTION_PASSES * attention
        + head_passes * head * tree.rollouts * G
        + (head_passes if trains_documents else 1.0) * head * (tree.length - 1)
        + checkpointed,
    )


def _weights(model: ModelShape, tokens: int, layers: int) -> float:
    return 2.0 * layers * model.active_weights * tokens


def _attention(model: ModelShape, pairs: int, layers: int) -> float:
    # Two products of head_dim for each head and pair: scores, and weighted values.
    return 4.0 * layers * model.heads * model.head_dim * pairs


GIB = 2**30
PROCESS = 0.47 * GIB
"""Bytes of a process on a CPU: Python with torch, transformers and a tokenizer. `datasets` takes
0.1 GiB more where it is used."""
QUANTIZED = 1 / 2 + 1 / 64
"""Bytes of a weight in 4 bits, with its share of an 8-bit scale (`models.quantize`)."""
DECODING = 22.0
"""Bytes for each weight of a 4-bit matrix while it is decoded: indices, and two halves."""
EXPERT_GRADIENTS = 3
"""Values of the size of a hidden state that backward needs for each expert of a token, measured
with transformers' `grouped_mm`, and that forward does not keep."""
HOLES, HOLES_SHARE = 0.4 * GIB, 0.4
"""Heap fragmentation with an adapter on a CPU: bytes, and a share of the activations. A layer with
an adapter frees temporary tensors between those that it keeps. Both were measured."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a run by use.

    `activations` and `logits` are needed in the backward pass of a micro-batch, `update` in the
    optimizer's update, `sampling` (cache and logits) for rollouts: never at the same time.
    `loading` is the model in float32, before training. `evaluation` is what several processes
    gather for an evaluation: all weights of the policy and of the frozen model.
    """

    process: float
    loading: float
    weights: float
    gradients: float
    optimizer: float
    frozen: float
    others: float
    activations: float
    logits: float
    update: float
    sampling: float
    evaluation: float = 0.0

    @property
    def total(self) -> float:
        """The peak: backward, update, sampling, evaluation or loading, the largest of them."""
        always = self.process + self.weights + self.gradients + self.optimizer
        always += self.frozen + self.others
        step = always + max(self.activations + self.logits, self.update)
        # While rollouts are sampled, and in an evaluation, there are no gradients.
        without = always - self.gradients + max(self.sampling, self.evaluation)
        return max(step, without, self.process + self.loading)

    def named(self) -> dict[str, float]:
        """The figures by their names in the table of `--dry-run`, the peak last."""
        return {
            "Python, torch": self.process,
            "weights": self.weights,
            "gradients": self.gradients,
            "Adam": self.optimizer,
            "frozen model": self.frozen,
            **({"other models": self.others} if self.others else {}),
            "activations": self.activations,
            "logits": self.logits,
            "or an update": self.update,
            "or sampling": self.sampling,
            **({"or evaluating": self.evaluation} if self.evaluation else {}),
            "or at the start": self.loading,
            "peak, about": self.total,
        }


def memory(
    model: ModelShape,
    tree: DocumentTree,
    *,
    micro_batch: int,
    bytes_per_value: int,
    gradient_checkpointing: bool = False,
    frozen: bool = True,
    others: float = 0,
    on_cpu: bool = True,
    adapter: int = 0,
    quantized: bool = False,
    shards: int = 1,
    keep_logits: bool = False,
    decoded: int | None = None,
    loads_whole: bool = False,
    evaluates: bool = True,
    samples_whole: bool = False,
) -> Memory:
    """Estimates the memory of a run with float32 weights and Adam; `frozen`: with a base model;
    `others`: parameters of further frozen models, which are whole in every process.

    On a CPU the estimate includes the process. It counts all tokens of rollouts, so it is rather
    above what is measured, where prefixes are shared (docs/benchmarks/memory.md).

    `bytes_per_value` is the size of a value in forwards: 4, or 2 for bfloat16, whose copies of the
    float32 weights count as activations. With an adapter, only its `adapter` weights are trained,
    and the matrices of the layers may be `quantized` to 4 bits. Weights, gradients and moments are
    divided into `shards`, one for each process, but not matrices in 4 bits. A process also gathers
    two layers at a time, and the weights outside the layers; if it `evaluates`, all weights, and if
    it `samples_whole`, the policy's. A process loads its shard, unless it `loads_whole` weights.
    `keep_logits`: for backward, besides those that forward is at. `decoded` is the number of
    documents whose rollouts are sampled together; None: `micro_batch`. Raises `ValueError` for
    experts in 4 bits.
    """
    if quantized and model.is_mixture:
        raise ValueError("how much of a mixture of experts is in 4 bits is known after loading")
    N, tokens = model.parameters, micro_batch * (tree.columns - tree.rollouts)
    trained = adapter or N
    # For each token of a layer, backward needs three float32 values around each of two norms …
    residual = 2 * 3 * 4 * model.hidden
    # … and in `bytes_per_value` the inputs of its matrices, the rotated queries and keys, the MLP.
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    mlp = 2 * (model.mlp_matrices - 1) * model.intermediate * model.experts_per_token
    if model.is_mixture:  # a token's hidden state, and what comes out, for each of its experts
        mlp += 2 * model.hidden * model.experts_per_token
    inner = 2 * model.hidden + 4 * queries + 4 * keys + mlp
    layer = residual + bytes_per_value * inner
    kept = model.layers * layer
    if gradient_checkpointing:
        kept = model.layers * bytes_per_value * model.hidden + layer
    if model.is_mixture:  # gradients of the same, of the layer that backward is at
        kept += EXPERT_GRADIENTS * bytes_per_value * model.hidden * model.experts_per_token
    # Scores, probabilities and their gradients, of one group of branches and the trunk.
    group = (ON_CPU if on_cpu else ON_GPU).queries + tree.rollout_length
    scores = 3 * 4 * model.heads * group * (tree.length + tree.rollout_length)
    matrices, outside = model.layers * model.layer_weights, N - model.layers * model.layer_weights
    # A frozen matrix is kept in 4 bits, or in the precision of forwards (`models.lora.cast_base`).
    frozen_matrices = quantized or (adapter > 0 and shards == 1)
    of_matrix = QUANTIZED if quantized else bytes_per_value if frozen_matrices else 4.0
    # FSDP gathers the layers in the precision of forwards on a GPU, and casts none of them.
    cast = outside if frozen_matrices or (shards > 1 and not on_cpu) else N
    casts = cast * bytes_per_value if bytes_per_value < 4 else 0
    activations = float(tokens * kept + scores + casts)
    if quantized:
        activations += DECODING * model.hidden * max(model.intermediate, model.hidden)
    if adapter and on_cpu:
        activations += HOLES + HOLES_SHARE * activations
    layers = 0 if quantized else 2 * model.layer_weights
    gathered = layers + outside if shards > 1 else 0
    # Tied weights have one gradient as the head and one as the embedding, until they are added.
    temporary = model.head_weights * (2 if model.tied else 1) + (layers if shards > 1 else 0)
    # On rows, the branches of an anchor have caches of their own, copied from that of the prefix.
    longest = max(tree.anchors, default=0) + tree.rollout_length
    cached = tree.sampling_tokens + (2 * tree.n * longest if tree.on_rows else 0)
    decoded = micro_batch if decoded is None else decoded
    rows = min(LOGIT_ROWS, tokens)
    kept_rows = micro_batch * (tree.columns - 1) if keep_logits else rows
    if quantized:
        weights = 4.0 * ((outside + adapter) / shards + gathered) + QUANTIZED * matrices
    else:
        weights = 4.0 * ((N + adapter) / shards + gathered) - (4.0 - of_matrix) * matrices
    of_frozen = float(bytes_per_value if frozen else 0)
    of_gathered = 0 if quantized else 4 if on_cpu else bytes_per_value
    whole = 4.0 * outside + of_gathered * matrices - 4.0 * gathered if shards > 1 else 0.0
    evaluation = whole + of_frozen * (N - gathered) if shards > 1 and evaluates else 0.0
    sampling = 0.0
    if tree.rollouts:
        # Logits, scaled logits, their distances from the highest, and these padded to blocks.
        sampling = 4.0 * 4 * min(LOGIT_ROWS, decoded * tree.rollouts) * model.vocab
        sampling += 2.0 * bytes_per_value * model.layers * keys * decoded * cached
        sampling += whole if samples_whole else 0.0
    return Memory(
        process=PROCESS if on_cpu else 0.0,
        # On a GPU a base in 4 bits is loaded layer by layer.
        loading=0.0 if quantized and not on_cpu else 4.0 * N / (1 if loads_whole else shards),
        weights=weights,
        gradients=4.0 * (trained / shards + (0 if adapter else temporary)),
        optimizer=8.0 * trained / shards,
        frozen=of_frozen * (N / shards + gathered),
        others=float(bytes_per_value * others),
        activations=activations,
        logits=4.0 * (rows + kept_rows) * model.vocab,
        # Roots of the second moments: of one weight at a time, but of all at once on a GPU.
        update=4.0 / shards * (min(2 * model.head_weights, trained) if on_cpu else trained),
        sampling=sampling,
        evaluation=evaluation,
    )
