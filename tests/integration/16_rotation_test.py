# SPDX-License-Identifier: Apache-2.0
"""Secrets that change while a service is asked without a pause, and while Secret Manager is not at its best."""

import threading
import time

from rig import image
from rig.process import wait_for

ROUNDS = 4


class Load:
    """Asks for the page all the time; what each answer showed, in order."""

    def __init__(self, machine):
        self.machine = machine
        self.pairs = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.ask)

    def ask(self):
        while not self.over.is_set():
            page = self.machine.page()
            if page and "key" in page:
                self.pairs.append((page["key"], page["file"]))
            time.sleep(0.01)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *failure):
        self.over.set()
        self.thread.join(20)


def test_every_answer_comes_from_one_pair_and_the_newest_one_wins(machine):
    hashes = [image.key_hash(f"value-{n}") for n in range(ROUNDS + 1)]
    for name in ("APP_KEY", "APP_FILE"):
        machine.cloud.add_secret(name, "value-0")
    machine.publish("1")
    machine.put_plan(machine.make_plan(
        [machine.container(env={"APP_KEY": {"secret": "app-key"}},
                           secret_files=[{"secret": "app-file", "path": "/run/secrets/app-key"}],
                           health={"interval": "1s", "timeout": "2s", "retries": 3, "start_period": "20s", "stable": "1s"})],
        # Read when the test says so: between the two new versions there is a moment, and nobody can help that.
        secrets=[{"name": name, "secret": name.upper().replace("-", "_"), "refresh": "1h"}
                 for name in ("app-key", "app-file")]))
    machine.start(machine.agentd)
    machine.wait_page(key=hashes[0], file=hashes[0])
    with Load(machine) as load:
        for n in range(1, ROUNDS + 1):
            for name in ("APP_KEY", "APP_FILE"):
                machine.cloud.add_secret(name, f"value-{n}")
            # One of the two is refused for a while, another way each time.
            fault = ({"status": 503}, {"status": 429, "headers": {"Retry-After": "1"}}, {"reset": True},
                     {"truncate": 20})[n % 4]
            machine.cloud.fault({"service": "secretmanager", "path": ".*APP_FILE.*"}, fault, times=3)
            machine.agentctl("apply")
            machine.wait_page(key=hashes[n], file=hashes[n], timeout=60)
        wait_for("some answers of the last one", lambda: load.pairs[-1] == (hashes[-1], hashes[-1]), 10)
    seen = [hashes.index(key) for key, file in load.pairs if key == file]
    assert len(seen) == len(load.pairs), [pair for pair in load.pairs if pair[0] != pair[1]]
    assert seen == sorted(seen) and set(seen) == set(range(ROUNDS + 1)) and len(seen) > 100
    assert {secret["version"] for secret in machine.status()["secrets"]} == {str(ROUNDS + 1)}
    said = machine.agentd.log.read_text(errors="replace")
    assert "value-" not in said and said.count("secret app-file: version") == ROUNDS + 1
