# SPDX-License-Identifier: Apache-2.0
"""What a benchmark talks to, on loopback: nginx with documents, and the sink that counts."""

import json
import shutil
import socket
import urllib.request
from pathlib import Path

from .measure import BenchError, Server

HERE = Path(__file__).resolve().parent

NGINX = """
daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/nginx-error.log;
events {{ worker_connections 256; }}
http {{
    access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000; keepalive_timeout 300s;
    default_type application/json; open_file_cache max=20000 inactive=600s; open_file_cache_valid 600s;
    client_body_temp_path {dir}/nginx-body; proxy_temp_path {dir}/nginx-proxy; fastcgi_temp_path {dir}/nginx-fastcgi;
    uwsgi_temp_path {dir}/nginx-uwsgi; scgi_temp_path {dir}/nginx-scgi;
    server {{ listen 127.0.0.1:{port}; location /v8/finance/chart/ {{ alias {documents}/; }} }}
}}
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def get(url, method="GET"):
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as reply:
        return reply.read()


class Nginx(Server):
    def __init__(self, directory, documents, cpus=None):
        binary = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
        if not binary:
            raise BenchError("nginx is not installed: apt-get install nginx-light")
        port = free_port()
        config = directory / "nginx.conf"
        config.write_text("user root;" + NGINX.format(dir=directory, documents=documents, port=port))
        self.url = f"http://127.0.0.1:{port}"
        super().__init__([binary, "-p", directory, "-c", config], directory / "nginx.log", cpus)
        self.wait(lambda: socket.create_connection(("127.0.0.1", port)).close() or True)


class Sink(Server):
    def __init__(self, directory, cpus=None):
        port = free_port()
        self.host = f"127.0.0.1:{port}"
        self.url = f"http://{self.host}"
        super().__init__([HERE / "sink", str(port)], directory / "sink.log", cpus)
        self.wait(lambda: self.counts() is not None)

    def counts(self):
        return json.loads(get(f"{self.url}/_rows"))

    def reset(self):
        get(f"{self.url}/_reset", "POST")
