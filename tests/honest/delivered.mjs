// SPDX-License-Identifier: Apache-2.0
// What crawlerd delivered to localcloud, read back by Google's own client: the rows that the ledger has, value by value.
// Started by `run` after crawlerd has ended.

import assert from 'node:assert/strict';
import {test} from 'node:test';

import {BigQuery} from '@google-cloud/bigquery';

const base = process.env.LOCALCLOUD;
const bigquery = new BigQuery({projectId: 'demo-project', apiEndpoint: base});

async function ledger(table) {
  const name = `demo-project.market.${table}`;
  const reply = await fetch(`${base}/_admin/ledger?only=tables&table=${name}`);
  return (await reply.json()).tables[name] ?? [];
}

// Values of the client's own types as the texts that were loaded.
function plain(value) {
  if (value === null || value === undefined)
    return null;
  return typeof value === 'object' ? (value.value ?? value.toFixed?.() ?? value.toString()) : value;
}

function instant(text) {
  return text === null ? null : new Date(text).toISOString();
}

function normal(row) {
  const made = Object.fromEntries(Object.entries(row).map(([key, value]) => [key, plain(value)])
      .filter(([, value]) => value !== null));
  for (const key of ['ts', 'ingested_at'])
    made[key] = instant(made[key]);
  made.revision = Number(made.revision);
  return made;
}

function sorted(rows) {
  return rows.map(normal).map(row => JSON.stringify(row, Object.keys(row).sort())).sort();
}

for (const table of ['bars_daily', 'bars_intraday'])
  test(`the rows of ${table} are read back as the ledger has them`, async () => {
    const expected = sorted(await ledger(table));
    assert.ok(expected.length >= 100, `only ${expected.length} rows were delivered`);
    const [queried] = await bigquery.query({location: 'asia-northeast3',
      query: `SELECT * FROM market.${table} WHERE trade_date > "1970-01-01"`});
    assert.deepEqual(sorted(queried), expected);
    const [listed] = await bigquery.dataset('market').table(table).getRows();
    assert.deepEqual(sorted(listed), expected);
    const keys = new Set(queried.map(row => [row.symbol, row.interval, row.kind, plain(row.ts), row.revision].join()));
    assert.equal(keys.size, queried.length);
  });

test('bars_latest has each bar once', async () => {
  const count = async query => Number((await bigquery.query({location: 'asia-northeast3', query}))[0][0].n);
  const both = await count('SELECT COUNT(*) AS n FROM market.bars_daily WHERE trade_date > "1970-01-01"')
      + await count('SELECT COUNT(*) AS n FROM market.bars_intraday WHERE trade_date > "1970-01-01"');
  assert.equal(await count('SELECT COUNT(*) AS n FROM market.bars_latest WHERE trade_date > "1970-01-01"'), both);
});
