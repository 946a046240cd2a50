"""A Hugging Face Hub on this machine: the requests of `huggingface_hub`, answered over HTTP.

Files are kept in memory by the repository that they were committed to. Large ones come as on the
hub, through Git LFS: a batch request, an upload of the content and its verification.
"""

import base64
import hashlib
import json
import re
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

TOKEN = "hf_of_the_tests"
LARGE = ("*.safetensors",)
"""Patterns of the files that come through Git LFS."""
REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)


class Hub:
    """A hub with its repositories. Of the requests whose path matches `where`, the next `times` get
    the status `fails`; with the status "hang" they get no answer until `open`, and then the usual
    one."""

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.large = LARGE
        self.fails, self.where, self.times = None, "", 0
        self.opened = threading.Event()

    def fail(self, status, where="", times=10**6):
        self.fails, self.where, self.times = status, where, times

    def open(self):
        """Answers the requests that have waited."""
        self.times = 0
        self.opened.set()

    def failure(self, path):
        if self.times == 0 or not re.search(self.where, path):
            return None
        self.times -= 1
        return self.fails


class Server(ThreadingHTTPServer):
    """Says nothing of a client that has ended before it was answered."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(hub: Hub):
    """Serves a hub on a free port of this machine; yields its address."""

    class Handler(Answers):
        pass

    Handler.hub = hub
    server = Server(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield hub.address
    finally:
        hub.open()
        server.shutdown()
        thread.join()
        server.server_close()


class Answers(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_given):
        pass

    def handle_any(self):
        path, _, _ = self.path.partition("?")
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.requests.append(f"{self.command} {path}")
        failure = self.hub.failure(path)
        if failure == "hang":
            self.hub.opened.wait()
        elif failure is not None:
            self.answer({"error": f"refused with {failure}"}, failure)
            return
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and not path.startswith("/lfs"):
            self.answer({"error": "Invalid username or password."}, 401)
            return
        for command, pattern, method in ROUTES:
            found = re.fullmatch(pattern, path)
            if command == self.command and found is not None:
                method(self, content, **found.groupdict())
                return
        self.answer({"error": f"no such address: {self.command} {path}"}, 404)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def answer(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": len(body)} | headers
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def create(self, content):
        asked = json.loads(content)
        repo = f"{asked['organization']}/{asked['name']}"
        there = repo in self.hub.repositories
        private = asked.get("private", asked.get("visibility") == "private")
        self.hub.repositories.setdefault(repo, Repository(private))
        self.answer({"url": f"{self.hub.address}/{repo}"}, 409 if there else 200)

    def validate(self, content):
        """The metadata at the top of a model card must be YAML."""
        _, metadata, _ = json.loads(content)["content"].split("---\n", 2)
        found = yaml.safe_load(metadata)
        errors = [] if isinstance(found, dict) else [{"message": "not a mapping"}]
        self.answer({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, content, repo):
        there = self.hub.repositories[repo].files
        files = []
        for file in json.loads(content)["files"]:
            large = any(fnmatch(file["path"], pattern) for pattern in self.hub.large)
            known = there.get(file["path"])
            files.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": False,
                    "oid": None if known is None else oid(known, large),
                }
            )
        self.answer({"files": files})

    def batch(self, content, repo):
        objects = []
        for wanted in json.loads(content)["objects"]:
            actions = {
                "upload": {"href": f"{self.hub.address}/lfs/{wanted['oid']}"},
                "verify": {"href": f"{self.hub.address}/lfs/verify"},
            }
            there = wanted["oid"] in self.hub.stored
            objects.append(wanted | ({} if there else {"actions": actions}))
        self.answer({"transfer": "basic", "objects": objects})

    def store(self, content, key):
        same = hashlib.sha256(content).hexdigest() == key
        if same:
            self.hub.stored[key] = content
        self.answer({}, 200 if same else 400)

    def verify(self, content):
        wanted = json.loads(content)
        whole = len(self.hub.stored.get(wanted["oid"], b"")) == wanted["size"]
        self.answer({}, 200 if whole else 404)

    def commit(self, content, repo):
        repository = self.hub.repositories[repo]
        for line in map(json.loads, content.splitlines()):
            value = line["value"]
            match line["key"]:
                case "header":
                    repository.commits.append(value["summary"])
                case "file":
                    repository.files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    repository.files[value["path"]] = self.hub.stored[value["oid"]]
                case "deletedFile":
                    del repository.files[value["path"]]
        number = f"{len(repository.commits):040x}"
        url = f"{self.hub.address}/{repo}/commit/{number}"
        self.answer({"success": True, "commitOid": number, "commitUrl": url, "hookOutput": ""})

    def tree(self, _content, repo):
        files = self.hub.repositories[repo].files
        self.answer(
            [
                {"type": "file", "path": path, "size": len(found), "oid": oid(found, False)}
                for path, found in files.items()
            ]
        )

    def info(self, _content, repo):
        if (found := self.hub.repositories.get(repo)) is None:
            self.answer({}, 404, **{"X-Error-Code": "RepoNotFound"})
            return
        self.answer(
            {
                "id": repo,
                "sha": f"{len(found.commits):040x}",
                "private": found.private,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": name} for name in found.files],
            }
        )

    def may_write(self, _content, repo):
        self.answer({}, 200 if repo in self.hub.repositories else 404)

    def resolve(self, _content, repo, name):
        if (repository := self.hub.repositories.get(repo)) is None:
            self.answer({}, 404, **{"X-Error-Code": "RepoNotFound"})
            return
        if (found := repository.files.get(name)) is None:
            self.answer({}, 404, **{"X-Error-Code": "EntryNotFound"})
            return
        number = f"{len(repository.commits):040x}"
        known = {"ETag": f'"{oid(found, True)}"', "X-Repo-Commit": number}
        self.answer(found, **known, **{"Content-Type": "application/octet-stream"})


def oid(content: bytes, large: bool) -> str:
    """How the hub names a file's content: as Git LFS does, or as Git does."""
    if large:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


ROUTES = [
    ("POST", "/api/repos/create", Answers.create),
    ("POST", "/api/validate-yaml", Answers.validate),
    ("POST", f"/api/models/{REPO}/preupload/main", Answers.preupload),
    ("POST", f"/{REPO}.git/info/lfs/objects/batch", Answers.batch),
    ("PUT", r"/lfs/(?P<key>[0-9a-f]+)", Answers.store),
    ("POST", "/lfs/verify", Answers.verify),
    ("POST", f"/api/models/{REPO}/commit/main", Answers.commit),
    ("GET", f"/api/models/{REPO}/tree/main", Answers.tree),
    ("GET", f"/api/models/{REPO}/auth-check/write", Answers.may_write),
    ("GET", f"/api/models/{REPO}(/revision/main)?", Answers.info),
    ("GET", rf"/{REPO}/resolve/\w+/(?P<name>.+)", Answers.resolve),
    ("HEAD", rf"/{REPO}/resolve/\w+/(?P<name>.+)", Answers.resolve),
]
