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
    initial_delay_sec = var.package_object == null ? 300 : 900 # the package, the engine and their dependencies come first
  }

  # A new plan is new metadata, which running VMs get without so much as a restart; the agent does the rest. What metadata
  # cannot do (an image, a machine type, a disk, a network) is more than a refresh, and then Google's updater does not
  # update at all: VMs that run keep what they have, and do not get the plans that come after either, until they are
  # replaced. The output `replace` is the command.
  #
  # A regional group allows no max_unavailable between 0 and its number of zones. So a group of up to three VMs is refreshed
  # all at once, which stops nothing: that a plan is sound and a release good is the agent's to judge, on each VM. Replacing
  # would take all three away at once; the command therefore makes new VMs first.
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
