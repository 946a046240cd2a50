"""MultiPL-E and HumanEval-X: their files, and programs that pass their tests or do not."""

import gzip
import json
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from ebft.data.humaneval_x import HumanEvalX
from ebft.data.multipl_e import MultiPLE
from ebft.errors import SandboxError, UserError
from ebft.evaluation.accuracy import Accuracy
from ebft.sandbox import LANGUAGES, SandboxOptions, why_not_here
from ebft.testing import check_data
from ebft.verifiers.attempts import Attempt, shorten
from ebft.verifiers.find import find_verifier, verify_attempts
from tests.tiny import plain_policy, tiny_documents, tiny_resources
from tests.unit.data.test_benchmarks import REAL, needs_data

ROW = {
    "name": "HumanEval_53_add",
    "language": "js",
    "prompt": "//Add two numbers.\nfunction add(x, y){\n",
    "tests": "const assert = require('node:assert');\nassert.deepEqual(add(2, 3), 5);",
    "stop_tokens": "['\\nfunction ', '\\n//']",
}
SOLUTIONS = {
    "js": {
        23: "return string.length;}", 53: "return x + y;}", 45: "return a * h / 2;}",
        13: "return b === 0 ? a : greatest_common_divisor(b, a % b);}",
        42: "return l.map(x => x + 1);}", 35: "return Math.max(...l);}",
        60: "return n * (n + 1) / 2;}", 41: "return n * n;}", 28: "return strings.join('');}",
        97: "return Math.abs(a % 10) * Math.abs(b % 10);}",
    },
    "pl": {
        23: "return length($string);\n}", 53: "return $x + $y;\n}", 45: "return $a * $h / 2;\n}",
        13: "($a, $b) = ($b, $a % $b) while $b;\nreturn $a;\n}",
        42: "return [map { $_ + 1 } @$l];\n}", 35: "return (sort { $b <=> $a } @$l)[0];\n}",
        60: "return $n * ($n + 1) / 2;\n}", 41: "return $n * $n;\n}",
        28: "return join('', @$strings);\n}", 97: "return (abs($a) % 10) * (abs($b) % 10);\n}",
    },
    "sh": {
        23: 'echo "${#1}"', 53: "echo $(($1 + $2))", 28: 'echo "$1" | tr -d " "',
        13: "a=$1; b=$2; while ((b)); do t=$((a % b)); a=$b; b=$t; done; echo $a",
        42: 'echo $(for x in $1; do echo $((x + 1)); done)',
        35: "tr ' ' '\\n' <<< \"$1\" | sort -n | tail -1", 60: "echo $(($1 * ($1 + 1) / 2))",
        41: "echo $(($1 * $1))", 97: "a=${1#-}; b=${2#-}; echo $((a % 10 * (b % 10)))",
        24: "for ((d = $1 - 1; d > 1; d--)); do (($1 % d)) || break; done; echo $d",
    },
    "lua": {
        23: "return #string\nend", 53: "return x + y\nend", 45: "return a * h / 2\nend",
        13: "while b ~= 0 do a, b = b, a % b end\nreturn a\nend",
        42: "local r = {}\nfor i, x in ipairs(l) do r[i] = x + 1 end\nreturn r\nend",
        35: "return math.max(table.unpack(l))\nend", 60: "return n * (n + 1) // 2\nend",
        41: "return n * n\nend", 28: "return table.concat(strings)\nend",
        97: "return (math.abs(a) % 10) * (math.abs(b) % 10)\nend",
    },
    "cpp": {
        23: "return string.size();", 53: "return x + y;", 45: "return a * h / 2.0f;",
        13: "return b ? greatest_common_divisor(b, a % b) : a;",
        35: "return *std::max_element(l.begin(), l.end());",
        42: "for (auto& x : l) x++;\nreturn l;",
        60: "return n * (n + 1) / 2;", 41: "return n * n;", 97: "return abs(a % 10) * abs(b % 10);",
        28: "std::string s;\nfor (auto& x : strings) s += x;\nreturn s;",
    },
    "java": {
        23: "return string.length();", 53: "return x + y;", 45: "return a * h / 2.0f;",
        13: "return b == 0 ? a : greatestCommonDivisor(b, a % b);",
        42: "l.replaceAll(x -> x + 1);\nreturn l;", 35: "return Collections.max(l);",
        60: "return n * (n + 1) / 2;", 41: "return n * n;", 28: 'return String.join("", strings);',
        97: "return Math.abs(a % 10) * Math.abs(b % 10);",
    },
    "go": {
        23: "return len(myString)\n}", 53: "return x + y\n}", 45: "return float64(a*h) / 2\n}",
        13: "if b == 0 {\n return a\n}\nreturn greatest_common_divisor(b, a%b)\n}",
        42: "for i := range l {\n l[i]++\n}\nreturn l\n}", 60: "return n * (n + 1) / 2\n}",
        35: "most := l[0]\nfor _, x := range l {\n if x > most {\n most = x\n }\n}\nreturn most\n}",
        41: "return n * n\n}",
        28: 'whole := ""\nfor _, s := range strings {\n whole += s\n}\nreturn whole\n}',
        97: "c := (a % 10) * (b % 10)\nif c < 0 {\n c = -c\n}\nreturn c\n}",
    },
    "rs": {
        23: "string.len() as isize", 53: "x + y", 45: "(a * h) as f64 / 2.0",
        13: "if b == 0 { a } else { greatest_common_divisor(b, a % b) }",
        42: "l.iter().map(|x| x + 1).collect()", 35: "*l.iter().max().unwrap()",
        60: "n * (n + 1) / 2", 41: "n * n", 28: "strings.concat()",
        97: "(a % 10).abs() * (b % 10).abs()",
    },
}  # fmt: skip
"""By language and number of the problem: right bodies, written for this test."""
AFTER = {"js": "\n\nconsole.log(1)", "cpp": "\n}\n\nint g() {", "rs": "\n}\n\nfn main() {}",
         "java": "\n    }\n    int g() {", "sh": "\n}\nadd 1 2",
         "go": "\n\nfunc main() {}"}  # fmt: skip
