# SPDX-License-Identifier: Apache-2.0
"""Functions, literals and type rules of the small GoogleSQL of bq_sql.py, as SQLite text."""

import datetime
import decimal
import time
from zoneinfo import ZoneInfo

from .bq_types import (EPOCH, Bad, check_boolean, check_datetime, checker, format_timestamp,
                       parse_date, parse_timestamp)
from .google import GoogleError

NUMBERS = ("INTEGER", "FLOAT", "NUMERIC", "BIGNUMERIC")
SHOWN = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", None: "NULL"}
KINDS = {"INT64": "INTEGER", "INTEGER": "INTEGER", "FLOAT64": "FLOAT", "STRING": "STRING",
         "BOOL": "BOOLEAN", "NUMERIC": "NUMERIC", "BIGNUMERIC": "BIGNUMERIC", "DATE": "DATE",
         "TIMESTAMP": "TIMESTAMP", "DATETIME": "DATETIME"}
UNITS = {"MICROSECOND": 1, "MILLISECOND": 1000, "SECOND": 1000000, "MINUTE": 60000000,
         "HOUR": 3600000000, "DAY": 86400000000}


def bad(message):
    return GoogleError(400, message, reason="invalidQuery", location="query",
                       locationType="parameter")


def literal(parse):
    def read(text):
        try:
            return parse(text)
        except Bad as e:
            raise bad(e.message) from None
    return read


def _number(kind):
    return literal(checker({"type": kind}))


LITERALS = {"DATE": ("DATE", literal(parse_date)),
            "TIMESTAMP": ("TIMESTAMP", literal(parse_timestamp)),
            "DATETIME": ("DATETIME", literal(check_datetime)),
            "NUMERIC": ("NUMERIC", _number("NUMERIC")),
            "BIGNUMERIC": ("BIGNUMERIC", _number("BIGNUMERIC"))}


def shown(kind):
    return SHOWN.get(kind, kind)


def coerce(value, kind, bind):
    """SQL of the value as `kind`: literals take the type of what they are compared with."""
    if value.kind in (kind, None) or kind is None:
        return value.sql
    if value.literal and value.kind == "STRING" and kind in LITERALS:
        return bind(LITERALS[kind][1](bind.values[value.sql[1:]]))
    if value.kind in NUMBERS and kind in NUMBERS:
        if kind in ("NUMERIC", "BIGNUMERIC"):
            return f"CAST({value.sql} AS TEXT)"
        return f"CAST({value.sql} AS REAL)" if kind == "FLOAT" else value.sql
    raise bad(f"No matching signature for argument types: {shown(kind)}, {shown(value.kind)}.")


def unify(left, right, op, bind):
    """(SQL, SQL, type) of two operands of a comparison."""
    if left.kind == right.kind or None in (left.kind, right.kind):
        return left.sql, right.sql, left.kind or right.kind
    for a, b in ((left, right), (right, left)):
        if b.literal and b.kind == "STRING" and a.kind in LITERALS:
            sql = coerce(b, a.kind, bind)
            return (a.sql, sql, a.kind) if a is left else (sql, a.sql, a.kind)
    if left.kind in NUMBERS and right.kind in NUMBERS:
        kinds = {left.kind, right.kind}
        kind = next(k for k in ("FLOAT", "BIGNUMERIC", "NUMERIC", "INTEGER") if k in kinds)
        return coerce(left, kind, bind), coerce(right, kind, bind), kind
    raise bad(f"No matching signature for operator {op} for argument types: {shown(left.kind)}, "
              f"{shown(right.kind)}.")


def result_type(left, op, right):
    kinds = {left.kind, right.kind} - {None}
    if op == "||":
        if kinds - {"STRING"}:
            raise bad(f"No matching signature for operator || for argument types: "
                      f"{shown(left.kind)}, {shown(right.kind)}.")
        return "STRING", left.sql, right.sql
    if kinds - set(NUMBERS):
        raise bad(f"No matching signature for operator {op} for argument types: "
                  f"{shown(left.kind)}, {shown(right.kind)}.")
    if kinds <= {"INTEGER"} and op != "/":
        return "INTEGER", left.sql, right.sql
    return "FLOAT", f"CAST({left.sql} AS REAL)", f"CAST({right.sql} AS REAL)"


def cast(value, name):
    kind = KINDS.get(name)
    if kind is None:
        raise bad(f"CAST to {name} is not modelled by this double")
    return f"lc_cast({value.sql}, '{value.kind}', '{kind}')", kind


# -- functions: (name, arguments, distinct, unit, bind) -> (SQL, type)


def arity(least, most):
    def wrap(function):
        def check(name, arguments, distinct, unit, bind):
            if not least <= len(arguments) <= most:
                raise bad(f"Number of arguments does not match for function {name}")
            return function(name, arguments, distinct, unit, bind)
        return check
    return wrap


