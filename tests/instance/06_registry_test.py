# SPDX-License-Identifier: Apache-2.0
"""The registry by its own name, as on the cloud: over TLS, with a certificate that the machine trusts, and with the
machine's token, asked for by the agent and by the engine alike."""

from rig import image
from rig.machine import REGISTRY_HOST
from rig.process import wait_for

REPOSITORY = "demo-project/repo/app"
IMAGE = f"{REGISTRY_HOST}/{REPOSITORY}:stable"
CERTIFICATES = f"/etc/docker/certs.d/{REGISTRY_HOST}"


def app(**changes):
    return {"name": "app", "image": IMAGE, "log": "json-file", "health": {"stable": "1s"},
            "update": {"check": "10s", "settle": "2s"}, "stop_timeout": "2s", **changes}


def publish(world, version):
    script = f"#!/bin/sh\ntrap 'exit 0' TERM\necho version {version}\nwhile :; do sleep 0.1; done\n"
    made = image.build(files={"version": version, "app": (script.encode(), 0o755)}, entrypoint=["/bin/sh", "/app"])
    return world.registry.push(made, REPOSITORY, "stable")


def container(world):
    return next(iter(world.vm.status().get("containers") or [{}]))


def test_a_rollout_asks_the_registry_over_tls_and_so_does_the_engine(world):
    first = publish(world, "one")
    world.put(containers=[app()])
    world.vm.boot()
    world.settle(90)
    assert container(world)["digest"] == first
    second = publish(world, "two")
    world.vm.sh("agentctl apply")
    world.vm.explain("the second one", lambda: container(world)["digest"] == second and
                     container(world)["state"] == "settled", 60)
    assert second in world.vm.out("docker inspect -f '{{.Config.Image}}' app")

    asked = [one for one in world.cloud.requests() if one["path"].startswith("/v2/")]
    assert asked and all(one["tls"] and one["host"] == REGISTRY_HOST for one in asked), asked
    agent = [one for one in asked if one["agent"].startswith("mervis-agent/")]
    engine = [one for one in asked if one["agent"].startswith("docker/")]
    assert len(agent) + len(engine) == len(asked), asked
    for peer in (agent, engine):
        # Challenged, a token fetched with the machine's login, and then let in.
        assert any(one["status"] == 401 for one in peer) and any("/v2/token" in one["path"] for one in peer), peer
        assert any(one["status"] == 200 and "/manifests/" in one["path"] for one in peer), peer
    assert any("/blobs/" in one["path"] and one["status"] == 200 for one in engine), engine
    # Tokens are for one pull: no login was left on the disk.
    assert world.vm.out("cat /root/.docker/config.json 2>/dev/null || echo none") == "none"

    # An engine that does not trust the registry: what runs goes on, and the words name the file to make.
    world.vm.sh(f"mv {CERTIFICATES}/ca.crt {CERTIFICATES}/ca.away")
    publish(world, "three")
    world.vm.sh("agentctl apply")
    said = world.vm.explain("the complaint", lambda: "certificate" in (container(world).get("message") or "") and
                            container(world), 60)
    assert "/etc/docker/certs.d" in said["remedy"] and said["digest"] == second and said["running"], said
    assert said["quarantined"] == []
    world.vm.sh(f"mv {CERTIFICATES}/ca.away {CERTIFICATES}/ca.crt; agentctl apply")
    wait_for("the third one", lambda: container(world)["digest"] not in (first, second), 90)

    # And an agent that does not.
    world.vm.sh("cp /etc/ssl/certs/ca-certificates.crt /root/bundle && : >/etc/ssl/certs/ca-certificates.crt && "
                "systemctl restart agentd")
    said = world.vm.explain("the other complaint", lambda: "certificate" in (container(world).get("message") or "") and
                            container(world), 60)
    assert said["running"] and REGISTRY_HOST in said["message"], said
