# SPDX-License-Identifier: Apache-2.0
"""BigQuery column types: what a value must look like, how it is kept, how it is given back.

Kept in SQLite as: INT64 and TIMESTAMP (microseconds) INTEGER; FLOAT64 REAL; BOOL 0 or 1; NUMERIC and
BIGNUMERIC canonical decimal text under a collation that orders numbers; DATE, TIME, DATETIME ISO text;
BYTES base64; RECORD, JSON and everything REPEATED as JSON text.
"""

import base64
import datetime
import decimal
import json
import re
from functools import lru_cache
from zoneinfo import ZoneInfo

ALIASES = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD",
           "DECIMAL": "NUMERIC", "BIGDECIMAL": "BIGNUMERIC"}
TYPES = {"STRING", "BYTES", "INTEGER", "FLOAT", "BOOLEAN", "TIMESTAMP", "DATE", "TIME", "DATETIME",
         "NUMERIC", "BIGNUMERIC", "RECORD", "JSON"}
AFFINITY = {"INTEGER": "INTEGER", "TIMESTAMP": "INTEGER", "BOOLEAN": "INTEGER", "FLOAT": "REAL",
            "NUMERIC": "TEXT COLLATE bq_number", "BIGNUMERIC": "TEXT COLLATE bq_number"}
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
TIME = r"(\d{1,2}):(\d{1,2}):(\d{1,2})(?:\.(\d{1,6}))?"
DATE_RE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})")
TIME_RE = re.compile(TIME)
DATETIME_RE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[Tt ]" + TIME + ")?")
STAMP_RE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[Tt ]" + TIME + r")? ?"
                      r"(Z|z|UTC|[+-]\d{1,2}(?::?\d{2})?|[A-Za-z_]+(?:/[A-Za-z_]+)+)?")
EPOCH_RE = re.compile(r"([+-]?\d+)(?:\.(\d{1,6}))?")
NUMBER_RE = re.compile(r"([+-]?)0*(\d*)(?:\.(\d*?)(0*))?")
EXPONENT_RE = re.compile(r"[+-]?\d+(?:\.\d*)?[eE][+-]?\d+")
INTEGER_RE = re.compile(r"[+-]?\d+(?:\.0*)?")
NAME_RE = re.compile(r"^[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]{0,299}$")
RESERVED = ("_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier")


class Bad(ValueError):
    """A value or row that BigQuery would refuse; `field` is where."""

    def __init__(self, message, field=""):
        super().__init__(message)
        self.message = message
        self.field = field


class JsonNumber(str):
    """The text of a JSON number with a fraction or exponent, digits untouched."""


def parse_json(text):
    """JSON with exact number text, duplicate keys refused."""
    return DECODER.decode(text)


def _pairs(pairs):
    out = dict(pairs)
    if len(out) != len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise Bad(f"Duplicate field in JSON object: {key}.", key)
            seen.add(key)
    return out


def _constant(name):
    raise Bad(f"{name} is not JSON")


DECODER = json.JSONDecoder(parse_float=JsonNumber, object_pairs_hook=_pairs,
                           parse_constant=_constant)


def is_text(value):
    return isinstance(value, str) and not isinstance(value, JsonNumber)


def _scalar(value, kind):
    if isinstance(value, (dict, list)):
        raise Bad("Array specified for non-repeated field." if isinstance(value, list)
                  else f"This field: is not a record, cannot take an object as {kind}.")


def check_string(value):
    if type(value) is str:
        return value
    _scalar(value, "STRING")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def check_integer(value):
    if type(value) is int:
        number = value
    elif isinstance(value, str) and INTEGER_RE.fullmatch(value):
        number = int(value.partition(".")[0])
    else:
        _scalar(value, "INTEGER")
        raise Bad(f"Could not convert value to integer. Value: {value}")
    if not -1 << 63 <= number < 1 << 63:
        raise Bad(f"Invalid integer value, out of range: {value}")
    return number


