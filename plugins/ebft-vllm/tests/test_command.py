"""`ebft-vllm serve` and the recipe's options of a server: what is refused, and how it ends."""

import re
import signal
import socket
from pathlib import Path

import pytest
from ebft_vllm import Vllm, command
from ebft_vllm.channel import Address

from ebft.errors import UserError


class TestCommand:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
    def test_other_machines_need_a_token(self, capsys, host):
        assert command.main(["serve", "model", "--host", host]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"--host {host}: other machines could connect; give a token too")

    def test_a_token_is_not_short(self, capsys, tmp_path):
        file = tmp_path / "token"
        for content in ("", "short\n", None):
            if content is None:
                file.unlink()
            else:
                file.write_text(content)
            assert command.main(["serve", "model", "--token-file", str(file)]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"--token-file = {file}: ")

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--port", "70000"], "70000: a port is a number below 65536"),
            (["--kv-cache-gib", "-1"], "-1: not a number above 0"),
            (["--max-length", "nan"], "nan: not a number above 0"),
            (["--engine-options", "{"], "{: not JSON"),
            (["--engine-options", "[1]"], "[1]: not an object"),
            (["--engine-options", '{"seed": 1}'], "seed: set by the server itself"),
        ],
    )
    def test_wrong_options(self, capsys, arguments, says):
        with pytest.raises(SystemExit) as stop:
            command.main(["serve", "model", *arguments])
        assert stop.value.code == 2
        assert says in capsys.readouterr().err

    def test_a_port_in_use(self, capsys):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(UserError, match=f"--port {port}: cannot listen there: Address alr"):
                command.listen("127.0.0.1", port)

    @pytest.mark.slow
    def test_an_engine_that_cannot_start_says_why(self, serve):
        with pytest.raises(AssertionError, match="error: the vLLM engine did not start: no_such_"):
            serve("--engine-options", '{"no_such_option": 1}')

    @pytest.mark.slow
    def test_sigterm_ends_it_with_one_line(self, serve):
        server = serve()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=20) == 130
        server.reader.join()
        assert server.said[-1] == "stopped"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"engine": "server"}, "address: missing; give host:port of `ebft-vllm serve`"),
        ({"engine": "server", "address": "here"}, "here: not an address"),
        ({"engine": "server", "address": "a:0"}, "a:0: not an address"),
        ({"engine": "server", "address": "::1:80"}, "::1:80: not an address"),
        ({"address": "a:1"}, "address: of a server; set sampler.engine=server"),
        ({"token_file": Path("a")}, "token_file: of a server; set sampler.engine=server"),
        ({"engine": "server", "address": "a:1", "devices": "1"}, "devices: of an engine that the"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        Vllm(**options)


def test_addresses():
    assert Address.parse("node1:29550") == ("node1", 29550)
    assert str(Address.parse("[::1]:80")) == "[::1]:80"
