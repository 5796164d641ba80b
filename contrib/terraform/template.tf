# SPDX-License-Identifier: Apache-2.0
locals {
  package_metadata = var.package_object == null ? {} : {
    mervis-package        = var.package_object
    mervis-package-sha256 = var.package_sha256
    startup-script        = file("${path.module}/../../cloud-init/startup-script.sh")
  }

  metadata = merge(local.package_metadata, {
    mervis-plan             = jsonencode(var.plan)
    mervis-role             = var.kind
    enable-guest-attributes = "TRUE" # the agent's short status, readable without logging in
    enable-oslogin          = "TRUE"
  })
}

resource "google_compute_instance_template" "main" {
  count = var.kind == "serving" ? 1 : 0

  project      = var.project
  name_prefix  = "${var.name}-"
  region       = var.region
  machine_type = var.machine_type
  tags         = [var.name]
  metadata     = local.metadata

  disk {
    source_image = var.image
    disk_size_gb = var.disk_gb
    disk_type    = "pd-balanced"
    boot         = true
    auto_delete  = true
  }

  network_interface {
    subnetwork = google_compute_subnetwork.main.id

    dynamic "access_config" {
      for_each = var.egress == "external-ip" ? [1] : []
      content {}
    }
  }

  scheduling {
    provisioning_model          = "SPOT"
    preemptible                 = true
    automatic_restart           = false
    instance_termination_action = "STOP"
  }

  service_account {
    email  = google_service_account.vm.email
    scopes = ["cloud-platform"]
  }

  shielded_instance_config {
    enable_secure_boot = true
  }

  lifecycle {
    create_before_destroy = true

    precondition {
      condition     = (var.package_object == null) == (var.package_sha256 == null)
      error_message = "package_object and package_sha256 come together: code that is not checked is not run."
    }
  }
}

# A job that powers off is no member of a group, which would start it again.
resource "google_compute_instance" "training" {
  count = var.kind == "training" ? 1 : 0

  project                   = var.project
  name                      = var.name
  zone                      = var.zone
  machine_type              = var.machine_type
  tags                      = [var.name]
  metadata                  = local.metadata
  allow_stopping_for_update = true

  boot_disk {
    initialize_params {
      image = var.image
      size  = var.disk_gb
      type  = "pd-balanced"
    }
  }

  network_interface {
    subnetwork = google_compute_subnetwork.main.id

    dynamic "access_config" {
      for_each = var.egress == "external-ip" ? [1] : []
      content {}
    }
  }

  scheduling {
    provisioning_model          = "SPOT"
    preemptible                 = true
    automatic_restart           = false
    instance_termination_action = "STOP"
  }

  service_account {
    email  = google_service_account.vm.email
    scopes = ["cloud-platform"]
  }

  shielded_instance_config {
    enable_secure_boot = true
  }

  # It stands still when the job is done; the next apply shall not start it by itself. Who starts it pushes a new image or
  # changes the plan first: a job runs once a release, and a VM without one to run stays up.
  lifecycle {
    precondition {
      condition     = (var.package_object == null) == (var.package_sha256 == null)
      error_message = "package_object and package_sha256 come together: code that is not checked is not run."
    }
  }
}
