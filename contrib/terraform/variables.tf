# SPDX-License-Identifier: Apache-2.0
variable "project" {
  description = "Project id."
  type        = string
}

variable "region" {
  description = "Region of the network, the group, the registry and the dataset."
  type        = string
  default     = "asia-northeast3"
}

variable "name" {
  description = "What everything made here is called, or begins with; the VMs' service account as well, which is why it has 6 to 30 characters."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.name))
    error_message = "A name has 6 to 30 lower-case letters, digits and hyphens, begins with a letter, and does not end with a hyphen."
  }
}

variable "kind" {
  description = "serving: a group of Spot VMs behind a load balancer. training: one Spot VM that runs a job and powers off."
  type        = string
  default     = "serving"

  validation {
    condition     = contains(["serving", "training"], var.kind)
    error_message = "kind is serving or training."
  }
}

variable "plan" {
  description = "The plan (mervis-plan(5)), as an object: it becomes the VM's attribute mervis-plan by jsonencode()."
  type        = any

  validation {
    condition     = length(jsonencode(var.plan)) < 262144
    error_message = "One value of metadata holds at most 256 KiB."
  }
}

variable "image" {
  description = "Image or family with the package baked in (contrib/packer), or a plain Debian one together with package_object. Another one is for new VMs; those that run, and later plans for them, wait until the output replace is run. A newer image of the same family reaches them by it too."
  type        = string
}

variable "package_object" {
  description = "gs://BUCKET/FILE.deb to install at first boot on an image without the package; null where it is baked in."
  type        = string
  default     = null
}

variable "package_sha256" {
  description = "SHA-256 of the package, in hex. Needed with package_object."
  type        = string
  default     = null
}

variable "machine_type" {
  description = "Another one reaches VMs that run, as another image does, by the output replace."
  type        = string
  default     = "e2-small"
}

variable "disk_gb" {
  type    = number
  default = 20
}

variable "size" {
  description = "VMs of a serving group."
  type        = number
  default     = 1
}

variable "zone" {
  description = "Zone of a training VM, and of a NAT instance."
  type        = string
  default     = "asia-northeast3-a"
}

variable "app_port" {
  description = "The port that the plan publishes for visitors."
  type        = number
  default     = 8080
}

variable "load_balancer" {
  description = "Whether visitors come through a load balancer, which looks at /readyz."
  type        = bool
  default     = true
}

variable "egress" {
  description = "How VMs reach market data and Debian's mirror: nat (Cloud NAT), nat-instance (an e2-micro that forwards; cheaper with much traffic), external-ip (each VM its own; cheapest for one VM)."
  type        = string
  default     = "nat"

  validation {
    condition     = contains(["nat", "nat-instance", "external-ip"], var.egress)
    error_message = "egress is nat, nat-instance or external-ip."
  }
}

variable "nat_ports" {
  description = "Ports of Cloud NAT a VM has from the start; crawl.egress.nat_ports of the plan should say the same."
  type        = number
  default     = 64
}

variable "nat_ports_max" {
  description = "Ports of Cloud NAT a VM may get when it needs more."
  type        = number
  default     = 1024
}

variable "subnet_range" {
  description = "Addresses of the VMs; a NAT instance forwards for these."
  type        = string
  default     = "10.128.0.0/24"

  validation {
    condition     = can(cidrnetmask(var.subnet_range))
    error_message = "subnet_range is an IPv4 range such as 10.128.0.0/24."
  }
}

variable "scrape_ranges" {
  description = "Where Prometheus asks from, such as [\"10.128.0.7/32\"]: these ranges reach port 9320 of the VMs (/metrics, /healthz, /readyz). Empty for none."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for range in var.scrape_ranges : can(cidrhost(range, 0)) && !endswith(range, "/0")])
    error_message = "scrape_ranges is a list of ranges such as 10.128.0.7/32, and not the whole world."
  }
}

variable "secrets" {
  description = "Names in Secret Manager that the plan reads, made here. Values are added by hand, so that no state file holds them."
  type        = set(string)
  default     = []
}

variable "existing_secrets" {
  description = "Names that the plan reads and that something else made, such as another use of this module in the same project; the VMs may read them too."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for name in var.existing_secrets : can(regex("^[A-Za-z0-9_-]{1,255}$", name))])
    error_message = "existing_secrets has names of secrets in this project: letters, digits, hyphens and underscores."
  }
}

variable "extra_roles" {
  description = "Roles in the project that containers need of the VM's account, or an Ops Agent (roles/logging.logWriter, roles/monitoring.metricWriter). The agent needs none of them."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for role in var.extra_roles : !contains(["roles/owner", "roles/editor"], role)])
    error_message = "roles/owner and roles/editor are for no VM: name what its containers do."
  }
}

variable "dataset" {
  description = "BigQuery dataset of the crawler; null for none."
  type        = string
  default     = null
}

variable "table" {
  description = "Prefix of its tables: TABLE_intraday and TABLE_daily."
  type        = string
  default     = "bars"
}

variable "registry_keep" {
  description = "Versions of each image, the last ones, that the registry keeps whatever their age and without a tag; what has a tag is never deleted."
  type        = number
  default     = 10
}

variable "billing_account" {
  description = "Billing account for the budget, together with budget; null for no budget."
  type        = string
  default     = null
}

variable "budget" {
  description = "Monthly budget in whole units of the billing account's currency, such as 30 (dollars) or 40000 (won). Needed with billing_account."
  type        = number
  default     = null

  validation {
    condition     = var.budget == null ? true : var.budget >= 1 && floor(var.budget) == var.budget
    error_message = "budget is a whole number, at least 1."
  }
}

variable "alert_email" {
  description = "Who is told about budget and alerts; null for nobody."
  type        = string
  default     = null
}