"""What a model goes on with: it ends at the row's own stop texts."""
PROSE = "\n```\n\nThis is the `function`.\n\n```\nadd(1, 2)\n```\n"


def write(file, rows):
    file.write_text(json.dumps(rows))
    return file


def test_rows_become_prompts_with_their_tests_and_stop_texts(tmp_path):
    file = tmp_path / "rows.json.gz"
    file.write_bytes(
        gzip.compress(json.dumps([ROW, ROW | {"name": "b", "stop_tokens": ["\n}"]}]).encode())
    )
    source = MultiPLE(language="js", path=file)
    first, second = source().held_out
    assert (first.name, first.prompt) == (ROW["name"], ROW["prompt"])
    assert first.check == f"language: js\n{ROW['tests']}"
    assert first.stop == ("\nfunction ", "\n//", "\n```")
    assert second.stop == ("\n}", "\n```")
    check_data(source)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"language": "cpp"}, r"row 1, language: has 'cpp' there, and data.language = js"),
        ({"tests": None}, r"row 1, tests: has None there; a text is needed"),
        ({"stop_tokens": "['\\n'"}, r"row 1, stop_tokens: has .* there, which is no list"),
        ({"stop_tokens": {"a": 1}}, r"row 1, stop_tokens: has .* there; this is a list of texts"),
        ({"stop_tokens": [1]}, r"row 1, stop_tokens: has 1 there; a text is needed"),
        ("prompt", r"row 1 has no 'prompt'; there are: name, language, tests, stop_tokens"),
    ],
)
def test_wrong_rows_are_refused(tmp_path, change, says):
    row = {k: v for k, v in ROW.items() if k != change} if isinstance(change, str) else ROW | change
    with pytest.raises(UserError, match=says):
        MultiPLE(language="js", path=write(tmp_path / "rows.json", [row]))()


def test_a_right_body_followed_by_a_fence_and_prose_passes():
    tests = "}\nset -e\n[[ $(add 2 3) = 5 ]]"
    for body, value in (("echo $(($1 + $2))", 1), ("echo $(($1 - $2))", 0)):
        attempt = Attempt("add() {\n", f"    {body}{PROSE}", "", tests, "row 1")
        assert find_verifier("sh_tests", SandboxOptions())(attempt) == value


def test_go_is_named_otherwise_in_its_files(tmp_path):
    row = ROW | {"language": "go_test.go"}
    (example,) = MultiPLE(language="go", path=write(tmp_path / "rows.json", [row]))().held_out
    assert example.check.startswith("language: go\n")


@pytest.mark.parametrize(
    ("language", "declaration", "stops"),
    [("rs", "fn add() {\n", "\n#["), ("java", "", "\npublic class")],
)
def test_rows_of_humaneval_x(tmp_path, language, declaration, stops):
    row = {
        "task_id": "X/53", "prompt": "// Add two numbers.\n", "declaration": "fn add() {\n",
        "canonical_solution": "    x + y\n}\n", "test": "assert",
    }  # fmt: skip
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    (example,) = HumanEvalX(path=file, language=language)().held_out
    assert example.prompt == f"// Add two numbers.\n{declaration}", "Rust's has no signature"
    assert (example.name, example.completion) == ("X/53", row["canonical_solution"])
    assert example.check == f"language: {language}\nassert"
    assert stops in example.stop
    assert example.stop[-1] == "\n```"


