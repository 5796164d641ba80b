# SPDX-License-Identifier: Apache-2.0
output "service_account" {
  description = "Account of the VMs."
  value       = google_service_account.vm.email
}

output "repository" {
  description = "Where images are pushed: docker push REPOSITORY/NAME:stable"
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

output "address" {
  description = "Where visitors go; null without a load balancer."
  value       = one(google_compute_global_address.main[*].address)
}

output "ssh" {
  description = "How a person gets in."
  value       = "gcloud compute ssh VM --project=${var.project} --tunnel-through-iap -- -L 9321:127.0.0.1:9321"
}
