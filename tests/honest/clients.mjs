// SPDX-License-Identifier: Apache-2.0
// Google's own clients against localcloud: what satisfies them is what our daemons are tested with.
// Started by `run`, which sets LOCALCLOUD, GCE_METADATA_HOST and installs the packages.

import assert from 'node:assert/strict';
import {mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {after, before, test} from 'node:test';
import {gzipSync} from 'node:zlib';

import {BigQuery} from '@google-cloud/bigquery';
import {SecretManagerServiceClient} from '@google-cloud/secret-manager';
import * as metadata from 'gcp-metadata';
import {GoogleAuth} from 'google-auth-library';

const base = process.env.LOCALCLOUD;
const {hostname, port} = new URL(base);
const projectId = 'demo-project';
const location = 'asia-northeast3';
const scratch = mkdtempSync(join(tmpdir(), 'honest-'));

async function admin(method, path, body) {
  const reply = await fetch(`${base}/_admin/${path}`, {method, body});
  assert.equal(reply.status, 200, `${method} ${path}: ${await reply.clone().text()}`);
  return reply.json();
}

const schema = [
  {name: 'source', type: 'STRING', mode: 'REQUIRED'},
  {name: 'symbol', type: 'STRING', mode: 'REQUIRED'},
  {name: 'ts', type: 'TIMESTAMP', mode: 'REQUIRED'},
  {name: 'trade_date', type: 'DATE'},
  {name: 'close', type: 'NUMERIC'},
  {name: 'volume', type: 'BIGNUMERIC'},
  {name: 'is_final', type: 'BOOL'},
  {name: 'revision', type: 'INT64'},
];

function row(n, changes = {}) {
  return {source: 'yahoo-chart', symbol: '삼성', ts: `2026-10-07T06:${String(n).padStart(2, '0')}:00Z`,
    trade_date: '2026-10-07', close: `73.${n}`, volume: `${n}00`, is_final: true, revision: 0,
    ...changes};
}

let bigquery, dataset, table;

before(async () => {
  await admin('DELETE', 'faults');
  await admin('PUT', 'iam', '{"deny": []}');
  bigquery = new BigQuery({projectId, apiEndpoint: base});
});

after(() => rmSync(scratch, {recursive: true}));

// -- metadata and credentials

test('gcp-metadata finds the server and reads values, listings and recursive JSON', async () => {
  await admin('PUT', 'metadata/instance/attributes/mervis-plan', '{"version":1}');
  assert.equal(await metadata.isAvailable(), true);
  assert.equal(await metadata.project('project-id'), projectId);
  assert.equal(String(await metadata.instance('id')), '7723260132568912421');
  assert.match(await metadata.instance('zone'), /^projects\/\d+\/zones\/asia-northeast3-a$/);
  assert.equal((await metadata.instance('attributes/mervis-plan')).version, 1);
  const all = await metadata.instance({property: '', params: {recursive: 'true'}});
  assert.equal(all.maintenanceEvent, 'NONE');
  assert.equal(all.attributes['mervis-plan'], '{"version":1}');
  await assert.rejects(metadata.instance('no-such-key'), /404/);
});

test('google-auth-library gets tokens, an identity and the project from the metadata server', async () => {
  const auth = new GoogleAuth();
  assert.equal(await auth.getProjectId(), projectId);
  const client = await auth.getClient();
  assert.equal(client.constructor.name, 'Compute');
  const {token} = await client.getAccessToken();
  assert.match(token, /^ya29\./);
  const idClient = await auth.getIdTokenClient('https://example.com');
  const idToken = await idClient.idTokenProvider.fetchIdToken('https://example.com');
  const claims = JSON.parse(Buffer.from(idToken.split('.')[1], 'base64url'));
  assert.equal(claims.aud, 'https://example.com');
});

// -- Secret Manager

const secrets = new SecretManagerServiceClient(
    {fallback: 'rest', apiEndpoint: hostname, port: Number(port), protocol: 'http'});

test('secret-manager creates a secret, adds versions and reads them back', async () => {
  const parent = `projects/${projectId}`;
  const [secret] = await secrets.createSecret(
      {parent, secretId: 'kis-app-key', secret: {replication: {automatic: {}}}});
  assert.match(secret.name, /^projects\/\d+\/secrets\/kis-app-key$/);
  for (const data of ['one', 'two\0\n'])
    await secrets.addSecretVersion({parent: `${parent}/secrets/kis-app-key`,
      payload: {data: Buffer.from(data)}});
  const [answer] = await secrets.accessSecretVersion(
      {name: `${parent}/secrets/kis-app-key/versions/latest`});
  assert.match(answer.name, /\/versions\/2$/);
  assert.equal(Buffer.from(answer.payload.data).toString(), 'two\0\n');
  assert.equal(String(answer.payload.dataCrc32c), '2338930029');
  const [version] = await secrets.getSecretVersion(
      {name: `${parent}/secrets/kis-app-key/versions/1`});
  assert.equal(version.state, 'ENABLED');
  const [versions] = await secrets.listSecretVersions(
      {parent: `${parent}/secrets/kis-app-key`, filter: 'state:ENABLED'});
  assert.deepEqual(versions.map(v => v.name.split('/').pop()), ['2', '1']);
});

test('secret-manager tells disabled, denied and missing apart', async () => {
  const name = `projects/${projectId}/secrets/kis-app-key/versions/latest`;
  await secrets.disableSecretVersion({name: name.replace('latest', '2')});
  await assert.rejects(secrets.accessSecretVersion({name}), {code: 400, message: /FAILED_PRECONDITION/});
  await secrets.enableSecretVersion({name: name.replace('latest', '2')});
  await admin('PUT', 'iam', '{"deny": ["secretmanager.versions.access"]}');
  await assert.rejects(secrets.accessSecretVersion({name}), {code: 403, message: /may not exist/});
  await admin('PUT', 'iam', '{"deny": []}');
  await assert.rejects(secrets.accessSecretVersion({name: name.replace('kis-app-key', 'nothing')}),
      {code: 404, message: /not found or has no versions/});
});

// -- BigQuery

test('bigquery creates a dataset and a partitioned, clustered table', async () => {
  [dataset] = await bigquery.createDataset('market', {location});
  [table] = await dataset.createTable('bars', {schema, location, requirePartitionFilter: true,
    timePartitioning: {type: 'DAY', field: 'trade_date'}, clustering: {fields: ['symbol']}});
  const [found] = await table.getMetadata();
  assert.equal(found.location, location);
  assert.equal(found.timePartitioning.field, 'trade_date');
  assert.deepEqual(found.clustering.fields, ['symbol']);
  assert.equal((await dataset.exists())[0], true);
  assert.equal((await dataset.table('nothing').exists())[0], false);
  await assert.rejects(dataset.createTable('bars', {schema}), {code: 409});
});

function file(name, rows) {
  const path = join(scratch, name);
  const text = rows.map(r => JSON.stringify(r) + '\n').join('');
  writeFileSync(path, name.endsWith('.gz') ? gzipSync(text) : text);
  return path;
}

const ndjson = {sourceFormat: 'NEWLINE_DELIMITED_JSON', writeDisposition: 'WRITE_APPEND',
  createDisposition: 'CREATE_NEVER', location};

test('bigquery loads a file and reports how many rows', async () => {
  for (const name of ['a.json', 'b.json.gz']) {
    const [job] = await table.load(file(name, [1, 2, 3].map(n => row(n + name.length))), ndjson);
    assert.equal(job.status.state, 'DONE');
    assert.equal(job.status.errorResult, undefined);
    assert.equal(job.statistics.load.outputRows, '3');
  }
});

test('bigquery fails a load with one bad row and writes nothing of it', async () => {
  const path = file('bad.json', [row(20), row(21, {close: '5233.56298828125'})]);
  await assert.rejects(table.load(path, ndjson), error => {
    assert.match(JSON.stringify(error.errors), /Invalid NUMERIC value/);
    return true;
  });
  const [{numRows}] = await table.getMetadata();
  assert.equal(numRows, '6');
});

test('bigquery refuses a job id twice', async () => {
  const options = {...ndjson, jobId: 'mervis_bars_1_0'};
  await table.load(file('c.json', [row(30)]), options);
  await assert.rejects(table.load(file('c.json', [row(30)]), options),
      {code: 409, message: /Already Exists: Job/});
  const [job] = await bigquery.job('mervis_bars_1_0', {location}).get();
  assert.equal(job.metadata.status.state, 'DONE');
});

test('bigquery streams rows, and a refused one makes a PartialFailureError', async () => {
  await table.insert([row(40), row(41)]);
  await assert.rejects(table.insert([row(42), row(43, {nonsense: 1}), row(44)]), error => {
    assert.equal(error.name, 'PartialFailureError');
    const reasons = Object.fromEntries(
        error.errors.map(e => [e.row.ts.slice(14, 16), e.errors[0].reason]));
    assert.deepEqual(reasons, {42: 'stopped', 43: 'invalid', 44: 'stopped'});
    return true;
  });
});

test('bigquery queries with parameters and gets typed values', async () => {
  const [rows] = await bigquery.query({location, query: `
    SELECT symbol, MAX(ts) AS newest, COUNT(*) AS n, MAX(close) AS close
    FROM \`demo-project.market.bars\`
    WHERE trade_date >= @since AND symbol IN UNNEST(@symbols) GROUP BY symbol`,
  params: {since: BigQuery.date('2026-10-01'), symbols: ['삼성', 'AAPL']}});
  assert.equal(rows.length, 1);
  assert.equal(rows[0].n, 9);
  assert.equal(rows[0].symbol, '삼성');
  assert.equal(rows[0].newest.value, '2026-10-07T06:41:00.000Z');
  assert.equal(rows[0].close.toString(), '73.9');
  await assert.rejects(bigquery.query({location, query: 'SELECT COUNT(*) FROM market.bars'}),
      /without a filter over column/);
});

test('bigquery runs query jobs, pages their results and estimates dry runs', async () => {
  const query = 'SELECT ts FROM market.bars WHERE trade_date > "2026-01-01" ORDER BY ts';
  const [job] = await bigquery.createQueryJob({query, location});
  const [first, next] = await job.getQueryResults({maxResults: 5, autoPaginate: false});
  assert.equal(first.length, 5);
  const [second] = await job.getQueryResults({...next, autoPaginate: false});
  assert.equal(second.length, 4);
  const [dry] = await bigquery.createQueryJob({query, location, dryRun: true});
  assert.ok(Number(dry.metadata.statistics.totalBytesProcessed) > 0);
});

test('bigquery lists rows and jobs, and adds a column', async () => {
  const [rows] = await table.getRows();
  assert.equal(rows.length, 9);
  assert.equal(rows[0].ts.value, '2026-10-07T06:07:00.000Z');
  assert.equal(rows[0].volume.toString(), '700');
  assert.equal(rows[0].is_final, true);
  const [jobs] = await bigquery.getJobs({stateFilter: 'done', projection: 'full'});
  assert.ok(jobs.some(job => job.id === 'mervis_bars_1_0'
      && job.metadata.configuration.jobType === 'LOAD'));
  const [changed] = await table.setMetadata(
      {schema: {fields: [...schema, {name: 'note', type: 'STRING'}]}});
  assert.equal(changed.schema.fields.at(-1).name, 'note');
  await assert.rejects(table.setMetadata({schema: {fields: schema.slice(1)}}),
      /Provided Schema does not match/);
});

test('bigquery reads a view that keeps the newest revision of each bar', async () => {
  await table.insert([row(1, {ts: '2026-10-07T06:40:00Z', revision: 1, close: '80'})]);
  await dataset.createTable('bars_latest', {view: {useLegacySql: false, query: `
    SELECT * FROM \`demo-project.market.bars\` WHERE trade_date > "1970-01-01"
    QUALIFY ROW_NUMBER() OVER (PARTITION BY source, symbol, ts ORDER BY revision DESC) = 1`}});
  const [rows] = await bigquery.query({location, query:
    'SELECT close FROM market.bars_latest WHERE ts = TIMESTAMP "2026-10-07 06:40:00+00"'});
  assert.deepEqual(rows.map(r => r.close.toString()), ['80']);
});

// -- resumable upload, as Google's clients do it with google-auth-library underneath

test('a resumable upload goes in 256 KiB chunks to the session in Location', async () => {
  const client = await new GoogleAuth().getClient();
  const data = Buffer.concat(Array.from({length: 3000}, (_, n) => Buffer.from(JSON.stringify(
      {...row(n % 60), symbol: `S${n}`, note: 'x'.repeat(40)}) + '\n')));
  const chunk = 262144;
  assert.ok(data.length > 2 * chunk);
  const job = {jobReference: {projectId, jobId: 'mervis_bars_2_0', location}, configuration: {load: {
    destinationTable: {projectId, datasetId: 'market', tableId: 'bars'},
    sourceFormat: 'NEWLINE_DELIMITED_JSON', createDisposition: 'CREATE_NEVER'}}};
  const begun = await client.request({method: 'POST', data: job,
    url: `${base}/upload/bigquery/v2/projects/${projectId}/jobs?uploadType=resumable`,
    headers: {'X-Upload-Content-Type': 'application/octet-stream',
      'X-Upload-Content-Length': String(data.length)}});
  const url = begun.headers.get('location');
  assert.ok(url);
  const put = (body, range) => client.request({method: 'PUT', url, body, retry: false,
    headers: {'Content-Range': range}, validateStatus: () => true});
  const odd = await put(data.subarray(0, 1000), `bytes 0-999/${data.length}`);
  assert.equal(odd.status, 400);
  let at = 0, reply;
  while (at < data.length) {
    const end = Math.min(at + chunk, data.length);
    reply = await put(data.subarray(at, end), `bytes ${at}-${end - 1}/${data.length}`);
    if (end < data.length) {
      assert.equal(reply.status, 308);
      assert.equal(reply.headers.get('range'), `bytes=0-${end - 1}`);
    }
    at = end;
  }
  assert.equal(reply.status, 200);
  assert.equal(reply.data.jobReference.jobId, 'mervis_bars_2_0');
  const again = await put(undefined, `bytes */${data.length}`);
  assert.equal(again.data.jobReference.jobId, 'mervis_bars_2_0');
  const [done] = await bigquery.job('mervis_bars_2_0', {location}).promise();
  assert.equal(done.statistics.load.outputRows, '3000');
});

test('an expired token is refused with 401 and a fresh one is accepted', async () => {
  const client = await new GoogleAuth().getClient();
  const url = `${base}/bigquery/v2/projects/${projectId}/datasets`;
  const {token} = await client.getAccessToken();
  await admin('POST', 'metadata/rotate-token');
  const stale = await fetch(url, {headers: {authorization: `Bearer ${token}`}});
  assert.equal(stale.status, 401);
  const fresh = await (await new GoogleAuth().getClient()).request({url});
  assert.equal(fresh.status, 200);
});
