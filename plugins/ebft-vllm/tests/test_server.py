"""A trainer and `ebft-vllm serve`: handshake, weights, samples, and what goes wrong.

The engine is computed by transformers, so vLLM is not needed.
"""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from ebft_vllm import Vllm, channel, identity
from ebft_vllm.channel import Address, Channel, read_token
from ebft_vllm.messages import Job, Request
from ebft_vllm.remote import RemoteEngine
from ebft_vllm.server import Server
from ebft_vllm.shared import open_weights
from transformers import AutoModelForCausalLM

from ebft.errors import EngineError, UserError
from ebft.models.lora import add_adapter, merged, without_adapter
from ebft.models.options import LoraOptions
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from tests.tiny import tiny_documents, tiny_tokenizer

CONTEXTS = Strided(start=40, stride=16, rollout_length=6)(tiny_documents([90, 70]))


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text("0123456789abcdef0123\n")
    return file


@pytest.fixture(scope="module")
def server(serve, token):
    return serve("--token-file", str(token))


@pytest.fixture(scope="module")
def lora_server(serve):
    return serve("--max-lora-rank", "4")


@pytest.fixture
def connect(server, token, make_policy, make_resources):
    """Builds a sampler that is connected to the server, until the end of the test."""
    built = []

    def connect(policy=None, resources=None, **options):
        policy = make_policy() if policy is None else policy
        options = {"address": server.address, "token_file": token, "timeout": 30.0,
                   "start_timeout": 30.0, "n": 3, **options}  # fmt: skip
        sampler = Vllm(engine="server", **options).build(resources or make_resources(policy))
        built.append(sampler)
        return sampler

    yield connect
    for sampler in built:
        sampler.engine.close()


def moved(policy, by=0.05):
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return policy


def moved_adapter(policy):
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.slow
class TestSampling:
    def test_weights_arrive_and_rollouts_are_those_of_the_policy(self, connect, policy):
        sampler = connect(policy, temperature=0.8)
        for step in range(2):
            moved(policy)
            assert sampler.probe(policy, step=step) > 0.05, "the engine is stale"
            assert sampler.sync(policy, step=step)["probe_gap"] < 1e-4
        rollouts = sampler(CONTEXTS, step=4)
        assert rollouts.tokens.shape == (len(CONTEXTS), 3, 6)
        assert torch.equal(sampler(CONTEXTS, step=4).tokens, rollouts.tokens)
        assert not torch.equal(sampler(CONTEXTS, step=5).tokens, rollouts.tokens)

    @pytest.mark.parametrize("sync", ["merged", "adapter"])
    def test_an_adapter_arrives(self, lora_server, connect, policy, sync):
        add_adapter(policy, LoraOptions(rank=4), seed=0)
        moved_adapter(policy)
        where = {"address": lora_server.address, "token_file": None}
        sampler = connect(policy, sync=sync, **where)
        sizes = []
        send = sampler.engine._channel.send_buffer
        sampler.engine._channel.send_buffer = lambda buffer: (
            sizes.append(len(buffer)),
            send(buffer),
        )
        for step in range(2):
            moved_adapter(policy)
            assert sampler.probe(policy, step=step) > 0.02, "the engine is stale"
            assert sampler.sync(policy, step=step)["probe_gap"] < 1e-4
        whole = sum(weight.nbytes for weight in merged(policy).state_dict().values())
        assert (sum(sizes) < whole) == (sync == "adapter")
        sampler.engine.close()
        # Of this run, nothing is left to the next one.
        assert connect(moved(without_adapter(policy)), **where).n == 3

    def test_a_server_or_a_policy_without_adapters(self, connect, lora_server, policy):
        with pytest.raises(UserError, match=r"sampler.sync = adapter: the policy has no adapter"):
            connect(policy, sync="adapter")
        add_adapter(policy, LoraOptions(rank=5), seed=0)
        with pytest.raises(UserError, match=r"takes no adapters; start `ebft-vllm serve --max-lor"):
            connect(policy, sync="adapter")
        with pytest.raises(UserError, match=r"takes adapters of rank 4 at most; .*-lora-rank 5"):
            connect(policy, sync="adapter", address=lora_server.address, token_file=None)

    def test_rollouts_end_with_end_of_sequence(self, connect):
        contexts = Completion(rollout_length=24)(tiny_documents([40] * 6, prompt_length=10))
        rollouts = connect()(contexts, step=0)
        lengths = rollouts.mask.sum(-1)
        assert (lengths < 24).any()
        last = rollouts.tokens.gather(-1, lengths[..., None] - 1)[..., 0]
        assert (last[lengths < 24] == 1).all()

    def test_the_server_says_how_long_a_context_may_be(self, serve, connect):
        small = serve("--max-length", "48")
        sampler = connect(address=small.address, token_file=None)
        with pytest.raises(UserError, match=r"sampler.max_length = 48: document doc0"):
            sampler(CONTEXTS, step=0)
        sampler.engine.close()
        for _ in range(2):  # the refused run leaves the server free
            with pytest.raises(
                UserError, match=r"max_length = 64: the server takes 48 tokens; set"
            ):
                connect(address=small.address, token_file=None, max_length=64)


