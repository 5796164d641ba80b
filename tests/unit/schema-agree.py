#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Schema and parser come from the same tables, so they must agree: hundreds of documents, good ones and ones with
something wrong in them, are judged by `agentctl plan validate` and by the schema that `agentctl plan schema` prints.

Both must say yes or no alike, and point at the same places. Only rules between fields (RULES below) are the parser's
alone; the schema's own words for bounds as a user types them, "x-minimum" and "x-maximum", are understood here.

    schema-agree.py [AGENTCTL [SEED [COUNT]]]
"""

import copy
import fractions
import json
import os
import random
import re
import subprocess
import sys

try:
    import jsonschema
    from jsonschema import Draft202012Validator, ValidationError, validators
except ImportError:
    print("1..0 # SKIP python3-jsonschema is not installed")
    sys.exit(0)

UNITS = {"us": 1, "ms": 10**3, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}
SIZES = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
         "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}

# What the parser says of rules between fields: no schema has words for these.
RULES = [re.compile(rule) for rule in (
    r'^names no secret of "secrets"', r"is mounted already$", r"is the \w+ of \[\d+\] already$",
    r"of the host is (taken|where statusd)", r"^this is the swap file$", r'must be below "disk_high"',
    r"^network \"\w+\" publishes no ports", r"^with network ", r'^"start-first" cannot be', r"^a job is ",
    r'^only for mode "job"', r'^more than "memory"', r'^longer than "start_period"',
    r'^a file (needs|has either)', r"^this key is there twice$", r'^user ".*" could not read it',
    r"is a file of this plan, and no directory$", r"^the same secret has mode ",
    r'^"timezone" looks after this file')]

# For each pattern of the schema texts that it takes and texts that it does not, chosen to come close.
NAMES = (["a", "a1", "B_2", "x" * 63], ["", "-a", "_a", "a.b", "a b", "x" * 64, "가", "a/b"])
SAMPLES = {
    "^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$": NAMES,
    "^[A-Za-z0-9][A-Za-z0-9_-]{1,62}$": (["ab", "a-", "A_9", "x" * 63], ["", "a", "-a", "a.next", "x" * 64]),
    "^(/(?!\\.{1,2}(/|$))[^/\\x00-\\x1f]+)+$": (
        ["/a", "/a/b.c", "/.hidden", "/...", "/a b", "/가"], ["", "/", "a", "/a/", "//a", "/./a", "/a/..", "/a\tb"]),
    "^(/|(/(?!\\.{1,2}(/|$))[^/\\x00-\\x1f]+)+)$": (["/", "/a/b"], ["", "a", "/a/", "/../a"]),
    "^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$": (
        ["UTC", "Asia/Seoul", "Etc/GMT+9", "America/Port-au-Prince"], ["", "Asia/", "/etc", "a b", "../x"]),
    "^([a-z_][a-z0-9_-]*|[0-9]+)$": (["root", "_apt", "www-data", "0"], ["", "Root", "0a", "-a", "a b"]),
    "^#! */[^\\r\\n]*(\\n|$)": (["#!/bin/sh", "#! /usr/bin/env python3\n", "#!/bin/sh\necho '\r'"],
                              ["", "echo", "#!sh", " #!/bin/sh", "#!/bin/sh\r\n", "#!/bin/sh\r"]),
    "^[A-Za-z0-9_./:+=@-]+$": (["KEY", "projects/p/secrets/K", "arn:aws:x/y+z=@"], ["", "a b", "가", "a?"]),
    "^[A-Za-z0-9_-]+$": (["latest", "3", "a_b"], ["", "a.b", "a b"]),
    "^[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?$": (["1000", "app", "a.b:c-d"], ["", ":", "a:", ":a", "a:b:c", "a b"]),
    "^[A-Za-z_][A-Za-z0-9_.-]*$": (["A", "_a", "a.b-c", "TZ"], ["", "1A", "A=B", "A B", "-a", "가"]),
    "^(([0-9]{1,3}\\.){3}[0-9]{1,3}:|\\[[0-9A-Fa-f:.]+\\]:)?[0-9]{1,5}:[0-9]{1,5}(/(tcp|udp))?$": (
        ["80:81", "127.0.0.1:82:80", "[::1]:83:80/udp", "84:80/tcp"],
        ["", "80", "80:", ":80", "a:80", "85:80/sctp", "80-81:80", "1.2.3:80:80", "123456:80"]),
    "^([A-Za-z0-9][A-Za-z0-9_.-]+|(/(?!\\.{1,2}(/|$))[^/:\\x00-\\x1f]+)+)"
    ":(/(?!\\.{1,2}(/|:|$))[^/:\\x00-\\x1f]+)+(:(ro|rw))?$": (
        ["/a:/b1", "cc:/b2:ro", "/a.b/c:/b3/d:rw"],
        ["", "/a", "/a:", "c:/b", "/a:b", "/a:/b:rx", "/a/:/b", "/a/../b:/c", "/a:/b/.", "/a:/"]),
    "^(/(?!\\.{1,2}(/|:|$))[^/:\\x00-\\x1f]+)+(:[0-9]+(\\.[0-9]{1,9})?(TiB|GiB|MiB|KiB|TB|GB|MB|kB|B)?)?$": (
        ["/t1", "/t2:64MiB", "/t3/x:1.5KiB"], ["", "t", "/t:", "/t:1XB", "/t/", "/..:1MiB", "/t:MiB"]),
    "^[A-Za-z0-9][A-Za-z0-9_.-]*$": (["bridge", "my_net.1"], ["", "-a", "a b", "container:x"]),
    "^[A-Za-z0-9][A-Za-z0-9_.-]*:(host-gateway|([0-9]{1,3}\\.){3}[0-9]{1,3}|\\[?[0-9A-Fa-f:.]+\\]?)$": (
        ["db:10.0.0.5", "gw:host-gateway", "six:[fd00::1]", "six:fd00::1"], ["", "db", "db:", ":10.0.0.5", "db:x.y"]),
    "^(?!io\\.mervis\\.)[A-Za-z0-9][A-Za-z0-9._/-]*$": (
        ["team", "com.example/x", "io.mervisx"], ["", "io.mervis.x", "-a", "a b"]),
    "^[A-Z][A-Z_]*$": (["ALL", "NET_ADMIN", "CAP_CHOWN"], ["", "all", "_A", "NET ADMIN"]),
    "^(SIG)?[A-Z][A-Z0-9+-]*$": (["SIGTERM", "INT", "SIGRTMIN+3"], ["", "sigterm", "9", "SIG TERM"]),
    "^(core|cpu|data|fsize|locks|memlock|msgqueue|nice|nofile|nproc|rss|rtprio|rttime|sigpending|stack)$": (
        ["nofile", "core"], ["", "NOFILE", "files"]),
    "^http://(\\{container\\}|127\\.0\\.0\\.1|localhost|\\[::1\\])(:[0-9]{1,5})?(/[!-~]*)?$": (
        ["http://{container}:8080/", "http://127.0.0.1", "http://localhost:1/h?x=y", "http://[::1]:80"],
        ["", "https://{container}/", "http://example.com/", "http://{container}8080", "http://127.0.0.1/a b"]),
    "^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$": (
        ["a", "storage.googleapis.com", "10.0.0.1"], ["", "-a", "a.", "a_b", "a:80"]),
    "^[0-9]+(\\.[0-9]{1,9})?(TiB|GiB|MiB|KiB|TB|GB|MB|kB|B)?$": (
        ["16MiB", "1.5GiB", "67108864", "100MB", "64KiB", "6MiB", "1GiB"],
        ["", "-1", "1 MiB", "MiB", "1.5.5GiB", "1mib", "1e6", "0.0000000001GiB"]),
    "^([0-9]+(\\.[0-9]{1,9})?(d|h|m|s|ms|us))+$": (
        ["1s", "10s", "5m", "1h30m", "2d", "1.5s", "500ms", "100us"], ["", "5", "5 m", "m", "1w", "-5m", "5m3"]),
    "^0?[0-7]{3,4}$": (["644", "0644", "4755", "04755"], ["", "0888", "64", "00644 ", "rw-r--r--", "17777"]),
}
# Of these the schema's pattern is long, and its sense is what counts.
LONG = {
    "image": (["a", "a/b:1", "r.example/a/b_c:V.1-x", "localhost:5000/a", "[::1]:5000/a/b",
               "r.example:443/a__b/c--d:t@sha256:" + "0" * 64, "a@sha256:" + "f" * 64],
              ["", "A", "https://r/a", "a:", "a:b:c", "a/", "/a", "a//b", "a@sha256:12", "a:-x", "a_", "a___b",
               "r.example/A/b", "a b"]),
    "base_url": (["https://a.example", "https://a.example:8443/x/y", "http://127.0.0.1:9", "http://localhost/", "http://[::1]:80/x"],
                 ["", "a.example", "ftp://a", "http://10.0.0.1/", "http://a.example", "https://", "https://a/?q", "https://u@a/",
                  "https://a_b/"]),
}
WRONG = [None, True, False, 0, 1, -1, 7, 1.5, 10**20, "", "x", "가나다", [], ["x"], [1], {}, {"x": 1}, "10s", "1GiB"]


def quantity(text):
    """The value of "1h30m" or "64MiB"; None when it is neither."""
    if re.fullmatch(r"([0-9]+(\.[0-9]{1,9})?(d|h|m|s|ms|us))+", text):
        return sum(fractions.Fraction(number) * UNITS[unit]
                   for number, _, unit in re.findall(r"([0-9]+(\.[0-9]+)?)(ms|us|d|h|m|s)", text))
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]{1,9})?)([A-Za-z]*)", text)
    return fractions.Fraction(found[1]) * SIZES[found[2]] if found and found[2] in SIZES else None


def limit(is_bad, words):
    def check(validator, bound, instance, schema):
        value = quantity(instance) if isinstance(instance, str) else None
        if value is not None and (value.denominator != 1 or is_bad(value, quantity(bound))):
            yield ValidationError(f"{instance} is {words} {bound}")
    return check


Validator = validators.extend(Draft202012Validator, {
    "x-minimum": limit(lambda value, bound: value < bound, "below"),
    "x-maximum": limit(lambda value, bound: value > bound, "above")})


def samples(schema):
    pattern = schema["pattern"]
    if pattern in SAMPLES:
        return SAMPLES[pattern]
    return LONG["image"] if "sha256" in pattern else LONG["base_url"] if "https" in pattern else None


def patterns(schema):
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema
        for value in schema.values():
            yield from patterns(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from patterns(value)


class Maker:
    """Documents that the schema takes, by walking it; and places in them."""

    def __init__(self, schema, seed):
        self.schema = schema
        self.random = random.Random(seed)
        self.serial = 0

    def string(self, schema):
        if "pattern" not in schema:
            return self.random.choice(["", "x", "한글", "a \"b\"\n\\", "e\u0301"])[:schema.get("maxLength", 9)] or "x"
        fitting = [text for text in samples(schema)[0] if Validator(schema).is_valid(text)]
        return self.random.choice(fitting) if fitting else quantity_text(schema)

    def make(self, schema):
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.random.choice(schema["enum"])
        if "anyOf" in schema:
            return self.make(self.random.choice(schema["anyOf"]))
        kind = schema["type"]
        if kind == "string":
            return self.string(schema)
        if kind == "boolean":
            return self.random.random() < 0.5
        if kind == "integer":
            low = schema.get("minimum", 0)
            return self.random.randint(low, min(schema.get("maximum", low + 1000), low + 100000))
        if kind == "number":
            return self.random.choice([schema["minimum"], schema["maximum"], 1, 0.5, 2.25])
        if kind == "array":
            return [self.make(schema["items"]) for _ in range(self.random.randint(0, min(3, schema["maxItems"])))]
        return self.make_object(schema)

    def make_object(self, schema):
        if not isinstance(schema.get("additionalProperties", True), bool):
            keys = self.random.sample(samples(schema["propertyNames"])[0], 2)
            return {key: self.make(schema["additionalProperties"]) for key in keys}
        return {name: self.make(inner) for name, inner in schema.get("properties", {}).items()
                if name != "crawl" and (name in schema.get("required", []) or self.random.random() < 0.4)}

    def places(self, document, schema=None, path=()):
        """(path, schema) of every value in the document."""
        schema = self.schema if schema is None else schema
        yield path, schema
        inner = schema.get("anyOf", [schema])
        for choice in inner:
            properties = choice.get("properties", {})
            more = choice.get("additionalProperties")
            if isinstance(document, dict):
                for key, value in document.items():
                    below = properties.get(key, more if isinstance(more, dict) else None)
                    if below is not None:
                        yield from self.places(value, below, path + (key,))
            elif isinstance(document, list) and "items" in choice:
                for i, value in enumerate(document):
                    yield from self.places(value, choice["items"], path + (i,))

    def spoil(self, document):
        """A copy with one thing changed, for the worse as a rule."""
        document = copy.deepcopy(document)
        path, schema = self.random.choice(list(self.places(document)))
        value = walk(document, path)
        how = self.random.random()
        if isinstance(value, dict) and how < 0.5 and "properties" in schema:
            names = list(schema["properties"])
            if value and how < 0.2:
                del value[self.random.choice(list(value))]
            elif how < 0.35:
                value[self.random.choice(names) + self.random.choice("sx_")] = 1
            else:
                name = self.random.choice(names)
                if name != "crawl":
                    value[name] = self.wrong(schema["properties"][name])
        elif path:
            walk(document, path[:-1])[path[-1]] = self.wrong(schema)
        else:
            return self.random.choice([[], None, "x", 1, {}])
        return document

    def wrong(self, schema):
        some = list(WRONG)
        for inner in patterns({"x": [schema]}):
            if inner is schema or "anyOf" in schema:
                some += samples(inner)[1] * 2 + samples(inner)[0]
        for bound in ("minimum", "maximum"):
            some += [schema[bound] + step for step in (-1, 0, 1)] if bound in schema else []
        if schema.get("maxLength", 5000) < 5000:
            some += ["x" * schema["maxLength"], "x" * (schema["maxLength"] + 1)]
        if schema.get("maxItems", 200) < 200:  # the parser keeps 200 faults
            some.append(["x"] * (schema["maxItems"] + 1))
        for bound in ("x-minimum", "x-maximum"):
            if bound in schema:
                some += around(schema[bound])
        return self.random.choice(some)


def quantity_text(schema):
    return schema.get("x-minimum", schema.get("x-maximum"))


def around(bound):
    value = int(quantity(bound))
    unit = "us" if re.search("[dhms]$", bound) else "B"
    return [bound] + [f"{number}{unit}" for number in (value - 1, value, value + 1) if number >= 0]


def walk(document, path):
    for step in path:
        document = document[step]
    return document


def text_path(path):
    text = ""
    for step in path:
        plain = isinstance(step, str) and step and not re.search(r'[.\[\]" \t\n\\]', step)
        text += f"[{step}]" if isinstance(step, int) else ("." if text else "") + step if plain else f'["{step}"]'
    return text


class Judge:
    def __init__(self, agentctl, schema):
        self.agentctl = agentctl
        self.validator = Validator(schema)

    def parser(self, document):
        """Paths with their messages, without what is the parser's alone."""
        done = subprocess.run([self.agentctl, "plan", "validate", "--json", "-"], input=json.dumps(document),
                              text=True, capture_output=True, check=False)
        answer = json.loads(done.stdout)
        assert done.returncode == (0 if answer["valid"] else 1), done
        assert answer["valid"] == (not answer["errors"]), answer
        return [(error["path"], error["message"]) for error in answer["errors"]
                if not any(rule.search(error["message"]) for rule in RULES)]

    def schema(self, document):
        return [(text_path(error.absolute_path), error.message) for error in self.validator.iter_errors(document)]

    def compare(self, document):
        """What the two do not agree on; None when they do."""
        ours, theirs = self.parser(document), self.schema(document)
        lost = [fault for fault in theirs if not any(path.startswith(fault[0]) for path, _ in ours)]
        more = [fault for fault in ours if not any(fault[0].startswith(path) for path, _ in theirs)]
        return None if not lost and not more else {"only the schema": lost, "only the parser": more}


