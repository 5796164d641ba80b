# SPDX-License-Identifier: Apache-2.0
# No amount is assumed: 30 of a dollar account is a bound, and of a won account an alarm on the first day.
locals {
  has_budget = var.billing_account != null || var.budget != null
}

# Read at plan time, before an API can have been switched on by this module; only where it is needed.
data "google_project" "this" {
  count = local.has_budget ? 1 : 0

  project_id = var.project
}

resource "google_monitoring_notification_channel" "email" {
  count = var.alert_email == null ? 0 : 1

  project      = var.project
  display_name = "${var.name}: e-mail"
  type         = "email"

  labels = {
    email_address = var.alert_email
  }

  depends_on = [google_project_service.needed]
}

resource "google_billing_budget" "monthly" {
  count = local.has_budget ? 1 : 0

  billing_account = var.billing_account
  display_name    = "${var.name}: monthly"

  budget_filter {
    projects = ["projects/${data.google_project.this[0].number}"]
  }

  amount {
    specified_amount {
      units = tostring(var.budget)
    }
  }

  threshold_rules {
    threshold_percent = 0.5
  }

  threshold_rules {
    threshold_percent = 0.9
  }

  threshold_rules {
    threshold_percent = 1.0
    spend_basis       = "FORECASTED_SPEND"
  }

  dynamic "all_updates_rule" {
    for_each = google_monitoring_notification_channel.email[*].id

    content {
      monitoring_notification_channels = [all_updates_rule.value]
      disable_default_iam_recipients   = false
    }
  }

  lifecycle {
    precondition {
      condition     = var.billing_account != null && var.budget != null
      error_message = "billing_account and budget come together: the amount is in the currency of that account, so there is none to assume."
    }
  }

  depends_on = [google_project_service.needed]
}

# A NAT without ports drops packets without a word to the VM.
resource "google_monitoring_alert_policy" "nat" {
  count = var.egress == "nat" && var.alert_email != null ? 1 : 0

  project               = var.project
  display_name          = "${var.name}: Cloud NAT drops packets"
  combiner              = "OR"
  notification_channels = google_monitoring_notification_channel.email[*].id

  conditions {
    display_name = "dropped packets"

    condition_threshold {
      filter          = "resource.type = \"nat_gateway\" AND metric.type = \"router.googleapis.com/nat/dropped_sent_packets_count\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "300s"

      aggregations {
        alignment_period   = "60s"
        per_series_aligner = "ALIGN_RATE"
      }
    }
  }

  documentation {
    content   = "Raise nat_ports or nat_ports_max, or let the plan's crawl.egress.nat_ports say how many there are."
    mime_type = "text/markdown"
  }
}