@pytest.mark.slow
class TestRefusals:
    """One line each, before a step is made."""

    def test_another_token(self, connect, tmp_path):
        other = tmp_path / "other"
        other.write_text("another token, as long")
        for file in (other, None):
            with pytest.raises(
                UserError, match=r"^sampler.address = .*has another token, or none; set"
            ):
                connect(token_file=file)

    def test_another_model(self, connect, make_policy):
        config = make_policy().config
        config.rope_parameters = {"rope_type": "default", "rope_theta": 5e5}
        other = AutoModelForCausalLM.from_config(config).eval()
        with pytest.raises(UserError, match=r"another model: its rope_parameters.rope_theta is 10"):
            connect(other)

    def test_another_vocabulary(self, connect, policy, make_resources):
        resources = make_resources(policy)
        resources.tokenizer.add_tokens(["wor"])
        with pytest.raises(UserError, match="another vocabulary than the policy's tokenizer has"):
            connect(policy, resources)

    @pytest.mark.parametrize(("name", "value"), [("PROTOCOL", 99), ("VERSION", "0.0.9")])
    def test_another_version(self, connect, monkeypatch, name, value):
        monkeypatch.setattr(identity, name, value)
        with pytest.raises(
            UserError, match=f"the server runs ebft-vllm .* this .*{value}.*install"
        ):
            connect()

    def test_another_dtype(self, connect):
        with pytest.raises(UserError, match=r"weights are float32, .* bfloat16; start `ebft-vllm"):
            connect(dtype="bfloat16")

    def test_another_run(self, connect, monkeypatch):
        first = connect()
        with pytest.raises(EngineError, match=r"the vLLM server at .* already serves a run of 127"):
            connect()
        first.engine.close()
        connect()

    def test_no_server(self, connect):
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(EngineError, match=r"does not answer: Connection refused; start it"):
            connect(address=address, start_timeout=0.5)

    def test_another_program(self, connect):
        def talk(listening):
            while True:
                connected, _ = listening.accept()
                connected.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connected.close()

        with socket.create_server(("127.0.0.1", 0)) as listening:
            threading.Thread(target=talk, args=(listening,), daemon=True).start()
            address = f"127.0.0.1:{listening.getsockname()[1]}"
            with pytest.raises(EngineError, match=r"the vLLM server at .* does not answer: "):
                connect(address=address, start_timeout=0.1)

    def test_a_message_that_is_none(self, server, token):
        """It ends that connection, and no other."""
        for sent in (b"\x80\x04K\x01.", b"[]", b'["load", [["a", "load", [1]]]]', b'["open", 3]'):
            client = Channel(socket.create_connection(Address.parse(server.address)))
            client.limit(20)
            client.authenticate(read_token(token, says="token"), asks_first=False)
            client.receive()
            client._connection.send_bytes(sent)
            assert ended(client)
            client.close()


def ended(client):
    """Whether the other end closes the connection, after what it still says."""
    try:
        while True:
            client.receive()
    except BlockingIOError:
        return False
    except (EOFError, OSError):
        return True


