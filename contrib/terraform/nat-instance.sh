#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Forwards for the VMs of its subnet, at every boot. Terraform puts the subnet's range in the place of its name below.
set -eu
command -v nft >/dev/null || {
    apt-get -q -o DPkg::Lock::Timeout=300 update
    apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends nftables
}
sysctl -q -w net.ipv4.ip_forward=1
nft -f - <<'RULES'
table ip mervis_nat
delete table ip mervis_nat
table ip mervis_nat {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ip saddr ${range} masquerade fully-random
    }
}
RULES
