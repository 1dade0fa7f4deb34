"""The program that serves one model, as the SageMaker PyTorch inference container does: ``GET /ping`` and ``POST /invocations``.

It runs in a process of its own, started by `servers.ModelServer`, and imports nothing of localcloud: what it costs is the interpreter and the user's script.

The script (``SAGEMAKER_PROGRAM`` in ``SAGEMAKER_SUBMIT_DIRECTORY``) has ``model_fn(model_dir)`` and either ``transform_fn(model, body, content_type, accept)`` or any of
``input_fn(body, content_type)``, ``predict_fn(data, model)``, ``output_fn(prediction, accept)``; each may take a ``context`` as one more argument. Requests are handled
one at a time: the container gives each of its workers one, and handlers count on it.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import logging
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JSON, CSV, NPY = "application/json", "text/csv", "application/x-npy"
#: The toolkit hands bodies of these types to input_fn as str.
_TEXT_TYPES = (JSON, CSV)
_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
#: Where the listening socket's descriptor is named.
SOCKET_VARIABLE = "LOCALCLOUD_SERVER_SOCKET"

log = logging.getLogger("model_server")


class RequestRefused(Exception):
    """Indicates that a request is answered with an error status; the attributes are those of the toolkit's BaseInferenceToolkitError."""

    def __init__(self, status_code: int, message: str) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.message = message


class Context:
    """What handlers that ask for a context get: the request's headers, and a way to set the response's."""

    def __init__(self, model_dir: str, headers: dict[str, str]) -> None:
        self.system_properties = {"model_dir": model_dir, "gpu_id": None, "batch_size": 1}
        self._headers = headers
        self.response_headers: dict[str, str] = {}

    def get_request_header(self, _index: int, name: str) -> str | None:
        """Return a request header, None when it was not sent."""
        return self._headers.get(name.lower())

    def get_all_request_header(self, _index: int) -> dict[str, str]:
        """Return every request header, by lower-case name."""
        return dict(self._headers)

    def set_response_header(self, _index: int, name: str, value: str) -> None:
        """Set a response header."""
        self.response_headers[name] = value


@dataclass(frozen=True)
class Answer:
    """A response of /invocations."""

    status: int
    body: bytes
    content_type: str
    headers: dict[str, str]


class Model:
    """The user's script with its loaded model.

    Args:
        program: The script's file name.
        code_dir: Its folder.
        model_dir: The model's folder.
    """

    def __init__(self, program: str, code_dir: str, model_dir: str) -> None:
        sys.path.insert(0, code_dir)
        self._script = importlib.import_module(os.path.splitext(program)[0].replace("/", "."))
        self._model_dir = model_dir
        self._transform = self._handler("transform_fn", None)
        if self._transform is not None and any(hasattr(self._script, name) for name in ("input_fn", "predict_fn", "output_fn")):
            raise ValueError(f"{program} has transform_fn and one of input_fn, predict_fn, output_fn: it can have the one or the others")
        self._input = self._handler("input_fn", default_input_fn)
        self._predict = self._handler("predict_fn", default_predict_fn)
        self._output = self._handler("output_fn", default_output_fn)
        load = self._handler("model_fn", None)
        if load is None:
            raise NotImplementedError(f"{program} has no model_fn(model_dir), which loads the model")
        self._lock = threading.Lock()
        self._loaded = _call(load, (model_dir,), Context(model_dir, {}))

    def _handler(self, name: str, default: Callable[..., Any] | None) -> Callable[..., Any] | None:
        return getattr(self._script, name, default)

    def invoke(self, body: bytes, headers: dict[str, str]) -> Answer:
        """Answer a request; an exception of the script becomes an error response with its message and traceback, as in the container."""
        context = Context(self._model_dir, headers)
        try:
            with self._lock:
                result = self._run(body, headers, context)
            content, content_type = result if isinstance(result, tuple) else (result, _accept(headers))
            return Answer(200, _bytes(content), content_type, context.response_headers)
        except Exception as error:  # the script's, whatever it is
            status = getattr(error, "status_code", None)
            message = getattr(error, "message", None)
            if not isinstance(status, int) or not isinstance(message, str):
                status, message = 500, str(error)
            log.exception("%s", message)
            return Answer(status, f"{message}\n{traceback.format_exc()}".encode(), "text/plain", context.response_headers)

    def _run(self, body: bytes, headers: dict[str, str], context: Context) -> Any:
        content_type, accept = headers.get("content-type", JSON), _accept(headers)
        data = body.decode("utf-8") if content_type in _TEXT_TYPES else body
        if self._transform is not None:
            return _call(self._transform, (self._loaded, data, content_type, accept), context)
        assert self._input is not None
        assert self._predict is not None
        assert self._output is not None
        decoded = _call(self._input, (data, content_type), context)
        return _call(self._output, (_call(self._predict, (decoded, self._loaded), context), accept), context)


