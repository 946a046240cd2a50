"""COMET for ebft: an evaluator of translations, and a reward.

evaluator, reward       the parts, both named `comet`
options                 the options that both have
scorer                  segments → scores, by a process in unbabel-comet's own environment
  environment           which environment that is, and what it lacks
  server                that process; it imports nothing of ebft
"""

from ebft.parts.hooks import Parts, hookimpl
from ebft_comet.evaluator import Comet
from ebft_comet.reward import CometReward


@hookimpl
def register_evaluators() -> Parts:
    return {"comet": Comet}


@hookimpl
def register_rewards() -> Parts:
    return {"comet": CometReward}
