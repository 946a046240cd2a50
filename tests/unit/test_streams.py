"""Seeds of contexts depend on their address alone, and on all of it."""

from dataclasses import replace

import torch

from ebft.digests import digest_documents
from ebft.rollout.streams import context_seeds, document_keys
from ebft.rollout.strided import Strided
from tests.tiny import tiny_documents

PLAN = Strided(start=2, stride=3, rollout_length=4)


def test_every_context_of_every_step_has_its_own_seed():
    contexts = PLAN(tiny_documents([20, 31]))
    seeds = torch.cat(
        [context_seeds(contexts, seed=s, step=t) for s in range(3) for t in range(-1, 4)]
    )
    assert len(seeds.unique()) == len(seeds)
    assert ((seeds >= 0) & (seeds < 2**62)).all()


def test_a_context_keeps_its_seed_in_other_company():
    documents = tiny_documents([20, 31])
    both = context_seeds(PLAN(documents), seed=1, step=2)
    alone = context_seeds(PLAN(documents[1:]), seed=1, step=2)
    assert torch.equal(both[-len(alone) :], alone)
    renamed = PLAN([replace(documents[1], name="another")])
    assert not torch.equal(context_seeds(renamed, seed=1, step=2), alone)


def test_a_name_that_is_not_utf_8_is_a_name_like_others():
    (document,) = tiny_documents([20])
    names = ["caf\udce9", "caf\udce8", "café"]
    keys = document_keys(names)
    assert len(keys.unique()) == len(names)
    digests = {digest_documents([replace(document, name=name)]) for name in names}
    assert len(digests) == len(names)