def test_the_verifier_of_another_language_is_refused():
    attempt = Attempt(ROW["prompt"], "", "", f"language: lua\n{ROW['tests']}", "row 1")
    with pytest.raises(UserError, match=r"row 1 are lua; set verifier: lua_tests"):
        find_verifier("sh_tests", SandboxOptions())(attempt)


def test_a_language_that_is_not_installed_is_said_and_not_measured(monkeypatch, caplog):
    """A study goes on with the other languages; a reward cannot."""
    sandbox = SandboxOptions(wall_seconds=18)  # not asked about before
    monkeypatch.setenv("PATH", "/nowhere")
    policy = plain_policy()
    evaluator = Accuracy(verifier="lua_tests", sandbox=sandbox).build(tiny_resources(policy))
    assert evaluator(policy, tiny_documents([4, 5])) == []
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("lua_tests: not measured: Lua is not installed (lua); it needs lua with")
    with pytest.raises(SandboxError, match="verifier: lua_tests: Lua is not installed"):
        find_verifier("lua_tests", sandbox)


def of(language, examples, rollouts):
    attempts = [
        shorten(Attempt(it.prompt, rollout, it.completion, it.check, it.name, it.stop), None)
        for it, rollout in zip(examples, rollouts, strict=True)
    ]
    return verify_attempts(find_verifier(f"{language}_tests", SandboxOptions()), attempts, 2)


@needs_data
@pytest.mark.parametrize(
    "language",
    [pytest.param(it, marks=pytest.mark.slow if LANGUAGES[it].compile else ()) for it in SOLUTIONS],
)
def test_right_solutions_of_the_real_problems_pass_and_empty_ones_do_not(language):
    if why := why_not_here(language, SandboxOptions()):
        pytest.skip(why)
    path = REAL / "multipl-e" / f"humaneval-{language}-reworded.json.gz"
    examples = {
        int(it.name.split("_")[1]): it for it in MultiPLE(language=language, path=path)().held_out
    }
    assert len(examples) > 150
    solutions = SOLUTIONS[language]
    assert len(solutions) == 10
    chosen = [examples[number] for number in solutions]
    after = [PROSE, AFTER.get(language, "")] * 5
    written = [f"    {body}{it}" for body, it in zip(solutions.values(), after, strict=True)]
    assert of(language, chosen, written) == [1] * 10
    few = chosen if not LANGUAGES[language].compile else chosen[:2]
    assert of(language, few, ["\n" if language != "sh" else "    :\n"] * len(few)) == [0] * len(few)


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(("language", "file"), [
    ("cpp", "cpp"), ("java", "java"), ("js", "js"), ("rs", "rust"),
])  # fmt: skip
def test_reference_solutions_of_humaneval_x_pass_and_broken_ones_do_not(language, file):
    """Six problems by chance; docs/evaluation.md has how many of all 164 pass, and why others do
    not."""
    if why := why_not_here(language, SandboxOptions()):
        pytest.skip(why)
    source = HumanEvalX(path=REAL / "humaneval-x" / f"humaneval_{file}.jsonl.gz", language=language)
    examples = source().held_out
    assert len(examples) == 164
    known = {"js": {112, 155, 162}, "rs": {32, 38, 53, 91, 162}}.get(language, set())
    places = [place for place in range(164) if place not in known]
    chosen = [examples[place] for place in random.Random(0).sample(places, 6)]
    assert of(language, chosen, [it.completion for it in chosen]) == [1] * 6
    raises = {"java": "throw new RuntimeException();\n    }", "rs": "todo!()"}
    broken = [f"        {raises.get(language, '')}\n}}\n"] * 3
    assert of(language, chosen[:3], broken) == [0] * 3


def test_the_machine_runs_many_at_once():
    """Each program has a folder of its own."""
    attempt = Attempt("f() {\n", "    echo $RANDOM > one; sleep 0.1; cat one; rm one\n",
                      "", "}\nset -e\n[[ -n $(f) ]]\n[[ ! -e one ]]", "row")  # fmt: skip
    verifier = find_verifier("sh_tests", SandboxOptions())
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(verifier, [attempt] * 16)) == [1] * 16