def check_float(value):
    if type(value) in (int, JsonNumber):
        return float(value)
    if isinstance(value, str) and re.fullmatch(
            r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf(inity)?|nan)", value, re.I):
        return float(value)
    _scalar(value, "FLOAT")
    raise Bad(f"Could not convert value to float. Value: {value}")


def check_boolean(value):
    if value is True or value is False:
        return int(value)
    text = value.lower() if is_text(value) else value
    if text in ("true", "t", "yes", "y", "1"):
        return 1
    if text in ("false", "f", "no", "n", "0"):
        return 0
    _scalar(value, "BOOLEAN")
    raise Bad(f"Could not convert value to boolean. Value: {value}")


def decimal_checker(name, digits, scale):
    @lru_cache(65536)
    def check_text(text):
        plain = text
        if EXPONENT_RE.fullmatch(text):
            plain = format(decimal.Decimal(text), "f")
        match = NUMBER_RE.fullmatch(plain)
        if not match or not any(c.isdigit() for c in plain):
            raise Bad(f"Invalid {name} value: {text}")
        sign, whole, fraction, zeros = match.groups()
        fraction = fraction or ""
        if len(whole) > digits or len(fraction) + (len(zeros or "") if plain is text else 0) > scale:
            raise Bad(f"Invalid {name} value: {text}")
        if not whole and not fraction:
            return "0"
        return (("-" if sign == "-" else "") + (whole or "0") + ("." + fraction if fraction else ""))

    def check(value):
        if isinstance(value, str):
            return check_text(value)
        if type(value) is int:
            return check_text(str(value))
        _scalar(value, name)
        raise Bad(f"Invalid {name} value: {value}")
    return check


def _clock(parts):
    hour, minute, second, fraction = parts
    return (int(hour or 0), int(minute or 0), int(second or 0),
            int((fraction or "").ljust(6, "0") or 0))


@lru_cache(65536)
def parse_date(text):
    match = DATE_RE.fullmatch(text)
    try:
        return datetime.date(*map(int, match.groups())).isoformat()
    except (ValueError, AttributeError):
        raise Bad(f"Invalid date: '{text}'") from None


def check_date(value):
    if is_text(value):
        return parse_date(value)
    _scalar(value, "DATE")
    raise Bad(f"Invalid date: '{value}'")


def check_time(value):
    match = TIME_RE.fullmatch(value) if is_text(value) else None
    try:
        return datetime.time(*_clock(match.groups())).isoformat()
    except (ValueError, AttributeError):
        raise Bad(f"Invalid time string \"{value}\"") from None


def check_datetime(value):
    match = DATETIME_RE.fullmatch(value) if is_text(value) else None
    try:
        parts = match.groups()
        return datetime.datetime(*map(int, parts[:3]), *_clock(parts[3:])).isoformat()
    except (ValueError, AttributeError):
        raise Bad(f"Invalid datetime string \"{value}\"") from None


def to_micros(when):
    delta = when - EPOCH
    return (delta.days * 86400 + delta.seconds) * 1000000 + delta.microseconds


@lru_cache(65536)
def parse_timestamp(text):
    match = STAMP_RE.fullmatch(text)
    if not match:
        match = EPOCH_RE.fullmatch(text)
        if not match:
            raise Bad(f"Could not parse '{text}' as a timestamp. Required format is YYYY-MM-DD "
                      "HH:MM[:SS[.SSSSSS]] or YYYY/MM/DD HH:MM[:SS[.SSSSSS]]")
        micros = int(match[1]) * 1000000
        part = int((match[2] or "").ljust(6, "0") or 0)
        return in_range(micros - part if match[1].startswith("-") else micros + part, text)
    parts = match.groups()
    zone = parts[7]
    try:
        if zone in (None, "Z", "z", "UTC"):
            tz = datetime.timezone.utc
        elif zone[0] in "+-":
            digits = zone[1:].replace(":", "")
            hours, minutes = (digits, "0") if len(digits) < 3 else (digits[:-2], digits[-2:])
            offset = datetime.timedelta(hours=int(hours), minutes=int(minutes))
            tz = datetime.timezone(-offset if zone[0] == "-" else offset)
        else:
            tz = ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise Bad(f"Unrecognized timezone: {zone}") from None
    try:
        when = datetime.datetime(*map(int, parts[:3]), *_clock(parts[3:7]), tzinfo=tz)
        return to_micros(when)
    except (ValueError, OverflowError):
        raise Bad(f"Invalid timestamp: '{text}'") from None


