"""JSONPath, intrinsic functions, choice rules and payload templates of the States Language."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.jsonpath import PathNotFound, PathSyntaxError, compile_path, same
from localcloud.stepfunctions.choices import compile_condition
from localcloud.stepfunctions.errors import ErrorName, EvaluationError, StateError, matches
from localcloud.stepfunctions.payloads import Scope, TemplateSyntaxError, compile_expression, compile_reference, compile_template, place

STORE = {
    "book": [
        {"category": "reference", "title": "Sayings", "price": 8.95},
        {"category": "fiction", "title": "Sword", "price": 12.99},
        {"category": "fiction", "title": "Moby Dick", "isbn": "0-553", "price": 8.99},
    ],
    "bicycle": {"color": "red", "price": 19.95},
    "a.b": 1,
    "a-b": 2,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats(allow_nan=False, allow_infinity=False, width=32) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)


def scope(data: Any, context: dict[str, Any] | None = None, variables: dict[str, Any] | None = None) -> Scope:
    return Scope(data, context or {}, variables or {})


# JSONPath


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", STORE),
        ("$.bicycle.color", "red"),
        ("$['bicycle']['color']", "red"),
        ("$['a.b']", 1),
        ("$.a-b", 2),
        ("$.book[0].title", "Sayings"),
        ("$.book[-1].title", "Moby Dick"),
        ("$.book[*].title", ["Sayings", "Sword", "Moby Dick"]),
        ("$.book[0,2].title", ["Sayings", "Moby Dick"]),
        ("$.book[0:2].title", ["Sayings", "Sword"]),
        ("$.book[1:].title", ["Sword", "Moby Dick"]),
        ("$..price", [8.95, 12.99, 8.99, 19.95]),
        ("$.bicycle.*", ["red", 19.95]),
        ("$.book[?(@.isbn)].title", ["Moby Dick"]),
        ("$.book[?(@.price < 10)].title", ["Sayings", "Moby Dick"]),
        ("$.book[?(@.price < 10 && @.category == 'fiction')].title", ["Moby Dick"]),
        ("$.book[?(@.category == 'reference' || @.price > 12)].title", ["Sayings", "Sword"]),
        ("$.book[?(!(@.category == 'fiction'))].title", ["Sayings"]),
        ("$.book[?(@.title =~ /^s.*/i)].title", ["Sayings", "Sword"]),
        ("$.book[?(@.category in ['reference'])].title", ["Sayings"]),
        ("$.book[?(@.price > $.bicycle.price)].title", []),
        ("$.book.length()", 3),
        ("$.nothing[*]", PathNotFound),
        ("$.bicycle.size", PathNotFound),
        ("$.book[9]", PathNotFound),
        ("$.bicycle[0]", PathNotFound),
        ("$..nothing", []),
    ],
)
def test_a_path(path: str, expected: Any) -> None:
    if expected is PathNotFound:
        with pytest.raises(PathNotFound):
            compile_path(path).evaluate(STORE)
    else:
        assert compile_path(path).evaluate(STORE) == expected


@pytest.mark.parametrize(
    "path", ["", "book", "$.", "$.book[", "$.book[0", "$['a]", "$.book[?(@.a == )]", "$.a b", "$[x]", "$.book[?(@.x =~ /(/)]", "$.a.max()"]
)
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(PathSyntaxError):
        compile_path(path)


@given(JSON)
def test_every_value_is_found_at_its_own_path(document: Any) -> None:
    def visit(value: Any, path: str) -> None:
        assert same(compile_path(path).evaluate(document), value) or compile_path(path).evaluate(document) == value
        if isinstance(value, dict):
            for name, item in value.items():
                quoted = name.replace("\\", "\\\\").replace("'", "\\'")
                visit(item, f"{path}['{quoted}']")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                visit(item, f"{path}[{index}]")

    visit(document, "$")


@given(st.lists(st.dictionaries(st.sampled_from("ab"), st.integers(-3, 3), max_size=2), max_size=5), st.integers(-3, 3))
def test_a_filter_is_a_list_comprehension(items: list[dict[str, int]], bound: int) -> None:
    found = compile_path(f"$[?(@.a >= {bound})]").evaluate(items)
    assert found == [item for item in items if "a" in item and item["a"] >= bound]


def _has_place(document: Any, keys: list[str]) -> bool:
    """Every value on the way is an object, or is not there yet."""
    if not keys or document is None:
        return True
    return isinstance(document, dict) and _has_place(document.get(keys[0]), keys[1:])


@given(JSON, JSON, st.lists(st.sampled_from(["x", "y"]), min_size=1, max_size=3))
def test_what_is_placed_is_found_there_and_nothing_else_changes(document: Any, value: Any, keys: list[str]) -> None:
    before = json.dumps(document)
    if not _has_place(document, list(keys)):
        with pytest.raises(StateError, match=ErrorName.RESULT_PATH_MATCH_FAILURE):
            place(document, list(keys), value)
        return
    placed = place(document, list(keys), value)
    assert compile_path("$." + ".".join(keys)).evaluate(placed) == value
    assert json.dumps(document) == before
    for name in document or {}:
        if name != keys[0]:
            assert placed[name] == document[name]


@pytest.mark.parametrize("path", ["$.a[*]", "$..a", "$.a[0,1]", "$.a[?(@.b)]", "$$.x", "a", "$x.y"])
def test_a_result_path_must_name_one_place(path: str) -> None:
    with pytest.raises(TemplateSyntaxError):
        compile_reference(path, "ResultPath")


# Intrinsic functions; the examples are those of https://docs.aws.amazon.com/step-functions/latest/dg/intrinsic-functions.html


@pytest.mark.parametrize(
    ("call", "data", "expected"),
    [
        ("States.Array($.Id)", {"Id": 123456}, [123456]),
        ("States.ArrayPartition($.a, 4)", {"a": [1, 2, 3, 4, 5, 6, 7, 8, 9]}, [[1, 2, 3, 4], [5, 6, 7, 8], [9]]),
        ("States.ArrayContains($.a, $.x)", {"a": [1, 2, 3], "x": 2}, True),
        ("States.ArrayContains($.a, true)", {"a": [1]}, False),
        ("States.ArrayRange(1, 9, 2)", {}, [1, 3, 5, 7, 9]),
        ("States.ArrayRange(3, 1, -1)", {}, [3, 2, 1]),
        ("States.ArrayGetItem($.a, 5)", {"a": [1, 2, 3, 4, 5, 6]}, 6),
        ("States.ArrayLength($.a)", {"a": [1, 2, 3]}, 3),
        ("States.ArrayUnique($.a)", {"a": [1, 2, 3, 3, 1, True]}, [1, 2, 3, True]),
        ("States.Base64Encode($.x)", {"x": "Data to encode"}, "RGF0YSB0byBlbmNvZGU="),
        ("States.Base64Decode('RGVjb2RlZCBkYXRh')", {}, "Decoded data"),
        ("States.Hash($.x, 'SHA-1')", {"x": "input data"}, "aaff4a450a104cd177d28d18d74485e8cae074b7"),
        (
            "States.JsonMerge($.a, $.b, false)",
            {"a": {"a": {"x": 1}, "b": 0}, "b": {"a": {"y": 2}, "c": 1}},
            {"a": {"y": 2}, "b": 0, "c": 1},
        ),
        ("States.StringToJson($.s)", {"s": '{"foo": "bar"}'}, {"foo": "bar"}),
        ("States.JsonToString($.x)", {"x": {"foo": "bar", "n": 1}}, '{"foo":"bar","n":1}'),
        ("States.MathAdd($.v, -1)", {"v": 111}, 110),
        ("States.StringSplit($.s, ',')", {"s": "1,2,3,4,5"}, ["1", "2", "3", "4", "5"]),
        ("States.StringSplit($.s, '.+,*=')", {"s": "This.is+a,test=string"}, ["This", "is", "a", "test", "string"]),
        ("States.Format('Hello, my name is {}.', $.name)", {"name": "Arnav"}, "Hello, my name is Arnav."),
        ("States.Format('{} {}', $.o, null)", {"o": {"a": 1}}, '{"a":1} null'),
        (r"States.Format('it\'s \{{}\}', 'x')", {}, "it's {x}"),
        ("States.Format('{}', States.Format('{}-{}', States.ArrayGetItem($.a, 0), $['b,)']))", {"a": ["x"], "b,)": "y"}, "x-y"),
        ("States.Array( 1.5 , 'a' , false )", {}, [1.5, "a", False]),
        ("States.Array()", {}, []),
    ],
)
def test_an_intrinsic_function(call: str, data: Any, expected: Any) -> None:
    found = compile_expression(call, "x.$")(scope(data))
    assert found == expected
    assert type(found) is type(expected)


def test_random_and_unique_values() -> None:
    assert 1 <= compile_expression("States.MathRandom(1, 3)", "x")(scope({})) < 3
    seeded = compile_expression("States.MathRandom(1, 1000000, 7)", "x")
    assert seeded(scope({})) == seeded(scope({}))
    unique = compile_expression("States.UUID()", "x")
    assert unique(scope({})) != unique(scope({}))


@pytest.mark.parametrize(
    "call",
    [
        "States.Nothing($)",
        "States.Array($.a",
        "States.Array($.a,)",
        "States.ArrayLength()",
        "States.ArrayLength($, $)",
        "States.Format('a)",
        "States.Array(x)",
        "States.Array($.a) b",
    ],
)
def test_a_malformed_call_is_refused(call: str) -> None:
    with pytest.raises(TemplateSyntaxError):
        compile_expression(call, "x.$")


@pytest.mark.parametrize(
    ("call", "data"),
    [
        ("States.StringToJson($.s)", {"s": "{"}),
        ("States.ArrayGetItem($.a, 3)", {"a": [1]}),
        ("States.ArrayLength($.a)", {"a": "x"}),
        ("States.Format('{} {}', 1)", {}),
        ("States.Format('{', 1)", {}),
        ("States.JsonMerge($, $, true)", {}),
        ("States.Hash('x', 'CRC')", {}),
        ("States.ArrayRange(1, 5, 0)", {}),
        ("States.ArrayRange(1, 5000, 1)", {}),
        ("States.Base64Decode('%')", {}),
    ],
)
def test_what_a_function_cannot_work_on_is_an_intrinsic_failure(call: str, data: Any) -> None:
    with pytest.raises(StateError) as caught:
        compile_expression(call, "x.$")(scope(data))
    assert caught.value.error == "States.IntrinsicFailure"
    assert call in str(caught.value.cause)


@given(st.text(max_size=20))
def test_base64_and_json_functions_are_inverse(text: str) -> None:
    data = scope({"x": text})
    assert compile_expression("States.Base64Decode(States.Base64Encode($.x))", "x")(data) == text
    assert compile_expression("States.StringToJson(States.JsonToString($.x))", "x")(data) == (text or "")


@given(st.lists(st.integers(), max_size=30), st.integers(1, 10))
def test_partitions_join_to_the_array(items: list[int], size: int) -> None:
    parts = compile_expression(f"States.ArrayPartition($, {size})", "x")(scope(items))
    assert [item for part in parts for item in part] == items
    assert all(len(part) == size for part in parts[:-1])


# Templates


def test_a_template_fills_what_ends_in_dollar() -> None:
    template = {"a.$": "$.x", "b": {"c.$": "$$.State.Name", "d": ["$.x", {"e.$": "$v.deep"}]}, "f": "$.x", "g.$": "States.Array($.x)"}
    found = compile_template(template, "Parameters")(scope({"x": 1}, {"State": {"Name": "S"}}, {"v": {"deep": 2}}))
    assert found == {"a": 1, "b": {"c": "S", "d": ["$.x", {"e": 2}]}, "f": "$.x", "g": [1]}


def test_a_template_without_expressions_is_constant() -> None:
    template = {"a": [1, {"b": None}]}
    assert compile_template(template, "Parameters")(scope({})) is template


def test_a_missing_path_is_said_with_field_and_input() -> None:
    with pytest.raises(EvaluationError) as caught:
        compile_template({"a": {"b.$": "$.nothing"}}, "Parameters")(scope({"x": 1}))
    assert caught.value.error == "States.Runtime"
    assert caught.value.cause == "The JSONPath '$.nothing' specified for the field 'b.$' could not be found in the input '{\"x\":1}'"


def test_an_unassigned_variable_is_said() -> None:
    with pytest.raises(EvaluationError, match=r"\$v"):
        compile_expression("$v.x", "a.$")(scope({}))


@pytest.mark.parametrize("template", [{"a.$": 1}, {"a.$": "x"}, {"a": [{"b.$": "$.["}]}])
def test_a_malformed_template_is_refused(template: Any) -> None:
    with pytest.raises(TemplateSyntaxError):
        compile_template(template, "Parameters")


# Choices


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        ({"StringEquals": "a"}, "a", True),
        ({"StringEquals": "a"}, 1, False),
        ({"StringLessThan": "b"}, "a", True),
        ({"StringGreaterThanEquals": "b"}, "a", False),
        ({"StringMatches": "raw/*.png"}, "raw/x/y.png", True),
        ({"StringMatches": "a\\*"}, "a*", True),
        ({"StringMatches": "a\\*"}, "ab", False),
        ({"NumericEquals": 1}, 1.0, True),
        ({"NumericEquals": 1}, True, False),
        ({"NumericGreaterThan": 0.93}, 0.94, True),
        ({"NumericLessThanEquals": 0.93}, 0.94, False),
        ({"BooleanEquals": True}, True, True),
        ({"BooleanEquals": True}, "true", False),
        ({"TimestampLessThan": "2026-01-01T00:00:00Z"}, "2025-12-31T23:59:59+00:00", True),
        ({"TimestampEquals": "2026-01-01T01:00:00+01:00"}, "2026-01-01T00:00:00Z", True),
        ({"TimestampGreaterThan": "2026-01-01T00:00:00Z"}, "yesterday", False),
        ({"IsNull": True}, None, True),
        ({"IsNull": False}, None, False),
        ({"IsNumeric": True}, 1.5, True),
        ({"IsNumeric": True}, True, False),
        ({"IsString": True}, "x", True),
        ({"IsBoolean": True}, False, True),
        ({"IsTimestamp": True}, "2026-01-01T00:00:00Z", True),
        ({"IsTimestamp": True}, "2026-01-01", False),
        ({"StringEqualsPath": "$.other"}, "o", True),
        ({"NumericLessThanPath": "$.other"}, 1, False),
        ({"IsPresent": True}, None, True),
    ],
)
def test_a_comparison(rule: dict[str, Any], value: Any, expected: bool) -> None:
    condition = compile_condition({"Variable": "$.x", **rule, "Next": "N"})
    assert condition(scope({"x": value, "other": "o"})) is expected


def test_presence_is_the_only_question_that_may_be_asked_of_a_missing_path() -> None:
    assert compile_condition({"Variable": "$.x", "IsPresent": False})(scope({})) is True
    with pytest.raises(EvaluationError, match=r"Invalid path '\$.x'"):
        compile_condition({"Variable": "$.x", "IsNull": True})(scope({}))


def test_combinations() -> None:
    low, high = {"Variable": "$", "NumericGreaterThan": 1}, {"Variable": "$", "NumericLessThan": 5}
    both = compile_condition({"And": [low, high]})
    either = compile_condition({"Or": [{"Not": low}, {"Not": high}]})
    assert [both(scope(value)) for value in (0, 3, 9)] == [False, True, False]
    assert [either(scope(value)) for value in (0, 3, 9)] == [True, False, True]


@pytest.mark.parametrize(
    "rule",
    [
        {"StringEquals": "a"},
        {"Variable": "$.x"},
        {"Variable": "$.x", "StringEquals": "a", "IsNull": True},
        {"Variable": "x", "StringEquals": "a"},
        {"Variable": "$.x", "StringEquals": 1},
        {"Variable": "$.x", "NumericEquals": "1"},
        {"Variable": "$.x", "TimestampEquals": "soon"},
        {"Variable": "$.x", "IsNull": "yes"},
        {"And": []},
        {"Not": []},
        {"Or": [{"Variable": "$.x"}]},
    ],
)
def test_a_malformed_rule_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(TemplateSyntaxError):
        compile_condition(rule)


@given(st.integers(-5, 5) | st.floats(-5, 5), st.integers(-5, 5))
def test_numeric_comparisons_are_pythons(value: float, bound: int) -> None:
    given_value = scope({"x": value})
    for operator, expected in (
        ("Equals", value == bound),
        ("LessThan", value < bound),
        ("GreaterThan", value > bound),
        ("LessThanEquals", value <= bound),
    ):
        assert compile_condition({"Variable": "$.x", f"Numeric{operator}": bound})(given_value) is expected


# Error names


@pytest.mark.parametrize(
    ("error", "names", "expected"),
    [
        ("LowConfidenceError", ["LowConfidenceError"], True),
        ("LowConfidenceError", ["Other", "States.TaskFailed"], True),
        ("LowConfidenceError", ["States.ALL"], True),
        ("LowConfidenceError", ["States.Timeout"], False),
        ("States.Timeout", ["States.TaskFailed"], False),
        ("States.Timeout", ["States.ALL"], True),
        ("States.HeartbeatTimeout", ["States.Timeout"], True),
        ("States.Runtime", ["States.ALL"], False),
        ("States.DataLimitExceeded", ["States.ALL"], False),
        ("States.DataLimitExceeded", ["States.DataLimitExceeded"], True),
    ],
)
def test_which_errors_a_handler_matches(error: str, names: list[str], expected: bool) -> None:
    assert matches(error, names) is expected
