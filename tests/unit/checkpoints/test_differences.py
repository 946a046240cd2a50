"""Which keys of two recipes count as different."""

from ebft.checkpoints.differences import compare


def keys(before, now):
    return [str(it) for it in compare(before, now).mathematics]


def test_an_option_that_ebft_got_later_is_no_difference_while_it_is_off():
    old = {"model": {"path": "m"}, "data": {"prompt": None, "seen": 1}}
    assert keys(old, {"model": {"path": "m", "eos_token": None}, "data": {"seen": 1}}) == []
    assert keys(old, {"model": {"path": "m", "eos_token": "<|end|>"}, "data": {"seen": None}}) == [
        "data.seen: 1 in the checkpoint, null now",
        "model.eos_token: absent in the checkpoint, <|end|> now",
    ]


def test_options_of_parts_that_change_no_results_are_told_apart():
    def recipe(**options):
        return {"sampler": {"_component_": "hf_generate", "n": 4, "batch": 8, **options}}

    compared = compare(recipe(), recipe(batch=2, n=8), same_results=["sampler.batch"])
    assert [it.key for it in compared.mathematics] == ["sampler.n"]
    assert [it.key for it in compared.others] == ["sampler.batch"]
    assert [it.key for it in compare(recipe(), recipe(batch=2)).mathematics] == ["sampler.batch"]
