# SPDX-License-Identifier: Apache-2.0
"""contrib/terraform, packer, grafana, prometheus: parsed by the real parsers, and compared with what they speak of."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
CONTRIB = TOP / "contrib"
TERRAFORM = CONTRIB / "terraform"
EXAMPLES = ("serving", "training")


def run(*argv, **kwargs):
    return subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False, timeout=300, **kwargs)


@pytest.fixture(scope="session")
def parser(tmp_path_factory):
    """A function from files to their parsed content."""
    work = tmp_path_factory.mktemp("hcl")
    for name in ("package.json", "package-lock.json", "hcl.cjs"):
        shutil.copy(HERE / name, work)
    done = run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=work)
    assert done.returncode == 0, done.stdout + done.stderr

    def parse(*paths):
        found = run("node", "hcl.cjs", *paths, cwd=work)
        if found.returncode:
            raise ValueError(found.stderr)
        return json.loads(found.stdout)
    return parse


def merge(files):
    """What a folder declares, as one: {"resource": {type: {name: body}}, "variable": {name: body}, ...}."""
    merged = {}
    for content in files.values():
        for kind, blocks in content.items():
            if isinstance(blocks, list):
                merged.setdefault(kind, []).extend(blocks)
                continue
            for name, body in blocks.items():
                if kind in ("resource", "data"):
                    merged.setdefault(kind, {}).setdefault(name, {}).update(body)
                else:
                    merged.setdefault(kind, {})[name] = body
    return merged


@pytest.fixture(scope="session")
def module(parser):
    return merge(parser(*sorted(TERRAFORM.glob("*.tf"))))


def the(module, kind, name):
    return module["resource"][kind][name][0]


def example(parser, name):
    return merge(parser(TERRAFORM / "examples" / name / "main.tf"))


def test_the_parser_refuses_what_is_no_hcl(parser, tmp_path):
    broken = tmp_path / "broken.tf"
    broken.write_text('resource "a" "b" {\n  c = \n}\n')
    with pytest.raises(ValueError):
        parser(broken)


@pytest.mark.parametrize("folder", ["", *(f"examples/{name}" for name in EXAMPLES)])
def test_every_reference_means_something_and_every_variable_is_used(parser, folder):
    declared = merge(parser(*sorted((TERRAFORM / folder).glob("*.tf"))))
    text = json.dumps({kind: body for kind, body in declared.items()})
    variables = set(declared.get("variable", {}))
    used = set(re.findall(r"\bvar\.([a-z_0-9]+)", text))
    assert used == variables
    local = {name for body in declared.get("locals", []) for name in body}
    assert set(re.findall(r"\blocal\.([a-z_0-9]+)", text)) <= local
    for kind, name in set(re.findall(r"(?<![.\w])(google_[a-z_0-9]+)\.([a-z_0-9]+)", text)):
        assert name in declared["resource"].get(kind, {}), f"{kind}.{name}"


def test_a_vm_is_spot_private_and_gets_the_plan_by_jsonencode(module):
    for vm in (the(module, "google_compute_instance_template", "main"), the(module, "google_compute_instance", "training")):
        assert vm["scheduling"][0]["provisioning_model"] == "SPOT"
        assert vm["service_account"][0]["scopes"] == ["cloud-platform"]
        interface = vm["network_interface"][0]
        assert "access_config" not in interface
        assert "external-ip" in interface["dynamic"]["access_config"][0]["for_each"]
        assert vm["metadata"] == "${local.metadata}"
    local = {name: value for body in module["locals"] for name, value in body.items()}
    assert "mervis-plan" in str(local["metadata"]) and "jsonencode(var.plan)" in str(local["metadata"])


def test_healing_looks_at_healthz_and_balancing_at_readyz(module):
    for name, path in (("alive", "/healthz"), ("ready", "/readyz")):
        check = the(module, "google_compute_health_check", name)["http_health_check"][0]
        assert (check["request_path"], check["port"]) == (path, 9320)
    group = the(module, "google_compute_region_instance_group_manager", "main")
    assert ".alive[" in group["auto_healing_policies"][0]["health_check"]
    assert ".ready[" in str(the(module, "google_compute_backend_service", "main")["health_checks"])
    assert group["auto_healing_policies"][0]["initial_delay_sec"] == "${var.package_object == null ? 300 : 900}"


def test_a_plan_reaches_running_vms_without_a_restart_and_the_rest_by_a_command_that_is_an_output(module):
    group = the(module, "google_compute_region_instance_group_manager", "main")
    policy = group["update_policy"][0]
    assert (policy["minimal_action"], policy["most_disruptive_allowed_action"]) == ("REFRESH", "REFRESH")
    assert group["all_instances_config"][0]["metadata"]["mervis-plan"] == "${jsonencode(var.plan)}"
    # A policy that allows no more than a refresh leaves VMs alone that need more, so there has to be a way.
    command = module["output"]["replace"][0]["value"]
    assert "rolling-action replace ${var.name} " in command and "--region=${var.region}" in command
    assert "--max-unavailable=0" in command and 'var.kind == "serving"' in command
    for name in ("image", "machine_type"):
        assert "output replace" in module["variable"][name][0]["description"]


def test_the_roles_are_the_least_that_do(module):
    text = json.dumps(module["resource"])
    roles = set(re.findall(r"roles/[A-Za-z.]+", text))
    assert roles == {"roles/bigquery.jobUser", "roles/bigquery.dataEditor", "roles/secretmanager.secretAccessor",
                     "roles/storage.objectViewer", "roles/artifactregistry.reader"}
    assert module["variable"]["extra_roles"][0]["default"] == []
    # What the programs advise to grant is what the module grants.
    sources = [path for tree in ("agent", "crawler", "cloud-init") for path in (TOP / tree).rglob("*")]
    advised = "".join(path.read_text() for path in sources if path.suffix in (".c", ".h", ".sh"))
    assert set(re.findall(r"roles/[A-Za-z]+\.[A-Za-z]+", advised)) == roles
    project_wide = json.dumps(module["resource"]["google_project_iam_member"])
    for narrow in ("dataEditor", "secretAccessor", "objectViewer", "artifactregistry"):
        assert narrow not in project_wide


@pytest.mark.parametrize("subnet", ["10.128.0.0/24", "192.168.7.0/28"])
def test_a_nat_instance_forwards_for_its_own_subnet_whichever_it_is(module, tmp_path, subnet):
    vm = the(module, "google_compute_instance", "nat")
    assert vm["metadata"]["startup-script"] == '${templatefile("${path.module}/nat-instance.sh", { range = var.subnet_range })}'
    assert "${var.name}-nat" in vm["tags"] and "${var.name}-nat" in the(module, "google_compute_firewall", "iap")["target_tags"]
    script = (TERRAFORM / "nat-instance.sh").read_text()
    # Terraform's templates know ${} and %{}: nothing else of the script may look like one.
    assert re.findall(r"[$%]{[^}]*}", script) == ["${range}"]
    script = script.replace("${range}", subnet)
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0
    rules = script.partition("<<'RULES'\n")[2].partition("RULES")[0]
    assert f"ip saddr {subnet} masquerade" in rules
    done = run("nft", "-c", "-f", "-", input=rules)
    assert done.returncode == 0, done.stderr


def test_a_budget_needs_an_amount_and_without_one_nothing_is_read_at_plan_time(parser, module):
    assert module["variable"]["budget"][0]["default"] is None
    budget, data = the(module, "google_billing_budget", "monthly"), module["data"]["google_project"]["this"][0]
    assert budget["count"] == data["count"] == "${local.has_budget ? 1 : 0}"
    local = {name: value for body in module["locals"] for name, value in body.items()}
    condition = budget["lifecycle"][0]["precondition"][0]["condition"]
    for name in ("billing_account", "budget"):
        assert f"var.{name} != null" in local["has_budget"] and f"var.{name} != null" in condition
        assert example(parser, "serving")["module"]["serving"][0][name] == f"${{var.{name}}}"


def test_the_firewall_lets_in_googles_checks_and_iap_and_whom_one_names(module):
    ranges = {name: rule[0]["source_ranges"] for name, rule in module["resource"]["google_compute_firewall"].items()}
    assert ranges.pop("iap") == ["35.235.240.0/20"]
    assert ranges.pop("health") == ["35.191.0.0/16", "130.211.0.0/22"]
    assert ranges.pop("nat") == ["${var.subnet_range}"]
    assert ranges.pop("scrape") == "${var.scrape_ranges}"
    scrape = the(module, "google_compute_firewall", "scrape")
    assert scrape["allow"][0]["ports"] == ["9320"] and "length(var.scrape_ranges)" in scrape["count"]
    assert module["variable"]["scrape_ranges"][0]["default"] == []
    assert not ranges
    assert the(module, "google_compute_subnetwork", "main")["private_ip_google_access"] is True


def test_the_tables_are_those_that_the_crawler_delivers_to(module):
    source = (TOP / "crawler/model/row-encode.c").read_text()
    legacy = {"BOOL": "BOOLEAN", "INT64": "INTEGER"}
    wanted = [{"name": name, "type": legacy.get(kind, kind), "mode": "REQUIRED" if required == "true" else "NULLABLE"}
              for name, kind, required in re.findall(r'\{"(\w+)",\s+ROW_COLUMN_(\w+),\s+(true|false)\}', source)]
    local = {name: value for body in module["locals"] for name, value in body.items()}
    assert local["columns"] == wanted and len(wanted) == 23
    assert local["tables"] == {"intraday": "DAY", "daily": "MONTH"}
    query = re.search(r'"SELECT \* FROM.*?= 1"', (TOP / "crawler/sink/sink-bigquery-table.c").read_text(), re.DOTALL)[0]
    wanted = "".join(re.findall(r'"([^"]*)"', query)).replace("%s", "X")
    ours = re.search(r'join\("", \[(.*)\]\)', the(module, "google_bigquery_table", "latest")["view"][0]["query"], re.DOTALL)
    found = re.sub(r"\$\{[^}]*\}", "X", "".join(re.findall(r'"([^"]*)"', ours[1])))
    assert found == wanted


def matches(variable, value):
    """Whether a validation by a regular expression takes the value."""
    pattern = re.search(r'regex\("(.*?)", ', variable["validation"][0]["condition"])[1]
    return re.fullmatch(pattern, value) is not None


@pytest.mark.parametrize("name, good", [
    ("mervis", True), ("a" * 30, True), ("web-2a", True), ("web-1", False), ("a" * 31, False), ("mervis-", False),
    ("1mervis", False), ("Mervis", False)])
def test_a_name_is_one_that_a_service_account_can_have(module, name, good):
    assert matches(module["variable"]["name"][0], name) is good
    assert the(module, "google_service_account", "vm")["account_id"] == "${var.name}"


def test_secrets_that_exist_are_read_and_not_made(module):
    made, read = (the(module, kind, name) for kind, name in (
        ("google_secret_manager_secret", "secret"), ("google_secret_manager_secret_iam_member", "vm")))
    assert "existing_secrets" not in json.dumps(made) and made["for_each"] == "${var.secrets}"
    assert read["for_each"] == "${setunion(var.secrets, var.existing_secrets)}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_plan_of_an_example_is_valid_and_its_arguments_exist(parser, module, tmp_path, name):
    declared = example(parser, name)
    arguments = declared["module"][name][0]
    assert set(arguments) - {"source", "plan"} <= set(module["variable"])
    required = {key for key, body in module["variable"].items() if "default" not in body[0]}
    assert required <= set(arguments)
    assert "gcs" in json.dumps(declared["terraform"])
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(arguments["plan"]).replace("${var.project}", "demo-project"))
    build = Path(os.environ["MERVIS_BUILD"])
    env = {**os.environ, "MERVIS_RECIPES_DIR": str(TOP / "crawler/recipe"), "PATH": f"{build}:{os.environ['PATH']}"}
    done = run(build / "agentctl", "plan", "validate", path, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    secrets = {secret["secret"] for secret in arguments["plan"].get("secrets", [])}
    assert secrets == set(arguments.get("secrets", [])) | set(arguments.get("existing_secrets", []))
    assert matches(module["variable"]["name"][0], arguments["name"])


def test_a_job_that_powers_off_is_no_member_of_a_group(parser, module):
    plan = example(parser, "training")["module"]["training"][0]["plan"]
    assert plan["containers"][0]["on_success"] == "poweroff"
    assert '"training"' in the(module, "google_compute_instance", "training")["count"]
    assert '"serving"' in the(module, "google_compute_region_instance_group_manager", "main")["count"]


def test_packer_finds_the_template_valid(tmp_path):
    package = tmp_path / "mervis-agent.deb"
    package.write_bytes(b"")
    template = CONTRIB / "packer/mervis.pkr.hcl"
    env = {**os.environ, "CHECKPOINT_DISABLE": "1", "HOME": str(tmp_path)}
    done = run("packer", "validate", "-var", "project=demo", "-var", f"package={package}", template, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert run("packer", "validate", "-var", "package=/nowhere.deb", template, env=env).returncode != 0


# Names that exist, with their labels, from the table that makes them.
def metrics():
    found = {"mervis_agent_up": set(), "mervis_crawler_up": set()}
    for name, labels in re.findall(r'\{"(mervis_\w+)",.*\{([^{}]*)\}\},', (TOP / "agent/statusd/metrics.c").read_text()):
        found[name] = set(re.findall(r'"(\w+)"', labels))
    assert len(found) > 30
    return found


def test_the_dashboard_shows_metrics_that_exist():
    dashboard = json.loads((CONTRIB / "grafana/mervis-agent.json").read_text())
    known = metrics()
    places = set()
    for panel in dashboard["panels"]:
        grid = panel["gridPos"]
        assert (grid["x"], grid["y"]) not in places and grid["x"] + grid["w"] <= 24
        places.add((grid["x"], grid["y"]))
        for target in panel.get("targets", []):
            used = set(re.findall(r"mervis_\w+", target["expr"]))
            assert used and used <= set(known)
            labels = set(re.findall(r"{{(\w+)}}", target["legendFormat"])) - {"instance"}
            assert labels <= set().union(*(known[name] for name in used)), target
            done = run("promtool", "check", "rules", "/dev/stdin", input=json.dumps({"groups": [{
                "name": "x", "rules": [{"record": "x", "expr": target["expr"].replace("$instance", ".*")}]}]}))
            assert done.returncode == 0, done.stdout + done.stderr
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_alerts_are_sound_and_about_metrics_that_exist():
    rules = CONTRIB / "prometheus/mervis.rules.yml"
    for argv in (("check", "rules", rules), ("test", "rules", CONTRIB / "prometheus/mervis.rules.test.yml")):
        done = run("promtool", *argv)
        assert done.returncode == 0, done.stdout + done.stderr
    expressions = re.findall(r"expr: (.*?)\n\s+(?:for|labels):", rules.read_text(), re.DOTALL)
    assert set(re.findall(r"mervis_\w+", " ".join(expressions))) <= set(metrics())
    assert len(re.findall(r"- alert:", rules.read_text())) == len(re.findall(r"remedy:", rules.read_text()))
