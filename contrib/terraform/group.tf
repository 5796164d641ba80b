# SPDX-License-Identifier: Apache-2.0
# /healthz is about the agent alone: an outage of the registry must not make the group re-create its VMs.
resource "google_compute_health_check" "alive" {
  count = var.kind == "serving" ? 1 : 0

  project             = var.project
  name                = "${var.name}-alive"
  check_interval_sec  = 30
  timeout_sec         = 10
  healthy_threshold   = 1
  unhealthy_threshold = 3

  http_health_check {
    port         = 9320
    request_path = "/healthz"
  }

  depends_on = [google_project_service.needed]
}

resource "google_compute_region_instance_group_manager" "main" {
  count = var.kind == "serving" ? 1 : 0

  project            = var.project
  name               = var.name
  region             = var.region
  base_instance_name = var.name
  target_size        = var.size

  version {
    instance_template = google_compute_instance_template.main[0].self_link_unique
  }

  named_port {
    name = "app"
    port = var.app_port
  }

  auto_healing_policies {
    health_check      = google_compute_health_check.alive[0].id
    initial_delay_sec = 300
  }

  # A new plan is new metadata, which running VMs get without so much as a restart; the agent does the rest. What metadata
  # cannot do (a machine type, an image) is for new VMs, or for a rolling replace that somebody asks for.
  update_policy {
    type                           = "PROACTIVE"
    minimal_action                 = "REFRESH"
    most_disruptive_allowed_action = "REFRESH"
    instance_redistribution_type   = "NONE"
    max_surge_fixed                = 0
    max_unavailable_fixed          = 3
  }

  all_instances_config {
    metadata = {
      mervis-plan = jsonencode(var.plan)
    }
  }
}
