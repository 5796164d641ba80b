# SPDX-License-Identifier: Apache-2.0
# One or more Spot VMs behind a load balancer, no public addresses, an application and a crawler.
terraform {
  # terraform init -backend-config=bucket=BUCKET: the state lives in a bucket of yours with versioning on.
  backend "gcs" {
    prefix = "mervis-serving"
  }
}

variable "project" {
  type = string
}

variable "image" {
  description = "What contrib/packer made, such as projects/PROJECT/global/images/family/mervis-agent."
  type        = string
}

variable "billing_account" {
  type    = string
  default = null
}

variable "budget" {
  description = "Monthly, in the currency of the billing account: 30 dollars, 40000 won. Needed with billing_account."
  type        = number
  default     = null
}

variable "alert_email" {
  type    = string
  default = null
}

provider "google" {
  project               = var.project
  billing_project       = var.project
  user_project_override = true
}

module "serving" {
  source = "../.."

  project         = var.project
  name            = "mervis"
  image           = var.image
  size            = 1
  machine_type    = "e2-small"
  egress          = "nat"
  nat_ports       = 64
  secrets         = ["KIS_APP_KEY", "SLACK_WEBHOOK"]
  dataset         = "market"
  billing_account = var.billing_account
  budget          = var.budget
  alert_email     = var.alert_email

  plan = {
    version = 1
    role    = "serving"
    system = {
      timezone = "Asia/Seoul"
      swap     = { size = "1GiB" }
    }
    secrets = [
      { name = "kis-app-key", secret = "KIS_APP_KEY" },
      { name = "slack-webhook", secret = "SLACK_WEBHOOK" },
    ]
    containers = [{
      name   = "mervis"
      image  = "asia-northeast3-docker.pkg.dev/${var.project}/mervis/mervis:stable"
      env    = { TZ = "Asia/Seoul", KIS_APP_KEY = { secret = "kis-app-key" } }
      ports  = ["8080:8080"]
      memory = "600MiB"
      health = { http = "http://{container}:8080/", start_period = "2m" }
    }]
    crawl = {
      contact = "ops@example.com"
      jobs    = [{ name = "krw", recipe = "upbit-candles", symbols = ["KRW-BTC"], interval = "1m", every = "1m" }]
      egress  = { nat_ports = 64 }
      sink    = { bigquery = { dataset = "market", table = "bars" } }
    }
    notify = [{ kind = "slack", secret = "slack-webhook" }]
  }
}

output "address" {
  value = module.serving.address
}

output "replace" {
  value = module.serving.replace
}

output "repository" {
  value = module.serving.repository
}
