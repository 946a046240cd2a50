"""Uploads a checkpoint to the Hugging Face Hub, or asks whether it may, in a process of its own.

Requests of huggingface_hub have no time limit, and its uploads run native code with threads. A
process can be ended at any moment, and neither a hang nor a crash in it reaches the run.

    python -m ebft.checkpoints.upload REQUEST

prints an `Answer` as JSON. It ends when standard input is closed, which happens when the run ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from tempfile import TemporaryFile
from typing import IO

from pydantic import TypeAdapter

from ebft.console import say
from ebft.errors import first_line
from ebft.files import parse_json, record

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json")
"""Files in the repository that are deleted unless the checkpoint has them too: weights of an
earlier upload in another number of files, or those of an adapter, would be loaded as well."""
POLL = 0.2
"""Seconds between checks of an upload that runs."""
REFUSED = {
    401: "the token is not valid; run `hf auth login` or set HF_TOKEN",
    403: "the token may not write there; give it the right to, or name another repository",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What is uploaded: a folder without the files that match the `excluded` patterns.

    Without a folder, the repository is made if there is none, and it is asked whether the token may
    write there.
    """

    repo: str
    private: bool
    folder: str | None = None
    excluded: tuple[str, ...] = ()
    message: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The address of the commit, or why the upload failed; of a request without a folder, why
    uploads would fail, or nothing.

    `refused` says that the token is why.
    """

    commit: str | None = None
    failure: str | None = None
    refused: bool = False


class Upload:
    """An upload that has been started. `answer` does not wait."""

    def __init__(self, request: Request, *, timeout: float) -> None:
        self._timeout, self._began = timeout, time.monotonic()
        self._errors = TemporaryFile()  # noqa: SIM115 — closed in `end`; a pipe could fill up
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ebft.checkpoints.upload", json.dumps(asdict(request))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # Otherwise a user's file datasets.py would be imported instead of the library.
            env={**os.environ, "PYTHONSAFEPATH": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
            # Otherwise Ctrl-C, which only stops the run after its step, would end the upload.
            start_new_session=True,
        )

    def answer(self) -> Answer | None:
        """Returns how the upload ended, or None while it runs. After the time limit it is ended."""
        if self._process.poll() is None:
            if time.monotonic() - self._began < self._timeout:
                return None
            self.end()
            return Answer(failure=f"it took longer than {self._timeout:g} s")
        assert self._process.stdout is not None
        said = _last_line(self._process.stdout)
        self._errors.seek(0)
        errors = _last_line(self._errors)
        self.end()
        try:
            return record(parse_json(said), TypeAdapter(Answer))
        except ValueError:
            how = f"its process ended with status {self._process.returncode}"
            return Answer(failure=f"{how}: {errors}" if errors else how)

    def wait(self) -> Answer:
        """Waits until the upload has ended, and returns how."""
        try:
            while (answer := self.answer()) is None:
                time.sleep(POLL)
            return answer
        finally:  # also if Ctrl-C ends the waiting
            self.end()

    def end(self) -> None:
        """Ends the process, if it has not ended."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None
            stream.close()


def upload(request: Request) -> Answer:
    """Makes the repository if there is none, and commits the folder's files, if there is one."""
    from huggingface_hub import HfApi

    api = HfApi(library_name="ebft")
    try:
        api.create_repo(request.repo, private=request.private, exist_ok=True)
        if request.folder is None:
            # Making a repository succeeds for one that is there, also if the token only reads.
            api.auth_check(request.repo, write=True)
            return Answer()
        commit = api.upload_folder(
            repo_id=request.repo,
            folder_path=request.folder,
            commit_message=request.message,
            ignore_patterns=list(request.excluded),
            delete_patterns=list(WEIGHTS),
        )
    except Exception as error:  # its own, those of httpx and of the native code
        return failed(error)
    return Answer(commit=commit.commit_url)


def failed(error: BaseException) -> Answer:
    """Returns the answer of an upload that failed, with the reason in one line."""
    from huggingface_hub.errors import HfHubHTTPError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            said = cause.server_message or first_line(cause)
            return Answer(
                failure=f"{status} {REFUSED.get(status, said)}", refused=status in REFUSED
            )
        cause = cause.__cause__
    return Answer(failure=f"{type(error).__name__}: {first_line(error)}")


def main(arguments: Sequence[str]) -> None:
    """Runs the upload that the only argument asks for."""
    fields = parse_json(arguments[0])
    request = Request(**{**fields, "excluded": tuple(fields["excluded"])})
    say(json.dumps(asdict(upload(request))))


def _last_line(stream: IO[bytes]) -> str:
    return stream.read().decode(errors="replace").strip().rpartition("\n")[2]


def _end_with_parent() -> None:
    # Not sys.stdin, because a thread that reads from it would crash the interpreter at exit.
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    main(sys.argv[1:])