def in_range(micros, text):
    if not -62135596800000000 <= micros <= 253402300799999999:
        raise Bad(f"Invalid timestamp: '{text}', out of the range 0001..9999 (numbers are seconds)")
    return micros


def check_timestamp(value):
    if type(value) is int:
        return in_range(value * 1000000, value)
    if isinstance(value, str):
        return parse_timestamp(value)
    _scalar(value, "TIMESTAMP")
    raise Bad(f"Could not parse '{value}' as a timestamp.")


def check_bytes(value):
    try:
        return base64.b64encode(base64.b64decode(value, validate=True)).decode()
    except (ValueError, TypeError):
        raise Bad(f"Could not decode base64 string to bytes. Value: {value}") from None


def check_json(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


CHECKS = {"STRING": check_string, "INTEGER": check_integer, "FLOAT": check_float,
          "BOOLEAN": check_boolean, "TIMESTAMP": check_timestamp, "DATE": check_date,
          "TIME": check_time, "DATETIME": check_datetime, "BYTES": check_bytes, "JSON": check_json}


def checker(field):
    kind = field["type"]
    if kind in ("NUMERIC", "BIGNUMERIC"):
        whole, scale = (29, 9) if kind == "NUMERIC" else (38, 38)
        if field.get("precision"):
            scale = int(field.get("scale") or 0)
            whole = int(field["precision"]) - scale
        check = decimal_checker(kind, whole, scale)
    elif kind == "RECORD":
        record = Row(field["fields"])

        def check(value):
            if not isinstance(value, dict):
                raise Bad("This field is a record, it takes an object.")
            return dict(zip(record.names, record.check(value)))
    else:
        check = CHECKS[kind]
    if field.get("mode") == "REPEATED":
        def check_list(values):
            if not isinstance(values, list):
                raise Bad("Repeated field must be imported as a JSON array.")
            if None in values:
                raise Bad("Only optional fields can be set to NULL.")
            return json.dumps([check(value) for value in values], ensure_ascii=False)
        return check_list
    if kind == "RECORD":
        return lambda value: json.dumps(check(value), ensure_ascii=False)
    return check


class Row:
    """The checks of a whole row, in the order of its columns."""

    def __init__(self, fields, ignore_unknown=False):
        self.fields = fields
        self.names = [field["name"] for field in fields]
        self.known = set(self.names)
        self.lower = {name.lower(): name for name in self.names}
        self.ignore_unknown = ignore_unknown
        self.columns = [(f["name"], checker(f), f.get("mode") or "NULLABLE") for f in fields]

    def _rename(self, row):
        out = {}
        for key, value in row.items():
            name = self.lower.get(key.lower())
            if name is None:
                if self.ignore_unknown:
                    continue
                raise Bad(f"No such field: {key}.", key)
            if name in out:
                raise Bad(f"Duplicate field in JSON object: {key}.", key)
            out[name] = value
        return out

    def check(self, row):
        """The kept values of a row given as a dict; Bad says what is wrong with it."""
        if not row.keys() <= self.known:
            row = self._rename(row)
        out = []
        for name, check, mode in self.columns:
            value = row.get(name)
            if value is None:
                if mode == "REQUIRED":
                    raise Bad(f"Missing required field: {name}.", name)
                if mode == "REPEATED":
                    if name in row:
                        raise Bad(f"Only optional fields can be set to NULL. Field: {name}; "
                                  "Value: NULL", name)
                    value = "[]"
                out.append(value)
                continue
            try:
                out.append(check(value))
            except Bad as e:
                raise Bad(f"{e.message} Field: {name}; Value: {value}",
                          f"{name}.{e.field}" if e.field else name) from None
        return out


# -- giving values back


def format_timestamp(micros):
    when = EPOCH + datetime.timedelta(microseconds=micros)
    text = when.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    return text + (f".{when.microsecond:06d}".rstrip("0") if when.microsecond else "") + "Z"


def float_seconds(micros):
    """A TIMESTAMP without useInt64Timestamp: seconds as a double, as "1.7596464E9"."""
    seconds = micros / 1000000
    if seconds == 0:
        return "0.0"
    mantissa, _, exponent = f"{seconds:.16e}".partition("e")
    short = repr(seconds)
    digits = re.sub(r"[^0-9]", "", short.partition("e")[0]).strip("0") or "0"
    mantissa = ("-" if seconds < 0 else "") + digits[0] + "." + (digits[1:] or "0")
    return f"{mantissa}E{int(exponent)}"


def to_api(field, value, int64_timestamp=False, iso=False):
    """The value as `v` of a result row."""
    if field.get("mode") == "REPEATED":
        single = {**field, "mode": "NULLABLE"}
        items = json.loads(value) if isinstance(value, str) else (value or [])
        return [{"v": to_api(single, item, int64_timestamp, iso)} for item in items]
    if value is None:
        return None
    kind = field["type"]
    if kind == "RECORD":
        record = json.loads(value) if isinstance(value, str) else value
        return {"f": [{"v": to_api(f, record.get(f["name"]), int64_timestamp, iso)}
                      for f in field["fields"]]}
    if kind == "TIMESTAMP":
        if iso:
            return format_timestamp(value)
        return str(value) if int64_timestamp else float_seconds(value)
    if kind == "BOOLEAN":
        return "true" if value else "false"
    if kind == "FLOAT":
        return str(float(value)).replace("inf", "Infinity").replace("nan", "NaN")
    return str(value)


def to_plain(field, value):
    """The value as the ledger lists it."""
    if field.get("mode") == "REPEATED":
        single = {**field, "mode": "NULLABLE"}
        items = json.loads(value) if isinstance(value, str) else (value or [])
        return [to_plain(single, item) for item in items]
    if value is None:
        return None
    kind = field["type"]
    if kind == "RECORD":
        record = json.loads(value) if isinstance(value, str) else value
        return {f["name"]: to_plain(f, record.get(f["name"])) for f in field["fields"]}
    if kind == "TIMESTAMP":
        return format_timestamp(value)
    if kind == "BOOLEAN":
        return bool(value)
    return value


def normalise_schema(fields, path="schema.fields"):
    """Check a schema as given and return it with canonical type names and modes."""
    if not isinstance(fields, list) or not fields:
        raise Bad("Schema has no fields.")
    out, seen = [], set()
    for field in fields:
        name, kind = field.get("name", ""), str(field.get("type", "")).upper()
        kind = ALIASES.get(kind, kind)
        mode = str(field.get("mode") or "NULLABLE").upper()
        if not NAME_RE.match(name) or name.lower().startswith(RESERVED):
            raise Bad(f'Invalid field name "{name}". Fields must contain the allowed characters, '
                      "and be at most 300 characters long.")
        if name.lower() in seen:
            raise Bad(f"Field {name} already exists in schema")
        if kind not in TYPES:
            raise Bad(f"Invalid value for type: {field.get('type')} is not a valid value "
                      f"(field {name})")
        if mode not in ("NULLABLE", "REQUIRED", "REPEATED"):
            raise Bad(f"Invalid value for mode: {field.get('mode')} is not a valid value "
                      f"(field {name})")
        seen.add(name.lower())
        clean = {**field, "name": name, "type": kind, "mode": mode}
        if kind == "RECORD":
            clean["fields"] = normalise_schema(field.get("fields"), f"{path}.{name}")
        out.append(clean)
    return out
