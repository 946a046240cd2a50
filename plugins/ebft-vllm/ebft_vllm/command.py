"""The command `ebft-vllm serve MODEL`: an engine that the processes of a run share."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ebft.console import prepare_process, say
from ebft.errors import EXPLAINED, EngineError, UserError, first_line
from ebft_vllm.channel import LOOPBACK, Address, read_token

EPILOG = """\
examples:
  ebft-vllm serve smollm2-135m-instruct
  openssl rand -hex 32 > token && chmod 600 token
  ebft-vllm serve Qwen/Qwen2.5-7B --dtype bfloat16 --host 0.0.0.0 --token-file token
  tune run recipe.yaml sampler=vllm sampler.engine=server sampler.address=node1:29550 \\
      sampler.token_file=token
"""

log = logging.getLogger("ebft.vllm")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line (default: this process's) and returns the exit status."""
    prepare_process(sys.stderr)
    arguments = parse(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, _stop)
    try:
        serve(arguments)
    except UserError as error:
        say(*str(error).split("\n"), file=sys.stderr)
        return 2
    except EXPLAINED as error:
        say(*f"error: {error}".split("\n"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("stopped", file=sys.stderr)
        # A normal exit would join vLLM's threads, and one that hangs would keep the process alive.
        sys.stderr.flush()
        os._exit(130)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses a command line; exits with status 2 for one that is wrong."""
    parser = argparse.ArgumentParser(prog="ebft-vllm", description=__doc__)
    command = parser.add_subparsers(required=True).add_parser(
        "serve",
        help="start an engine that the processes of a run share",
        description="Starts a vLLM engine and waits for the processes of a run, also on other "
        "machines. It serves one run at a time, whose weights it gets over the network.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("model", metavar="MODEL", help="the recipe's model.path; its weights are not loaded")
    add(
        "--host", default="127.0.0.1",
        help="listen here; 0.0.0.0: on every network of this machine, which needs a token "
        "(default: 127.0.0.1)",
    )  # fmt: skip
    add("--port", type=_port, default=29550, help="0: any that is free (default: 29550)")
    add(
        "--token-file", type=Path, metavar="FILE",
        help="a file with the token that trainers must know; by default every user of this machine "
        "may connect",
    )  # fmt: skip
    add(
        "--dtype", choices=("float32", "bfloat16"), default="float32",
        help="of the engine's weights: the recipe's model.precision, or its sampler.dtype "
        "(default: float32)",
    )  # fmt: skip
    add(
        "--max-length", type=_positive(int), metavar="TOKENS",
        help="the most tokens of context and rollout (default: the model's limit)",
    )  # fmt: skip
    add(
        "--kv-cache-gib", type=_positive(float), default=1.0, metavar="GIB",
        help="memory for the KV cache (default: 1)",
    )  # fmt: skip
    add(
        "--block-size", type=_positive(int), default=32, metavar="TOKENS",
        help="of a block of the KV cache; prefixes are shared in whole blocks (default: 32)",
    )  # fmt: skip
    add(
        "--max-lora-rank", type=_positive(int), metavar="RANK",
        help="take adapters of this rank or less, for recipes with sampler.sync=adapter",
    )  # fmt: skip
    add("--revision", help="branch, tag or commit of a hub id")
    add("--trust-remote-code", action="store_true", help="run Python code that comes with a hub id")
    add(
        "--engine-options", type=_options, default={}, metavar="JSON",
        help="more arguments of vllm.LLM, such as '{\"tensor_parallel_size\": 2}'",
    )  # fmt: skip
    return parser.parse_args(argv)


def serve(arguments: argparse.Namespace) -> NoReturn:
    """Starts the engine and answers trainers until the process is ended.

    Raises `UserError` for a model, a token or an address that cannot be used.
    """
    token = read_token(arguments.token_file, says="--token-file")
    if arguments.host not in LOOPBACK and not token:
        raise UserError(
            f"--host {arguments.host}: other machines could connect; give a token too: "
            "openssl rand -hex 32 > token, and --token-file token"
        )
    # They import torch, which takes seconds.
    from ebft.models.load import load_outline
    from ebft.models.options import ModelOptions
    from ebft.models.shape import context_length
    from ebft_vllm.available import require_vllm
    from ebft_vllm.engines import lora_options, save_config
    from ebft_vllm.identity import identity
    from ebft_vllm.local import LocalEngine
    from ebft_vllm.messages import Start
    from ebft_vllm.server import Server

    require_vllm()
    options = ModelOptions(
        path=arguments.model,
        revision=arguments.revision,
        trust_remote_code=arguments.trust_remote_code,
    )
    rank = arguments.max_lora_rank
    adapters = {} if rank is None else lora_options(rank)
    model, tokenizer = load_outline(options)
    listening = listen(arguments.host, arguments.port)
    address = Address(*listening.getsockname()[:2])
    hello = {
        **identity(model, tokenizer),
        "dtype": arguments.dtype,
        "max_length": arguments.max_length or context_length(model.config),
        "block_size": arguments.block_size,
        "max_lora_rank": arguments.max_lora_rank,
    }
    server = Server(listening, token, hello)
    log.info("starting a vLLM engine (%s, %s) …", arguments.model, arguments.dtype)
    with tempfile.TemporaryDirectory(prefix="ebft-vllm-") as folder:
        save_config(model, folder)
        start = Start(
            folder=folder,
            dtype=arguments.dtype,
            max_length=arguments.max_length,
            kv_cache_bytes=int(arguments.kv_cache_gib * 2**30),
            block_size=arguments.block_size,
            options={**adapters, **arguments.engine_options},
        )
        try:
            engine = LocalEngine(start)
        except Exception as error:
            raise EngineError(f"the vLLM engine did not start: {first_line(error)}") from error
    log.info("serving %s at %s", arguments.model, address)
    server.work(engine)


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens. Raises `UserError` if the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(
            f"--host {host} --port {port}: cannot listen there: {why}; choose another"
        ) from error


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**16:
        raise argparse.ArgumentTypeError(f"{text}: a port is a number below 65536")
    return int(text)


def _positive(number: type[Any]) -> Any:
    def parse(text: str) -> Any:
        try:
            value = number(text)
        except ValueError:
            value = 0
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text}: not a number above 0")
        return value

    return parse


def _options(text: str) -> dict[str, Any]:
    from ebft_vllm.options import OURS

    try:
        options = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: not JSON: {error}") from error
    if not isinstance(options, dict):
        raise argparse.ArgumentTypeError(f'{text}: not an object, such as {{"key": 1}}')
    if taken := OURS & set(options):
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(taken))}: set by the server itself; use its own options"
        )
    return options


if __name__ == "__main__":
    sys.exit(main())
