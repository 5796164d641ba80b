// SPDX-License-Identifier: Apache-2.0
// The usual way in Node: fetch, and insert() of @google-cloud/bigquery by 500 rows, which are those of crawlerd's table.
// way-node.mjs MARKET-URL SINK-URL SYMBOLS; MERVIS_BENCH_NODE is the directory that holds node_modules.
import { createRequire } from "node:module";

const require = createRequire(`${process.env.MERVIS_BENCH_NODE}/`);
const { BigQuery } = require("@google-cloud/bigquery");
const BATCH = 500;
const [market, sink, symbols] = process.argv.slice(2);

// A sink on loopback asks for no credentials.
const bigquery = new BigQuery({ projectId: "bench", apiEndpoint: sink, autoRetry: false });
bigquery.authClient.authorizeRequest = async (options) => ({
  ...options, headers: { ...options.headers, authorization: "Bearer bench" },
});
const table = bigquery.dataset("bench").table("bars_intraday");

// Yahoo's prices are float32 widened to double, and NUMERIC takes nine decimals: seven digits, as text.
const price = (value) => (value === null ? null : String(Number(value.toPrecision(7))));

function* rowsOf(document) {
  const { meta, timestamp, indicators } = document.chart.result[0];
  const quote = indicators.quote[0];
  const day = new Intl.DateTimeFormat("sv-SE", { timeZone: meta.exchangeTimezoneName });
  const ingested = new Date().toISOString();
  for (let i = 0; i < timestamp.length; i++)
    yield { source: "yahoo", symbol: meta.symbol, venue: meta.exchangeName, currency: meta.currency,
            interval: meta.dataGranularity, kind: "bar", ts: timestamp[i],
            trade_date: day.format(new Date(timestamp[i] * 1000)), tz: meta.exchangeTimezoneName, session: "regular",
            open: price(quote.open[i]), high: price(quote.high[i]), low: price(quote.low[i]),
            close: price(quote.close[i]), volume: quote.volume[i], is_final: true, revision: 0, ingested_at: ingested };
}

let waiting = [];
for (let i = 0; i < Number(symbols); i++) {
  const reply = await fetch(`${market}/v8/finance/chart/B${String(i).padStart(5, "0")}?interval=1m`);
  if (!reply.ok) throw new Error(`HTTP ${reply.status}`);
  waiting.push(...rowsOf(await reply.json()));
  while (waiting.length >= BATCH) await table.insert(waiting.splice(0, BATCH));
}
if (waiting.length > 0) await table.insert(waiting);
