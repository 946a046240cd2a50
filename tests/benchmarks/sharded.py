"""Peak memory of each process while it loads and saves its share of a model.

    torchrun --nproc_per_node 2 -m tests.benchmarks.sharded
    torchrun --nproc_per_node 2 -m tests.benchmarks.sharded --whole

A random model of the shape of Qwen2.5 1.5B is written first, if it is not in `--folder` yet (6 GiB,
and as much again for what is saved). Weights are float32 in memory, and as `--files` says on disk.
`--whole` loads and saves whole weights, as it was done before each process had its own rows. On a
CPU.
"""

import argparse
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config

from ebft.checkpoints.snapshot import write_weights
from ebft.distributed.parallel import ParallelOptions, join
from ebft.distributed.processes import Launch
from ebft.models.load import load_frozen, load_policy
from ebft.models.options import ModelOptions
from ebft.models.shard import SavedWeights, WholeWeights, shard, weights_to_save, whole_weights
from ebft.testing.tiny import tiny_tokenizer
from tests.benchmarks.peak import peak_memory

GIB = 2**30
SHAPES = {
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
             "num_attention_heads": 12, "num_key_value_heads": 2},
    "0.5B": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
             "num_attention_heads": 14, "num_key_value_heads": 2},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
             "num_attention_heads": 4, "num_key_value_heads": 2},
}  # fmt: skip
"""Qwen2.5's."""


def write_model(folder: Path, size: str, dtype: torch.dtype) -> None:
    """Writes a random model with tied embeddings, and a tokenizer."""
    config = Qwen2Config(**SHAPES[size], vocab_size=151936, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SHAPES, default="1.5B")
    parser.add_argument("--folder", type=Path, default=Path("build/sharded"))
    parser.add_argument("--files", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--whole", action="store_true")
    arguments = parser.parse_args()
    processes = join(Launch.of_environment(), ParallelOptions(), torch.device("cpu"))
    assert processes.mesh is not None, "start it with torchrun"
    source = arguments.folder / f"{arguments.size}-{arguments.files}"
    if processes.is_main and not (source / "config.json").exists():
        write_model(source, arguments.size, getattr(torch, arguments.files))
    processes.any(False)

    options = ModelOptions(path=str(source), device="cpu", attention="tree")
    mesh, models = None if arguments.whole else processes.mesh, []

    def touch(model: PreTrainedModel) -> None:
        for weight in model.parameters():  # what is read from a mapped file counts when it is used
            (weight.to_local() if isinstance(weight, DTensor) else weight).sum()

    def load() -> None:
        models.append(load_policy(options, mesh=mesh))
        shard(models[0][0], processes.mesh, torch.float32)
        touch(models[0][0])

    def load_base() -> None:
        models.append(load_frozen(options, torch.float32, mesh=mesh))
        if mesh is not None:  # whole, every process had all of it
            shard(models[1], processes.mesh, torch.float32)
        touch(models[1])

    def save() -> None:
        policy, tokenizer = models[0]
        if arguments.whole:
            weights = SavedWeights(WholeWeights(whole_weights(policy), {}), {})
        else:
            weights = weights_to_save(policy, merge_adapter=False)
        write_weights(policy, tokenizer, weights, saved, processes, merge_adapter=False)

    with TemporaryDirectory(dir=arguments.folder) as temporary:
        saved = Path(processes.broadcast(temporary) or "")
        peaks = {"policy": peak_memory(load)}
        peaks["saving"] = peak_memory(save)
        if processes.is_main:
            same = (saved / "model.safetensors").stat().st_size
            assert same >= 4 * sum(p.numel() for p in models[0][0].parameters())
        peaks["frozen network"] = peak_memory(load_base)
        share = 4 * sum(p.numel() for p in models[0][0].parameters()) / processes.size
        for name, peak in peaks.items():
            everyones = processes.gather(torch.tensor([peak])).tolist()
            if processes.is_main:
                shown = ", ".join(f"{it / GIB:.2f}" for it in everyones)
                print(f"{name:<16} share {share / GIB:.2f} GiB; peak of each: {shown} GiB")
        processes.any(False)
    if not processes.is_main:
        shutil.rmtree(temporary, ignore_errors=True)
    processes.close()


if __name__ == "__main__":
    main()