def same_as_first(sqlite_name, most=1):
    @arity(1, most)
    def function(name, arguments, distinct, unit, bind):
        kind = next((a.kind for a in arguments if a.kind), None)
        items = ", ".join(a.sql if i == 0 else coerce(a, kind, bind)
                          for i, a in enumerate(arguments))
        collate = " COLLATE bq_number" if kind in ("NUMERIC", "BIGNUMERIC") else ""
        return f"{sqlite_name}({distinct}{items}{collate})", kind
    return function


def fixed(sqlite_name, kind, least=1, most=1):
    @arity(least, most)
    def function(name, arguments, distinct, unit, bind):
        return f"{sqlite_name}({distinct}{', '.join(a.sql for a in arguments)})", kind
    return function


@arity(1, 1)
def _sum(name, arguments, distinct, unit, bind):
    kind = arguments[0].kind
    if kind not in NUMBERS:
        raise bad(f"No matching signature for aggregate function SUM for argument types: "
                  f"{shown(kind)}.")
    if kind in ("NUMERIC", "BIGNUMERIC"):
        return f"lc_sum({distinct}{arguments[0].sql})", kind
    return f"sum({distinct}{arguments[0].sql})", kind


@arity(1, 1)
def _countif(name, arguments, distinct, unit, bind):
    return f"coalesce(sum({arguments[0].sql} <> 0), 0)", "INTEGER"


def _logical(sqlite_name):
    @arity(1, 1)
    def function(name, arguments, distinct, unit, bind):
        if arguments[0].kind not in ("BOOLEAN", None):
            raise bad(f"No matching signature for aggregate function {name} for argument types: "
                      f"{shown(arguments[0].kind)}.")
        return f"{sqlite_name}({arguments[0].sql})", "BOOLEAN"
    return function


@arity(3, 3)
def _if(name, arguments, distinct, unit, bind):
    kind = arguments[1].kind or arguments[2].kind
    return f"iif({', '.join(a.sql for a in arguments)})", kind


@arity(0, 0)
def _now(name, arguments, distinct, unit, bind):
    return bind(int(time.time() * 1000000)), "TIMESTAMP"


@arity(0, 1)
def _today(name, arguments, distinct, unit, bind):
    zone = "UTC" if not arguments else bind.values[arguments[0].sql[1:]]
    return bind(datetime.datetime.now(ZoneInfo(zone)).date().isoformat()), "DATE"


@arity(1, 2)
def _date(name, arguments, distinct, unit, bind):
    zone = arguments[1].sql if len(arguments) > 1 else "'UTC'"
    return f"lc_date({arguments[0].sql}, '{arguments[0].kind}', {zone})", "DATE"


@arity(1, 1)
def _timestamp(name, arguments, distinct, unit, bind):
    return cast(arguments[0], "TIMESTAMP")


def _shift(sign, kind):
    @arity(2, 2)
    def function(name, arguments, distinct, unit, bind):
        if arguments[0].kind not in (kind, None) and not arguments[0].literal:
            raise bad(f"No matching signature for function {name} for argument types: "
                      f"{shown(arguments[0].kind)}, INTERVAL {unit}.")
        when = coerce(arguments[0], kind, bind)
        if kind == "DATE":
            if unit not in ("DAY", "MONTH", "YEAR", "WEEK"):
                raise bad(f"{name} does not support the {unit} date part")
            count = f"({arguments[1].sql}{' * 7' if unit == 'WEEK' else ''})"
            return f"lc_date_add({when}, {sign}{count}, '{unit}')", "DATE"
        if unit not in UNITS:
            raise bad(f"{name} does not support the {unit} date part when the argument is "
                      "TIMESTAMP type")
        return f"({when} + ({sign}1) * ({arguments[1].sql}) * {UNITS[unit]})", "TIMESTAMP"
    return function


def _from_epoch(factor):
    @arity(1, 1)
    def function(name, arguments, distinct, unit, bind):
        return f"({arguments[0].sql} * {factor})", "TIMESTAMP"
    return function


def _to_epoch(factor):
    @arity(1, 1)
    def function(name, arguments, distinct, unit, bind):
        if arguments[0].kind not in ("TIMESTAMP", None):
            raise bad(f"No matching signature for function {name} for argument types: "
                      f"{shown(arguments[0].kind)}.")
        return f"lc_floor({arguments[0].sql}, {factor})", "INTEGER"
    return function


@arity(1, 1)
def _truncate(name, arguments, distinct, unit, bind):
    if unit not in ("SECOND", "MINUTE", "HOUR", "DAY"):
        raise bad(f"{name} with {unit} is not modelled by this double")
    factor = UNITS[unit]
    return f"(lc_floor({arguments[0].sql}, {factor}) * {factor})", "TIMESTAMP"


