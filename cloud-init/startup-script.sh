#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs mervis-agent at first boot, from a bucket, and does nothing at any later one. For Google's Debian images:
#
#     gcloud compute instances create VM … --metadata-from-file=startup-script=startup-script.sh \
#         --metadata=mervis-package=gs://BUCKET/mervis-agent_0.1.0_amd64.deb,mervis-package-sha256=DIGEST
#
# mervis-package and mervis-package-sha256 may be attributes of the project as well. The VM's service account needs
# roles/storage.objectViewer on the bucket, and apt must reach Debian's mirror (Cloud NAT) or one of yours.
# user-data.yaml runs this very text; whichever comes second finds the package and ends.
set -eu

metadata=http://${GCE_METADATA_HOST:-169.254.169.254}/computeMetadata/v1
storage=${MERVIS_STORAGE:-https://storage.googleapis.com}
dir=${MERVIS_BOOTSTRAP_DIR:-/var/cache/mervis-bootstrap}

say() { echo "mervis-bootstrap: $1"; }
die() { # what happened, remedy
    say "$1" >&2
    say "    $2" >&2
    exit 1
}
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' mervis-agent 2>/dev/null)" = installed ]; }

# The network may be later than this script, and the metadata server has moments of its own. 404 is an answer.
ask() { # PATH, of the metadata server
    tries=0
    while :; do
        code=$(curl --silent --noproxy '*' --max-time 10 --header 'Metadata-Flavor: Google' \
            --output "$dir/answer" --write-out '%{http_code}' "$metadata/$1") || code=000
        case $code in
            200) cat "$dir/answer"; rm -f "$dir/answer"; return 0 ;;
            403 | 404) rm -f "$dir/answer"; return 1 ;;
        esac
        tries=$((tries + 1))
        [ "$tries" -lt 60 ] || die "The metadata server does not answer (status $code)." \
            "Is this a VM of Google Compute Engine? curl $metadata/instance/id -H 'Metadata-Flavor: Google'"
        sleep 2
    done
}
attribute() { ask "instance/attributes/$1" || ask "project/attributes/$1"; }

[ "$(id -u)" -eq 0 ] || die "It installs a package, so it needs root." "sudo sh $0"
mkdir -p "$dir"
chmod 755 "$dir" # apt reads the package as a user of its own
exec 9>"$dir/lock"
flock 9
if installed; then
    say "mervis-agent is installed; nothing to do."
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
command -v curl >/dev/null || {
    apt-get -q -o DPkg::Lock::Timeout=300 update
    apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends curl ca-certificates
}

ask instance/id >/dev/null || true # here it may take its time, and end everything
url=$(attribute mervis-package) || die "Metadata has no attribute mervis-package, so there is nothing to install." \
    "gcloud compute instances add-metadata VM --metadata=mervis-package=gs://BUCKET/FILE.deb,mervis-package-sha256=DIGEST"
digest=$(attribute mervis-package-sha256) || die "Metadata has no attribute mervis-package-sha256, and unchecked code is not run." \
    "sha256sum FILE.deb, then gcloud compute instances add-metadata VM --metadata=mervis-package-sha256=DIGEST"
case $url in
    *[!A-Za-z0-9._/:~+-]*) die "mervis-package is no name of a package: $url" "Use gs://BUCKET/FILE.deb." ;;
    gs://?*/?*.deb) path=${url#gs://} ;;
    *) die "mervis-package is no name of a package: $url" "Use gs://BUCKET/FILE.deb." ;;
esac
case $digest in
    *[!0-9a-f]* | '') die "mervis-package-sha256 is no SHA-256 in lower-case hex digits." "sha256sum FILE.deb" ;;
esac
[ ${#digest} -eq 64 ] || die "mervis-package-sha256 has ${#digest} digits instead of 64." "sha256sum FILE.deb"

token=$(ask instance/service-accounts/default/token | sed -n 's/.*"access_token" *: *"\([^"]*\)".*/\1/p')
[ -n "$token" ] || die "This VM has no service account, so it has no token for the bucket." \
    "gcloud compute instances set-service-account VM --service-account=ACCOUNT --scopes=cloud-platform"

# The token goes through a pipe: an argument could be read by everybody in the list of processes.
package=$dir/mervis-agent.deb
code=$(printf 'header = "Authorization: Bearer %s"\n' "$token" |
    curl --config - --silent --show-error --retry 5 --retry-connrefused --connect-timeout 10 --max-time 600 \
        --output "$package" --write-out '%{http_code}' "$storage/$path") || code="${code:-000}"
case $code in
    200) ;;
    401 | 403) die "The bucket refuses this VM's service account (status $code)." \
        "gcloud storage buckets add-iam-policy-binding gs://${path%%/*} --member=serviceAccount:ACCOUNT --role=roles/storage.objectViewer; the VM's access scope must be cloud-platform" ;;
    404) die "$url does not exist." "gcloud storage cp FILE.deb $url" ;;
    *) die "$url could not be fetched (status $code)." "Is Private Google Access on in the VM's subnet?" ;;
esac
if ! echo "$digest  $package" | sha256sum --check --status; then
    found=$(sha256sum "$package" | cut -d ' ' -f 1)
    rm -f "$package"
    die "$url is not the package that mervis-package-sha256 names: its digest is $found." \
        "Upload the right file, or correct mervis-package-sha256."
fi

engine=
command -v dockerd >/dev/null || engine=docker.io
apt-get -q -o DPkg::Lock::Timeout=300 update || say "apt's lists could not be renewed; going on with those there are." >&2
# shellcheck disable=SC2086 # nothing, or one word
apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$package" $engine
rm -f "$package"
say "mervis-agent $(dpkg-query -W -f '${Version}' mervis-agent) is installed."
