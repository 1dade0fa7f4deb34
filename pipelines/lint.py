"""Finds pipeline variables that are turned into text while the definition is built.

A parameter, a step's property or an execution variable has a value only while an execution runs. In an f-string (or str(), format, %, +) its
placeholder would go into the definition instead, and the mistake would show as a wrong S3 key hours later. `Join` is what joins them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.errors import DefinitionError

SOURCE_DIR = Path(__file__).resolve().parent

_VARIABLE = "PipelineVariable"
_VARIABLE_TYPES = frozenset(
    {
        _VARIABLE,
        "StrPipeVar",
        "Parameter",
        "ParameterString",
        "ParameterInteger",
        "ParameterFloat",
        "ParameterBoolean",
        "Join",
        "JsonGet",
        "ExecutionVariable",
        "Properties",
        "PropertiesList",
        "PropertiesMap",
    }
)
# Attributes of a pipeline variable that have a value while the definition is built.
_KNOWN_ATTRIBUTES = frozenset({"name", "expr", "default_value", "parameter_type", "step_name", "path"})
_CONVERSIONS = frozenset({"str", "repr", "format", "ascii", "int", "float", "bool"})
_ADVICE = "it has no value until an execution runs; use Join(on=..., values=[...]), or .to_string() for a number"


@dataclass(frozen=True, slots=True, order=True)
class SourceProblem:
    """One place where a pipeline variable is made into text."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def lint_sources(paths: Iterable[Path]) -> list[SourceProblem]:
    """Problems in the given Python files, which are read together: a type declared in one is known in the others.

    Raises:
        DefinitionError: A file is not Python.
    """
    trees: dict[Path, ast.Module] = {}
    for path in paths:
        try:
            trees[path] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        except SyntaxError as error:
            raise DefinitionError(f"{path}:{error.lineno}: not valid Python: {error.msg}") from None
    declarations = _Declarations()
    for tree in trees.values():
        declarations.collect(tree)
    problems: list[SourceProblem] = []
    for path, tree in trees.items():
        checker = _Checker(str(path), declarations)
        checker.visit(tree)
        problems += checker.problems
    return sorted(problems)


def check_sources(paths: Iterable[Path] | None = None) -> None:
    """Raise DefinitionError with the first problem in the files (by default, of this package)."""
    problems = lint_sources(sorted(SOURCE_DIR.glob("*.py")) if paths is None else paths)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DefinitionError(f"{problems[0]}{more}")


@dataclass
class _Declarations:
    """Types declared in annotations: of functions' results, and of classes' attributes (fields, properties and methods' results)."""

    functions: dict[str, str] = field(default_factory=dict)
    classes: dict[str, dict[str, str]] = field(default_factory=dict)

    def collect(self, tree: ast.Module) -> None:
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                self._put(self.functions, node.name, node.returns)
            elif isinstance(node, ast.ClassDef):
                attributes = self.classes.setdefault(node.name, {})
                for item in node.body:
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                        self._put(attributes, item.target.id, item.annotation)
                    elif isinstance(item, ast.FunctionDef):
                        self._put(attributes, item.name, item.returns)

    @staticmethod
    def _put(types: dict[str, str], name: str, annotation: ast.expr | None) -> None:
        if (kind := _annotated(annotation)) is not None:
            types[name] = kind


def _annotated(annotation: ast.expr | None) -> str | None:
    """The class an annotation names; `PipelineVariable` when any member of a union is one."""
    match annotation:
        case ast.Constant(value=str(text)):
            return _annotated(ast.parse(text, mode="eval").body)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return _VARIABLE if name in _VARIABLE_TYPES else name
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            kinds = [_annotated(left), _annotated(right)]
            return _VARIABLE if _VARIABLE in kinds else next((kind for kind in kinds if kind not in (None, "None")), None)
    return None


class _Checker(ast.NodeVisitor):
    """Walks one file, follows the types of local names, and notes each variable that becomes text."""

    def __init__(self, path: str, declarations: _Declarations) -> None:
        self.path = path
        self.declarations = declarations
        self.problems: list[SourceProblem] = []
        self.scopes: list[dict[str, str | None]] = [{}]

    # Types of expressions

    def kind(self, node: ast.expr) -> str | None:
        match node:
            case ast.Name(id=name):
                return next((scope[name] for scope in reversed(self.scopes) if name in scope), None)
            case ast.Attribute(value=ast.Name(id="ExecutionVariables")):
                return _VARIABLE
            case ast.Attribute(value=value, attr=attribute):
                return self._attribute(self.kind(value), attribute)
            case ast.Call(func=ast.Name(id=name)):
                if name in _VARIABLE_TYPES:
                    return _VARIABLE
                return name if name in self.declarations.classes else self.declarations.functions.get(name)
            case ast.Call(func=ast.Attribute(attr=name)) if name in _VARIABLE_TYPES:
                return _VARIABLE
            case ast.Call(func=ast.Attribute() as method):
                return self.kind(method)
            case ast.Subscript(value=value):
                return _VARIABLE if self.kind(value) == _VARIABLE else None
            case ast.IfExp(body=body, orelse=orelse):
                return _VARIABLE if _VARIABLE in (self.kind(body), self.kind(orelse)) else None
            case ast.NamedExpr(value=value):
                return self.kind(value)
        return None

    def _attribute(self, base: str | None, attribute: str) -> str | None:
        if base == _VARIABLE:
            return None if attribute in _KNOWN_ATTRIBUTES else _VARIABLE
        if attribute == "properties":  # every step's properties
            return _VARIABLE
        members: Mapping[str, str] = self.declarations.classes.get(base or "", {})
        return members.get(attribute)

    def is_variable(self, node: ast.expr) -> bool:
        return self.kind(node) == _VARIABLE

    # Scopes

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        scope: dict[str, str | None] = {argument.arg: _annotated(argument.annotation) for argument in arguments}
        owner = next((scope["self"] for scope in reversed(self.scopes) if "self" in scope), None)
        if arguments and arguments[0].arg == "self":
            scope["self"] = owner
        self.scopes.append(scope)
        self.generic_visit(node)
        self.scopes.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.scopes.append({"self": node.name})
        self.generic_visit(node)
        self.scopes.pop()

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.scopes[-1][target.id] = self.kind(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        if isinstance(node.target, ast.Name):
            self.scopes[-1][node.target.id] = _annotated(node.annotation)

    # Where a variable would become text

    def visit_FormattedValue(self, node: ast.FormattedValue) -> None:
        self._check(node.value, "in an f-string")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        match node.func:
            case ast.Name(id=name) if name in _CONVERSIONS:
                for value in values:
                    self._check(value, f"in {name}()")
            case ast.Attribute(attr="format"):
                for value in values:
                    self._check(value, "in str.format()")
            case ast.Attribute(value=ast.Constant(value=str()), attr="join"):
                for value in values:
                    for item in value.elts if isinstance(value, ast.List | ast.Tuple) else [value]:
                        self._check(item, "in str.join()")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if isinstance(node.op, ast.Mod):
            for value in node.right.elts if isinstance(node.right, ast.Tuple) else [node.right]:
                self._check(value, "in a % format")
        elif isinstance(node.op, ast.Add):
            self._check(node.left, "in a concatenation")
            self._check(node.right, "in a concatenation")
        self.generic_visit(node)

    def _check(self, value: ast.expr, where: str) -> None:
        if self.is_variable(value):
            self.problems.append(SourceProblem(self.path, value.lineno, f"pipeline variable {ast.unparse(value)} {where}: {_ADVICE}"))
