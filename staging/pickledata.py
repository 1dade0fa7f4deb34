"""Read plain data out of a pickle without unpickling it.

CIFAR's "python version" is a pickle, and loading a pickle runs whatever it says. Here its opcodes are read as a notation for data: lists,
dictionaries, numbers, strings, and numpy arrays of bytes, which the notation spells as calls of three numpy names. Those calls are
recognised and recorded, nothing is imported and nothing is called; any other opcode or name is refused. Covers what Python 2's pickle
protocols 0 to 2 write.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import IO, Any

_ARRAY_NAMES = {
    "numpy.core.multiarray _reconstruct",
    "numpy._core.multiarray _reconstruct",
    "numpy ndarray",
    "numpy dtype",
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = frozenset(
    {
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "BINUNICODE",
    }
)
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})


class PickleDataError(ValueError):
    """Indicates a pickle that is damaged or says more than plain data."""


@dataclass(slots=True)
class ByteArray:
    """A numpy array of unsigned bytes: its shape, and its content in C order."""

    shape: tuple[int, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class _Name:
    name: str


@dataclass(slots=True)
class _Call:
    """A recorded, never performed, call; `state` is what BUILD gave it."""

    name: str
    state: Any = None


class _Mark:
    """Where a tuple, list or dictionary begins on the stack."""


def read_pickle_data(stream: IO[bytes]) -> Any:
    """Read one pickle from a binary stream.

    Python 2 strings are given as str, one character per byte (latin-1). Arrays come as ByteArray. Raises PickleDataError for anything else
    than data.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return _plain(stack.pop())
            _step(opcode.name, argument, stack, memo)
    except PickleDataError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise PickleDataError(f"damaged: {error}") from error
    raise PickleDataError("damaged: it ends before its end mark")


def _step(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    if name in _VALUES:
        stack.append(argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in _PUTS:
        memo[int(argument)] = stack[-1]
    elif name in _GETS:
        stack.append(memo[int(argument)])
    elif name == "MARK":
        stack.append(_Mark())
    elif name in ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE"):
        stack.append({"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}[name]())
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        count = int(name[-1])
        items = stack[-count:]
        del stack[-count:]
        stack.append(tuple(items))
    elif name in ("TUPLE", "LIST", "DICT"):
        items = _since_mark(stack)
        stack.append(tuple(items) if name == "TUPLE" else items if name == "LIST" else _pairs(items))
    elif name in ("APPEND", "APPENDS"):
        items = [stack.pop()] if name == "APPEND" else _since_mark(stack)
        _expect(stack[-1], list).extend(items)
    elif name in ("SETITEM", "SETITEMS"):
        if name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            items = [key, value]
        else:
            items = _since_mark(stack)
        _expect(stack[-1], dict).update(_pairs(items))
    elif name == "GLOBAL":
        if argument not in _ARRAY_NAMES:
            raise PickleDataError(f"refused: it names {argument.replace(' ', '.')!r}, which is no data")
        stack.append(_Name(argument.split(" ")[1]))
    elif name == "REDUCE":
        stack.pop()
        stack.append(_Call(_expect(stack.pop(), _Name).name))
    elif name == "BUILD":
        state = stack.pop()
        _expect(stack[-1], _Call).state = state
    elif name != "PROTO":
        raise PickleDataError(f"refused: opcode {name} is no data")


def _since_mark(stack: list[Any]) -> list[Any]:
    at = len(stack) - 1
    while not isinstance(stack[at], _Mark):
        if at == 0:
            raise PickleDataError("damaged: a mark is missing")
        at -= 1
    items = stack[at + 1 :]
    del stack[at:]
    return items


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise PickleDataError(f"damaged: {type(value).__name__} where {kind.__name__} belongs")
    return value


def _plain(value: Any) -> Any:
    """Turn the recorded array calls among a dictionary's values into ByteArrays; elsewhere they stay opaque and are of no use to anyone."""
    if isinstance(value, dict):
        return {key: _byte_array(item) if isinstance(item, _Call) else item for key, item in value.items()}
    return value


def _byte_array(call: _Call) -> ByteArray:
    # ndarray.__setstate__ takes (version, shape, dtype, is_fortran_order, content).
    if call.name != "_reconstruct" or not isinstance(call.state, tuple) or len(call.state) != 5:
        raise PickleDataError("refused: an object that is no array")
    _, shape, dtype, fortran, content = call.state
    if not isinstance(dtype, _Call) or dtype.name != "dtype" or fortran not in (0, False) or not isinstance(content, str):
        raise PickleDataError("refused: an array that is not of bytes in C order")
    encoded = content.encode("latin-1")
    sizes = tuple(int(size) for size in shape)
    count = 1
    for size in sizes:
        count *= size
    if count != len(encoded) or min(sizes, default=0) < 0:
        raise PickleDataError(f"damaged: an array of shape {sizes} with {len(encoded)} bytes")
    return ByteArray(sizes, encoded)
