#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Forwards for the VMs of its subnet, at every boot.
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
        ip saddr 10.0.0.0/8 masquerade fully-random
    }
}
RULES
