# SPDX-License-Identifier: Apache-2.0
"""A certificate authority of a test machine's own, and machines that trust it as people make them trust one."""

from pathlib import Path

from .process import run

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


class Authority:
    """Makes its own certificate, `ca`, and a server's for HOST with its key, `server`: two PEM files in DIRECTORY."""

    def __init__(self, directory, host):
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.host = host
        self.ca = directory / "ca.crt"
        self.server = directory / "server.pem"
        key, request, certificate = directory / "server.key", directory / "server.csr", directory / "server.crt"
        names = directory / "names"
        names.write_text(f"subjectAltName = DNS:{host}\n")
        run(["openssl", "req", "-x509", *KEY, "-days", "30", "-subj", "/CN=CA of a test machine",
             "-keyout", directory / "ca.key", "-out", self.ca])
        run(["openssl", "req", *KEY, "-subj", f"/CN={host}", "-keyout", key, "-out", request])
        run(["openssl", "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", directory / "ca.key", "-CAcreateserial",
             "-days", "30", "-extfile", names, "-out", certificate])
        self.server.write_text(certificate.read_text() + key.read_text())

    @property
    def options(self):
        """Of localcloud: it answers under HOST's name on port 443, too."""
        return ["--tls", "0.0.0.0:443", "--tls-certificate", str(self.server)]

    def trusted_in(self, debian, layer):
        """LAYER, above a Debian root on a machine's disk, trusts it: its programs by the bundle, its engine by certs.d
        alone."""
        bundle = Path("etc/ssl/certs/ca-certificates.crt")
        for path, text in {bundle: (Path(debian) / bundle).read_text() + self.ca.read_text(),
                           Path("etc/docker/certs.d") / self.host / "ca.crt": self.ca.read_text(),
                           Path("etc/systemd/system/docker.service.d/trust.conf"):
                           "[Service]\nEnvironment=SSL_CERT_FILE=/dev/null SSL_CERT_DIR=/nonexistent\n"}.items():
            path = Path(layer) / path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
