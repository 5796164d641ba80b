# SPDX-License-Identifier: Apache-2.0
"""Tokens of the small GoogleSQL, and what its parser makes: expressions, sources, queries."""

import re
from dataclasses import dataclass, field

from .google import GoogleError

TOKEN = re.compile(r"""
    (?P<space>\s+|--[^\n]*|\#[^\n]*|/\*.*?\*/)
  | (?P<tick>`[^`]+`)
  | (?P<number>\d+\.\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|\d+(?:[eE][+-]?\d+)?)
  | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
  | (?P<param>@[A-Za-z_]\w*)
  | (?P<word>[A-Za-z_]\w*)
  | (?P<op><>|!=|<=|>=|\|\||[-+*/=<>(),.;\[\]])
""", re.X | re.S)
STOP = {"FROM", "WHERE", "GROUP", "HAVING", "QUALIFY", "ORDER", "LIMIT", "OFFSET", "UNION", "ON",
        "JOIN", "INNER", "LEFT", "CROSS", "AS", "AND", "OR", "NOT", "IN", "BETWEEN", "LIKE", "IS",
        "THEN", "ELSE", "END", "WHEN", "ASC", "DESC", "NULLS", "PARTITION", "OVER", "EXCEPT",
        "SELECT", "DISTINCT", "BY", "ROWS", "RANGE", "WITH", "USING"}
ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", "'": "'", '"': '"', "`": "`"}


def bad_query(message, where="query"):
    return GoogleError(400, message, reason="invalidQuery", location=where,
                       locationType="parameter")


@dataclass
class Expr:
    sql: str
    kind: str = None  # the column type; None for NULL
    name: str = None  # what the column is called when nothing says otherwise
    columns: set = field(default_factory=set)  # names of the columns it reads
    literal: bool = False
    conjuncts: list = None
    windows: list = None  # columns of each PARTITION BY inside


@dataclass
class Source:
    """Something after FROM."""
    sql: str
    fields: list
    alias: str
    tables: list = field(default_factory=list)  # (Table, filter satisfied, conjuncts)


@dataclass
class Query:
    sql: str
    fields: list
    sources: list
    passes: object = None  # columns that an outer filter may still prune by; None means all


def tokens_of(text):
    """(kind, text, offset) of each token; a character that is none of GoogleSQL's is an error."""
    at = 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise bad_query(f"Syntax error: Illegal input character {text[at]!r} at "
                            f"[{position_of(text, at)}]")
        if match.lastgroup != "space":
            yield match.lastgroup, match[0], at
        at = match.end()
    yield "end", "end of query", at


def position_of(text, at):
    before = text[:at]
    return f"{before.count(chr(10)) + 1}:{at - before.rfind(chr(10))}"


def merge(left, right):
    return (left.windows or []) + (right.windows or []) or None


def unquote(text):
    return re.sub(r"\\(.)", lambda m: ESCAPES.get(m[1], m[1]), text[1:-1])
