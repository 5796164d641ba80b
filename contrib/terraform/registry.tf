# SPDX-License-Identifier: Apache-2.0
resource "google_artifact_registry_repository" "images" {
  project                = var.project
  location               = var.region
  repository_id          = var.name
  format                 = "DOCKER"
  cleanup_policy_dry_run = false

  # What has a tag is never deleted, however old: with one moving tag (:stable) that is one version an image, with a tag for
  # each build all of them, and who tags so adds a policy of his own. What lost its tag goes after a month, but for the last
  # registry_keep. VMs run by digest: an image that is gone here still runs where it is, and comes back from nowhere else.
  cleanup_policies {
    id     = "keep-recent"
    action = "KEEP"

    most_recent_versions {
      keep_count = var.registry_keep
    }
  }

  cleanup_policies {
    id     = "delete-old-untagged"
    action = "DELETE"

    condition {
      tag_state  = "UNTAGGED"
      older_than = "2592000s"
    }
  }

  depends_on = [google_project_service.needed]
}

resource "google_artifact_registry_repository_iam_member" "vm" {
  project    = var.project
  location   = var.region
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = local.vm_member
}
