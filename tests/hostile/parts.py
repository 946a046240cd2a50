# ruff: noqa: E501 — a case is one line
"""Values of a recipe that must be refused with one line."""

from tests.hostile.case import Case, Inputs

SCHEDULES = "torch.optim.lr_scheduler"
BLEU = "evaluation.evaluators=[{{_component_: translation, tokenize: {}}}]"


def given(*overrides: str):
    """These overrides, whatever the inputs are."""
    return lambda _: list(overrides)


def schedule(name: str, *more: str, **arguments):
    """A schedule of torch with its arguments."""
    values = "".join(f", {key}: {value}" for key, value in arguments.items())
    return given(f"lr_scheduler={{_component_: {SCHEDULES}.{name}{values}}}", *more)


def recipe(content: str):
    """`ebft validate` of a file that says this on top of ebft_full."""

    def make(inputs: Inputs) -> list[str]:
        from tests.conftest import RECIPES

        file = inputs.write("recipe.yaml", f"base: {RECIPES / 'ebft_full.yaml'}\n{content}\n")
        return ["validate", str(file)]

    return make


TYPES = [
    Case("true steps", given("training.steps=true"), "training.steps = true: must be a valid int"),
    Case("a true seed", given("seed=yes"), "seed = true: must be a valid integer"),
    Case("a true gamma", given("objective.gamma=on"), "objective.gamma = true: must be a valid num"),
    Case("a true rank", given("model.lora={rank: true}"), "model.lora.rank = true: must be a valid"),
    Case("a true rate", given("optimizer.lr=true"), "optimizer.lr = true: must be a valid number"),
    Case("a rate with a letter behind it", given("optimizer.lr=2e-5x"), "optimizer.lr = 2e-5x: must be a valid number"),
    Case("a text for warm-up", given("lr_scheduler.num_warmup_steps=few"), "lr_scheduler.num_warmup_steps = few: must be a valid int"),
    Case("a true warm-up", given("lr_scheduler.num_warmup_steps=on"), "steps = true: must be a valid int"),
    Case("steps with a point", given("training.steps=1e3"), "steps = 1000.0: must be a valid integer; write 1000"),
    Case("a part's integer", given("plan.stride=8.0"), "plan.stride = 8.0: must be a valid integer; write 8"),
    Case("an integer of a list", given("reward=kernel", "seed=[1]"), "seed = [1]: must be a valid integer"),
    Case("a number in quotes", given("sampler.n='4'"), "sampler.n = 4: must be a valid integer; it is in quotes"),
    Case("a truth in quotes", given("optimizer={_component_: torch.optim.AdamW, maximize: 'no'}"), "optimizer.maximize = no: must be true or false"),
    Case("Python's None", given("optimizer={_component_: transformers.Adafactor, relative_step: None}"), "optimizer.relative_step = None: must be true or false"),
    Case("a momentum that is none", given("optimizer={_component_: torch.optim.SGD, momentum: .nan}"), "optimizer.momentum = nan: must be a finite number"),
    Case("a pair in Python", given("optimizer.betas=(0.9,0.99)"), "optimizer.betas = (0.9,0.99): must be a list"),
    Case("a share of the steps", given("lr_scheduler.num_warmup_steps=0.03"), "lr_scheduler.num_warmup_steps = 0.03: must be a valid integer"),
    Case("milestones in quotes", schedule("MultiStepLR", milestones="'123'"), "lr_scheduler.milestones = 123: must be a list"),
    Case("a logger's number", given("metric_loggers=[{_component_: ebft.report.loggers.TensorBoardLogger, log_dir: 5}]"), "metric_loggers.0.log_dir = 5: must be text"),
    Case("no value", given("data.path="), "'data.path=': has no value; write null for none"),
    Case("1 for true", given("training.compile=1"), "training.compile = 1: must be true or false"),
    Case("one of two types", given("training.micro_batch=on"), "training.micro_batch = true: must be a valid integer or 'auto'"),
]  # fmt: skip
HUB = [
    Case("a repository without an owner", given("checkpoint.hub={repo: mine}"), "checkpoint.hub.repo = mine: has no owner; give OWNER/NAME"),
    Case("a repository's address", given("checkpoint.hub={repo: 'https://hub.example/me/mine'}"), "checkpoint.hub.repo = https://hub.example/me/mine: is no name of a repository"),
    Case("a hub without a repository", given("checkpoint.hub={private: true}"), "checkpoint.hub.repo: missing; it has no default"),
    Case("a hub as a text", given("checkpoint.hub=me/mine"), "checkpoint.hub = me/mine: must be a"),
    Case("uploads between checkpoints", given("checkpoint.hub={repo: me/mine, every: 3}"), "checkpoint.hub.every = 3: is not a multiple of checkpoint.every = 2; set 4, or leave it out"),
    Case("uploads without checkpoints", given("checkpoint.every=null", "checkpoint.hub={repo: me/mine, every: 3}"), "checkpoint.hub.every = 3: without checkpoint.every, only the last checkpoint is saved; set checkpoint.every=3"),
    Case("no time for an upload", given("checkpoint.hub={repo: me/mine, timeout: 0}"), "checkpoint.hub.timeout = 0: must be greater than 0"),
    Case("a hub and HF_HUB_OFFLINE", given("checkpoint.hub={repo: me/mine}"), "checkpoint.hub.repo = me/mine: nothing can be uploaded, because HF_HUB_OFFLINE"),
]  # fmt: skip
QUOTES = [
    Case("a column called no", given("data=files", "data.path=x", "data.completion=no"), "data.completion = false: must be text; YAML reads on, off, yes and no as true and false: put it in quotes"),
    Case("a language called no", given("data=gettext", "data.languages={no: Norwegian}"), "data.languages: the key false: must be text; YAML reads on, off, yes and no as true"),
    Case("a hash of digits", given("model.revision=1234567"), "model.revision = 1234567: must be text; YAML reads digits, 1e5"),
    Case("a hash with one e", given("model.revision=12e4567"), "as numbers: put it in quotes"),
    Case("a folder called no", recipe("output_dir: no"), "output_dir = false: must be a path; YAML reads on, off, yes and no", whole=True),
    Case("a time for a folder", recipe("output_dir: 12:30"), "output_dir = 750: must be a path; YAML reads digits", whole=True),
    Case("off without quotes", recipe("objective: {importance: {level: off}}"), "importance.level = false: must be 'off', 'token' or 'sequence'; YAML reads on, off", whole=True),
    Case("braces in a text", given("data=gettext", "data.template={text}"), "data.template = {'text': None}: must be text; YAML reads braces"),
    Case("a folder with a hash", given("data.path=/nowhere/a #1"), "data.path = /nowhere/a #1: no such folder"),
    Case("a comment", given("feature_map.depths=[0.5] # half"), "'# half' is a comment in YAML; put it in quotes"),
]  # fmt: skip
STEPS = [
    Case("LBFGS", given("optimizer=torch.optim.LBFGS"), "optimizer: torch.optim.LBFGS(): TypeError: LBFGS.step() missing 1 required positional argument: 'closure'; use another"),
    Case("SparseAdam", given("optimizer=torch.optim.SparseAdam"), "optimizer: torch.optim.SparseAdam(): RuntimeError: SparseAdam does not support dense gradients"),
    Case("a state of another kind", given("optimizer=torchao.optim.AdamW8bit"), "optimizer: torchao.optim.AdamW8bit(): TypeError: 0.exp_avg is a OptimState8bit, which a checkpoint cannot hold"),
    Case("Muon of vectors", given("optimizer=torch.optim.Muon"), "optimizer: torch.optim.Muon(): Muon only supports 2D"),
    Case("a cycle that is too short", schedule("OneCycleLR", max_lr=0.1, total_steps=2), "the run has 3 steps"),
    Case("a cycle that is too short by far", schedule("OneCycleLR", "training.steps=1000000", max_lr=0.1, total_steps=999999), "Tried to step 1000000 times"),
    Case("no steps between", schedule("StepLR", step_size=0), "lr_scheduler: torch.optim.lr_scheduler.StepLR(step_size=0): ZeroDivisionError"),
    Case("a rate below zero", schedule("ExponentialLR", gamma=-0.5), "the learning rate of step 1 is -5e-05"),
    Case("a schedule without end", schedule("ExponentialLR", "training.steps=200", gamma=1e3), "is inf"),
    Case("a schedule that measures", given("lr_scheduler=transformers.optimization.get_reduce_on_plateau_schedule"), "depends on a measurement"),
    Case("a cycle of another optimizer", schedule("OneCycleLR", "optimizer={_component_: torch.optim.Adagrad, lr: 0.1}", max_lr=1, total_steps=3), "must support momentum"),
]  # fmt: skip
EVALUATORS = [
    Case("a tokenizer that is none", given(BLEU.format("13b")), "evaluation.evaluators.0.tokenize = 13b: must be '13a', 'intl'"),
    Case("a tokenizer of MeCab", given(BLEU.format("ko-mecab")), "tokenize = ko-mecab: needs MeCab with its dictionary: pip install 'sacrebleu[ko]'"),
    Case("a tokenizer to download", given(BLEU.format("spBLEU-1K")), "tokenize = spBLEU-1K: needs "),
    Case("an empty stop text", given("evaluation.evaluators=[{_component_: accuracy, verifier: exact_match, stop: [x, '']}]"), "evaluators.0.stop.1 = '': is in front of every text"),
]  # fmt: skip
CODE = [
    Case("a command for a schedule", given("lr_scheduler={_component_: pydoc.pipepager, text: x, cmd: 'touch x'}"), "lr_scheduler._component_ = pydoc.pipepager: is not imported"),
    Case("a command for a logger", given("metric_loggers=[{_component_: os.system, command: 'touch x'}]"), "metric_loggers.0._component_ = os.system: is not imported"),
    Case("a command for a verifier", given("evaluation.evaluators=[{_component_: accuracy, verifier: os.system}]"), "evaluators.0.verifier = os.system: is not imported"),
    Case("a module for a recipe", given("recipe=antigravity:Fly"), "recipe = antigravity:Fly: is not imported"),
    Case("a loader for an optimizer", given("optimizer=torch.load"), "optimizer._component_ = torch.load: must be an optimizer"),
    Case("a base class for a part", given("reward=ebft.RewardPart"), "reward._component_ = ebft.RewardPart: RewardPart is a base class"),
    Case("a plan for a transform", given("transforms=[{_component_: ebft.plans.completion.Completion}]"), "Completion: is one of the plans, and this is one of the transforms"),
    Case("a tag that makes objects", recipe("seed: !!python/object/apply:os.getpid []"), "not YAML", whole=True),
]  # fmt: skip
HOMES = [
    Case("a model of nobody", given("model.path=~nobody-here/x"), "model.path = ~nobody-here/x: there is no home ~nobody-here"),
]  # fmt: skip
CASES = [*TYPES, *HUB, *QUOTES, *STEPS, *EVALUATORS, *CODE, *HOMES]
