# SPDX-License-Identifier: Apache-2.0
# egress = "nat"
resource "google_compute_router" "nat" {
  count = var.egress == "nat" ? 1 : 0

  project = var.project
  name    = "${var.name}-nat"
  region  = var.region
  network = google_compute_network.main.id
}

resource "google_compute_router_nat" "nat" {
  count = var.egress == "nat" ? 1 : 0

  project                             = var.project
  name                                = "${var.name}-nat"
  region                              = var.region
  router                              = google_compute_router.nat[0].name
  nat_ip_allocate_option              = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat  = "LIST_OF_SUBNETWORKS"
  enable_dynamic_port_allocation      = true
  enable_endpoint_independent_mapping = false # it would forbid dynamic ports, and waste them
  min_ports_per_vm                    = var.nat_ports
  max_ports_per_vm                    = var.nat_ports_max

  subnetwork {
    name                    = google_compute_subnetwork.main.id
    source_ip_ranges_to_nat = ["ALL_IP_RANGES"]
  }

  # Every dropped packet is a line with the VM's name: what a crawler without ports looks like.
  log_config {
    enable = true
    filter = "ERRORS_ONLY"
  }
}

# egress = "nat-instance": one small VM that forwards. It is no Spot VM and in no group: Compute Engine starts it
# again after a crash or an outage of its host; one that somebody deleted comes back with the next apply. Until then there
# is no egress, and that alone: what goes to Google does not pass it.
resource "google_compute_address" "nat" {
  count = var.egress == "nat-instance" ? 1 : 0

  project      = var.project
  name         = "${var.name}-nat"
  region       = var.region
  address_type = "EXTERNAL"
}

resource "google_compute_instance" "nat" {
  count = var.egress == "nat-instance" ? 1 : 0

  project        = var.project
  name           = "${var.name}-nat"
  zone           = var.zone
  machine_type   = "e2-micro"
  can_ip_forward = true
  tags           = ["${var.name}-nat"]

  boot_disk {
    initialize_params {
      image = "debian-cloud/debian-12"
      size  = 10
    }
  }

  network_interface {
    subnetwork = google_compute_subnetwork.main.id

    access_config {
      nat_ip = google_compute_address.nat[0].address
    }
  }

  metadata = {
    enable-oslogin = "TRUE"
    startup-script = templatefile("${path.module}/nat-instance.sh", { range = var.subnet_range })
  }
}

resource "google_compute_firewall" "nat" {
  count = var.egress == "nat-instance" ? 1 : 0

  project       = var.project
  name          = "${var.name}-nat"
  network       = google_compute_network.main.id
  source_ranges = [var.subnet_range]
  target_tags   = ["${var.name}-nat"]

  allow {
    protocol = "tcp"
  }

  allow {
    protocol = "udp"
  }

  allow {
    protocol = "icmp"
  }
}

resource "google_compute_route" "nat" {
  count = var.egress == "nat-instance" ? 1 : 0

  project           = var.project
  name              = "${var.name}-nat"
  network           = google_compute_network.main.id
  dest_range        = "0.0.0.0/0"
  priority          = 800
  tags              = [var.name]
  next_hop_instance = google_compute_instance.nat[0].self_link
}

# The default route of these VMs goes to the NAT instance, so Google's APIs get a route and a name of their own.
resource "google_compute_route" "google" {
  count = var.egress == "nat-instance" ? 1 : 0

  project          = var.project
  name             = "${var.name}-google"
  network          = google_compute_network.main.id
  dest_range       = "199.36.153.8/30"
  priority         = 700
  next_hop_gateway = "default-internet-gateway"
}

resource "google_dns_managed_zone" "google" {
  for_each = var.egress == "nat-instance" ? toset(["googleapis.com", "pkg.dev"]) : toset([])

  project    = var.project
  name       = "${var.name}-${replace(each.key, ".", "-")}"
  dns_name   = "${each.key}."
  visibility = "private"

  private_visibility_config {
    networks {
      network_url = google_compute_network.main.id
    }
  }

  depends_on = [google_project_service.needed]
}

resource "google_dns_record_set" "google" {
  for_each = google_dns_managed_zone.google

  project      = var.project
  managed_zone = each.value.name
  name         = each.key == "pkg.dev" ? "pkg.dev." : "private.googleapis.com."
  type         = "A"
  ttl          = 300
  rrdatas      = ["199.36.153.8", "199.36.153.9", "199.36.153.10", "199.36.153.11"]
}

resource "google_dns_record_set" "google_any" {
  for_each = google_dns_managed_zone.google

  project      = var.project
  managed_zone = each.value.name
  name         = "*.${each.key}."
  type         = "CNAME"
  ttl          = 300
  rrdatas      = [each.key == "pkg.dev" ? "pkg.dev." : "private.googleapis.com."]
}
