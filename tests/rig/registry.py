# SPDX-License-Identifier: Apache-2.0
"""Debian's docker-registry on loopback, and pushing to it. Who may read is localcloud's business, in front of it."""

from pathlib import Path
from urllib.parse import urlsplit

from . import web
from .process import Process, RigError

CONFIG = """version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: {data}}}
  delete: {{enabled: true}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: 127.0.0.1:{port}}}
"""


class Registry(Process):
    def __init__(self, directory, port=5000):
        self.dir = Path(directory)
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        config = self.dir / "registry.yml"
        config.write_text(CONFIG.format(data=self.dir / "registry", port=port))
        super().__init__("docker-registry", ["docker-registry", "serve", config], self.dir,
                         env={"OTEL_TRACES_EXPORTER": "none"})

    def start(self):
        super().start()
        self.wait_ready("answer", lambda: web.get(self.url + "/v2/").status == 200)
        return self

    def push(self, image, repository, tag):
        """Put an image behind a tag; returns its digest, or that of its index if it is one."""
        for digest, blob in image.blobs.items():
            self._push_blob(repository, digest, blob)
        for digest, (media_type, manifest) in image.manifests.items():
            self._push_manifest(repository, digest, media_type, manifest)
        media_type, manifest = image.manifests[image.digest]
        return self._push_manifest(repository, tag, media_type, manifest)

    def _push_blob(self, repository, digest, blob):
        if web.request("HEAD", f"{self.url}/v2/{repository}/blobs/{digest}").status == 200:
            return
        begun = web.request("POST", f"{self.url}/v2/{repository}/blobs/uploads/", body=b"").expect(202)
        where = urlsplit(begun.headers["Location"])
        query = f"{where.query}&digest={digest}" if where.query else f"digest={digest}"
        web.request("PUT", f"{self.url}{where.path}?{query}", body=blob, timeout=120,
                    headers={"Content-Type": "application/octet-stream"}).expect(201)

    def _push_manifest(self, repository, reference, media_type, manifest):
        reply = web.request("PUT", f"{self.url}/v2/{repository}/manifests/{reference}", body=manifest,
                            headers={"Content-Type": media_type}).expect(201)
        return reply.headers["Docker-Content-Digest"]

    def digest(self, repository, tag):
        """What a tag stands for now."""
        reply = web.request("HEAD", f"{self.url}/v2/{repository}/manifests/{tag}",
                            headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"})
        if reply.status != 200:
            raise RigError(f"{repository}:{tag}: HTTP {reply.status}")
        return reply.headers["Docker-Content-Digest"]

    def forget(self, repository, digest):
        """Remove a manifest, as somebody who cleans up a repository does."""
        web.request("DELETE", f"{self.url}/v2/{repository}/manifests/{digest}").expect(202)
