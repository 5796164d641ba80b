# SPDX-License-Identifier: Apache-2.0
# Bakes an image with the package and a container engine: boots without fetching anything but the plan.
#
#     contrib/build-deb out
#     packer build -var project=PROJECT -var package=out/mervis-agent_0.1.0_amd64.deb contrib/packer/mervis.pkr.hcl
#
# Works with the packer of Debian 12 (1.6.6) and later ones, which want the plugin googlecompute installed first:
# packer plugins install github.com/hashicorp/googlecompute

variable "project" {
  type    = string
  default = ""
}

variable "package" {
  type    = string
  default = ""
}

variable "zone" {
  type    = string
  default = "asia-northeast3-a"
}

variable "subnetwork" {
  type    = string
  default = "default"
}

source "googlecompute" "debian" {
  project_id          = var.project
  zone                = var.zone
  subnetwork          = var.subnetwork
  source_image_family = "debian-12"
  machine_type        = "e2-small"
  disk_size           = 10
  ssh_username        = "packer"
  image_family        = "mervis-agent"
  image_name          = "mervis-agent-{{timestamp}}"
  image_description   = "Debian 12 with mervis-agent and Docker"
}

build {
  sources = ["source.googlecompute.debian"]

  provisioner "file" {
    source      = var.package
    destination = "/tmp/mervis-agent.deb"
  }

  # The agent must not start here: this VM is not the one it is for, and its state would be baked in. What it may have
  # left is removed all the same, and so is what makes clones of one machine look like one.
  provisioner "shell" {
    execute_command = "sudo sh -eu {{ .Path }}"
    inline = [
      "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d",
      "chmod 755 /usr/sbin/policy-rc.d",
      "export DEBIAN_FRONTEND=noninteractive",
      "apt-get -q -o DPkg::Lock::Timeout=300 update",
      "apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends /tmp/mervis-agent.deb docker.io",
      "rm -f /usr/sbin/policy-rc.d /tmp/mervis-agent.deb",
      "systemctl is-enabled agentd.service statusd.socket docker.service",
      "rm -rf /var/lib/mervis-agent /var/lib/mervis-crawler /var/lib/apt/lists/*",
      "apt-get clean",
      "truncate -s 0 /etc/machine-id",
    ]
  }
}
