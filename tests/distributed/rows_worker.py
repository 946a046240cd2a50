"""Loads models in each torchrun process, writes down what it has of them, and saves them."""

import json
import sys
from pathlib import Path

import torch

from ebft.checkpoints.snapshot import write_weights
from ebft.distributed.parallel import ParallelOptions, join
from ebft.distributed.processes import Launch
from ebft.models.load import load_policy
from ebft.models.options import ModelOptions
from ebft.models.rows import mesh_of
from ebft.models.shard import shard, weights_to_save
from ebft.models.weights import digest_weights
from ebft.models.whole import whole


def record(folder, processes, name):
    options = ModelOptions(path=str(folder / name), device="cpu", attention="dense")
    policy, tokenizer = load_policy(options, mesh=processes.mesh)
    before, loaded_rows = digest_weights(policy), mesh_of(policy) is not None
    shard(policy, processes.mesh, torch.float32)
    with torch.no_grad():
        logits = whole(policy, lambda: policy(torch.arange(6)[None]).logits.flatten())
    found = {
        "digest": digest_weights(policy),
        "values": sum(p.to_local().numel() for p in policy.parameters()),
        "loaded_rows": loaded_rows,
        "logits": logits.tolist(),
    }
    assert found["digest"] == before
    (folder / f"{name}-{processes.rank}.json").write_text(json.dumps(found))
    saved = folder / f"{name}-saved"
    saved.mkdir(exist_ok=True)
    weights = weights_to_save(policy, merge_adapter=False)
    write_weights(policy, tokenizer, weights, saved, processes, merge_adapter=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    together = join(Launch.of_environment(), ParallelOptions(), torch.device("cpu"))
    for model in sys.argv[2:]:
        record(Path(sys.argv[1]), together, model)
    together.close()
