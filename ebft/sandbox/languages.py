"""Programming languages other than Python whose programs are run: the table `LANGUAGES`.

A language is a file name, the commands that compile and run it, and how a test program is put
together and says that it ran to its end.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

WORD = "{word}"
JAVATUPLES = "/usr/share/java/javatuples.jar"
"""Where Debian's package has it. MultiPL-E's tests for Java import it."""
VIRTUAL_MACHINE = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """How programs of a language are tested.

    `compile` and `run` are commands in the program's folder, their first word a program on the
    path. `ending` is a statement that prints a secret word, which `{word}` stands for; it is put
    before the last `closing` braces of the tests, and a program passes only if it gets there.
    `prepare` changes the whole program. `probe` is a test program that needs what tests need, and
    `install` says what to install if it fails. `memory_mib` is what the compiler or the virtual
    machine needs for itself, `compile_seconds` their CPU time. `tool_root` is a command that prints
    the folder of the tools, where the program on the path is only a proxy, and `settings` are
    folders of the system with their settings.
    """

    title: str
    file: str
    run: Sequence[str]
    ending: str
    probe: tuple[str, str]
    install: str
    compile: Sequence[str] = ()
    closing: int = 0
    prepare: Callable[[str], str] = str
    built: str = ""
    memory_mib: int = 256
    compile_seconds: int = 30
    tool_root: Sequence[str] = ()
    settings: Sequence[str] = ()
    environment: Mapping[str, str] | None = None

    def program(self, code: str, tests: str, word: str) -> str:
        """Returns the test program of `code`, context and rollout, and its `tests`."""
        ending = self.ending.replace(WORD, word)
        tests, rest = _split_at_brace(tests, self.closing)
        return self.prepare(f"{code}\n{tests}\n{ending}\n{rest}")

    def start(self, program: str) -> list[str]:
        """Returns the command that runs the program. Raises `FileNotFoundError` without it."""
        main = "Main" if re.search(r"\bclass Main\b", program) else "Problem"
        return self.command([word.replace("{main}", main) for word in self.run])

    def tools(self) -> list[str]:
        """The folders of its tools outside those of the system."""
        roots = [_root(tuple(self.tool_root))] if self.tool_root else []
        return [*roots, *self.settings]

    def command(self, words: Sequence[str]) -> list[str]:
        """Returns a command with the path of its program. Raises `FileNotFoundError` without it."""
        name, *rest = words
        for root in self.tools():
            if (found := Path(root, "bin", name)).is_file():
                return [str(found), *rest]
        if name.startswith("./"):
            return list(words)
        if (path := shutil.which(name)) is None:
            raise FileNotFoundError(name)
        return [str(Path(path).resolve()) if name in ("java", "javac") else path, *rest]


def _split_at_brace(tests: str, closing: int) -> tuple[str, str]:
    """Splits tests before their last `closing` braces."""
    at = len(tests)
    for _ in range(closing):
        at = max(tests.rfind("}", 0, at), 0)
    return tests[:at], tests[at:]


@cache
def _root(command: tuple[str, ...]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _throwing_assertions(program: str) -> str:
    """JavaScript's `console.assert` only prints; HumanEval-X's tests use it as an assertion."""
    return f"console.assert = (ok) => {{ if (!ok) throw new Error('assertion') }};\n{program}"


def _without_test_harness(program: str) -> str:
    """Returns a Rust program whose test functions are called by `main`, in the order of the file.

    A `use` of a crate that does not come with the compiler is left out: HumanEval-X's prompts name
    three, and few of its solutions use them.
    """
    program = re.sub(r"^use (?:rand|regex|md5)\b[^;]*;", "", program, flags=re.MULTILINE)
    if "#[test]" not in program:
        return program
    program = program.replace("#[cfg(test)]", "")
    named = re.compile(r"#\[test\]\s*(?:pub )?fn\s+(\w+)")
    module = re.search(r"^mod (\w+)", program, flags=re.MULTILINE)
    within = f"{module[1]}::" if module else ""
    calls = "".join(f"    {within}{name}();\n" for name in named.findall(program))
    found = re.search(r'\n\s*println!\("ebft-\w+"\);\n', program)
    assert found is not None, "`ending` is in every program"
    program = program.replace(found[0], "\n")
    functions = named.sub(r"pub fn \1", program)
    return f"{functions}\nfn main() {{\n{calls}{found[0]}}}\n"


LANGUAGES: Mapping[str, Language] = {
    "js": Language(
        title="JavaScript", file="main.js", run=["node", "--max-old-space-size=512", "main.js"],
        environment={"OPENSSL_CONF": "/dev/null"},
        ending='console.log("{word}");', prepare=_throwing_assertions,
        probe=("const f = () => 1;", "require('node:assert').deepEqual(f(), 1);"),
        install="node (nodejs)", memory_mib=768,
    ),
    "java": Language(
        title="Java", file="Main.java", closing=2,
        compile=["javac", *(f"-J{it}" for it in VIRTUAL_MACHINE), "-encoding", "UTF-8", "-nowarn",
                 "-cp", f".:{JAVATUPLES}", "-d", ".", "Main.java"],
        run=["java", *VIRTUAL_MACHINE, "-ea", "-cp", f".:{JAVATUPLES}", "{main}"],
        ending='System.out.println("{word}");',
        probe=("import org.javatuples.*;\nclass Problem { static int f() { return 1; }",
               "public static void main(String[] args) { assert(f() == 1); }\n}"),
        install="a JDK and javatuples (default-jdk-headless libjavatuples-java)", memory_mib=1024,
        settings=[str(folder) for folder in Path("/etc").glob("java-*")],
    ),
    "cpp": Language(
        title="C++", file="main.cpp", closing=1,
        compile=["g++", "-std=c++17", "-O1", "-w", "main.cpp", "-o", "main"],
        run=["./main"], built="main", ending='__builtin_puts("{word}");',
        probe=("#include<assert.h>\n#include<bits/stdc++.h>\nint f() { return 1; }",
               "int main() { assert(f() == 1); }"),
        install="g++", memory_mib=1024,
    ),
    "rs": Language(
        title="Rust", file="main.rs", closing=1, prepare=_without_test_harness,
        compile=["rustc", "--edition", "2021", "--cap-lints", "allow", "-C", "codegen-units=1",
                 "main.rs", "-o", "main"],
        run=["./main"], built="main", ending='println!("{word}");',
        probe=("fn f() -> i64 { 1 }", "fn main() { assert_eq!(f(), 1); }"),
        install="rustc", tool_root=["rustc", "--print", "sysroot"], memory_mib=1024,
    ),
    "go": Language(
        title="Go", file="main_test.go",
        # Vetting the tests starts more processes than a program may.
        compile=["go", "test", "-c", "-vet=off", "-o", "main", "main_test.go"],
        run=["./main", "-test.v"], built="main", closing=1, ending='fmt.Println("{word}")',
        probe=('package main\nimport (\n"testing"\n"fmt"\n)\nfunc f() int { return 1 }',
               'func TestF(t *testing.T) {\nif f() != 1 { t.Errorf("%v", f()) }\n}'),
        install="go (golang-go)", tool_root=["go", "env", "GOROOT"], memory_mib=1536,
        compile_seconds=120, environment={"GOFLAGS": "-mod=mod", "GO111MODULE": "off"},
    ),
    "pl": Language(
        title="Perl", file="main.pl", run=["perl", "main.pl"], ending='print "\\n{word}\\n";',
        probe=("sub f { return [1]; }", "use Test::Deep;\neq_deeply(f(), [1]) or exit 1;"),
        install="perl with Test::Deep (libtest-deep-perl)",
    ),
    "sh": Language(
        title="Bash", file="main.sh", run=["bash", "main.sh"], ending='echo "{word}"',
        probe=("f() { echo 1; }", 'set -e\n[[ $(f) = "1" ]]'), install="bash",
    ),
    "lua": Language(
        title="Lua", file="main.lua", run=["lua", "main.lua"],
        prepare=lambda program: program.replace(
            "os.exit(lu.LuaUnit.run())", "assert(lu.LuaUnit.run() == 0)"
        ),
        ending='print("{word}")',
        probe=("function f() return 1 end", "assert(require('luaunit') and f() == 1)"),
        install="lua with luaunit (lua5.4 lua-unit)",
    ),
}  # fmt: skip
"""By MultiPL-E's short names."""
