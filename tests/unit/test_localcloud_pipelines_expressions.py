"""The functions of pipeline definitions: paths, references, joins, JSON paths, conditions."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.sagemaker.pipelines.conditions import check, evaluate, operands
from localcloud.sagemaker.pipelines.expressions import (
    ExecutionReference,
    ExpressionError,
    ParameterReference,
    Path,
    PropertyFileReference,
    StepReference,
    format_path,
    lookup,
    parse_path,
    parse_reference,
    references,
    resolve,
    to_text,
)


@dataclass
class FakeScope:
    """A scope made of plain values."""

    parameters: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    properties: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[tuple[str, str], Any] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)

    def parameter(self, name: str) -> Any:
        return self.parameters[name]

    def execution_variable(self, name: str) -> str:
        return self.variables[name]

    def step_properties(self, step: str) -> Mapping[str, Any]:
        return self.properties[step]

    def property_file(self, step: str, name: str) -> Any:
        return self.files[step, name]

    def json_object(self, uri: str) -> Any:
        return self.objects[uri]


names = st.from_regex(r"[A-Za-z][A-Za-z0-9\-_]{0,12}", fullmatch=True)
keys = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)
path_items = st.one_of(st.integers(-3, 3), names, keys)
paths = st.lists(path_items, min_size=1, max_size=5).map(tuple)
scalars = st.one_of(st.text(max_size=6), st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))
plain_json = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(keys.filter(lambda key: key not in ("Get", "Std:Join", "Std:JsonGet")), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(paths)
def test_a_formatted_path_parses_back_to_itself(path: Path) -> None:
    assert parse_path(format_path(path)) == path


@given(st.text(max_size=20))
def test_any_text_is_a_path_or_a_named_error(text: str) -> None:
    try:
        path = parse_path(text)
    except ExpressionError:
        return
    assert parse_path(format_path(path)) == path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b[0]", ("a", "b", 0)),
        ("$.a['b c'][-1]", ("a", "b c", -1)),
        ("ProcessingOutputConfig.Outputs['train'].S3Output.S3Uri", ("ProcessingOutputConfig", "Outputs", "train", "S3Output", "S3Uri")),
        ("HyperParameters['batch-size']", ("HyperParameters", "batch-size")),
        ('["quoted"].x', ("quoted", "x")),
    ],
)
def test_paths_as_the_sdk_and_json_path_write_them(text: str, expected: Path) -> None:
    assert parse_path(text) == expected


@pytest.mark.parametrize("text", ["", "$", "a..b", "a.[0]", "a[*]", "$.*", "a[?(@.x)]", "a[0", "a b", "[0]x"])
def test_paths_that_do_not_name_one_value_are_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse_path(text)


def _walk(document: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    found: list[tuple[Path, Any]] = [(path, document)] if path else []
    members = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, value in members:
        found += _walk(value, (*path, key))
    return found


@given(plain_json)
def test_lookup_finds_every_value_of_a_document_by_its_path(document: Any) -> None:
    for path, value in _walk(document):
        assert lookup(document, parse_path(format_path(path)), "it") is value


def test_lookup_finds_elements_of_named_lists_by_name() -> None:
    outputs = {"Outputs": [{"OutputName": "a", "S3": 1}, {"OutputName": "b", "S3": 2}]}
    assert lookup(outputs, ("Outputs", "b", "S3"), "it") == 2


def test_a_missing_path_names_what_is_missing_and_where() -> None:
    with pytest.raises(ExpressionError, match=r"Nothing at path 'a\.b\.c' in report.json: no 'c' in 'a\.b'"):
        lookup({"a": {"b": {}}}, ("a", "b", "c"), "report.json")


@given(names, paths)
def test_references_to_steps_parse_back(step: str, path: Path) -> None:
    text = format_path(path)
    if text.startswith("PropertyFiles."):
        return
    reference = parse_reference(f"Steps.{step}" + (text if text.startswith("[") else f".{text}"))
    assert reference == StepReference(step, path)


def test_each_kind_of_reference() -> None:
    assert parse_reference("Parameters.Epochs") == ParameterReference("Epochs")
    assert parse_reference("Execution.PipelineExecutionId") == ExecutionReference("PipelineExecutionId")
    assert parse_reference("Steps.Evaluate.PropertyFiles.Report") == PropertyFileReference("Evaluate", "Report")


@pytest.mark.parametrize(
    "text", ["", "Epochs", "Parameters.", "Execution.Nothing", "Steps.", "Steps.X", "Steps..a", "steps.X.a", 5, None, ["x"]]
)
def test_a_get_of_nothing_known_is_refused(text: Any) -> None:
    with pytest.raises(ExpressionError):
        parse_reference(text)


@given(plain_json)
def test_a_value_without_expressions_resolves_to_itself(value: Any) -> None:
    assert resolve(value, FakeScope()) == value
    assert list(references(value)) == []


@given(st.dictionaries(names, scalars, min_size=1), st.text(max_size=3), st.data())
def test_join_is_the_texts_of_its_values_with_the_separator_between(
    parameters: dict[str, Any], separator: str, data: st.DataObject
) -> None:
    chosen = data.draw(
        st.lists(st.one_of(st.sampled_from(sorted(parameters)).map(lambda name: {"Get": f"Parameters.{name}"}), scalars), max_size=6)
    )
    scope = FakeScope(parameters=parameters)
    texts = [to_text(resolve(value, scope)) for value in chosen]
    assert resolve({"Std:Join": {"On": separator, "Values": chosen}}, scope) == separator.join(texts)


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4), st.text(max_size=2))
def test_joins_nest(first: list[str], second: list[str], separator: str) -> None:
    inner = {"Std:Join": {"On": separator, "Values": second}}
    assert resolve({"Std:Join": {"On": separator, "Values": [*first, inner]}}, FakeScope()) == separator.join(
        [*first, separator.join(second)]
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (3, "3"),
        (-12345678901234567890, "-12345678901234567890"),
        (0.85, "0.85"),
        (1.0, "1.0"),
        (0.001, "0.001"),
        (0.0001, "1.0E-4"),
        (1.5e-7, "1.5E-7"),
        (9999999.0, "9999999.0"),
        (1e7, "1.0E7"),
        (-1.25e21, "-1.25E21"),
        ("s3://b/k", "s3://b/k"),
        (datetime(2021, 3, 15, 16, 3, 13, 512000, tzinfo=UTC), "2021-03-15T16:03:13.512Z"),
    ],
)
def test_values_are_joined_as_aws_prints_them(value: Any, text: str) -> None:
    assert to_text(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_text_of_a_float_reads_back_as_the_same_float(value: float) -> None:
    assert float(to_text(value)) == value


@pytest.mark.parametrize("value", [None, [1], {"a": 1}])
def test_only_scalars_can_be_joined(value: Any) -> None:
    with pytest.raises(ExpressionError, match="Std:Join joins texts, numbers and booleans"):
        resolve({"Std:Join": {"On": "", "Values": [value]}}, FakeScope())


@given(plain_json)
def test_json_get_reads_any_value_of_a_property_file(document: Any) -> None:
    scope = FakeScope(files={("Evaluate", "Report"): document}, objects={"s3://b/report.json": document})
    for path, value in _walk(document):
        file = {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.Evaluate.PropertyFiles.Report"}, "Path": format_path(path)}}
        uri = {"Std:JsonGet": {"S3Uri": {"Std:Join": {"On": "/", "Values": ["s3:/", "b", "report.json"]}}, "Path": format_path(path)}}
        assert resolve(file, scope) is value
        assert resolve(uri, scope) is value


def test_a_step_property_that_is_a_time_is_its_text() -> None:
    scope = FakeScope(properties={"Train": {"CreationTime": datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)}})
    assert resolve({"Get": "Steps.Train.CreationTime"}, scope) == "2024-01-02T03:04:05.000Z"


def test_references_are_found_however_deep() -> None:
    value = {
        "a": [{"Std:Join": {"On": "", "Values": [{"Get": "Parameters.P"}, {"Get": "Steps.S.x"}]}}],
        "b": {"Get": "Execution.PipelineArn"},
    }
    found = list(references(value))
    assert found == [ParameterReference("P"), StepReference("S", ("x",)), ExecutionReference("PipelineArn")]


ORDER = {
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
    "Equals": operator.eq,
}
numbers = st.one_of(st.integers(-1000, 1000), st.floats(-1000, 1000))


@given(st.sampled_from(sorted(ORDER)), numbers, numbers)
def test_comparisons_of_numbers(kind: str, left: float, right: float) -> None:
    assert evaluate({"Type": kind, "LeftValue": left, "RightValue": right}, FakeScope()) is ORDER[kind](left, right)


@given(st.sampled_from(sorted(ORDER)), numbers, numbers)
def test_a_number_in_a_text_compares_as_a_number_beside_a_number(kind: str, left: float, right: float) -> None:
    expected = ORDER[kind](left, right)
    assert evaluate({"Type": kind, "LeftValue": repr(left), "RightValue": right}, FakeScope()) is expected
    assert evaluate({"Type": kind, "LeftValue": left, "RightValue": repr(right)}, FakeScope()) is expected


@given(st.sampled_from(sorted(ORDER)), st.text(max_size=4), st.text(max_size=4))
def test_comparisons_of_texts(kind: str, left: str, right: str) -> None:
    assert evaluate({"Type": kind, "LeftValue": left, "RightValue": right}, FakeScope()) is ORDER[kind](left, right)


simple = st.builds(lambda left, right: {"Type": "Equals", "LeftValue": left, "RightValue": right}, st.integers(0, 2), st.integers(0, 2))
conditions_tree = st.recursive(
    simple,
    lambda inner: (
        inner.map(lambda c: {"Type": "Not", "Condition": c}) | st.lists(inner, max_size=3).map(lambda cs: {"Type": "Or", "Conditions": cs})
    ),
    max_leaves=6,
)


@given(conditions_tree)
def test_not_and_or_are_the_logical_ones(condition: dict[str, Any]) -> None:
    check(condition)
    assert evaluate({"Type": "Not", "Condition": condition}, FakeScope()) is not evaluate(condition, FakeScope())
    assert evaluate({"Type": "Or", "Conditions": [condition, condition]}, FakeScope()) is evaluate(condition, FakeScope())


@given(st.integers(0, 3), st.lists(st.integers(0, 3), max_size=4))
def test_in_is_membership(query: int, values: list[int]) -> None:
    scope = FakeScope(parameters={"Q": query})
    condition = {"Type": "In", "QueryValue": {"Get": "Parameters.Q"}, "Values": values}
    check(condition)
    assert evaluate(condition, scope) is (query in values)
    assert list(operands(condition)) == [{"Get": "Parameters.Q"}, *values]


def test_a_boolean_is_no_number_and_equals_its_text() -> None:
    assert not evaluate({"Type": "Equals", "LeftValue": True, "RightValue": 1}, FakeScope())
    assert evaluate({"Type": "Equals", "LeftValue": True, "RightValue": "True"}, FakeScope())
    with pytest.raises(ExpressionError, match="cannot compare"):
        evaluate({"Type": "LessThan", "LeftValue": False, "RightValue": True}, FakeScope())


def test_an_order_between_a_word_and_a_number_is_an_error_and_equality_is_false() -> None:
    assert not evaluate({"Type": "Equals", "LeftValue": "much", "RightValue": 1}, FakeScope())
    with pytest.raises(ExpressionError, match="GreaterThan cannot compare 'much' and 1"):
        evaluate({"Type": "GreaterThan", "LeftValue": "much", "RightValue": 1}, FakeScope())


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"Type": "Not", "Expression": {}}, "unknown property 'Expression'"),
        ({"Type": "Between", "LeftValue": 1, "RightValue": 2}, "Unknown condition type 'Between'"),
        ({"Type": "Equals", "LeftValue": 1}, "missing required property 'RightValue'"),
        ({"Type": "In", "QueryValue": 1, "Values": 1}, "Expecting start of Json Array"),
        ({"Type": "Or", "Conditions": [{"Type": "Equals"}]}, "missing required property"),
        ([], "Expecting start of Json Object"),
    ],
)
def test_malformed_conditions_are_refused(condition: Any, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        check(condition)
