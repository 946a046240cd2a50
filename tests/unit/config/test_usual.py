"""Whatever is accepted without importing the class is accepted by the class too."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebft.config import component, usual
from ebft.config.class_kinds import OptimizerComponent, ScheduleComponent
from ebft.runs import trial

NUMBERS = st.floats(usual.SMALL, usual.LARGE)
BETAS = st.floats(usual.SMALL, 0.9999)
FACTORS = st.floats(usual.SMALL, 1.0)
COUNTS = st.integers(1, 50)
ADAM = st.fixed_dictionaries(
    {},
    optional={
        "lr": NUMBERS,
        "betas": st.lists(BETAS, min_size=2, max_size=2),
        "eps": NUMBERS,
        "weight_decay": st.just(0.0) | NUMBERS,
        "fused": st.booleans(),
    },
)
SCHEDULES = st.one_of(
    st.tuples(
        st.just("transformers.get_cosine_schedule_with_warmup"),
        st.fixed_dictionaries({"num_warmup_steps": COUNTS, "num_training_steps": COUNTS}),
    ),
    st.tuples(
        st.just("torch.optim.lr_scheduler.LinearLR"),
        st.fixed_dictionaries({}, optional={"start_factor": FACTORS, "total_iters": COUNTS}),
    ),
)


def mistakes(kind, path, arguments):
    """What the class's own signature says of arguments."""
    signature = component._signature(kind._find(path, None))
    return component._mistakes(arguments, signature)


@given(path=st.sampled_from(sorted(usual.OPTIMIZERS)), arguments=ADAM)
def test_usual_optimizers_are_accepted(path, arguments):
    optimizer = OptimizerComponent(path, arguments)
    assert optimizer.is_usual()
    assert mistakes(OptimizerComponent, path, arguments) == []
    trial._update(optimizer.instantiate([trial._weight()]), "cpu")


@given(schedule=SCHEDULES, lr=NUMBERS, steps=COUNTS)
def test_usual_schedules_are_accepted(schedule, lr, steps):
    path, arguments = schedule
    component = ScheduleComponent(path, arguments)
    assert component.is_usual()
    assert mistakes(ScheduleComponent, path, arguments) == []
    optimizer = OptimizerComponent("torch.optim.AdamW", {"lr": lr}).instantiate([trial._weight()])
    trial._step(component.instantiate(optimizer), steps)


@pytest.mark.parametrize(
    "arguments",
    [
        {"lr": -1.0}, {"lr": 0.0}, {"lr": 1}, {"lr": "0.1"}, {"lr": True}, {"lr": 5e-324},
        {"lr": float("inf")}, {"lr": float("nan")}, {"betas": [0.9]}, {"betas": [0.9, 1.0]},
        {"betas": 0.9}, {"betas": [0, 0.9]}, {"eps": 0.0}, {"weight_decay": -0.1},
        {"weight_decay": False}, {"fused": "true"}, {"foreach": True}, {"lrr": 0.1},
    ],
    ids=str,
)  # fmt: skip
def test_other_arguments_of_an_optimizer_are_not_usual(arguments):
    assert not OptimizerComponent("torch.optim.AdamW", arguments).is_usual()


@pytest.mark.parametrize(
    "arguments",
    [
        {}, {"num_warmup_steps": 3}, {"num_warmup_steps": 3, "num_training_steps": 0},
        {"num_warmup_steps": 3.0, "num_training_steps": 9},
        {"num_warmup_steps": 3, "num_training_steps": 9, "num_cycles": 0.5},
        {"num_warmup_steps": True, "num_training_steps": 9},
    ],
    ids=str,
)  # fmt: skip
def test_other_arguments_of_a_schedule_are_not_usual(arguments):
    cosine = "transformers.get_cosine_schedule_with_warmup"
    assert not ScheduleComponent(cosine, arguments).is_usual()


@pytest.mark.parametrize(
    "arguments", [{"start_factor": 1.5}, {"start_factor": 0.0}, {"total_iters": 0}], ids=str
)
def test_other_arguments_of_a_warm_up_are_not_usual(arguments):
    assert not ScheduleComponent("torch.optim.lr_scheduler.LinearLR", arguments).is_usual()


def test_a_usual_class_of_another_section_is_not_usual():
    cosine = {"num_warmup_steps": 1, "num_training_steps": 2}
    assert not OptimizerComponent("transformers.get_cosine_schedule_with_warmup", cosine).is_usual()
    assert not ScheduleComponent("torch.optim.AdamW", {"lr": 0.1}).is_usual()
