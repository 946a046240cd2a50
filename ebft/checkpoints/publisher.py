"""Uploads the checkpoints of a run while it trains, one at a time."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path

from pydantic import TypeAdapter

from ebft.checkpoints.folder import Checkpoints, step_of
from ebft.checkpoints.hub import HubOptions
from ebft.checkpoints.manifest import MANIFEST
from ebft.checkpoints.upload import POLL, Answer, Request, Upload
from ebft.errors import UserError
from ebft.files import parse_json, read_text, record, write_whole

ASKING = 15.0
"""Seconds after which a run begins although the hub has not said whether it may upload."""

log = logging.getLogger("ebft")


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The checkpoint that was uploaded last: a digest of its manifest, and how it was uploaded."""

    repo: str
    state: bool
    manifest: str
    commit: str


class Publisher:
    """Uploads checkpoints as `HubOptions` say; without options it does nothing.

    An upload is a process of its own, so training does not wait for it. If another checkpoint is
    saved meanwhile, it is uploaded afterwards; of several that wait, only the newest. `record` is
    the file that says what was uploaded last, so that a resumed run does not upload it again.
    A failed upload is only logged, and the next checkpoint is uploaded, also if it is not due.
    """

    def __init__(self, options: HubOptions | None, checkpoints: Checkpoints, record: Path) -> None:
        self._options, self._checkpoints, self._record = options, checkpoints, record
        self._running: tuple[Path, Upload] | None = None
        self._waiting: Path | None = None
        self._missing: Path | None = None
        self._failed = False

    def check_access(self) -> None:
        """Asks the hub, before a run, whether checkpoints can be uploaded; makes the repository.

        Raises `UserError` if the hub refuses the token. If it cannot be asked, that is only logged.
        """
        hub = self._options
        if hub is None:
            return
        log.info("asking the hub about %s …", hub.repo)
        answer = Upload(Request(hub.repo, hub.private), timeout=ASKING).wait()
        says = f"checkpoint.hub.repo = {hub.repo}"
        if answer.refused:
            raise UserError(
                f"{says}: nothing can be uploaded: {answer.failure}, or set checkpoint.hub=null"
            )
        if answer.failure is not None:
            log.warning(
                "%s: the hub did not say whether checkpoints can be uploaded (%s); the run begins, "
                "and uploads are tried",
                says, answer.failure,
            )  # fmt: skip

    def saved(self, checkpoint: Path, *, is_last: bool) -> None:
        """Uploads a checkpoint that has been saved, if that is due."""
        hub = self._options
        if hub is None:
            return
        is_due = hub.every is None or step_of(checkpoint) % hub.every == 0
        if not (is_due or is_last or self._failed) or self._is_uploaded(checkpoint, hub):
            return
        self._waiting = self._missing = checkpoint
        self.poll()

    def poll(self) -> None:
        """Logs how an upload has ended, and starts the next."""
        hub = self._options
        if hub is None:
            return
        if self._running is not None:
            checkpoint, upload = self._running
            if (answer := upload.answer()) is not None:
                self._running = None
                self._end(checkpoint, answer, hub)
        if self._running is None and self._waiting is not None:
            checkpoint, self._waiting = self._waiting, None
            self._running = (checkpoint, Upload(_request(checkpoint, hub), timeout=hub.timeout))
        self._hold()

    def finish(self) -> None:
        """Waits for the uploads, and says what is not on the hub."""
        if self._running is not None:
            log.info("waiting for the upload of %s …", self._running[0].name)
        while self._running is not None:
            time.sleep(POLL)
            self.poll()
        self.stop()

    def stop(self) -> None:
        """Ends an upload that runs, and says what is not on the hub. Further calls do nothing."""
        self._waiting = None
        self.poll()
        if self._running is not None:
            self._running[1].end()
            self._running = None
            self._hold()
        missing, self._missing = self._missing, None
        if missing is not None and self._options is not None:
            newest = self._checkpoints.saved()[-1]
            log.warning(
                "%s is not on the hub; upload it with: %s", newest, self._options.command(newest)
            )

    def _hold(self) -> None:
        running = [] if self._running is None else [self._running[0]]
        self._checkpoints.hold([*running, *([] if self._waiting is None else [self._waiting])])

    def _end(self, checkpoint: Path, answer: Answer, hub: HubOptions) -> None:
        self._failed = answer.commit is None
        if answer.commit is None:
            log.warning(
                "checkpoint.hub.repo = %s: %s was not uploaded (%s); the next checkpoint will "
                "be, if there is one",
                hub.repo, checkpoint.name, answer.failure,
            )  # fmt: skip
            return
        log.info("%s is on the hub: %s", checkpoint.name, answer.commit)
        uploaded = Uploaded(hub.repo, hub.state, digest_manifest(checkpoint), answer.commit)
        write_whole(self._record, dumps(asdict(uploaded), indent=1) + "\n")
        if checkpoint == self._missing:
            self._missing = None

    def _is_uploaded(self, checkpoint: Path, hub: HubOptions) -> bool:
        try:
            last = record(parse_json(read_text(self._record)), TypeAdapter(Uploaded))
        except FileNotFoundError:
            return False
        except ValueError as error:
            log.warning("%s is damaged (%s), so the checkpoint is uploaded", self._record, error)
            return False
        same = (hub.repo, hub.state, digest_manifest(checkpoint))
        return (last.repo, last.state, last.manifest) == same


def _request(checkpoint: Path, hub: HubOptions) -> Request:
    return Request(
        repo=hub.repo,
        private=hub.private,
        folder=str(checkpoint),
        excluded=hub.excluded,
        message=f"Step {step_of(checkpoint):,}",
    )


def digest_manifest(checkpoint: Path) -> str:
    """Returns a digest of the checksums of all files of a checkpoint."""
    return hashlib.sha256((checkpoint / MANIFEST).read_bytes()).hexdigest()
