# SPDX-License-Identifier: Apache-2.0
terraform {
  required_version = ">= 1.5"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 5.20, < 8"
    }
  }
}
