"""The ways in which a run ends that are not a bug in ebft.

The command line prints the message of any of these as it is, without a traceback.
"""

from __future__ import annotations

from ebft.printable import printable, shortened

LONGEST = 1000
"""Letters of a line of a message: a value that is quoted in it may be of any length."""


class Lines(Exception):  # noqa: N818 — what its kinds have in common, never raised itself
    """An error whose arguments are the lines of its message.

    A line stays one, and cannot steer a terminal, whatever it quotes (`printable`).
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(shortened(printable(line), LONGEST) for line in lines))


class UserError(Lines, ValueError):
    """A mistake in what the user gave: a recipe, an option, a data set, a model path.

    The message names the key, the value and the fix. Exit status 2.
    """


class PluginError(UserError):
    """A plug-in that cannot be loaded, or a name that two claim; says which and from where.

    Or a part that gives another shape than its kind promises; says which key, and both shapes.
    """


class SandboxError(UserError):
    """This machine cannot isolate generated programs as the recipe asks for; says what it lacks."""


class NumericalError(Lines, ArithmeticError):
    """NaN or infinity in features, rewards, loss or gradients.

    The message names the optimizer step and the document. Nothing is written after it is raised.
    Exit status 1.
    """


class StorageError(Lines, RuntimeError):
    """A checkpoint or report that cannot be written: a full disk, a folder without permission.

    Or a checkpoint that cannot be read and may be whole.
    The message says what is still whole. Exit status 1.
    """


class RunsFailedError(Lines, RuntimeError):
    """Runs of a study that failed while the others went on.

    The message has a line for each, with its reason. Exit status 1.
    """


class MemoryShortError(Lines, RuntimeError):
    """Out of memory where smaller micro-batches do not help, or outside of the first step.

    The message gives what is known of the need, and which option to lower. Exit status 1.
    """


class FailedElsewhereError(Exception):
    """Another process failed and has said why: this one prints nothing. Exit status 1."""


class MissingProcessError(Lines, RuntimeError):
    """Processes timed out waiting for another; says which, and where it is. Exit status 1."""


class PolicyIntactError(Lines):
    """Something beside the policy failed, and the policy's weights are good.

    A run that ends with an error derived from this one saves a checkpoint first. Exit status 1.
    """


class EngineError(PolicyIntactError, RuntimeError):
    """A sampler's inference engine did not start, died, hung or refused its work.

    The message names the engine, what it was asked for and what to do about it.
    """


class SamplerMismatchError(PolicyIntactError, NumericalError):
    """The sampler's log-probs are not those of the policy: its weights did not arrive.

    The message names the optimizer step, the largest difference and the tolerance.
    """


EXPLAINED = (
    UserError, NumericalError, MemoryShortError, StorageError, PolicyIntactError, RunsFailedError,
    MissingProcessError,
)  # fmt: skip
"""Errors whose message is all that there is to say; any other is a bug, and shows a traceback."""


OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""What torch's allocators say in a RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation has failed, of torch on any device or of Python."""
    import torch  # for which a mistake in a recipe need not wait

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY)


def first_line(error: BaseException) -> str:
    """What an error of another library says, in short; its kind if it says nothing.

    A line that ends with a colon is only half of it: the next one goes with it.
    """
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if not lines:
        return type(error).__name__
    said = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return said.rstrip(".,")
