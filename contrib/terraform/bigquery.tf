# SPDX-License-Identifier: Apache-2.0
locals {
  # What crawlerd delivers (tests/package compares the two). It makes tables and the view itself where they are missing; made
  # here they are in the state, and protected from being deleted with it.
  columns = [
    { name = "source", type = "STRING", mode = "REQUIRED" },
    { name = "symbol", type = "STRING", mode = "REQUIRED" },
    { name = "venue", type = "STRING", mode = "NULLABLE" },
    { name = "currency", type = "STRING", mode = "NULLABLE" },
    { name = "interval", type = "STRING", mode = "REQUIRED" },
    { name = "kind", type = "STRING", mode = "REQUIRED" },
    { name = "ts", type = "TIMESTAMP", mode = "REQUIRED" },
    { name = "trade_date", type = "DATE", mode = "REQUIRED" },
    { name = "tz", type = "STRING", mode = "NULLABLE" },
    { name = "session", type = "STRING", mode = "NULLABLE" },
    { name = "open", type = "NUMERIC", mode = "NULLABLE" },
    { name = "high", type = "NUMERIC", mode = "NULLABLE" },
    { name = "low", type = "NUMERIC", mode = "NULLABLE" },
    { name = "close", type = "NUMERIC", mode = "NULLABLE" },
    { name = "volume", type = "BIGNUMERIC", mode = "NULLABLE" },
    { name = "adj_close", type = "NUMERIC", mode = "NULLABLE" },
    { name = "amount", type = "NUMERIC", mode = "NULLABLE" },
    { name = "ratio_num", type = "NUMERIC", mode = "NULLABLE" },
    { name = "ratio_den", type = "NUMERIC", mode = "NULLABLE" },
    { name = "is_final", type = "BOOLEAN", mode = "REQUIRED" },
    { name = "revision", type = "INTEGER", mode = "REQUIRED" },
    { name = "ingested_at", type = "TIMESTAMP", mode = "NULLABLE" },
    { name = "batch_id", type = "STRING", mode = "NULLABLE" },
  ]

  tables = { intraday = "DAY", daily = "MONTH" }
}

resource "google_bigquery_dataset" "market" {
  count = var.dataset == null ? 0 : 1

  project    = var.project
  dataset_id = var.dataset
  location   = var.region

  depends_on = [google_project_service.needed]
}

resource "google_bigquery_table" "bars" {
  for_each = var.dataset == null ? {} : local.tables

  project             = var.project
  dataset_id          = google_bigquery_dataset.market[0].dataset_id
  table_id            = "${var.table}_${each.key}"
  deletion_protection = true
  clustering          = ["symbol", "interval", "source"]
  schema              = jsonencode(local.columns)

  time_partitioning {
    type  = each.value
    field = "trade_date"
  }
}

resource "google_bigquery_table" "latest" {
  count = var.dataset == null ? 0 : 1

  project             = var.project
  dataset_id          = google_bigquery_dataset.market[0].dataset_id
  table_id            = "${var.table}_latest"
  deletion_protection = false

  view {
    use_legacy_sql = false
    query = join("", [
      "SELECT * FROM (SELECT * FROM `${var.project}.${var.dataset}.${var.table}_intraday` UNION ALL SELECT * FROM ",
      "`${var.project}.${var.dataset}.${var.table}_daily`) QUALIFY ROW_NUMBER() OVER (PARTITION BY source, symbol, `interval`, ",
      "kind, ts ORDER BY revision DESC, ingested_at DESC) = 1",
    ])
  }

  depends_on = [google_bigquery_table.bars]
}

# This dataset, and no other; roles/bigquery.admin is for people. crawlerd reads the dataset's place and the tables' columns,
# loads rows, asks for keys where it repairs a day, and adds columns under "schema": "extend". Of Google's own roles none is
# narrower and does all that; it may also make tables here, and delete them.
resource "google_bigquery_dataset_iam_member" "vm" {
  count = var.dataset == null ? 0 : 1

  project    = var.project
  dataset_id = google_bigquery_dataset.market[0].dataset_id
  role       = "roles/bigquery.dataEditor"
  member     = local.vm_member
}
