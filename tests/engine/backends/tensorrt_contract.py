"""The names that our source uses of TensorRT and of the CUDA runtime, looked up in the real bindings.

`uses` reads source code. It knows the modules by their names (`trt`, `tensorrt`, `cudart`, `_cudart`), objects by
annotations and constructor calls, and lists every name that is read, called, set or overridden. An object of TensorRT
whose class it cannot tell is an error, so that nothing goes unchecked.

`missing` asks the bindings; run as a program (`python tensorrt_contract.py MODULE < uses.json`) it prints what they
lack, so that each version of the bindings gets a process of its own.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any, NamedTuple

MODULES = {"trt": "tensorrt", "tensorrt": "tensorrt", "cudart": "cuda", "_cudart": "cuda"}  # name in source -> module


class Use(NamedTuple):
    """One name that the source touches: `path` within `module`, and how many arguments a call passes (-1: no call)."""

    module: str
    path: str
    kind: str  # 'get', 'set' or 'override'
    arguments: int


class Known(NamedTuple):
    """What is known of an expression: a name of the module itself, an instance of a class, or neither."""

    module: str
    path: str
    what: str  # 'name', 'instance' or 'value'


class UnknownClassError(Exception):
    """An object of TensorRT is used whose class the source does not tell."""


def uses(source: str) -> set[Use]:
    """Every use in a module's source.

    Raises:
        UnknownClassError: an attribute of an object from TensorRT whose class is not annotated.
    """
    tree = ast.parse(source)
    returns = {node.name: node.returns for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.returns}
    collector = Collector(returns)
    collector.visit(tree)  # learns what `self` holds
    collector.found.clear()
    collector.visit(tree)
    return collector.found


class Collector(ast.NodeVisitor):
    """Walks a module, keeping the classes of variables by scope."""

    def __init__(self, returns: dict[str, ast.expr]) -> None:
        self.found: set[Use] = set()
        self.returns = returns
        self.scopes: list[dict[str, Known]] = [{}]
        self.fields: dict[str, Known] = {}  # of self

    # scopes

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.scopes.append({})
        for argument in node.args.args:
            if argument.annotation is not None:
                self.bind(argument.arg, self.annotated(argument.annotation))
        self.generic_visit(node)
        self.scopes.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            known = self.known(base)
            if known is not None:
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and not method.name.startswith("__"):
                        path = f"{known.path}.{method.name}"
                        self.found.add(Use(known.module, path, "override", len(method.args.args)))
        self.generic_visit(node)

    # assignments

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.assign(node.target, self.annotated(node.annotation) or (self.known(node.value) if node.value else None))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for one, value in zip(target.elts, node.value.elts, strict=True):
                    self.assign(one, self.known(value))
            else:
                self.assign(target, self.known(node.value))
        self.generic_visit(node)

    def assign(self, target: ast.expr, known: Known | None) -> None:
        if isinstance(target, ast.Name):
            self.bind(target.id, known)
        elif isinstance(target, ast.Attribute) and known is not None and is_self(target.value):
            self.fields[target.attr] = known

    def bind(self, name: str, known: Known | None) -> None:
        if known is not None and name not in MODULES:
            self.scopes[-1][name] = known

    # expressions

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.known(node)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        known = self.known(node.func)
        if known is not None and known.path:
            explicit_self = known.path.endswith(".__init__")  # Base.__init__(self)
            self.found.add(Use(known.module, known.path, "get", len(node.args) + len(node.keywords) - explicit_self))
        self.generic_visit(node)

    def known(self, node: ast.expr) -> Known | None:
        """What an expression is; notes the uses within it."""
        match node:
            case ast.Name(id=name):
                if name in MODULES:
                    return Known(MODULES[name], "", "name")
                return next((scope[name] for scope in reversed(self.scopes) if name in scope), None)
            case ast.Attribute(value=owner, attr=attribute) if is_self(owner):
                return Known(MODULES[attribute], "", "name") if attribute in MODULES else self.fields.get(attribute)
            case ast.Attribute(value=owner, attr=attribute):
                return self.attribute(self.known(owner), attribute, isinstance(node.ctx, ast.Store))
            case ast.Call(func=ast.Name(id=name)) if name in self.returns:
                return self.annotated(self.returns[name])
            case ast.Call(func=function):
                called = self.known(function)
                if called is None:
                    return None
                constructs = called.what == "name" and called.path.rpartition(".")[2][:1].isupper()
                return called._replace(what="instance" if constructs else "value")
        return None

    def attribute(self, owner: Known | None, attribute: str, is_set: bool) -> Known | None:
        if owner is None or (owner.what == "value" and (owner.module == "cuda" or hasattr(str, attribute))):
            return None  # not of these modules; a CUDA call's result; a string
        if owner.what == "value":
            raise UnknownClassError(f"the class of {owner.path}'s result is not annotated, and .{attribute} is used")
        path = f"{owner.path}.{attribute}".lstrip(".")
        self.found.add(Use(owner.module, path, "set" if is_set else "get", -1))
        return Known(owner.module, path, "name" if owner.what == "name" else "value")

    def annotated(self, annotation: ast.expr) -> Known | None:
        """The class that an annotation names, if it is one of the modules' (`trt.X`, `trt.X | None`)."""
        if isinstance(annotation, ast.BinOp):
            return self.annotated(annotation.left)
        known = self.known(annotation) if isinstance(annotation, ast.Attribute) else None
        return known._replace(what="instance") if known is not None else None


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def missing(uses: Iterable[Use], module: ModuleType) -> list[str]:
    """The uses that a module does not support, in words."""
    return [fault for use in uses if (fault := fault_of(use, module))]


def fault_of(use: Use, module: ModuleType) -> str | None:
    found: Any = module
    for name in use.path.split("."):
        if not hasattr(found, name):
            return f"{use.path}: there is no {name!r}"
        found = getattr(found, name)
    if use.kind == "set" and getattr(found, "fset", None) is None:
        return f"{use.path}: cannot be set"
    counts = argument_counts(found)
    given = use.arguments + (use.kind != "override" and is_method(found))  # an override counts its self already
    if use.arguments >= 0 and counts and not any(low <= given <= high for low, high in counts):
        return f"{use.path}: takes {counts} arguments, not {given}"
    return None


def is_method(function: Any) -> bool:
    return isinstance(function, type) or type(function).__name__ == "instancemethod"


def argument_counts(function: Any) -> list[tuple[int, int]]:
    """Fewest and most arguments of each overload, self included, from the signatures that pybind11 documents."""
    documented = function.__init__ if isinstance(function, type) else function
    signatures = re.findall(r"^(?:\d+\. )?\w+\((self: .*)\) -> ", documented.__doc__ or "", re.MULTILINE)
    counts = []
    for signature in signatures:
        parameters = re.sub(r"\[[^\[\]]*(\[[^\[\]]*\][^\[\]]*)*\]", "", signature).split(", ")
        counts.append((sum("=" not in p for p in parameters), len(parameters)))
    return counts


if __name__ == "__main__":
    bindings = importlib.import_module(sys.argv[1])
    asked = [Use(*use) for use in json.load(sys.stdin)]
    json.dump({"version": bindings.__version__, "missing": missing(asked, bindings)}, sys.stdout)
