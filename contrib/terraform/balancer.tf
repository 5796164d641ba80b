# SPDX-License-Identifier: Apache-2.0
locals {
  balanced = var.kind == "serving" && var.load_balancer ? 1 : 0
}

# /readyz is about the containers: a VM that is draining or switching gets no new visitors.
resource "google_compute_health_check" "ready" {
  count = local.balanced

  project             = var.project
  name                = "${var.name}-ready"
  check_interval_sec  = 5
  timeout_sec         = 3
  healthy_threshold   = 1
  unhealthy_threshold = 2

  http_health_check {
    port         = 9320
    request_path = "/readyz"
  }

  depends_on = [google_project_service.needed]
}

resource "google_compute_backend_service" "main" {
  count = local.balanced

  project                         = var.project
  name                            = var.name
  load_balancing_scheme           = "EXTERNAL_MANAGED"
  protocol                        = "HTTP"
  port_name                       = "app"
  timeout_sec                     = 30
  connection_draining_timeout_sec = 15
  health_checks                   = [google_compute_health_check.ready[0].id]

  backend {
    group           = google_compute_region_instance_group_manager.main[0].instance_group
    balancing_mode  = "UTILIZATION"
    capacity_scaler = 1.0
  }
}

resource "google_compute_url_map" "main" {
  count = local.balanced

  project         = var.project
  name            = var.name
  default_service = google_compute_backend_service.main[0].id
}

resource "google_compute_target_http_proxy" "main" {
  count = local.balanced

  project = var.project
  name    = var.name
  url_map = google_compute_url_map.main[0].id
}

resource "google_compute_global_address" "main" {
  count = local.balanced

  project = var.project
  name    = var.name

  depends_on = [google_project_service.needed]
}

# Plain HTTP. For HTTPS put a google_compute_target_https_proxy with your certificate before the same URL map.
resource "google_compute_global_forwarding_rule" "main" {
  count = local.balanced

  project               = var.project
  name                  = var.name
  load_balancing_scheme = "EXTERNAL_MANAGED"
  ip_address            = google_compute_global_address.main[0].id
  port_range            = "80"
  target                = google_compute_target_http_proxy.main[0].id
}
