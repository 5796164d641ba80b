# SPDX-License-Identifier: Apache-2.0
# One account for the VMs, with the least that the agent needs; the VM's scope is cloud-platform, and IAM decides.
resource "google_service_account" "vm" {
  project      = var.project
  account_id   = substr(var.name, 0, 30)
  display_name = "VMs of ${var.name}"

  depends_on = [google_project_service.needed]
}

locals {
  vm_member = "serviceAccount:${google_service_account.vm.email}"
}

resource "google_project_iam_member" "vm" {
  for_each = toset(concat(
    ["roles/logging.logWriter", "roles/monitoring.metricWriter"],
    var.dataset == null ? [] : ["roles/bigquery.jobUser"], # load jobs; what they may write is said on the dataset
  ))

  project = var.project
  role    = each.key
  member  = local.vm_member
}

resource "google_secret_manager_secret" "secret" {
  for_each = var.secrets

  project   = var.project
  secret_id = each.key

  replication {
    auto {}
  }

  depends_on = [google_project_service.needed]
}

resource "google_secret_manager_secret_iam_member" "vm" {
  for_each = google_secret_manager_secret.secret

  project   = var.project
  secret_id = each.value.secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = local.vm_member
}

locals {
  package_bucket = var.package_object == null ? null : split("/", trimprefix(var.package_object, "gs://"))[0]
}

resource "google_storage_bucket_iam_member" "package" {
  count = var.package_object == null ? 0 : 1

  bucket = local.package_bucket
  role   = "roles/storage.objectViewer"
  member = local.vm_member
}
