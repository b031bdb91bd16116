r"""Parse and format filters as text: ``year >= 2020 and tag in ["a", "b"] and not (draft = true or author exists)``.

- ``= == != <> < <= > >=``, ``in [...]``, ``not in [...]``, ``exists``, ``not exists``, ``and``, ``or``, ``not``,
  parentheses; ``not`` binds before ``and``, ``and`` before ``or``. Keywords are case-insensitive.
- ``2020 <= year < 2023`` requires one value within both bounds, as ``Range`` does; ``year >= 2020 and year < 2023``
  also matches a list in which one element passes the first bound and another element the second.
- Values are numbers, ``true``, ``false``, and strings in single or double quotes with the escapes ``\\ \' \" \n \r \t
  \uXXXX``; dates are strings. ``x = null`` is ``not x exists``, and ``x != 1`` is ``not x = 1``, which also matches
  where x is missing.
- A field's name consists of letters, digits, ``_``, ``.`` and ``-``. Any other name is written in double quotes, as in
  SQL, or in backticks: ``"my field" = "x"``. A quote inside a name is doubled; in double quotes, the escapes of strings
  are valid too.
- Text in double quotes is a name on the left of a comparison, and a value on its right. The name is on the right of
  ``<``, ``<=``, ``>`` or ``>=`` if a number or a string in single quotes is on the left, or if the field is between two
  bounds: ``1 <= "my field" < 9``.
- ``true`` alone matches everything, ``false`` nothing.
"""

from __future__ import annotations

import math
import operator
import re
from functools import cache
from typing import TYPE_CHECKING, Any, TypeGuard, assert_never

from st_connectors.errors import rebuild
from st_connectors.filters import And, Eq, Exists, Filter, FilterValue, In, Not, Or, Range, parse_date

if TYPE_CHECKING:
    from lark import Lark, Token

__all__ = ["parse_where", "to_text"]

_GRAMMAR = r"""
?start: any
any: all (OR all)*
all: no (AND no)*
?no: NOT no                    -> no
   | "(" any ")"
   | TRUE                      -> everything
   | FALSE                     -> nothing
   | field EQUAL value         -> equal
   | field UNEQUAL value       -> unequal
   | name ORDER bound          -> order
   | DOUBLE ORDER bound        -> order
   | literal ORDER inner       -> reversed_order
   | DOUBLE ORDER name         -> reversed_order
   | literal ORDER inner ORDER bound -> between
   | DOUBLE ORDER inner ORDER bound -> between
   | field IN values           -> one_of
   | field NOT IN values       -> none_of
   | field EXISTS              -> exists
   | field NOT EXISTS          -> missing
values: "[" [value ("," value)* [","]] "]" | "(" [value ("," value)* [","]] ")"
?value: bound | TRUE -> true | FALSE -> false | NULL -> null
?bound: literal | DOUBLE -> string
?literal: SINGLE -> string | NUMBER -> number
?field: name | DOUBLE -> double_quoted
?inner: name | DOUBLE -> double_quoted
name: NAME -> bare | QUOTED -> quoted

AND.2: /and(?![\w.-])/i
OR.2: /or(?![\w.-])/i
NOT.2: /not(?![\w.-])/i
IN.2: /in(?![\w.-])/i
EXISTS.2: /exists(?![\w.-])/i
TRUE.2: /true(?![\w.-])/i
FALSE.2: /false(?![\w.-])/i
NULL.2: /null(?![\w.-])/i
NAME: /[^\W\d][\w.-]*/
QUOTED: /`(?:[^`]|``)+`/
DOUBLE: /"(?:[^"\\]|\\.|"")*"/s
SINGLE: /'(?:[^'\\]|\\.)*'/s
NUMBER: /[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.-])/
ORDER: /<=|>=|<|>/
UNEQUAL.2: /!=|<>/
EQUAL: /==?/
%ignore /\s+/
"""


_LOW = {">": "gt", ">=": "gte"}
_HIGH = {"<": "lt", "<=": "lte"}
_BOUNDS = _LOW | _HIGH
_TURNED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}
_ESCAPES = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "r": "\r", "t": "\t"}

_WORDS = {"&": "and", "|": "or", "!": "not"}

# The description of the first entry whose terminal is allowed at the position of an error becomes part of the message.
_EXPECTED = (
    ("LSQB", 'a list such as ["a", "b"]'),
    ("LPAR", "a field name"),
    ("TRUE", "a value: a number, true, false, null, or a string in quotes"),
    ("NUMBER", "a number, or a date in quotes"),
    ("NAME", "a field name"),
    ("EQUAL", "a comparison: =, !=, <, <=, >, >=, in, not in, exists"),
    ("IN", "in or exists"),
    ("ORDER", "<, <=, > or >="),
    ("COMMA", "a comma or the end of the list"),
    ("RPAR", "and, or, or a closing parenthesis"),
    ("AND", "and, or, or the end"),
)


