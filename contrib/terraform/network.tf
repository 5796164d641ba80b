# SPDX-License-Identifier: Apache-2.0
# A private network: VMs have no address of their own in the world unless egress is external-ip.
resource "google_compute_network" "main" {
  project                 = var.project
  name                    = var.name
  auto_create_subnetworks = false

  depends_on = [google_project_service.needed]
}

resource "google_compute_subnetwork" "main" {
  project                  = var.project
  name                     = var.name
  region                   = var.region
  network                  = google_compute_network.main.id
  ip_cidr_range            = var.subnet_range
  private_ip_google_access = true # Secret Manager, the registry and BigQuery do not pass NAT, and cost nothing there
}

# ssh, and the status page through it, by people whom IAP knows; to a NAT instance as well.
resource "google_compute_firewall" "iap" {
  project       = var.project
  name          = "${var.name}-iap"
  network       = google_compute_network.main.id
  source_ranges = ["35.235.240.0/20"]
  target_tags   = [var.name, "${var.name}-nat"]

  allow {
    protocol = "tcp"
    ports    = ["22"]
  }
}

# Prometheus, which asks statusd for /metrics.
resource "google_compute_firewall" "scrape" {
  count = length(var.scrape_ranges) > 0 ? 1 : 0

  project       = var.project
  name          = "${var.name}-scrape"
  network       = google_compute_network.main.id
  source_ranges = var.scrape_ranges
  target_tags   = [var.name]

  allow {
    protocol = "tcp"
    ports    = ["9320"]
  }
}

# Google's health checks and load balancers: statusd, and the application.
resource "google_compute_firewall" "health" {
  project       = var.project
  name          = "${var.name}-health"
  network       = google_compute_network.main.id
  source_ranges = ["35.191.0.0/16", "130.211.0.0/22"]
  target_tags   = [var.name]

  allow {
    protocol = "tcp"
    ports    = ["9320", tostring(var.app_port)]
  }
}
