# SPDX-License-Identifier: Apache-2.0
"""Container images made without an engine: static busybox, some files, a config, a manifest."""

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile

from .process import RigError

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"

SECOND = 1_000_000_000

# Serves one page: which version this is, and a hash of its secret, so that a look from outside tells both.
APP = """#!/bin/sh
trap 'kill $child 2>/dev/null; exit 0' TERM INT
mkdir -p /tmp/www
key=none
if [ -n "$APP_KEY" ]; then key=$(printf %s "$APP_KEY" | sha256sum | cut -c1-12); fi
file=none
if [ -r /run/secrets/app-key ]; then file=$(sha256sum </run/secrets/app-key | cut -c1-12); fi
printf 'version=%s key=%s file=%s greeting=%s\\n' "$(cat /version)" "$key" "$file" "$GREETING" >/tmp/www/index.html
[ ! -e /never-ready ] || rm /tmp/www/index.html
[ ! -e /crash ] || exit 3
httpd -f -p 8080 -h /tmp/www &
child=$!
wait $child
"""


def _sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _layer(files):
    """A layer's tar; FILES maps path to (content, mode). The same files give the same bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        folders = {"tmp": 0o1777, "run": 0o755, "run/secrets": 0o755}
        for path in files:
            for at, char in enumerate(path):
                if char == "/":
                    folders.setdefault(path[:at], 0o755)
        for folder in sorted(folders):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, folders[folder]
            tar.addfile(entry)
        for path, (content, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            if mode == "link":
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                tar.addfile(entry)
            else:
                entry.size, entry.mode = len(content), mode
                tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


class Image:
    """Blobs and manifests of one image or index, ready to push; `digest` is what a tag would stand for."""

    def __init__(self):
        self.blobs = {}
        self.manifests = {}
        self.digest = None

    def _add_manifest(self, media_type, body):
        data = json.dumps(body).encode()
        self.digest = _sha256(data)
        self.manifests[self.digest] = (media_type, data)
        return self.digest, len(data)


def busybox():
    """Host's static busybox, with the applets that images here use."""
    path = shutil.which("busybox")
    if not path:
        raise RigError("no busybox; install busybox-static")
    with open(path, "rb") as file:
        files = {"bin/busybox": (file.read(), 0o755)}
    for applet in ("sh", "httpd", "wget", "sha256sum", "cut", "cat", "sleep", "mkdir", "rm", "env", "id", "ls", "kill",
                   "nc", "printf", "test", "true", "false", "touch", "date", "df", "mount", "stat", "ps", "hostname"):
        files[f"bin/{applet}"] = ("busybox", "link")
    return files


def build(files=None, entrypoint=("/bin/sh",), command=(), env=None, health=None, arch="amd64", ballast=0, user="",
          oci=False, ports=(), labels=None):
    """An image of busybox and FILES (path to text, bytes, or (bytes, mode)).

    HEALTH is a Healthcheck as the engine writes it. BALLAST is that many bytes that do not compress, in a layer of
    their own.
    """
    image = Image()
    content = busybox()
    for path, what in (files or {}).items():
        if isinstance(what, tuple):
            content[path] = what
        else:
            content[path] = (what.encode() if isinstance(what, str) else what, 0o644)
    tars = [_layer(content)]
    if ballast:
        tars.append(_layer({"ballast": (os.urandom(ballast), 0o644)}))

    layers = []
    for tar in tars:
        blob = gzip.compress(tar, 1, mtime=0)
        image.blobs[_sha256(blob)] = blob
        layers.append({"mediaType": OCI_LAYER if oci else DOCKER_LAYER, "size": len(blob), "digest": _sha256(blob)})

    config = {
        "architecture": arch, "os": "linux", "created": "2024-01-01T00:00:00Z",
        "config": {
            "Env": ["PATH=/bin"] + [f"{key}={value}" for key, value in (env or {}).items()],
            "Entrypoint": list(entrypoint), "Cmd": list(command) or None, "User": user, "Labels": labels,
            "ExposedPorts": {f"{port}/tcp": {} for port in ports} or None,
        },
        "rootfs": {"type": "layers", "diff_ids": [_sha256(tar) for tar in tars]},
    }
    if health:
        config["config"]["Healthcheck"] = health
    blob = json.dumps(config).encode()
    image.blobs[_sha256(blob)] = blob
    media_type = OCI_MANIFEST if oci else DOCKER_MANIFEST
    image._add_manifest(media_type, {
        "schemaVersion": 2, "mediaType": media_type,
        "config": {"mediaType": OCI_CONFIG if oci else DOCKER_CONFIG, "size": len(blob), "digest": _sha256(blob)},
        "layers": layers,
    })
    image.arch = arch
    image.media_type = media_type
    return image


def index(images, oci=True):
    """Several images behind one digest, one a platform."""
    made = Image()
    entries = []
    for image in images:
        made.blobs.update(image.blobs)
        made.manifests.update(image.manifests)
        media_type, data = image.manifests[image.digest]
        entries.append({"mediaType": media_type, "digest": image.digest, "size": len(data),
                        "platform": {"os": "linux", "architecture": image.arch}})
    media_type = OCI_INDEX if oci else DOCKER_LIST
    made._add_manifest(media_type, {"schemaVersion": 2, "mediaType": media_type, "manifests": entries})
    return made


def app(version, check=True, **kwargs):
    """The web application of the demo. It serves `version=V key=HASH file=HASH greeting=TEXT` on port 8080.

    KEY is the hash of its environment's APP_KEY, FILE that of /run/secrets/app-key. `broken="crash"` ends at once,
    `broken="never-ready"` runs and answers 404.
    """
    files = {"version": version, "app": (APP.encode(), 0o755)}
    broken = kwargs.pop("broken", None)
    if broken:
        files[broken] = "yes"
    files.update(kwargs.pop("files", {}))
    health = {"Test": ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/"], "Interval": SECOND,
              "Timeout": 2 * SECOND, "Retries": 3} if check else None
    return build(files=files, entrypoint=["/bin/sh", "/app"], health=health, ports=[8080], **kwargs)


def key_hash(value):
    """What the application shows for a secret."""
    data = value.encode() if isinstance(value, str) else value
    return hashlib.sha256(data).hexdigest()[:12]
