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
