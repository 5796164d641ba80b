# SPDX-License-Identifier: Apache-2.0
# One Spot VM that runs a job and powers off. A job runs once a release: push a new image (or change the plan and apply),
# and then: gcloud compute instances start mervis-train --zone=asia-northeast3-a
# Started with nothing new, the VM does not run the job again, and stays up, and is paid for, until somebody stops it.
terraform {
  backend "gcs" {
    prefix = "mervis-training"
  }
}

variable "project" {
  type = string
}

variable "image" {
  description = "What contrib/packer made, such as projects/PROJECT/global/images/family/mervis-agent."
  type        = string
}

provider "google" {
  project = var.project
}

module "training" {
  source = "../.."

  project      = var.project
  name         = "mervis-train"
  kind         = "training"
  image        = var.image
  machine_type = "e2-standard-4"
  disk_gb      = 50
  egress       = "external-ip"

  plan = {
    version = 1
    role    = "training"
    containers = [{
      name       = "train"
      mode       = "job"
      image      = "asia-northeast3-docker.pkg.dev/${var.project}/mervis-train/train:stable"
      retries    = 2
      on_success = "poweroff"
      volumes    = ["/var/lib/train:/data"]
    }]
  }
}

output "repository" {
  value = module.training.repository
}
