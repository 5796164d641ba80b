-- SPDX-License-Identifier: Apache-2.0
-- Of each bar its last revision, over both tables. crawlerd creates this view beside its tables where it may; whoever
-- must do it by hand replaces PROJECT, DATASET and the prefix `bars`, and runs
--
--   bq query --use_legacy_sql=false < bars_latest.sql
CREATE OR REPLACE VIEW `PROJECT.DATASET.bars_latest` AS
SELECT *
FROM (
  SELECT * FROM `PROJECT.DATASET.bars_intraday`
  UNION ALL
  SELECT * FROM `PROJECT.DATASET.bars_daily`
)
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY source, symbol, `interval`, kind, ts
  ORDER BY revision DESC, ingested_at DESC
) = 1;