class _SyntaxFault(ValueError):
    """A syntax error at a column, counted from 1."""

    def __init__(self, column: int, message: str) -> None:
        super().__init__(message)
        self.column = column

    def __reduce__(self) -> tuple[object, ...]:
        return rebuild, (type(self), self.args, self.__dict__.copy())


def parse_where(text: str) -> Filter:
    """Parse a filter; raise ValueError with the column of an error and the expected input."""
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken, VisitError

    try:
        return _parser().parse(text)  # type: ignore[return-value]  # the callbacks of _Builder return the filter instead of a tree
    except UnexpectedToken as error:
        at = len(text) + 1 if error.token.type == "$END" else (error.token.start_pos or 0) + 1
        fault = _SyntaxFault(at, _unexpected(error.token, error.accepts or error.expected))
    except UnexpectedCharacters as error:
        at = error.pos_in_stream or 0
        fault = _SyntaxFault(at + 1, _unreadable(text[at:]))
    except _SyntaxFault as error:
        fault = error
    except VisitError as error:
        if not isinstance(error.orig_exc, _SyntaxFault):
            raise
        fault = error.orig_exc
    line = re.sub(r"[\r\n\t]", " ", text)
    raise ValueError(f"filter, column {fault.column}: {fault}; in: {line}") from None


@cache
def _parser() -> Lark:
    from lark import Lark

    return Lark(_GRAMMAR, parser="lalr", lexer="basic", maybe_placeholders=False, transformer=_Builder())


def _unexpected(token: Token, accepted: set[str]) -> str:
    expected = next((words for terminal, words in _EXPECTED if terminal in accepted), "the end")
    if token.type == "$END":
        return f"expected {expected}, but the filter ends"
    return f"expected {expected}, got {str(token)!r}{_hint(token, accepted)}"


def _hint(token: Token, accepted: set[str]) -> str:
    """Return the end of a message: how to write what was probably meant."""
    if token.type == "NAME" and "SINGLE" in accepted and "LPAR" not in accepted:
        return f' (strings are quoted: "{token}")'
    if str(token).lower() == "is":
        return " (x exists, or x = null)"
    if str(token).lower() == "between":
        return " (bounds are written 3 <= x <= 4)"
    if accepted == {"ORDER"}:
        return ' (the field comes first: year = 5, or "my field" = 5)'
    return ""


def _unreadable(rest: str) -> str:
    if rest[0] in "\"'`":
        return f"the quote {rest[0]} is not closed"
    if rest[0].isdigit():
        word = re.split(r"[\s,)\]]", rest)[0]
        return f"{word!r} is not a number; dates and other strings are quoted"
    word = _WORDS.get(rest[0])
    return f"unexpected {rest[0]!r}" + (f"; write {word}" if word else "")


class _Builder:
    """Builds filters, with one method per rule of the grammar."""

    def any(self, children: list[Any]) -> Filter:
        parts = children[::2]
        return Or(tuple(parts)) if len(parts) > 1 else parts[0]

    def all(self, children: list[Any]) -> Filter:
        parts = children[::2]
        return And(tuple(parts)) if len(parts) > 1 else parts[0]

    def no(self, children: list[Any]) -> Filter:
        return Not(children[1])

    def everything(self, _: list[Any]) -> Filter:
        return And(())

    def nothing(self, _: list[Any]) -> Filter:
        return Or(())

    def equal(self, children: list[Any]) -> Filter:
        field, _, value = children
        return Not(Exists(field)) if value is None else Eq(field, value)

    def unequal(self, children: list[Any]) -> Filter:
        field, _, value = children
        return Exists(field) if value is None else Not(Eq(field, value))

    def order(self, children: list[Any]) -> Filter:
        field, sign, value = children
        return Range(_field(field), **{_BOUNDS[sign]: value})

    def reversed_order(self, children: list[Any]) -> Filter:
        value, sign, field = children
        return Range(field, **{_BOUNDS[_TURNED[sign]]: _bound(value)})

    def between(self, children: list[Any]) -> Filter:
        first, left, field, right, second = children
        if left[0] != right[0]:
            raise _SyntaxFault(
                right.start_pos + 1,
                f"expected two signs of the same direction, as in a < x < b, got {left} and {right}",
            )
        return Range(field, **{_BOUNDS[_TURNED[left]]: _bound(first), _BOUNDS[right]: second})

    def one_of(self, children: list[Any]) -> Filter:
        return In(children[0], children[-1])

    def none_of(self, children: list[Any]) -> Filter:
        return Not(In(children[0], children[-1]))

    def exists(self, children: list[Any]) -> Filter:
        return Exists(children[0])

    def missing(self, children: list[Any]) -> Filter:
        return Not(Exists(children[0]))

    def values(self, children: list[Any]) -> tuple[FilterValue, ...]:
        return tuple(children)

    def bare(self, children: list[Any]) -> str:
        return str(children[0])

    def quoted(self, children: list[Any]) -> str:
        return str(children[0])[1:-1].replace("``", "`")

    def double_quoted(self, children: list[Token]) -> str:
        return _read_name(children[0])

    def true(self, _: list[Any]) -> bool:
        return True

    def false(self, _: list[Any]) -> bool:
        return False

    def null(self, _: list[Any]) -> None:
        return None

    def number(self, children: list[Token]) -> int | float:
        token = children[0]
        if re.fullmatch(r"[+-]?\d{1,400}", token):
            return int(token)
        value = float(token)
        if not math.isfinite(value):
            raise _SyntaxFault((token.start_pos or 0) + 1, f"{token} is beyond 64 bits")
        return value

    def string(self, children: list[Token]) -> str:
        return _read_string(children[0])