@arity(1, 99)
def _concat(name, arguments, distinct, unit, bind):
    return "(" + " || ".join(a.sql for a in arguments) + ")", "STRING"


FUNCTIONS = {
    "COUNT": fixed("count", "INTEGER"), "COUNTIF": _countif, "SUM": _sum,
    "AVG": fixed("avg", "FLOAT"), "MAX": same_as_first("max"), "MIN": same_as_first("min"),
    "ANY_VALUE": same_as_first("max"), "COALESCE": same_as_first("coalesce", 99),
    "LOGICAL_OR": _logical("max"), "LOGICAL_AND": _logical("min"),
    "IFNULL": same_as_first("ifnull", 2), "NULLIF": same_as_first("nullif", 2), "IF": _if,
    "ABS": same_as_first("abs"), "LENGTH": fixed("length", "INTEGER"),
    "LOWER": fixed("lower", "STRING"), "UPPER": fixed("upper", "STRING"), "CONCAT": _concat,
    "ROW_NUMBER": fixed("row_number", "INTEGER", 0, 0), "RANK": fixed("rank", "INTEGER", 0, 0),
    "LAG": same_as_first("lag"), "LEAD": same_as_first("lead"),
    "CURRENT_TIMESTAMP": _now, "CURRENT_DATE": _today, "DATE": _date, "TIMESTAMP": _timestamp,
    "TIMESTAMP_SUB": _shift("-", "TIMESTAMP"), "TIMESTAMP_ADD": _shift("+", "TIMESTAMP"),
    "DATE_SUB": _shift("-", "DATE"), "DATE_ADD": _shift("+", "DATE"),
    "TIMESTAMP_SECONDS": _from_epoch(1000000), "TIMESTAMP_MILLIS": _from_epoch(1000),
    "TIMESTAMP_MICROS": _from_epoch(1), "UNIX_SECONDS": _to_epoch(1000000),
    "UNIX_MILLIS": _to_epoch(1000), "UNIX_MICROS": _to_epoch(1), "TIMESTAMP_TRUNC": _truncate,
}


# -- what SQLite calls back


def lc_date(value, kind, zone):
    if value is None:
        return None
    if kind == "TIMESTAMP":
        when = EPOCH + datetime.timedelta(microseconds=value)
        return when.astimezone(ZoneInfo(zone)).date().isoformat()
    return parse_date(str(value)[:10])


def lc_date_add(value, count, unit):
    if value is None or count is None:
        return None
    day = datetime.date.fromisoformat(value)
    if unit in ("DAY", "WEEK"):
        return (day + datetime.timedelta(days=count)).isoformat()
    months = day.year * 12 + day.month - 1 + count * (12 if unit == "YEAR" else 1)
    year, month = divmod(months, 12)
    last = (datetime.date(year + month // 11, (month + 1) % 12 + 1, 1)
            - datetime.timedelta(days=1)).day
    return datetime.date(year, month + 1, min(day.day, last)).isoformat()


def lc_cast(value, source, kind):
    if value is None:
        return None
    if kind == "STRING":
        if source == "TIMESTAMP":
            return format_timestamp(value).replace("T", " ").replace("Z", "+00")
        return ("false", "true")[value] if source == "BOOLEAN" else str(value)
    if kind == "DATE":
        return lc_date(value, source, "UTC")
    if kind == "TIMESTAMP":
        return value if source == "TIMESTAMP" else parse_timestamp(str(value))
    if kind == "DATETIME":
        return check_datetime(format_timestamp(value)[:-1] if source == "TIMESTAMP" else value)
    if kind == "INTEGER":
        return int(decimal.Decimal(str(value)).to_integral_value(decimal.ROUND_HALF_UP))
    if kind == "FLOAT":
        return float(value)
    if kind == "BOOLEAN":
        return check_boolean(value)
    return checker({"type": kind})(str(value))


class Sum:
    def __init__(self):
        self.total = None

    def step(self, value):
        if value is not None:
            self.total = (self.total or 0) + decimal.Decimal(value)

    def finalize(self):
        return None if self.total is None else checker({"type": "BIGNUMERIC"})(
            format(self.total, "f"))


def install(db):
    """Register what the translated SQL calls."""
    def lc_floor(value, factor):
        return None if value is None else value // factor
    db.create_function("lc_date", 3, lc_date, deterministic=True)
    db.create_function("lc_date_add", 3, lc_date_add, deterministic=True)
    db.create_function("lc_cast", 3, lc_cast, deterministic=True)
    db.create_function("lc_floor", 2, lc_floor, deterministic=True)
    db.create_aggregate("lc_sum", 1, Sum)
