# SPDX-License-Identifier: Apache-2.0
# One account for the VMs, with the least that the agent needs; the VM's scope is cloud-platform, and IAM decides.
resource "google_service_account" "vm" {
  project      = var.project
  account_id   = var.name
  display_name = "VMs of ${var.name}"

  depends_on = [google_project_service.needed]
}

locals {
  vm_member = "serviceAccount:${google_service_account.vm.email}"
}

resource "google_project_iam_member" "vm" {
  # Load jobs; what they may write is said on the dataset. The agent itself writes no logs or metrics to Google.
  for_each = setunion(var.extra_roles, var.dataset == null ? [] : ["roles/bigquery.jobUser"])

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
  for_each = setunion(var.secrets, var.existing_secrets)

  project   = var.project
  secret_id = each.key
  role      = "roles/secretmanager.secretAccessor"
  member    = local.vm_member

  depends_on = [google_secret_manager_secret.secret]
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