class Engine:
    """Fails, hangs or is slow as it is told, and notes what it is asked."""

    def __init__(self):
        self.jobs, self.weights = [], {}
        self.free = threading.Event()
        self.free.set()
        self.fails = None

    def load_mapped(self, path, layout):
        with open_weights(path, layout) as weights:
            self.weights = {name: weight.clone() for name, weight in weights.items()}

    def sample_all(self, jobs):
        self.free.wait(60)
        if self.fails is not None:
            raise self.fails
        self.jobs.append([len(job.requests) for job in jobs])
        return [[[([1] * job.length, [-1.0] * job.length)] * job.n] * len(job.requests)
                for job in jobs]  # fmt: skip


class TestEngine:
    @pytest.fixture
    def engine(self):
        return Engine()

    @pytest.fixture
    def here(self, engine, policy):
        """The address of a server in this process."""
        hello = identity.identity(policy, tiny_tokenizer()) | {"dtype": "bfloat16"}
        listening = socket.create_server(("127.0.0.1", 0))
        server = Server(listening, b"", hello)
        threading.Thread(target=server.work, args=(engine,), daemon=True).start()
        return Address(*listening.getsockname())

    @pytest.fixture
    def client(self, here, policy):
        made = []

        def client(run=None, timeout=20.0):
            what = identity.identity(policy, tiny_tokenizer())
            made.append(RemoteEngine(here, b"", what, run=run, start_timeout=20, timeout=timeout))
            return made[-1]

        yield client
        for one in made:
            one.close()

    def test_weights_are_cast_and_arrive_bit_for_bit(self, engine, client, monkeypatch):
        monkeypatch.setattr(channel, "PIECE", 1000)
        one = client()
        weights = {"a": torch.randn(30, 50), "b.c": torch.arange(7), "d": torch.tensor(2.5),
                   "e": torch.randn(8, 6).T, "f": torch.tensor([True, False])}  # fmt: skip
        for scale in (1, 2):
            scaled = {name: weight * scale for name, weight in weights.items()}
            one.load(scaled)
            assert engine.weights.keys() == scaled.keys()
            for name, weight in scaled.items():
                expected = weight.bfloat16() if weight.is_floating_point() else weight
                assert torch.equal(engine.weights[name], expected)
                assert engine.weights[name].dtype == expected.dtype
        one.load({"other": torch.ones(3)})
        assert engine.weights.keys() == {"other"}

    def test_jobs_that_wait_together_are_sampled_together(self, engine, client):
        first = client()
        others = [client(first.run) for _ in range(3)]
        engine.free.clear()
        with ThreadPoolExecutor() as pool:
            begun = pool.submit(first.sample, job(2))
            time.sleep(0.5)  # it is being sampled
            rest = [pool.submit(other.sample, job(3 + i)) for i, other in enumerate(others)]
            time.sleep(1.0)
            engine.free.set()
            assert len(begun.result()) == 2
            assert [len(one.result()) for one in rest] == [3, 4, 5]
        assert engine.jobs[0] == [2]
        assert sorted(n for jobs in engine.jobs[1:] for n in jobs) == [3, 4, 5]
        assert len(engine.jobs) <= 3

    def test_a_failure_is_told_and_the_next_request_answered(self, engine, client):
        one = client()
        engine.fails = RuntimeError("no memory\nmore")
        with pytest.raises(EngineError, match=r"failed at `sample`: no memory$"):
            one.sample(job(1))
        engine.fails = None
        assert len(one.sample(job(1))) == 1

    def test_one_that_hangs_is_left_in_time(self, engine, client):
        one = client(timeout=0.5)
        engine.free.clear()
        with pytest.raises(EngineError, match=r"did not answer `sample` in time.*sampler.timeout"):
            one.sample(job(1))
        # Its run has ended, so the next one is served as soon as the engine is free.
        engine.free.set()
        assert len(client().sample(job(1))) == 1

    def test_a_process_of_a_run_that_has_ended_is_refused(self, client):
        one = client()
        one.close()
        with pytest.raises(EngineError, match="has ended this run"):
            client(one.run)


def job(count):
    return Job([Request([1, 2, 3], seed) for seed in range(count)], 2, 4, 1.0, None)
