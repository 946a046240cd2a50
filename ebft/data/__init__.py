"""Data: sources of texts, their splits, and the documents they become."""

from ebft.data.arithmetic_traces import ArithmeticTraces
from ebft.data.files import Files
from ebft.data.gettext import Gettext
from ebft.data.gsm8k import GSM8K
from ebft.data.hub import Hub
from ebft.data.humaneval import HumanEval
from ebft.data.humaneval_x import HumanEvalX
from ebft.data.mbpp import MBPP
from ebft.data.multipl_e import MultiPLE
from ebft.data.opencode_instruct import OpenCodeInstruct
from ebft.data.python_files import PythonFiles
from ebft.data.python_functions import PythonFunctions
from ebft.data.test_set import TranslationTestSet
from ebft.data.tiny_programs.source import TinyPrograms
from ebft.parts.hooks import Parts, hookimpl


@hookimpl
def register_data() -> Parts:
    return {
        "python_files": PythonFiles,
        "python_functions": PythonFunctions,
        "tiny_programs": TinyPrograms,
        "arithmetic_traces": ArithmeticTraces,
        "gettext": Gettext,
        "files": Files,
        "hub": Hub,
        "opencode_instruct": OpenCodeInstruct,
        "humaneval": HumanEval,
        "humaneval_x": HumanEvalX,
        "multipl_e": MultiPLE,
        "mbpp": MBPP,
        "gsm8k": GSM8K,
        "test_set": TranslationTestSet,
    }
