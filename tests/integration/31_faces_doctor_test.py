# SPDX-License-Identifier: Apache-2.0
"""agentctl doctor: with each of the known troubles exactly its own line is wrong, and the remedy names the resource."""

import email.utils
import json
import os
import re
import subprocess
import time

import pytest

from rig import web

PLATFORM_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
MEMINFO = "MemTotal: {total} kB\nMemAvailable: {available} kB\nSwapTotal: {swap} kB\nSwapFree: {swap} kB\n"


@pytest.fixture
def well(machine):
    """A machine on which nothing is wrong: agentd runs, its plan has an image, a secret, and a crawl part."""
    machine.publish("1")
    machine.cloud.add_secret("APP_KEY", "the-key")
    machine.cloud.make_dataset("market")
    machine.put_plan(machine.make_plan(crawl=machine.crawl()))
    zones = machine.root / "usr/share"
    zones.mkdir(parents=True)
    (zones / "zoneinfo").symlink_to("/usr/share/zoneinfo")
    set_memory(machine, total=1 << 20, swap=1 << 20)
    machine.start(machine.agentd)
    machine.start(machine.crawlerd)
    machine.wait_settled()
    return machine


def set_memory(machine, total, swap):
    path = machine.root / "proc/meminfo"
    path.parent.mkdir(exist_ok=True)
    path.write_text(MEMINFO.format(total=total, available=total // 2, swap=swap))


def doctor(machine, *arguments, **kwargs):
    return machine.agentctl("doctor", "--root", machine.root, "--engine", machine.engine.socket, "--state-dir",
                            machine.dir / "agentd" / "state", *arguments, timeout=60,
                            env={**os.environ, "MERVIS_RECIPES_DIR": str(machine.recipes)}, **kwargs)


def report(machine, *arguments):
    done = doctor(machine, "--json", *arguments)
    assert done.stdout, done.stderr
    checks = json.loads(done.stdout)["checks"]
    assert done.returncode == (1 if any(one["ok"] is False for one in checks) else 0)
    assert len({one["id"] for one in checks}) == len(checks)
    return {one["id"]: one for one in checks}


def wrong(checks):
    return {name: (one["message"], one["remedy"]) for name, one in checks.items() if one["ok"] is False}


def only(checks, name):
    """The one line that is wrong."""
    assert set(wrong(checks)) == {name}, json.dumps(checks, indent=1)
    assert checks[name]["remedy"]
    return checks[name]


def test_nothing_is_wrong_with_a_machine_that_is_well(well):
    checks = report(well)
    assert wrong(checks) == {}, json.dumps(checks, indent=1)
    assert {"agentd", "metadata", "plan", "engine", "memory", "scopes", "token", "cloud-apis", "clock", "egress",
            "secret.app-key", "image.mervis", "bigquery-jobs", "dataset", "time-zones"} <= set(checks)
    assert not [name for name, one in checks.items()
                if one["ok"] is None and name not in ("units",)], checks


def test_every_line_is_in_the_manual(well):
    page = well.build / "contrib/man/agentctl.1"
    if not page.exists():
        pytest.skip(f"{page} is not made: make all")
    rows = page.read_text().partition(".SH CHECKS OF DOCTOR\n")[2].partition(".SH ")[0]
    known = [re.sub("NAME|HOST|PATH", ".+", re.escape(row.replace("\\-", "-")))
             for row in re.findall(r"(?m)^\.B (.+)$", rows)]
    assert "metadata" in known
    unknown = [name for name in report(well) if not any(re.fullmatch(form, name) for form in known)]
    assert not unknown


def test_it_works_without_agentd(well):
    well.agentd.kill()
    line = only(report(well), "agentd")
    assert "systemctl start agentd" in line["remedy"]


def test_narrow_scopes(well):
    well.cloud.admin("PUT", "scopes", "https://www.googleapis.com/auth/devstorage.read_only\n")
    line = only(report(well), "scopes")
    assert "gcloud compute instances stop mervis-1" in line["remedy"] and "--scopes=cloud-platform" in line["remedy"]


def test_a_missing_role_for_a_secret(well):
    well.cloud.admin("PUT", "iam", {"deny": ["secretmanager.versions.access"]})
    line = only(report(well), "secret.app-key")
    assert "gcloud secrets add-iam-policy-binding APP_KEY" in line["remedy"]
    assert "roles/secretmanager.secretAccessor" in line["remedy"]


def test_a_missing_role_for_bigquery_jobs(well):
    well.cloud.admin("PUT", "iam", {"deny": ["bigquery.jobs.create"]})
    line = only(report(well), "bigquery-jobs")
    assert f"gcloud projects add-iam-policy-binding {well.project}" in line["remedy"]
    assert "roles/bigquery.jobUser" in line["remedy"] and "serviceAccount:123456789012-compute@" in line["remedy"]


def test_a_missing_role_for_the_registry(well):
    well.cloud.admin("PUT", "iam", {"deny": ["artifactregistry.repositories.downloadArtifacts"]})
    line = only(report(well), "image.mervis")
    assert "roles/artifactregistry.reader" in line["remedy"] and "gcloud artifacts repositories" in line["remedy"]


def test_a_tag_that_nobody_pushed(well):
    well.put_plan(well.make_plan([well.container(image=well.image.replace(":stable", ":stabel"))]))
    line = only(report(well), "image.mervis")
    assert "stabel" in line["message"] and "stable" in line["message"] + line["remedy"]


def test_an_image_for_another_platform(well):
    well.publish("1", tag="arm", arch="arm64")
    well.put_plan(well.make_plan([well.container(image=well.image.replace(":stable", ":arm"))]))
    line = only(report(well), "image.mervis")
    assert "linux/arm64" in line["message"] and "--platform" in line["remedy"] and "amd64" in line["remedy"]


def test_no_port_left_at_the_nat(well):
    """Market hosts swallow connections while Google's APIs answer."""
    port = well.cloud.admin("GET", "")["blackhole_port"]
    plan = well.make_plan(crawl=well.crawl())
    plan["endpoints"] |= {host: f"http://127.0.0.1:{port}" for host in plan["endpoints"] if "yahoo" in host}
    well.put_plan(plan)
    line = only(report(well), "egress")
    assert "Cloud NAT" in line["message"] and "query1.finance.yahoo.com" in line["message"]
    assert "--min-ports-per-vm" in line["remedy"] and "asia-northeast3" in line["remedy"]


def test_a_dataset_that_is_not_there(well):
    crawl = well.crawl(sink={"bigquery": {"dataset": "nowhere", "table": "bars"}})
    well.put_plan(well.make_plan(crawl=crawl))
    checks = report(well)
    line = only(checks, "dataset")
    assert f"mk --dataset {well.project}:nowhere" in line["remedy"]
    assert checks["table.bars_daily"]["ok"] is None


def test_a_table_that_lacks_a_column(well):
    name = {"projectId": well.project, "datasetId": "market", "tableId": "bars_daily"}
    fields = [{"name": "source", "type": "STRING"}, {"name": "symbol", "type": "STRING"}]
    well.crawlerd.kill()
    table = f"{well.cloud.url}/bigquery/v2/projects/{well.project}/datasets/market/tables"
    headers = {"Authorization": f"Bearer {well.cloud.token()}"}
    web.request("DELETE", f"{table}/bars_daily", headers=headers)
    web.request("POST", table, body={"tableReference": name, "schema": {"fields": fields}}, headers=headers).expect(200)
    line = only(report(well), "table.bars_daily")
    assert "ALTER TABLE" in line["remedy"] and "ADD COLUMN trade_date DATE" in line["remedy"]


def test_a_full_disk(well, tmp_path):
    full = well.dir / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", full], check=True)
    try:
        (full / "fill").write_bytes(bytes(1000 * 1024))
        line = only(report(well, "--state-dir", full), f"disk.{full}")
        assert "gcloud compute disks resize mervis-1" in line["remedy"]
    finally:
        subprocess.run(["umount", full], check=True)


def test_no_inodes_left(well):
    full = well.dir / "inodes"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=40", "tmpfs", full], check=True)
    try:
        for number in range(39):
            (full / str(number)).touch()
        only(report(well, "--state-dir", full), f"inodes.{full}")
    finally:
        subprocess.run(["umount", full], check=True)


def test_a_gigabyte_without_swap(well):
    set_memory(well, total=1 << 20, swap=0)
    line = only(report(well), "memory")
    assert "swap" in line["remedy"] and "1GiB" in line["remedy"]


def test_a_clock_ten_minutes_off(well):
    date = email.utils.formatdate(time.time() + 600, usegmt=True)
    well.cloud.fault({"path": "^/$"}, {"status": 404, "headers": {"Date": date}})
    line = only(report(well), "clock")
    assert "behind" in line["message"] and "makestep" in line["remedy"]


def test_a_vm_without_a_service_account(well):
    well.cloud.fault({"service": "metadata", "path": "/token"}, {"status": 404})
    checks = report(well)
    line = checks["token"]
    assert line["ok"] is False and "service account" in line["message"] and line["remedy"], line
    # What needs a token was not looked at, and is not accused.
    assert set(wrong(checks)) == {"token"}, wrong(checks)


def test_googles_network_out_of_reach_while_the_markets_answer(well):
    """No Private Google Access: the market hosts go by the NAT, and are well."""
    well.cloud.fault({"path": "^/$"}, {"reset": True})
    checks = report(well)
    line = only(checks, "cloud-apis")
    assert "subnets update" in line["remedy"] and "--enable-private-ip-google-access" in line["remedy"], line
    assert checks["egress"]["ok"] is True and checks["clock"]["ok"] is None


def test_the_data_of_a_time_zone_is_missing(well):
    zones = well.root / "usr/share/zoneinfo"
    zones.unlink()
    (zones / "Asia").mkdir(parents=True)
    (zones / "Asia/Seoul").write_bytes(b"TZif")
    line = only(report(well), "time-zones")
    assert "America/New_York" in line["message"] and "tzdata" in line["remedy"]


def test_a_name_that_does_not_resolve(well):
    """Each host that is not mapped elsewhere is looked up; here there is no name server."""
    plan = well.make_plan(crawl=well.crawl())
    del plan["endpoints"]["query2.finance.yahoo.com"]
    well.put_plan(plan)
    checks = report(well)
    line = checks["dns.query2.finance.yahoo.com"]
    assert line["ok"] is False and line["remedy"].startswith("resolvectl query query2.finance.yahoo.com"), line


def test_a_recipe_that_nobody_has(well):
    plan = well.make_plan(crawl=well.crawl())
    plan["crawl"]["jobs"][0]["recipe"] = "my-own"
    well.put_plan(plan)
    line = report(well)["plan"]
    assert line["ok"] is False and 'no recipe "my-own"' in line["message"]


def test_an_engine_that_is_stopped(well):
    line = only(report(well, "--engine", well.dir / "nowhere.sock"), "engine")
    assert "docker" in line["remedy"]


def test_an_old_startup_script(well):
    well.cloud.set_metadata("instance/attributes/startup-script", "#!/bin/sh\n")
    line = only(report(well), "startup-script")
    assert "remove-metadata mervis-1" in line["remedy"] and "startup-script" in line["remedy"]


def test_a_plan_that_is_wrong(well):
    plan = well.make_plan(crawl=well.crawl())
    plan["containers"][0]["memry"] = "1MiB"
    well.put_plan(plan)
    line = only(report(well), "plan")
    assert "memry" in line["message"]


def test_a_metadata_server_that_is_away(well):
    well.cloud.kill()
    checks = report(well)
    assert checks["metadata"]["ok"] is False and checks["scopes"]["ok"] is None and checks["token"]["ok"] is None
    assert checks["engine"]["ok"] is True and checks["memory"]["ok"] is True


def test_units_that_are_masked_failed_or_changed(well):
    """systemctl is a double here; what it says of real units is for tests/instance."""
    (well.root / "run/systemd/system").mkdir(parents=True)
    fake = well.dir / "bin"
    fake.mkdir()
    (fake / "systemctl").write_text("#!/bin/sh\ncat <<END\n" + "\n".join(
        f"Id={name}\nLoadState={load}\nActiveState={active}\nUnitFileState={file}\nNeedDaemonReload={reload}\n"
        for name, load, active, file, reload in (
            ("agentd.service", "loaded", "active", "enabled", "no"),
            ("statusd.service", "masked", "inactive", "masked", "no"),
            ("statusd.socket", "loaded", "active", "disabled", "no"),
            ("docker.service", "loaded", "failed", "enabled", "no"),
            ("crawlerd.service", "loaded", "active", "disabled", "yes"))) + "\nEND\n")
    (fake / "systemctl").chmod(0o755)
    os.environ["PATH"] = f"{fake}:{os.environ['PATH']}"
    try:
        checks = report(well)
    finally:
        os.environ["PATH"] = os.environ["PATH"].partition(":")[2]
    assert set(wrong(checks)) == {"unit.statusd.service", "unit.statusd.socket", "unit.docker.service",
                                  "unit.crawlerd.service"}
    assert checks["unit.statusd.service"]["remedy"] == "sudo systemctl unmask --now statusd.service"
    assert "daemon-reload" in checks["unit.crawlerd.service"]["remedy"]


def test_the_page_shows_what_is_wrong_first_and_has_no_control_characters(well):
    set_memory(well, total=1 << 20, swap=0)
    done = doctor(well)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("WRONG memory") and "\033" not in done.stdout
    assert lines[-1] == "1 thing is wrong."
    # Remedies are copied into a shell, and stand on one line.
    assert all(len(line) <= 80 for line in lines if not line.startswith("      ")), done.stdout
