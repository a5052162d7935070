"""The ways in which :mod:`dev.mutate` breaks a module: an operator, constant, condition, return or statement at a time.

Left alone, because no test should notice: annotations, decorators, docstrings, messages (f-strings) and log lines.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {  # the boundary, if there is one, and the negation
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
SQL = {"and_": "or_", "or_": "and_", "is_": "is_not", "is_not": "is_", "in_": "not_in", "not_in": "in_"}
UNTOUCHED_FIELDS = {"annotation", "returns", "decorator_list"}
UNTOUCHED = (ast.Import, ast.ImportFrom, ast.JoinedStr)


@dataclass(frozen=True)
class Mutant:
    """One mutation of a module, known by where it is in the code's structure and what it does, not by its line."""

    module: str  #: its path in the checkout
    function: str  #: qualified; "" outside of functions
    kind: str
    ordinal: int  #: among those of its kind in the function
    source: str
    replacement: str
    text: str = field(repr=False)  #: of the whole module, mutated


def mutants_of(module: str, source: str) -> list[Mutant]:
    """All mutants of the module, in the order of its code; of two that give the same code, the first."""
    tree = ast.parse(source)
    found: dict[str, Mutant] = {}
    ordinals: Counter[tuple[str, str]] = Counter()
    for function, kind, old, new in _applied(tree, ""):
        text = ast.unparse(tree)
        if text not in found:
            ordinals[function, kind] += 1
            ordinal = ordinals[function, kind]
            found[text] = Mutant(module, function, kind, ordinal, ast.unparse(old), ast.unparse(new), text)
    return list(found.values())


def _applied(node: ast.AST, function: str) -> Iterator[tuple[str, str, ast.AST, ast.AST]]:
    """Apply each mutation below the node, let the caller look at the tree, and take the mutation back."""
    for name, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        for index, child in enumerate(children):
            if not isinstance(child, ast.AST) or name in UNTOUCHED_FIELDS or isinstance(child, UNTOUCHED):
                continue
            if isinstance(child, ast.Expr) and ast.unparse(child).startswith(("logger.", "'", '"')):
                continue
            is_last = isinstance(node, ast.FunctionDef) and index == len(node.body) - 1
            for kind, new in (*_expressions(child, name), *(_statements(child, is_last) if function else ())):
                _put(node, name, index, new)
                yield function, kind, child, new
                _put(node, name, index, child)
            inner = f"{function}.{child.name}" if isinstance(child, (ast.FunctionDef, ast.ClassDef)) else function
            yield from _applied(child, inner.lstrip("."))


def _put(node: ast.AST, name: str, index: int, child: ast.AST) -> None:
    value = getattr(node, name)
    if isinstance(value, list):
        value[index] = child
    else:
        setattr(node, name, child)


def _expressions(node: ast.AST, name: str) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Compare(left, ops, comparators):
            for index, op in enumerate(ops):
                for new in COMPARISONS[type(op)]:
                    yield "comparison", ast.Compare(left, [*ops[:index], new(), *ops[index + 1 :]], comparators)
        case ast.BinOp(left, op, right) if type(op) in ARITHMETIC:
            yield "arithmetic", ast.BinOp(left, ARITHMETIC[type(op)](), right)
        case ast.AugAssign(target, op, assigned) if type(op) in ARITHMETIC:
            yield "arithmetic", ast.AugAssign(target, ARITHMETIC[type(op)](), assigned)
        case ast.BoolOp(op, values):
            yield "boolean", ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.Call(ast.Name(id), arguments, keywords) if id in SQL:
            yield "boolean", ast.Call(ast.Name(SQL[id]), arguments, keywords)
        case ast.Attribute(owner, attr) if attr in SQL:
            yield "comparison", ast.Attribute(owner, SQL[attr])
        case ast.UnaryOp(_, operand):
            yield "not", operand
        case ast.Constant(bool(value)):
            yield "constant", ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield from (("constant", ast.Constant(value + 1)), ("constant", ast.Constant(value - 1)))
    if name in ("test", "ifs") and not isinstance(node, ast.Constant):
        yield from (("condition", ast.Constant(True)), ("condition", ast.Constant(False)))


def _statements(node: ast.AST, is_last: bool) -> Iterator[tuple[str, ast.AST]]:
    """Names are assigned on, for without them a function only fails with a NameError."""
    match node:
        case ast.Return(value):
            if value is not None and ast.unparse(value) != "None":
                yield "return", ast.Return(ast.Constant(None))
            if not is_last:
                yield "return", ast.Pass()
        case ast.Assign(targets) if all(isinstance(target, ast.Name) for target in targets):
            pass
        case ast.Expr() | ast.Assign() | ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break() | ast.Delete():
            yield "deletion", ast.Pass()
