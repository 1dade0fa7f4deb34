"""The conventions of the SageMaker PyTorch inference container, as the model server keeps them."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcloud.sagemaker.model_server import Answer, Model
from localcloud.sagemaker.servers import missing_requirements

_numbers = itertools.count()
LOAD = "def model_fn(model_dir): return 'model of ' + model_dir.rpartition('/')[2]\n"


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[[str], Model]]:
    path, modules = list(sys.path), set(sys.modules)

    def make(script: str) -> Model:
        name = f"handlers_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(script)
        return Model(f"{name}.py", str(tmp_path), "/some/where")

    yield make
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("handlers_"):
            del sys.modules[name]


def ask(model: Model, body: bytes = b"body", **headers: str) -> Answer:
    return model.invoke(body, {name.replace("_", "-"): value for name, value in headers.items()})


def test_the_handlers_are_called_in_turn(load: Callable[[str], Model]) -> None:
    model = load(
        LOAD
        + "import json\n"
        + "def input_fn(body, content_type): return [body.decode(), content_type]\n"
        + "def predict_fn(data, model): return [*data, model]\n"
        + "def output_fn(prediction, accept): return json.dumps([*prediction, accept]), 'x/y'\n"
    )
    answer = ask(model, content_type="image/png", accept="application/json")
    assert (answer.status, answer.content_type) == (200, "x/y")
    assert json.loads(answer.body) == ["body", "image/png", "model of where", "application/json"]


def test_transform_fn_does_all_of_it(load: Callable[[str], Model]) -> None:
    answer = ask(
        load(LOAD + "def transform_fn(model, body, content_type, accept): return body + b'!', accept\n"), content_type="a/b", accept="c/d"
    )
    assert (answer.body, answer.content_type) == (b"body!", "c/d")


def test_json_and_csv_arrive_as_text_and_anything_goes_without_accept(load: Callable[[str], Model]) -> None:
    model = load(LOAD + "def transform_fn(model, body, content_type, accept): return f'{type(body).__name__} {content_type}'\n")
    assert ask(model, content_type="text/csv").body == b"str text/csv"
    assert ask(model, content_type="image/png").body == b"bytes image/png"
    without = ask(model, accept="*/*")
    assert (without.body, without.content_type) == (b"str application/json", "application/json")


def test_a_context_is_given_to_handlers_that_take_one(load: Callable[[str], Model]) -> None:
    model = load(
        "def model_fn(model_dir, context): return context.system_properties['model_dir']\n"
        "def transform_fn(model, body, content_type, accept, context):\n"
        "    context.set_response_header(0, 'X-Test', context.get_request_header(0, 'X-Amzn-SageMaker-Custom-Attributes'))\n"
        "    return model\n"
    )
    answer = model.invoke(b"", {"x-amzn-sagemaker-custom-attributes": "trace"})
    assert (answer.body, answer.headers) == (b"/some/where", {"X-Test": "trace"})


@pytest.mark.parametrize(
    ("raised", "status", "first_line"),
    [
        ("ValueError('broken')", 500, "broken"),
        ("Refused(415, 'send a png')", 415, "send a png"),
        ("Refused('415', 'not a status')", 500, "('415', 'not a status')"),
    ],
)
def test_an_exception_becomes_a_status_with_message_and_traceback(
    load: Callable[[str], Model], raised: str, status: int, first_line: str
) -> None:
    model = load(
        LOAD
        + "class Refused(Exception):\n    def __init__(self, code, message):\n        self.status_code, self.message = code, message\n"
        + f"def transform_fn(model, body, content_type, accept): raise {raised}\n"
    )
    answer = ask(model)
    lines = answer.body.decode().splitlines()
    assert (answer.status, lines[0]) == (status, first_line)
    assert lines[1].startswith("Traceback")


def test_the_defaults_decode_and_encode_arrays(load: Callable[[str], Model]) -> None:
    model = load("def model_fn(model_dir): return lambda tensor: tensor * 2\n")
    assert json.loads(ask(model, b"[[1, 2], [3, 4]]", content_type="application/json").body) == [[2, 4], [6, 8]]
    assert ask(model, b"1,2\n3,4\n", content_type="text/csv", accept="text/csv").body == b"2.0,4.0\n6.0,8.0\n"
    assert ask(model, b"x", content_type="image/png").status == 415
    assert ask(model, b"[1]", accept="image/png").status == 406


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("def input_fn(body, content_type): return body\n", "has no model_fn"),
        (LOAD + "def transform_fn(*a): pass\ndef predict_fn(*a): pass\n", "it can have the one or the others"),
    ],
)
def test_scripts_that_cannot_serve_are_refused_when_they_are_loaded(load: Callable[[str], Model], script: str, reason: str) -> None:
    with pytest.raises((ValueError, NotImplementedError), match=reason):
        load(script)


def test_requirements_that_are_not_there_are_named() -> None:
    text = "# comment\n\npytest>=1  # fine\npytest>=9999\nno-such-package-anywhere\nwinonly; sys_platform == 'win32'\n--index-url x\n"
    assert missing_requirements(text) == ["pytest>=9999", "no-such-package-anywhere"]