def _field(child: str | Token) -> str:
    """Return the name of a field; a token is a name in double quotes."""
    return _read_name(child) if _is_token(child) else child


def _bound(child: float | str | Token) -> float | str:
    """Return the value of a bound; a token is a string in double quotes."""
    return _read_string(child) if _is_token(child) else child


def _is_token(child: object) -> TypeGuard[Token]:
    return hasattr(child, "start_pos")


def _read_name(token: Token) -> str:
    name = _unescape(token, two_quotes='"')
    if not name:
        raise _SyntaxFault((token.start_pos or 0) + 1, "expected a field name, got an empty one")
    return name


def _read_string(token: Token) -> str:
    return _unescape(token, two_quotes=None if token.type == "DOUBLE" else '""')


def _unescape(token: Token, two_quotes: str | None) -> str:
    """Return the text between the quotes of a token.

    ``two_quotes`` replaces two double quotes in the text, which raise an error if it is None.
    """

    def unescaped(match: re.Match[str]) -> str:
        at, code = (token.start_pos or 0) + 2 + match.start(), match.group(1)
        if code is None:
            if two_quotes is None:
                raise _SyntaxFault(
                    at, 'expected an operator or a comma after a string; a quote inside it is written \\"'
                )
            return two_quotes
        if len(code) > 1 and not 0xD800 <= int(code[1:], 16) <= 0xDFFF:  # surrogates
            return chr(int(code[1:], 16))
        if code not in _ESCAPES:
            raise _SyntaxFault(at, f"unknown escape \\{code}; expected one of \\\\ \\' \\\" \\n \\r \\t and \\uXXXX")
        return _ESCAPES[code]

    return re.sub(r'\\(u[0-9a-fA-F]{4}|.)|""', unescaped, token[1:-1], flags=re.DOTALL)


def to_text(where: Filter) -> str:
    """Format a filter as text that ``parse_where`` parses to a filter of the same meaning."""
    match where:
        case And(parts):
            return " and ".join(map(_inner, parts)) or "true"
        case Or(parts):
            return " or ".join(map(_inner, parts)) or "false"
        case Not(part):
            return f"not {_inner(part)}"
        case _:
            return _leaf(where)


def _leaf(where: Eq | In | Range | Exists) -> str:
    match where:
        case Eq(field, value):
            return f"{_name(field)} = {_value(value)}"
        case In(field, values):
            return f"{_name(field)} in [{', '.join(map(_value, values))}]"
        case Range():
            return _range(where)
        case Exists(field):
            return f"{_name(field)} exists"
        case _:
            assert_never(where)


def _inner(part: Filter) -> str:
    """Format a part of a filter, in parentheses if it has several parts itself."""
    text = to_text(part)
    return f"({text})" if isinstance(part, And | Or) and part.parts else text


def _range(where: Range) -> str:
    name = _name(where.field)
    low = _strictest(where.gt, where.gte, "<", "<=", operator.ge)
    high = _strictest(where.lt, where.lte, "<", "<=", operator.le)
    if low is None and high is None:
        raise ValueError(f"Range({where.field!r}) has no bound")
    if low is None:
        return f"{name} {high[1]} {high[0]}" if high else ""
    if high is None:
        return f"{name} {_TURNED[low[1]]} {low[0]}"
    return f"{low[0]} {low[1]} {name} {high[1]} {high[0]}"


def _strictest(
    strict: float | str | None, loose: float | str | None, strict_sign: str, loose_sign: str, stricter: Any
) -> tuple[str, str] | None:
    """Return the stricter of two bounds on one side with its sign; None if there is no bound."""
    if strict is None:
        return None if loose is None else (_value(loose), loose_sign)
    if loose is None or stricter(_comparable(strict), _comparable(loose)):
        return _value(strict), strict_sign
    return _value(loose), loose_sign


def _comparable(bound: float | str) -> Any:
    return parse_date(bound) if isinstance(bound, str) else bound


def _name(field: str) -> str:
    words = {"and", "or", "not", "in", "exists", "true", "false", "null"}
    if re.fullmatch(r"[^\W\d][\w.-]*", field) and field.lower() not in words:
        return field
    return "`" + field.replace("`", "``") + "`"


def _value(value: FilterValue) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            if not math.isfinite(value):
                raise ValueError(f"expected a finite number in a filter, got {value}")
            return repr(value)
        case str():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            return (
                '"'
                + re.sub(r"[\x00-\x1f\x7f\u2028\u2029]", lambda match: f"\\u{ord(match.group()):04x}", escaped)
                + '"'
            )
        case _:
            assert_never(value)