class Report:
    def __init__(self):
        self.n = self.bad = 0

    def __call__(self, good, name, detail=""):
        self.n += 1
        self.bad += not good
        print(f"{'ok' if good else 'not ok'} {self.n} - {name}", flush=True)
        for line in str(detail).splitlines() if not good else ():
            print(f"# {line}"[:2000])


def main():
    builddir = os.environ.get("builddir", ".")
    agentctl = sys.argv[1] if len(sys.argv) > 1 else os.path.join(builddir, "agentctl")
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 20261007
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 600
    report = Report()

    schema = json.loads(subprocess.run([agentctl, "plan", "schema"], check=True, capture_output=True).stdout)
    try:
        Draft202012Validator.check_schema(schema)
        report(schema["$schema"].endswith("2020-12/schema"), "the schema is one of draft 2020-12")
    except jsonschema.SchemaError as error:
        report(False, "the schema is one of draft 2020-12", error)
    unknown = sorted({inner["pattern"] for inner in patterns(schema) if samples(inner) is None})
    report(not unknown, "every pattern has samples here", unknown)
    wrong = [(inner["pattern"], text) for inner in patterns(schema) for good, bad in [samples(inner) or ([], [])]
             for text in good + bad if bool(re.search(inner["pattern"], text)) != (text in good)]
    report(not wrong, "the samples are what they say", wrong)
    if report.bad:
        print(f"1..{report.n}")
        return 1

    maker, judge = Maker(schema, seed), Judge(agentctl, schema)
    good = [maker.make(schema) for _ in range(count // 3)]
    for name, documents in (("good", good), ("spoilt", [maker.spoil(maker.random.choice(good)) for _ in range(count)])):
        faults = [(document, found) for document in documents if (found := judge.compare(document))]
        verdicts = [bool(judge.schema(document)) for document in documents]
        report(not faults, f"schema and parser agree on {len(documents)} {name} documents, {sum(verdicts)} of them refused",
               "\n".join(f"{found}\n  {json.dumps(document, ensure_ascii=False)}" for document, found in faults[:8]))
        report(any(verdicts) == (name != "good"), f"{name} documents are {name}")
    print(f"1..{report.n}")
    return 1 if report.bad else 0


if __name__ == "__main__":
    sys.exit(main())
