"""Templates: text to data, functions to values, parameters to checked values, properties to the form of their types."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers_localcloud_cloudformation import Stacks, box, template
from localcloud.cloudformation.blueprint import NothingYet
from localcloud.cloudformation.functions import Scope, Unknown, is_known, references
from localcloud.cloudformation.parameters import ParameterValue, declared, resolve
from localcloud.cloudformation.schema import BOOLEAN, INTEGER, NUMBER, STRING, ListOf, MapOf, Object, PropertyError, Scalar, convert, one_of
from localcloud.cloudformation.template import parse_template
from localcloud.cloudformation.text import load
from localcloud.errors import ServiceError

Json = Any

PSEUDO = {"AWS::Region": "us-east-1", "AWS::AccountId": "123456789012", "AWS::StackName": "s", "AWS::Partition": "aws"}


def scope(body: Json = None, **parameters: Json) -> Scope:
    parsed = parse_template(json.dumps({"Resources": {"R": {"Type": "T::T::T"}}, **(body or {})}))
    live = NothingYet()
    return Scope(parsed, parameters, PSEUDO, live.ref, live.attribute, live.export)


def message(do: Callable[[], Any]) -> str:
    with pytest.raises(ServiceError) as caught:
        do()
    assert caught.value.code == "ValidationError"
    return str(caught.value.message)


# --- text ---------------------------------------------------------------------------------------------------------------------------------------

_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=8)
_SCALARS = st.one_of(_TEXT, st.integers(-1000, 1000), st.booleans(), st.floats(allow_nan=False, allow_infinity=False, width=32))
_NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,6}", fullmatch=True)


def _functions(children: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    pairs = st.tuples(_NAMES, _NAMES).map(list)
    return st.one_of(
        st.lists(children, max_size=3),
        st.dictionaries(_NAMES, children, min_size=2, max_size=3),
        _NAMES.map(lambda name: {"Ref": name}),
        pairs.map(lambda pair: {"Fn::GetAtt": pair}),
        st.tuples(st.just(","), st.lists(children, max_size=3)).map(lambda pair: {"Fn::Join": list(pair)}),
        children.map(lambda value: {"Fn::Base64": value}),
        st.tuples(_NAMES, children, children).map(lambda three: {"Fn::If": list(three)}),
        _TEXT.map(lambda text: {"Fn::Sub": text}),
    )


_TREES = st.recursive(_SCALARS, _functions, max_leaves=12)


class _ShortForms(yaml.SafeDumper):
    def represent_dict(self, data: Any) -> Any:
        if len(data) == 1:
            [(key, value)] = data.items()
            tag = "!" + key.removeprefix("Fn::")
            if key == "Fn::GetAtt":
                return self.represent_scalar(tag, ".".join(value))
            if key == "Ref" or (key.startswith("Fn::") and isinstance(value, str)):
                return self.represent_scalar(tag, value)
            if key.startswith("Fn::") and isinstance(value, list):
                return self.represent_sequence(tag, value)
            if key.startswith("Fn::") and isinstance(value, dict):
                return self.represent_mapping(tag, value)
        return super().represent_dict(data)


_ShortForms.add_representer(dict, _ShortForms.represent_dict)
_ShortForms.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]


@given(_TREES)
def test_short_forms_mean_what_long_forms_mean(tree: Json) -> None:
    document = {"Resources": {"R": {"Type": "T::T::T", "Properties": {"P": tree}}}}
    written = yaml.dump(document, Dumper=_ShortForms, allow_unicode=True)
    assert load(written) == load(json.dumps(document)) == document


@settings(max_examples=300)
@given(st.text(max_size=60))
def test_any_text_is_a_template_or_a_validation_error(text: str) -> None:
    for candidate in (text, "{" + text, "Resources:\n  R:\n    Type: " + text):
        codes = []
        try:
            parse_template(candidate)
        except ServiceError as error:
            codes.append(error.code)
        assert codes in ([], ["ValidationError"])


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "a: " + "[" * 40_000,
        '{"a":' * 40_000,
        '{"a":' + "[" * 500 + "]" * 500 + "}",
        "- " * 50_000,
        "a: " + "{a: " * 200 + "}" * 200,
    ],
    ids=["list", "in a key", "json", "json list", "dashes", "map"],
)
def test_a_template_that_is_nested_without_end_is_refused_and_ends_nothing(text: str) -> None:
    assert "Template format error: the template is nested more than 100 levels deep." in message(lambda: parse_template(text))


def test_yaml_is_cloudformations() -> None:
    loaded = load(
        "Version: 2012-10-17\nCount: 3\nFlag: true\nAtt: !GetAtt A.B.C\nList: !GetAtt [A, B]\nSub: !Sub ['${x}', {x: !Ref Y}]\nIf: !Condition C"
    )
    assert loaded == {
        "Version": "2012-10-17",
        "Count": 3,
        "Flag": True,
        "Att": {"Fn::GetAtt": ["A", "B.C"]},
        "List": {"Fn::GetAtt": ["A", "B"]},
        "Sub": {"Fn::Sub": ["${x}", {"x": {"Ref": "Y"}}]},
        "If": {"Condition": "C"},
    }


R = "Resources: {R: {Type: T::T::T}}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Template format error: unsupported structure."),
        ("[]", "Template format error: unsupported structure."),
        ("{", "Template format error: JSON not well-formed. (line 1, column 2)"),
        ("a: [", "Template format error: YAML not well-formed. (line "),
        ("a: &x 1\nb: *x", "YAML aliases are not allowed in CloudFormation templates"),
        ("a: 1\na: 2", "duplicate key 'a'"),
        ('{"a": 1, "a": 2}', "Duplicate key 'a'"),
        ("a: 1\n---\nb: 2", "there is more than one document"),
        ("a: 1\n<<: {b: 2}", "a key must be a plain string"),
        ("? [a]\n: b", "a key must be a plain string"),
        ("a: !!set {b}", "the YAML tag tag:yaml.org,2002:set is not allowed"),
        ("a: !!int x", "'x' is not a value of tag:yaml.org,2002:int"),
        ("a: !!binary x", "the YAML tag tag:yaml.org,2002:binary is not allowed"),
        ("a: \x00", "YAML not well-formed"),
        ("a: !Wrong x", "the tag !Wrong is not one of CloudFormation's functions"),
        ("Description: x", "At least one Resources member must be defined."),
        ("Resources: {}", "At least one Resources member must be defined."),
        (R + "Wrong: {}", "Invalid template property or properties [Wrong]"),
        (R + "AWSTemplateFormatVersion: 2011-01-01", "unsupported value for AWSTemplateFormatVersion."),
        (R + "Transform: AWS::Serverless-2016-10-31", "The transform AWS::Serverless-2016-10-31 is not supported by localcloud"),
        (R + "Rules: {X: {Assertions: []}}", "Rules is not supported by localcloud"),
        ("Resources: {R-1: {Type: T::T::T}}", "Resource name R-1 is non alphanumeric."),
        ("Resources: {R: {Type: T::T::T, Wrong: 1}}", "Invalid template resource property 'Wrong'"),
        ("Resources: {R: {Properties: {}}}", "Every Resources object must contain a Type member."),
        (
            "Resources: {R: {Type: T::T::T, Properties: {A: [x, {B: }]}}}",
            "[/Resources/R/Properties/A/1/B] 'null' values are not allowed in templates",
        ),
        (
            "Resources: {R: {Type: T::T::T, CreationPolicy: {ResourceSignal: {}}}}",
            "CreationPolicy (resource R) is not supported by localcloud",
        ),
        ("Resources: {R: {Type: T::T::T, DependsOn: {}}}", "DependsOn must be a string or list of strings."),
        ("Resources: {'Fn::ForEach::X': []}", "Fn::ForEach (in Resources) is not supported by localcloud"),
        (R + "Outputs: {O: {}}", "Every Outputs member must contain a Value object"),
        (R + "Parameters: {R: {Type: String}}", "Duplicate resource/parameter names: [R]"),
    ],
)
def test_what_is_wrong_with_a_template_is_said(text: str, said: str) -> None:
    assert said in message(lambda: parse_template(text))


# --- functions ----------------------------------------------------------------------------------------------------------------------------------

MAPPINGS = {"Mappings": {"M": {"us-east-1": {"List": ["a", "b"], "Text": "t"}}}}


@pytest.mark.parametrize(
    ("node", "value"),
    [
        ({"Ref": "P"}, "p"),
        ({"Ref": "AWS::Region"}, "us-east-1"),
        ({"Fn::Join": ["-", ["a", {"Ref": "P"}, 1, True]]}, "a-p-1-true"),
        ({"Fn::Join": [",", {"Ref": "L"}]}, "x,y,z"),
        ({"Fn::Select": [1, {"Ref": "L"}]}, "y"),
        ({"Fn::Select": ["0", {"Fn::Split": ["|", "a|b"]}]}, "a"),
        ({"Fn::Split": [".", "a.b.c"]}, ["a", "b", "c"]),
        ({"Fn::Sub": "${P}/${AWS::AccountId}/${!P}/$P"}, "p/123456789012/${P}/$P"),
        ({"Fn::Sub": ["${P}-${X}", {"X": {"Ref": "P"}, "P": "own"}]}, "own-p"),
        ({"Fn::Base64": {"Fn::Sub": "${P}"}}, base64.b64encode(b"p").decode()),
        ({"Fn::FindInMap": ["M", {"Ref": "AWS::Region"}, "List"]}, ["a", "b"]),
        ({"Fn::If": ["Yes", "a", "b"]}, "a"),
        ({"A": {"Fn::If": ["Yes", {"Ref": "AWS::NoValue"}, "b"]}, "B": [1, {"Ref": "AWS::NoValue"}]}, {"B": [1]}),
        ({"Fn::GetAZs": ""}, ["us-east-1a", "us-east-1b", "us-east-1c"]),
        ({"Fn::Cidr": ["10.0.0.0/16", 2, 8]}, ["10.0.0.0/24", "10.0.1.0/24"]),
        ({"Fn::Cidr": ["10.0.0.0/24", "4"]}, ["10.0.0.0/26", "10.0.0.64/26", "10.0.0.128/26", "10.0.0.192/26"]),
        ({"Effect": "Allow", "Condition": {"Bool": {"a": "b"}}}, {"Effect": "Allow", "Condition": {"Bool": {"a": "b"}}}),
    ],
)
def test_functions(node: Json, value: Json) -> None:
    body = {**MAPPINGS, "Conditions": {"Yes": {"Fn::Equals": [{"Ref": "P"}, "p"]}}}
    assert scope(body, P="p", L=["x", "y", "z"]).evaluate(node) == value


def test_language_extensions() -> None:
    extended = scope({**MAPPINGS, "Transform": "AWS::LanguageExtensions"}, L=["x", "y"])
    assert extended.evaluate({"Fn::Length": {"Ref": "L"}}) == 2
    assert extended.evaluate({"Fn::ToJsonString": {"a": {"Ref": "L"}}}) == '{"a":["x","y"]}'
    assert extended.evaluate({"Fn::FindInMap": ["M", "nowhere", "List", {"DefaultValue": "d"}]}) == "d"
    assert "needs the transform AWS::LanguageExtensions" in message(lambda: scope(L=[]).evaluate({"Fn::Length": {"Ref": "L"}}))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ({"Fn::Equals": ["1", 1]}, True),
        ({"Fn::And": [{"Condition": "Yes"}, {"Fn::Not": [{"Condition": "No"}]}]}, True),
        ({"Fn::Or": [{"Condition": "No"}, {"Fn::Equals": [True, "true"]}]}, True),
        ({"Fn::Not": [{"Fn::Or": [{"Condition": "Yes"}, {"Condition": "No"}]}]}, False),
    ],
)
def test_conditions(expression: Json, value: bool) -> None:
    conditions = {"Yes": {"Fn::Equals": ["a", "a"]}, "No": {"Fn::Equals": ["a", "b"]}, "C": expression}
    assert scope({"Conditions": conditions}).condition("C") is value


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"Fn::Join": ["-"]}, "every Fn::Join object requires two parameters"),
        ({"Fn::Join": ["-", "text"]}, "every Fn::Join object requires two parameters"),
        ({"Fn::Select": [3, ["a"]]}, "Template error: Fn::Select cannot select nonexistent value at index 3"),
        ({"Fn::Select": [-1, ["a"]]}, "Template error: Fn::Select cannot select nonexistent value at index -1"),
        ({"Fn::FindInMap": ["X", "a", "b"]}, "Template error: Mapping named 'X' is not present in the 'Mappings' section of template."),
        ({"Fn::FindInMap": ["M", "a", "b"]}, "Template error: Unable to get mapping for M::a::b"),
        ({"Fn::Sub": "${L}"}, "Template error: variable L in Fn::Sub expression does not resolve to a string"),
        ({"Fn::GetAtt": "R"}, "every Fn::GetAtt object requires two non-empty parameters"),
        ({"Ref": ["a"]}, "every Ref object must have a single String value."),
        ({"Fn::If": ["Yes", 1]}, "Fn::If requires a list argument with three elements"),
        ({"Fn::Nothing": []}, "The function Fn::Nothing is not supported by localcloud"),
        ({"Fn::Transform": {"Name": "AWS::Include"}}, "The function Fn::Transform is not supported by localcloud"),
        ({"Fn::Sub": "x", "Other": 1}, "an object with Fn::Sub cannot have other keys (Other)"),
        ({"Fn::Cidr": ["10.0.0.0/24", 100, 8]}, "cannot make 100 blocks"),
        ({"Fn::GetAZs": "eu-west-1"}, "is not supported by localcloud"),
    ],
)
def test_functions_that_are_used_wrongly(node: Json, said: str) -> None:
    assert said in message(lambda: scope(MAPPINGS, L=["x"]).evaluate(node))


def test_a_circle_of_conditions_is_an_error() -> None:
    circle = scope({"Conditions": {"A": {"Fn::Not": [{"Condition": "B"}]}, "B": {"Fn::Not": [{"Condition": "A"}]}}})
    assert "circular condition dependency" in message(lambda: circle.condition("A"))


@given(st.recursive(st.sampled_from(["x", {"Ref": "R"}, {"Fn::GetAtt": ["R", "A"]}, {"Fn::Sub": "-${R.A}-"}]), lambda c: st.one_of(
    st.lists(c, max_size=3),
    st.lists(c.filter(lambda v: not isinstance(v, list)), min_size=1, max_size=3).map(lambda items: {"k": items}),
), max_leaves=6))  # fmt: skip
def test_what_depends_on_something_unknown_is_unknown_and_says_of_what(node: Json) -> None:
    value = scope().evaluate(node)
    found = {item.name + (f".{item.attribute}" if item.attribute else "") for item in references(node)}
    assert is_known(value) == (not found)
    joined = scope().evaluate({"Fn::Join": ["", [{"Fn::Sub": "x"}, {"Ref": "R"}]]})
    assert joined == Unknown(frozenset({"R"}))


# --- parameters ---------------------------------------------------------------------------------------------------------------------------------


def values(declaration: Json, raw: str | None = None, previous: dict[str, ParameterValue] | None = None, use_previous: bool = False) -> Any:
    given_: list[Json] = [{"ParameterKey": "P", "ParameterValue": raw}] if raw is not None else []
    given_ = [{"ParameterKey": "P", "UsePreviousValue": True}] if use_previous else given_
    return resolve(declared({"P": declaration}), given_, previous, {"/a": "one,two"}.get)["P"]


@pytest.mark.parametrize(
    ("declaration", "raw", "value"),
    [
        ({"Type": "String"}, "x", "x"),
        ({"Type": "String", "Default": "d"}, None, "d"),
        ({"Type": "Number", "Default": 0.93}, None, "0.93"),
        ({"Type": "Number"}, "1e3", "1e3"),
        ({"Type": "List<Number>"}, "1, 2,3", ["1", "2", "3"]),
        ({"Type": "CommaDelimitedList"}, " a ,b", ["a", "b"]),
        ({"Type": "CommaDelimitedList"}, "", []),
        ({"Type": "AWS::SSM::Parameter::Value<String>"}, "/a", "one,two"),
        ({"Type": "AWS::SSM::Parameter::Value<List<String>>"}, "/a", ["one", "two"]),
        ({"Type": "AWS::EC2::VPC::Id"}, "vpc-1", "vpc-1"),
    ],
)
def test_parameter_values(declaration: Json, raw: str | None, value: Json) -> None:
    assert values(declaration, raw).value == value


@pytest.mark.parametrize(
    ("declaration", "raw", "said"),
    [
        ({"Type": "String"}, None, "Parameters: [P] must have values"),
        ({"Type": "Number"}, "x", "Parameter 'P' must be a number."),
        ({"Type": "Number", "MinValue": 2}, "1", "Parameter 'P' must be a number not less than 2"),
        ({"Type": "Number", "MaxValue": 2}, "3", "Parameter 'P' must be a number not greater than 2"),
        ({"Type": "List<Number>", "MaxValue": 2}, "1,3", "Parameter 'P' must be a number not greater than 2"),
        ({"Type": "String", "AllowedValues": ["a", 1]}, "b", "Parameter 'P' must be one of AllowedValues"),
        ({"Type": "String", "AllowedPattern": "[a-z]+"}, "A", "Parameter 'P' must match pattern [a-z]+"),
        ({"Type": "String", "AllowedPattern": "[a-z]+"}, "a\n", "Parameter 'P' must match pattern [a-z]+"),
        ({"Type": "String", "MinLength": "2"}, "a", "Parameter 'P' must contain at least 2 characters"),
        ({"Type": "String", "MaxLength": 2}, "aaa", "Parameter 'P' must contain at most 2 characters"),
        (
            {"Type": "String", "AllowedPattern": "x", "ConstraintDescription": "be x"},
            "y",
            "Parameter 'P' failed to satisfy constraint: be x",
        ),
        ({"Type": "AWS::SSM::Parameter::Value<String>"}, "/b", "Unable to fetch parameters [/b] from parameter store for this account."),
        ({"Type": "Wrong"}, "a", "Unrecognized parameter type: Wrong"),
        ({"Type": "String", "Wrong": 1}, "a", "Invalid template parameter property 'Wrong'"),
    ],
)
def test_parameter_values_that_are_refused(declaration: Json, raw: str | None, said: str) -> None:
    assert said in message(lambda: values(declaration, raw))


def test_previous_values() -> None:
    declaration = {"Type": "String", "Default": "new default"}
    assert values(declaration, previous={"P": ParameterValue("before", "before")}, use_previous=True).value == "before"
    assert values(declaration, previous={"P": ParameterValue("before", "before")}).value == "new default"
    assert "Cannot specify usePreviousValue as true" in message(lambda: values(declaration, previous={}, use_previous=True))


def test_parameters_that_do_not_exist_are_named() -> None:
    wrong = [{"ParameterKey": "X", "ParameterValue": "1"}, {"ParameterKey": "Y", "ParameterValue": "1"}]
    assert message(lambda: resolve({}, wrong, None, lambda name: None)) == "Parameters: [X, Y] do not exist in the template"


# --- properties ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kind", "converted"),
    [
        ("30", INTEGER, 30),
        (30, STRING, "30"),
        (True, STRING, "true"),
        ("true", BOOLEAN, True),
        ("False", BOOLEAN, False),
        ("0.5", NUMBER, 0.5),
        (1, NUMBER, 1),
        ({"A": "1"}, Object({"A": INTEGER}), {"A": 1}),
        (["1"], ListOf(INTEGER), [1]),
        ({"x": 1}, MapOf(STRING), {"x": "1"}),
        ("a", one_of("a", "b"), "a"),
        ("{{resolve:ssm:/x}}", INTEGER, "{{resolve:ssm:/x}}"),
        (Unknown(frozenset("R")), INTEGER, Unknown(frozenset("R"))),
    ],
)
def test_conversion(value: Json, kind: Any, converted: Json) -> None:
    assert convert(value, kind) == converted


@pytest.mark.parametrize(
    ("value", "kind", "path", "said"),
    [
        ("x", INTEGER, "", "expected type: Integer, found: String"),
        ("1.5", INTEGER, "", "expected type: Integer, found: String"),
        (True, INTEGER, "", "expected type: Integer, found: Boolean"),
        ("yes", BOOLEAN, "", "expected type: Boolean, found: String"),
        ({}, STRING, "", "expected type: String, found: JSONObject"),
        ({"A": [{"B": "x"}]}, Object({"A": ListOf(Object({"B": INTEGER}))}), "/A/0/B", "expected type: Integer, found: String"),
        ({}, Object({"A": STRING}, required=("A",)), "", "required key [A] not found"),
        ("c", one_of("a", "b"), "", "c is not a valid enum value"),
        ("x", ListOf(STRING), "", "expected type: JSONArray, found: String"),
    ],
)
def test_properties_that_do_not_fit(value: Json, kind: Any, path: str, said: str) -> None:
    with pytest.raises(PropertyError) as caught:
        convert(value, kind)
    assert (caught.value.path, str(caught.value)) == (path, said)


@given(st.one_of(_SCALARS, st.lists(_SCALARS, max_size=2)), st.sampled_from(list(Scalar)))
def test_what_is_converted_stays_what_it_is(value: Json, kind: Scalar) -> None:
    try:
        once = convert(value, kind)
    except PropertyError:
        return
    assert convert(once, kind) == once


# --- whole templates ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stacks(tmp_path: Path) -> Stacks:
    return Stacks(tmp_path)


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        (
            template(A=box(Links=[{"Ref": "Nothing"}])),
            "Template format error: Unresolved resource dependencies [Nothing] in the Resources block of the template",
        ),
        (
            template(A=box(Content={"Fn::Sub": "${No}"})),
            "Template format error: Unresolved resource dependencies [No] in the Resources block of the template",
        ),
        (
            template(A={**box(), "DependsOn": "No"}),
            "Template format error: Unresolved resource dependencies [No] in the Resources block of the template",
        ),
        (template(A=box(Content={"Fn::GetAtt": "No.Arn"})), "Template error: instance of Fn::GetAtt references undefined resource No"),
        (
            template(A=box(), B=box(Content={"Fn::GetAtt": "A.No"})),
            "Template error: resource A does not support attribute type No in Fn::GetAtt",
        ),
        (template(A=box(Links=[{"Ref": "B"}]), B=box(Content={"Fn::GetAtt": "A.Arn"})), "Circular dependency between resources: [A, B]"),
        (template(A={"Type": "AWS::EC2::Instance"}), "The resource type AWS::EC2::Instance (resource A) is not supported by localcloud"),
        (template(A=box(Wrong=1)), "The property Wrong of Test::Box (resource A) is not supported by localcloud"),
        (
            template(A=box(Nested={"Inner": 1, "Outer": 2})),
            "The property Nested.Outer of Test::Box (resource A) is not supported by localcloud",
        ),
        (
            template(A=box(Size="many")),
            "Properties validation failed for resource A with message:\n#/Size: expected type: Integer, found: String",
        ),
        (template(A=box(Nested={})), "Properties validation failed for resource A with message:\n#/Nested: required key [Inner] not found"),
        (template(A={**box(), "DeletionPolicy": "Wrong"}), "Template error: Unrecognized DeletionPolicy Wrong for resource A"),
        (
            template(A={**box(), "DeletionPolicy": "Snapshot"}),
            "Template error: resource type Test::Box does not support deletion policy Snapshot",
        ),
        (template(A={**box(), "UpdateReplacePolicy": "RetainExceptOnCreate"}), "Unrecognized UpdateReplacePolicy RetainExceptOnCreate"),
        (template(A={**box(), "Condition": "No"}), "Condition No is not defined (resource A)"),
        (template(A=box(Content={"Fn::If": ["No", 1, 2]})), "Condition No is not defined (Resources)"),
        (
            template(A=box(Content="{{resolve:ssm-secure:x}}")),
            "The dynamic reference {{resolve:ssm-secure:...}} is not supported by localcloud",
        ),
        (
            {**template(A=box()), "Outputs": {"O": {"Value": {"Ref": "No"}}}},
            "Unresolved resource dependencies [No] in the Outputs block of the template",
        ),
        (
            {**template(A=box()), "Conditions": {"C": {"Fn::Equals": [{"Ref": "A"}, "x"]}}},
            "Unresolved dependencies [A]. Cannot reference resources in the Conditions block of the template",
        ),
        (
            {**template(A={**box(), "Condition": "C"}, B=box(Links=[{"Ref": "A"}])), "Conditions": {"C": {"Fn::Equals": ["a", "b"]}}},
            "Unresolved resource dependencies [A] in the Resources block of the template",
        ),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_made(stacks: Stacks, resources: Json, said: str) -> None:
    assert said in message(lambda: stacks.create(resources))
    assert stacks.state.stacks() == []
    stacks.create(template(A=box()))
    before = stacks.live()
    assert said in message(lambda: stacks.update(resources))
    assert stacks.stack()["StackStatus"] == "CREATE_COMPLETE"
    assert stacks.live() == before


def test_an_unsupported_type_under_a_false_condition_does_no_harm(stacks: Stacks) -> None:
    off = {**template(A=box(), B={"Type": "AWS::EC2::Instance", "Condition": "C"}), "Conditions": {"C": {"Fn::Equals": ["a", "b"]}}}
    assert stacks.create(off)["StackStatus"] == "CREATE_COMPLETE"


@pytest.mark.parametrize(
    ("properties", "given_", "needed"),
    [
        ({}, [], "CAPABILITY_IAM"),
        ({"Name": "n"}, ["CAPABILITY_IAM"], "CAPABILITY_NAMED_IAM"),
        ({}, ["CAPABILITY_AUTO_EXPAND"], "CAPABILITY_IAM"),
    ],
)
def test_capabilities(stacks: Stacks, properties: Json, given_: list[str], needed: str) -> None:
    with pytest.raises(ServiceError) as caught:
        stacks.create(template(A={"Type": "Test::Nail", "Properties": properties}), Capabilities=given_)
    assert caught.value.code == "InsufficientCapabilitiesException"
    assert caught.value.message == f"Requires capabilities : [{needed}]"


def test_transforms_need_a_capability(stacks: Stacks) -> None:
    extended = {**template(A=box()), "Transform": "AWS::LanguageExtensions"}
    with pytest.raises(ServiceError, match=r"\[CAPABILITY_AUTO_EXPAND\]"):
        stacks.create(extended)
    assert stacks.create(extended, Capabilities=["CAPABILITY_AUTO_EXPAND"])["StackStatus"] == "CREATE_COMPLETE"
