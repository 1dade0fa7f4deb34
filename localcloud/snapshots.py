"""moto's in-memory state across restarts.

Every changed service is pickled and all of them are replaced in one SQLite transaction, a fraction of a second after the change and at shutdown: after
kill -9 each service is as it was at one moment, never half of it. S3 object bodies are not in the pickle but in `blobs/`, one file per distinct content,
written (and renamed into place) before the snapshot that refers to it. The pickles are this process's own, in the user's own state folder; nothing from
elsewhere is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import pickle
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moto.core.base_backend import BackendDict, BaseBackend
from moto.logs.models import LogStream
from moto.s3.models import FakeKey
from moto.settings import get_s3_default_key_buffer_size

from localcloud.database import Database
from localcloud.errors import LocalCloudError
from localcloud.log_chunks import Chunk, new_stream, restore_stream, stream_state

log = logging.getLogger(__name__)

#: Seconds between a change and its snapshot; a burst of changes shares one.
DELAY_SECONDS = 0.2
#: Seconds until a snapshot that could not be written is tried again.
RETRY_SECONDS = 2.0
#: Changed by other services' work inside the process as well, and small: saved whenever anything is.
_ALWAYS = ("sqs", "sns")
#: moto services that are kept. localcloud's own services keep their state in the database themselves.
KEPT = ("s3", "iam", "sts", "logs", "sqs", "sns", "ssm", "kms", "secretsmanager", "ecr")

_LOCK_TYPES = (type(threading.Lock()), type(threading.RLock()))


class Snapshots:
    """Saves and restores moto's backends."""

    def __init__(self, database: Database, state_dir: Path) -> None:
        self._database = database
        self._blobs = state_dir / "blobs"
        self._dirty: set[str] = set()
        self._digests: dict[str, str] = {}
        self._wake = threading.Condition()
        self._write_lock = threading.Lock()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def mark_dirty(self, service: str) -> None:
        """Schedule a snapshot of a moto service (its moto name, e.g. "s3")."""
        if service not in KEPT or service in self._dirty:
            return
        with self._wake:
            self._dirty.add(service)
            self._wake.notify()

    def start(self) -> None:
        """Begin saving in the background."""
        self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Save what is left and end."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
        self.flush(everything=True)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._dirty or self._stopping)
                if self._stopping:
                    return
                # Gather a burst; a stop request ends the wait at once.
                self._wake.wait_for(lambda: self._stopping, DELAY_SECONDS)
            began = time.monotonic()
            try:
                self.flush()
            except (OSError, LocalCloudError) as error:
                # The old state stays on disk; what is new is tried again until there is room.
                log.error("%s", error)
                with self._wake:
                    self._dirty.update(KEPT)
                    self._wake.wait_for(lambda: self._stopping, RETRY_SECONDS)
            # Never spend more than about a fifth of the time on saving.
            with self._wake:
                self._wake.wait_for(lambda: self._stopping, 4 * (time.monotonic() - began))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Take no snapshot meanwhile: of what is written inside, after kill -9, either everything is there or nothing."""
        with self._write_lock:
            yield

    def flush(self, everything: bool = False) -> None:
        """Save every changed service now; returns when it is on disk."""
        with self._write_lock:
            with self._wake:
                names = set(KEPT) if everything else self._dirty | set(_ALWAYS)
                self._dirty = set()
            bodies: dict[str, bytes] = {}
            digests: dict[str, str] = {}
            for name in sorted(names):
                body = self._dump(name)
                if body is not None:
                    digest = hashlib.sha256(body).hexdigest()
                    if self._digests.get(name) != digest:
                        bodies[name] = body
                        digests[name] = digest
            if bodies:
                self._database.write_snapshots(bodies)
                self._digests |= digests

    def _dump(self, service: str) -> bytes | None:
        backends = _backend_dict(service)
        if backends is None:
            return None
        state = {
            (account, region): backend.__dict__ for account, regions in list(backends.items()) for region, backend in list(regions.items())
        }
        for attempt in range(20):
            buffer = io.BytesIO()
            try:
                _Pickler(buffer, self._blobs).dump(state)
            except RuntimeError:
                # A dict changed size under the pickler: another thread is writing. Its own change schedules nothing new, so try again here.
                time.sleep(0.005 * (attempt + 1))
                continue
            except (AttributeError, TypeError, pickle.PicklingError):
                # One service must not keep the others from being saved; its own last snapshot stays.
                log.exception("moto's state of %s cannot be saved", service)
                return None
            return buffer.getvalue()
        with self._wake:
            self._dirty.add(service)
        return None

    def load(self) -> None:
        """Restore every saved service into moto, and drop blobs that nothing refers to.

        Raises:
            LocalCloudError: What was saved cannot be read (a part of the state folder is missing or damaged).
        """
        used: set[str] = set()
        for service, body in self._database.read_snapshots().items():
            backends = _backend_dict(service, create=True)
            if backends is None:
                continue
            try:
                state = _Unpickler(io.BytesIO(body), self._blobs, used).load()
            except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ImportError, LookupError, TypeError, ValueError) as error:
                raise LocalCloudError(
                    f"The saved state of {service} in {self._blobs.parent} is damaged: {error}. Restore the folder, or move it away to start afresh."
                ) from error
            for (account, region), attributes in state.items():
                _restore(backends[account][region].__dict__, attributes)
            self._digests[service] = hashlib.sha256(body).hexdigest()
        if self._blobs.is_dir():
            for path in self._blobs.iterdir():
                if path.name not in used:
                    path.unlink()


def _backend_dict(service: str, create: bool = False) -> BackendDict[Any] | None:
    # Asking moto for a service imports it; one that nobody used has no state.
    if not create and f"moto.{service}.models" not in sys.modules:
        return None
    from moto import backends

    found: BackendDict[Any] = backends.get_backend(service)  # type: ignore[call-overload]
    return found if create or found else None


class _Pickler(pickle.Pickler):
    """Pickles a backend's attributes: other backends by name, locks as fresh ones, object bodies as blob files."""

    def __init__(self, file: io.BytesIO, blobs: Path) -> None:
        super().__init__(file, protocol=5)
        self._blobs = blobs

    def persistent_id(self, obj: Any) -> tuple[str, ...] | None:
        if isinstance(obj, BaseBackend):
            return ("backend", type(obj).__module__.split(".")[1], obj.account_id, obj.region_name)
        # A lock that two places share must be one lock again, so that it is known by its identity.
        if isinstance(obj, threading.Condition):
            return ("Condition", str(id(obj)))
        if isinstance(obj, _LOCK_TYPES):
            return ("RLock" if isinstance(obj, _LOCK_TYPES[1]) else "Lock", str(id(obj)))
        if isinstance(obj, tempfile.SpooledTemporaryFile):
            return ("blob", self._store(obj))
        if isinstance(obj, Chunk):
            if not obj.blob:
                obj.blob, obj.content = self._write(obj.content), b""
            return ("events", obj.blob)
        return None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, FakeKey):
            # FakeKey's own __getstate__ would put the whole body into the pickle, every time.
            return (_new_key, (), obj.__dict__, None, None, _set_attributes)
        if isinstance(obj, LogStream):
            return (new_stream, (), stream_state(obj), None, None, restore_stream)
        if isinstance(obj, defaultdict) and "<locals>" in getattr(obj.default_factory, "__qualname__", ""):
            # SSM's tags; `_restore` puts the items into the one that the backend makes with its own lambda.
            return (dict, (), None, None, iter(obj.items()))
        if isinstance(obj, defaultdict) and type(obj) is not defaultdict:
            # SSM's parameters; pickle would make one with defaultdict's arguments.
            return (_new_default_dict, (type(obj), obj.default_factory), obj.__dict__, None, iter(obj.items()), _set_attributes)
        if hasattr(obj, "private_bytes") and not isinstance(obj, type):
            # A KMS key's private key is OpenSSL's object, which pickle cannot take.
            from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

            return (_load_private_key, (obj.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),))
        return NotImplemented

    def _store(self, body: tempfile.SpooledTemporaryFile[bytes]) -> str:
        # moto makes a new buffer for every new object and never rewrites one, so that a buffer is read and hashed once.
        known: str | None = body.__dict__.get("localcloud_blob")
        if known is not None:
            return known
        content = b""
        if not body.closed:  # those of the parts of an upload are closed when it is complete, and are still there
            body.seek(0)
            content = body.read()
        name = body.__dict__["localcloud_blob"] = self._write(content)
        return name

    def _write(self, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        path = self._blobs / name
        if not path.exists():
            self._blobs.mkdir(exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._blobs)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                os.replace(temporary, path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        return name


def _new_key() -> FakeKey:
    key: FakeKey = object.__new__(FakeKey)
    # Its finaliser asks for this, and runs also when a damaged file ends the loading before the attributes are set.
    key.disposed = True
    return key


def _restore(backend: dict[str, Any], attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        if isinstance(backend.get(name), defaultdict) and not isinstance(value, defaultdict):
            backend[name].update(value)
        else:
            backend[name] = value


def _new_default_dict(cls: type[defaultdict[Any, Any]], factory: Any) -> defaultdict[Any, Any]:
    instance = cls.__new__(cls)
    instance.default_factory = factory
    return instance


def _load_private_key(der: bytes) -> Any:
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    return load_der_private_key(der, None)


def _set_attributes(instance: Any, attributes: dict[str, Any]) -> None:
    instance.__dict__.update(attributes)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, blobs: Path, used: set[str]) -> None:
        super().__init__(file)
        self._blobs = blobs
        self._used = used
        self._locks: dict[tuple[str, ...], Any] = {}

    def persistent_load(self, pid: tuple[str, ...]) -> Any:
        kind, *rest = pid
        if kind == "backend":
            service, account, region = rest
            backends = _backend_dict(service, create=True)
            assert backends is not None
            return backends[account][region]
        if kind == "blob":
            self._used.add(rest[0])
            body: Any = tempfile.SpooledTemporaryFile(get_s3_default_key_buffer_size())  # noqa: SIM115 (lives as long as the object)
            body.write((self._blobs / rest[0]).read_bytes())
            body.__dict__["localcloud_blob"] = rest[0]
            return body
        if kind == "events":
            self._used.add(rest[0])
            return Chunk(rest[0], (self._blobs / rest[0]).read_bytes())
        return self._locks.setdefault(pid, {"Condition": threading.Condition, "RLock": threading.RLock, "Lock": threading.Lock}[kind]())
