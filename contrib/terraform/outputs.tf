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

output "replace" {
  description = "Run it after apply when the image, the machine type or the disk of a group was changed: running VMs get neither that nor later plans before. New VMs come first, the old ones then go; null for a training VM, which apply changes by itself."
  value       = var.kind == "serving" ? "gcloud compute instance-groups managed rolling-action replace ${var.name} --project=${var.project} --region=${var.region} --max-unavailable=0" : null
}

output "ssh" {
  description = "How a person gets in."
  value       = "gcloud compute ssh VM --project=${var.project} --tunnel-through-iap -- -L 9321:127.0.0.1:9321"
}
