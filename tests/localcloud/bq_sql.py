# SPDX-License-Identifier: Apache-2.0
"""A small part of GoogleSQL, typed and translated to SQLite.

SELECT [DISTINCT] expressions, *, t.*, * EXCEPT (...) FROM table, view, subquery, UNNEST(@array), [INNER|
LEFT] JOIN ... ON, WHERE, GROUP BY, HAVING, QUALIFY, ORDER BY, LIMIT, OFFSET, UNION ALL; named parameters,
scalar and array; comparison, IN, BETWEEN, LIKE, IS NULL, AND, OR, NOT, arithmetic, ||; the functions of
bq_functions.py; window functions. Whatever else is refused as a syntax error, never guessed.
"""

from .bq_functions import FUNCTIONS, LITERALS, cast, coerce, result_type, unify
from .bq_lex import (STOP, Expr, Query, Source, bad_query, merge, position_of, tokens_of,
                     unquote)


class Parser:
    def __init__(self, text, project, catalog, parameters, bind):
        self.text = text
        self.project = project
        self.catalog = catalog
        self.parameters = parameters  # name -> (type or [type], value)
        self.bind = bind  # value -> SQLite parameter text
        self.tokens = list(tokens_of(text))
        self.at = 0
        self.scope = []

    # -- tokens

    def error(self, expected=None):
        kind, text, at = self.tokens[self.at]
        what = text if kind == "end" else f'"{text}"' if kind != "word" else (
            f"keyword {text.upper()}" if text.upper() in STOP else f"identifier {text}")
        if expected:
            return bad_query(f"Syntax error: Expected {expected} but got {what} at "
                             f"[{position_of(self.text, at)}]")
        return bad_query(f"Syntax error: Unexpected {what} at [{position_of(self.text, at)}]")

    def peek(self, *words):
        kind, text, _ = self.tokens[self.at]
        return (kind in ("word", "op") and text.upper() in words)

    def accept(self, *words):
        if self.peek(*words):
            self.at += 1
            return self.tokens[self.at - 1][1].upper()
        return None

    def expect(self, word):
        if not self.accept(word):
            raise self.error(f'"{word}"' if not word.isalpha() else f"keyword {word}")

    def name(self):
        kind, text, _ = self.tokens[self.at]
        if kind == "tick":
            self.at += 1
            return text[1:-1]
        if kind == "word" and text.upper() not in STOP:
            self.at += 1
            return text
        raise self.error("identifier")

    # -- queries

    def statement(self):
        query = self.query()
        self.accept(";")
        if self.tokens[self.at][0] != "end":
            raise self.error()
        return query

    def query(self):
        query = self.select()
        while self.accept("UNION"):
            self.expect("ALL")
            other = self.select()
            if len(other.fields) != len(query.fields):
                raise bad_query("Queries in UNION ALL have mismatched column count")
            query = Query(f"{query.sql} UNION ALL {other.sql}", query.fields,
                          query.sources + other.sources, set())
        return query

    def select(self):
        self.expect("SELECT")
        distinct = "DISTINCT " if self.accept("DISTINCT") else ""
        start = self.at
        self._skip_to_from()
        sources, joins = self._from() if self.accept("FROM") else ([], "")
        after = self.at
        self.scope.append((sources, {}))
        self.at = start
        items = self._items()
        self.at = after
        aliases = {name.lower(): item for name, item in items}
        where = self.expression() if self.accept("WHERE") else None
        self.scope[-1] = (sources, aliases)
        self._settle_filters(sources, where)
        sql, passes = self._tail(distinct, items, joins, where, sources)
        self.scope.pop()
        fields, seen = [], set()
        for name, item in items:
            if name.lower() in seen:
                raise bad_query(f"Duplicate column names in the result are not supported. Found "
                                f"duplicate(s): {name}")
            seen.add(name.lower())
            fields.append({"name": name, "type": item.kind or "INTEGER", "mode": "NULLABLE"})
        return Query(sql, fields, [t for s in sources for t in s.tables], passes)

    def _skip_to_from(self):
        depth = 0
        while self.tokens[self.at][0] != "end":
            if self.peek("("):
                depth += 1
            elif self.peek(")"):
                if depth == 0:
                    return
                depth -= 1
            elif depth == 0 and self.peek("FROM", "UNION", ";"):
                return
            self.at += 1

    def _tail(self, distinct, items, joins, where, sources):
        """Everything behind FROM; (SQL, columns an outer filter may prune by)."""
        columns = ", ".join(f'{item.sql} AS "{name}"' for name, item in items)
        body = (f" FROM {joins}" if joins else "") + (f" WHERE {where.sql}" if where else "")
        passes, grouped = None, None
        if self.accept("GROUP"):
            self.expect("BY")
            grouped = self._list()
            body += " GROUP BY " + ", ".join(e.sql for e in grouped)
            passes = {c for e in grouped for c in e.columns}
        if self.accept("HAVING"):
            body += f" HAVING {self.expression().sql}"
        qualify = self.expression() if self.accept("QUALIFY") else None
        windows = [w for _, item in items for w in item.windows or []]
        if qualify:
            windows += qualify.windows or []
            names = ", ".join(f'"{name}"' for name, _ in items)
            sql = (f"SELECT {distinct}{names} FROM (SELECT {columns}, {qualify.sql} AS _lc_qualify"
                   f"{body}) WHERE _lc_qualify")
        else:
            sql = f"SELECT {distinct}{columns}{body}"
        for window in windows:
            passes = window if passes is None else passes & window
        if self.accept("ORDER"):
            self.expect("BY")
            if qualify:  # only the columns of the result are left to order by
                self.scope.append(([], {name.lower(): item for name, item in items}))
            sql += " ORDER BY " + ", ".join(self._order())
            if qualify:
                self.scope.pop()
        if self.accept("LIMIT"):
            sql += f" LIMIT {self.expression().sql}"
            passes = set()
            if self.accept("OFFSET"):
                sql += f" OFFSET {self.expression().sql}"
        return sql, passes

    def _list(self):
        out = [self.expression()]
        while self.accept(","):
            out.append(self.expression())
        return out

    def _order(self):
        out = []
        while True:
            sql = self.expression().sql
            sql += " DESC" if self.accept("DESC") else (self.accept("ASC") and "") or ""
            if self.accept("NULLS"):
                sql += " NULLS " + (self.accept("FIRST", "LAST") or self._fail())
            out.append(sql)
            if not self.accept(","):
                return out

    def _fail(self):
        raise self.error()

    def _items(self):
        out = []
        while True:
            out += self._item(len(out))
            if not self.accept(","):
                return out

    def _item(self, number):
        if self.accept("*"):
            return self._star(None)
        if self.tokens[self.at + 1][1] == "." and self.tokens[self.at + 2][1] == "*":
            alias = self.name()
            self.at += 2
            return self._star(alias)
        item = self.expression()
        name = item.name
        if self.accept("AS"):
            name = self.name()
        elif self.tokens[self.at][0] in ("word", "tick") and not self._is_stop():
            name = self.name()
        return [(name or f"f{number}_", item)]

    def _is_stop(self):
        kind, text, _ = self.tokens[self.at]
        return kind == "word" and text.upper() in STOP

    def _star(self, alias):
        hidden = set()
        if self.accept("EXCEPT"):
            self.expect("(")
            hidden.add(self.name().lower())
            while self.accept(","):
                hidden.add(self.name().lower())
            self.expect(")")
        out = []
        for source in self.scope[-1][0]:
            if alias is None or source.alias.lower() == alias.lower():
                out += [(f["name"], self._column(source, f)) for f in source.fields
                        if f["name"].lower() not in hidden]
        if not out:
            raise bad_query("SELECT * must have a FROM clause" if alias is None
                            else f"Unrecognized name: {alias}")
        return out

    # -- FROM

    def _from(self):
        source = self._source()
        sources, sql = [source], source.sql
        while True:
            kind = self.accept("INNER", "LEFT", "CROSS", "JOIN", ",")
            if not kind:
                return sources, sql
            if kind == "LEFT":
                self.accept("OUTER")
            if kind in ("INNER", "LEFT", "CROSS"):
                self.expect("JOIN")
            source = self._source()
            sources.append(source)
            word = {"LEFT": "LEFT JOIN", "CROSS": "CROSS JOIN", ",": "CROSS JOIN"}.get(kind, "JOIN")
            sql += f" {word} {source.sql}"
            if word != "CROSS JOIN":
                sql += self._on(sources)

    def _on(self, sources):
        self.expect("ON")
        self.scope.append((sources, {}))
        condition = self.expression()
        self.scope.pop()
        return f" ON {condition.sql}"

    def _alias(self, default):
        if self.accept("AS"):
            return self.name()
        if self.tokens[self.at][0] in ("word", "tick") and not self._is_stop():
            return self.name()
        return default

    def _source(self):
        if self.accept("("):
            query = self.query()
            self.expect(")")
            return self._wrap(query, self._alias("subquery"))
        if self.peek("UNNEST") and self.tokens[self.at + 1][1] == "(":
            self.at += 2
            kind, sql = self._array()
            self.expect(")")
            alias = self._alias("unnested")
            return Source(f'(SELECT value AS "{alias}" FROM json_each({sql})) AS "{alias}"',
                          [{"name": alias, "type": kind, "mode": "NULLABLE"}], alias)
        return self._table()

    def _wrap(self, query, alias):
        """A subquery or view as a source; what an outer filter may prune by is kept."""
        tables = [(table, done, conjuncts if query.passes is None else None,
                   query.passes if inner is None else
                   inner if query.passes is None else inner & query.passes)
                  for table, done, conjuncts, inner in query.sources]
        return Source(f'({query.sql}) AS "{alias}"', query.fields, alias, tables)

    def _table(self):
        path = []
        while True:
            kind, text, _ = self.tokens[self.at]
            part = self.name()
            path += part.split(".") if kind == "tick" else [part]
            while kind == "word" and self.peek("-"):  # a project id with dashes
                self.at += 1
                path[-1] += "-" + self.tokens[self.at][1]
                self.at += 1
            if not self.accept("."):
                break
        if len(path) == 2:
            path.insert(0, self.project)
        if len(path) != 3:
            raise bad_query(f'Table "{".".join(path)}" must be qualified with a dataset (e.g. '
                            "dataset.table).")
        table = self.catalog.table(*path)
        alias = self._alias(table.name)
        if table.view:
            inner = Parser(table.view, table.project, self.catalog, {}, self.bind)
            return self._wrap(inner.statement(), alias)
        return Source(f'{table.rows} AS "{alias}"', table.fields, alias,
                      [(table, not table.requires_filter, [], None)])

    def _settle_filters(self, sources, where):
        """Note which tables got a filter on their partition column."""
        columns = {c.lower() for c in where.columns} if where else set()
        parts = (where.conjuncts or [where]) if where else []
        for source in sources:
            settled = []
            for table, done, conjuncts, passes in source.tables:
                key = (table.partition_field or "").lower()
                if key and key in columns and (passes is None or
                                               key in {p.lower() for p in passes}):
                    done = True
                    if conjuncts is not None and f"{table.rows} AS" in source.sql:
                        conjuncts = conjuncts + [p.sql.replace(f'"{source.alias}".', "")
                                                 for p in parts
                                                 if {c.lower() for c in p.columns} == {key}]
                settled.append((table, done, conjuncts, passes))
            source.tables = settled

    # -- expressions

    def expression(self):
        left = self._and()
        while self.accept("OR"):
            right = self._and()
            left = Expr(f"({left.sql} OR {right.sql})", "BOOLEAN", None,
                        left.columns | right.columns, windows=merge(left, right))
        return left

    def _and(self):
        left = self._not()
        parts = [left]
        while self.accept("AND"):
            right = self._not()
            parts.append(right)
            left = Expr(f"({left.sql} AND {right.sql})", "BOOLEAN", None,
                        left.columns | right.columns, windows=merge(left, right))
        if len(parts) > 1:
            left.conjuncts = parts
        return left

    def _not(self):
        if self.accept("NOT"):
            inner = self._not()
            return Expr(f"(NOT {inner.sql})", "BOOLEAN", None, inner.columns, windows=inner.windows)
        return self._comparison()

    def _comparison(self):
        left = self._sum()
        while True:
            op = self.accept("=", "<>", "!=", "<", "<=", ">", ">=", "LIKE")
            if op:
                left = self._compare(left, op, self._sum())
                continue
            negated = "NOT " if self.peek("NOT") and self.tokens[self.at + 1][1].upper() in (
                "IN", "BETWEEN", "LIKE") and self.accept("NOT") else ""
            if self.accept("LIKE"):
                left = self._compare(left, f"{negated}LIKE", self._sum())
            elif self.accept("BETWEEN"):
                low = self._sum()
                self.expect("AND")
                high = self._sum()
                first, second = self._compare(left, ">=", low), self._compare(left, "<=", high)
                left = Expr(f"({'NOT ' if negated else ''}({first.sql} AND {second.sql}))",
                            "BOOLEAN", None, first.columns | second.columns)
            elif self.accept("IN"):
                left = self._in(left, negated)
            elif self.accept("IS"):
                negated = "NOT " if self.accept("NOT") else ""
                word = self.accept("NULL", "TRUE", "FALSE") or self._fail()
                word = {"TRUE": "1", "FALSE": "0"}.get(word, word)
                left = Expr(f"({left.sql} IS {negated}{word})", "BOOLEAN", None, left.columns,
                            windows=left.windows)
            else:
                return left

    def _compare(self, left, op, right):
        a, b, kind = unify(left, right, op, self.bind)
        collate = " COLLATE bq_number" if kind in ("NUMERIC", "BIGNUMERIC") else ""
        return Expr(f"({a}{collate} {op} {b})", "BOOLEAN", None, left.columns | right.columns,
                    windows=merge(left, right))

    def _in(self, left, negated):
        if self.accept("UNNEST"):
            self.expect("(")
            _, sql = self._array(left.kind)
            self.expect(")")
            values = f"SELECT value FROM json_each({sql})"
            columns = set(left.columns)
        else:
            self.expect("(")
            if self.peek("SELECT"):
                query = self.query()
                values, columns = query.sql, set(left.columns)
            else:
                items = [coerce(e, left.kind, self.bind) for e in self._list()]
                values, columns = ", ".join(items), set(left.columns)
            self.expect(")")
        return Expr(f"({left.sql} {negated}IN ({values}))", "BOOLEAN", None, columns)

    def _array(self, kind=None):
        """(element type, SQL of a JSON array): an array parameter or a literal array."""
        token, text, _ = self.tokens[self.at]
        if token != "param":
            raise self.error("an array parameter")
        self.at += 1
        declared, value = self._parameter(text)
        if not isinstance(declared, list):
            raise bad_query("Values referenced in UNNEST must be arrays. UNNEST contains expression "
                            f"of type {declared}")
        if kind and declared[0] != kind:
            raise bad_query(f"No matching signature for operator IN UNNEST for argument types: "
                            f"{kind}, ARRAY<{declared[0]}>")
        return declared[0], self.bind(value)

    def _parameter(self, text):
        if text[1:].lower() not in self.parameters:
            raise bad_query(f"Query parameter '{text[1:]}' not found")
        return self.parameters[text[1:].lower()]

    def _sum(self):
        left = self._product()
        while True:
            op = self.accept("+", "-", "||")
            if not op:
                return left
            left = self._arithmetic(left, op, self._product())

    def _product(self):
        left = self._unary()
        while True:
            op = self.accept("*", "/")
            if not op:
                return left
            left = self._arithmetic(left, op, self._unary())

    def _arithmetic(self, left, op, right):
        kind, a, b = result_type(left, op, right)
        return Expr(f"({a} {op} {b})", kind, None, left.columns | right.columns,
                    windows=merge(left, right))

    def _unary(self):
        if self.accept("-"):
            inner = self._unary()
            return Expr(f"(-{inner.sql})", inner.kind, None, inner.columns, inner.literal)
        self.accept("+")
        return self._primary()

    def _primary(self):
        kind, text, _ = self.tokens[self.at]
        if kind == "number":
            self.at += 1
            whole = text.isdigit()
            return Expr(text, "INTEGER" if whole else "FLOAT", literal=True)
        if kind == "string":
            self.at += 1
            return Expr(self.bind(unquote(text)), "STRING", literal=True, name=None)
        if kind == "param":
            self.at += 1
            declared, value = self._parameter(text)
            if isinstance(declared, list):
                raise bad_query("An array parameter is used in UNNEST() only")
            return Expr(self.bind(value), declared)
        if self.accept("("):
            if self.peek("SELECT"):
                query = self.query()
                self.expect(")")
                return Expr(f"({query.sql})", query.fields[0]["type"])
            inner = self.expression()
            self.expect(")")
            inner.sql = f"({inner.sql})"
            return inner
        if kind == "word":
            upper, following = text.upper(), self.tokens[self.at + 1]
            if upper in ("TRUE", "FALSE", "NULL"):
                self.at += 1
                return {"TRUE": Expr("1", "BOOLEAN"), "FALSE": Expr("0", "BOOLEAN"),
                        "NULL": Expr("NULL", None)}[upper]
            if upper in LITERALS and following[0] == "string":
                self.at += 2
                return Expr(self.bind(LITERALS[upper][1](unquote(following[1]))), LITERALS[upper][0])
            if upper == "CASE":
                return self._case()
            if upper in ("CAST", "SAFE_CAST"):
                return self._cast()
            if following[1] == "(":
                return self._call(upper)
        return self._name()

    def _case(self):
        self.at += 1
        sql, kind, columns = "CASE", None, set()
        while self.accept("WHEN"):
            condition = self.expression()
            self.expect("THEN")
            value = self.expression()
            sql += f" WHEN {condition.sql} THEN {value.sql}"
            kind = kind or value.kind
            columns |= condition.columns | value.columns
        if self.accept("ELSE"):
            value = self.expression()
            sql += f" ELSE {value.sql}"
            kind = kind or value.kind
            columns |= value.columns
        self.expect("END")
        return Expr(f"{sql} END", kind, None, columns)

    def _cast(self):
        self.at += 1
        self.expect("(")
        inner = self.expression()
        self.expect("AS")
        kind = self.name().upper()
        self.expect(")")
        sql, kind = cast(inner, kind)
        return Expr(sql, kind, None, inner.columns, windows=inner.windows)

    def _call(self, name):
        function = FUNCTIONS.get(name)
        if not function:
            raise bad_query(f"Function not found: {name.lower()} (or not modelled by this double)")
        self.at += 2
        distinct = "DISTINCT " if self.accept("DISTINCT") else ""
        arguments, unit = [], None
        if self.accept("*"):
            arguments.append(Expr("*", "INTEGER"))
        while not self.peek(")"):
            if self.accept("INTERVAL"):
                arguments.append(self._sum())
                unit = self.name().upper()
            elif self.peek("DAY", "HOUR", "MINUTE", "MONTH", "YEAR", "SECOND") and arguments:
                unit = self.name().upper()
            else:
                arguments.append(self.expression())
            if not self.accept(","):
                break
        self.expect(")")
        sql, kind = function(name, arguments, distinct, unit, self.bind)
        columns = {c for a in arguments for c in a.columns}
        out = Expr(sql, kind, None, columns)
        if self.accept("OVER"):
            self._over(out)
        return out

    def _over(self, out):
        self.expect("(")
        partition, sql = set(), ""
        if self.accept("PARTITION"):
            self.expect("BY")
            items = self._list()
            partition = {c for e in items for c in e.columns}
            sql = "PARTITION BY " + ", ".join(e.sql for e in items)
            out.columns |= partition
        if self.accept("ORDER"):
            self.expect("BY")
            sql += " ORDER BY " + ", ".join(self._order())
        self.expect(")")
        out.sql += f" OVER ({sql})"
        out.windows = [partition]

    def _name(self):
        first = self.name()
        second = self.name() if self.accept(".") else None
        for sources, aliases in reversed(self.scope):
            found = self._resolve(sources, first, second)
            if found:
                return found
            if second is None and first.lower() in aliases:
                item = aliases[first.lower()]
                return Expr(f'"{first}"', item.kind, first, set(item.columns))
        raise bad_query(f"Unrecognized name: {first}{'.' + second if second else ''}")

    def _resolve(self, sources, first, second):
        hits = []
        for source in sources:
            if second is not None and source.alias.lower() != first.lower():
                continue
            wanted = (second or first).lower()
            hits += [(source, f) for f in source.fields if f["name"].lower() == wanted]
        if len(hits) > 1:
            raise bad_query(f"Column name {first} is ambiguous")
        return self._column(*hits[0]) if hits else None

    @staticmethod
    def _column(source, column):
        return Expr(f'"{source.alias}"."{column["name"]}"', column["type"], column["name"],
                    {column["name"]})