def _accept(headers: dict[str, str]) -> str:
    accept = headers.get("accept", "")
    return JSON if accept in ("", "*/*") else accept


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], context: Context) -> Any:
    """Call a handler, with the context when it takes one argument more."""
    try:
        takes = len(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        takes = len(arguments)
    return function(*arguments, context) if takes == len(arguments) + 1 else function(*arguments)


def _bytes(content: Any) -> bytes:
    if isinstance(content, str):
        return content.encode()
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content)
    if isinstance(content, io.BytesIO):
        return content.getvalue()
    raise TypeError(f"the handler returned {type(content).__name__} as a body; it must be str or bytes")


def default_input_fn(data: Any, content_type: str) -> Any:
    """Decode JSON, CSV or NumPy's format into a torch tensor (float32 unless NumPy says otherwise), as the PyTorch container does."""
    import numpy as np
    import torch

    if content_type == JSON:
        return torch.tensor(np.array(json.loads(data), dtype=np.float32))
    if content_type == CSV:
        return torch.tensor(np.genfromtxt(io.StringIO(data), dtype=np.float32, delimiter=","))
    if content_type == NPY:
        return torch.from_numpy(np.load(io.BytesIO(data), allow_pickle=False))
    raise RequestRefused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content type {content_type} is not supported by this framework.")


def default_predict_fn(data: Any, model: Any) -> Any:
    """Call the model, without gradients."""
    import torch

    with torch.no_grad():
        return model(data)


def default_output_fn(prediction: Any, accept: str) -> tuple[bytes | str, str]:
    """Encode a tensor or array as JSON, CSV or in NumPy's format."""
    import numpy as np

    array = np.asarray(prediction.detach().cpu().numpy() if hasattr(prediction, "detach") else prediction)
    if accept == JSON:
        return json.dumps(array.tolist()), accept
    buffer = io.BytesIO()
    if accept == CSV:
        np.savetxt(buffer, array, delimiter=",", fmt="%s")
        return buffer.getvalue(), accept
    if accept == NPY:
        np.save(buffer, array, allow_pickle=False)
        return buffer.getvalue(), accept
    raise RequestRefused(HTTPStatus.NOT_ACCEPTABLE, f"Content type {accept} is not supported by this framework.")


def handler_for(model: Model) -> type[BaseHTTPRequestHandler]:
    """Return the HTTP handler of a model."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body of an answer in one packet.
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if self.path == "/ping":
                self._answer(Answer(200, b"", "application/json", {}))
            else:
                self._answer(Answer(404, b"", "text/plain", {}))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path != "/invocations":
                self._answer(Answer(404, b"", "text/plain", {}))
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._answer(model.invoke(body, headers))

        def _answer(self, answer: Answer) -> None:
            self.send_response_only(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)
            self.wfile.flush()

    return Handler


class Server(ThreadingHTTPServer):
    """Serves on a socket that localcloud bound and passed on, so that no request is refused while the model loads."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(listener.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def server_bind(self) -> None:
        """Leave the socket as it is; the base class would look up this machine's name."""


def main() -> None:
    """Load the model, then serve until the process is killed."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    listener = socket.socket(fileno=int(os.environ.pop(SOCKET_VARIABLE)))
    # What the script starts must not keep the socket open when this process is gone.
    listener.set_inheritable(False)
    model = Model(os.environ["SAGEMAKER_PROGRAM"], os.environ["SAGEMAKER_SUBMIT_DIRECTORY"], os.environ["SM_MODEL_DIR"])
    Server(listener, handler_for(model)).serve_forever()


if __name__ == "__main__":
    main()
