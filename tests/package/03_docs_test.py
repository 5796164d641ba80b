# SPDX-License-Identifier: Apache-2.0
"""What the documents promise: plans that are valid, files and verbs that exist."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent.parent
READMES = (TOP / "README.md", TOP / "contrib/README.ko.md")
DOCUMENTS = (*READMES, TOP / "contrib/migration.md")


def agentctl(*arguments):
    build = Path(os.environ["MERVIS_BUILD"])
    env = {**os.environ, "MERVIS_RECIPES_DIR": str(TOP / "crawler/recipe"), "PATH": f"{build}:{os.environ['PATH']}"}
    return subprocess.run([build / "agentctl", *arguments], env=env, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize("document", READMES, ids=lambda path: path.name)
def test_the_plans_of_a_readme_are_valid(document, tmp_path):
    plans = re.findall(r"```json\n(.*?)```", document.read_text(), re.DOTALL)
    assert len(plans) == 2
    for plan in plans:
        path = tmp_path / "plan.json"
        path.write_text(plan)
        done = agentctl("plan", "validate", str(path))
        assert done.returncode == 0 and "not checked" not in done.stdout + done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_verbs_that_are_named_exist(document):
    text = document.read_text()
    verbs = set(re.findall(r"(?m)^  ([a-z]+(?: [a-z-]+)?)", agentctl("--help").stdout.partition("Options:")[0]))
    words = {verb.split()[0] for verb in verbs}
    named = re.findall(r"`(?:sudo )?agentctl ([a-z]+)(?: ([a-z-]+))?", text)
    assert named
    for verb, second in named:
        assert verb in words and (not second or f"{verb} {second}" in verbs or verb in verbs), f"{verb} {second}"
    for name in set(re.findall(r"\b((?:contrib|cloud-init)/[A-Za-z0-9._/-]*[A-Za-z0-9])", text)):
        assert (TOP / name).exists(), name


@pytest.mark.parametrize("document", READMES, ids=lambda path: path.name)
def test_the_line_that_bakes_an_image_gives_the_template_what_it_asks_for(document):
    line = re.search(r"(?m)^    packer build (.*)$", document.read_text())[1]
    words = line.split()
    given = {words[i + 1].partition("=")[0] for i, word in enumerate(words) if word == "-var"}
    template = (TOP / words[-1]).read_text()
    known = dict(re.findall(r'(?s)variable "(\w+)" \{(.*?)\n\}', template))
    assert given <= set(known)
    assert {name for name, body in known.items() if "default" not in body} <= given


@pytest.mark.parametrize("document", READMES, ids=lambda path: path.name)
def test_the_way_with_terraform_fits_the_example_that_it_applies(document):
    text = document.read_text().replace("\\\n", " ")
    lines = [line.split() for line in re.findall(r"(?m)^    terraform (.*)$", text)]
    assert [line[1] for line in lines] == ["init", "apply"]
    for line in lines:
        source = (TOP / line[0].removeprefix("-chdir=") / "main.tf").read_text()
    assert "-backend-config=bucket=STATE" in lines[0] and 'backend "gcs"' in source
    assert "gcloud storage buckets create gs://STATE " in text and "gcloud storage buckets update gs://STATE --versioning" in text
    known = dict(re.findall(r'(?s)variable "(\w+)" \{(.*?)\n\}', source))
    given = {word.partition("=")[0] for before, word in zip(lines[1], lines[1][1:]) if before == "-var"}
    assert given <= set(known) and {name for name, body in known.items() if "default" not in body} == given
    # The secret and the image are those that the example's plan waits for.
    secret = re.search(r"gcloud secrets versions add (\S+)", text)[1]
    assert f'secret = "{secret}"' in source
    pushed = re.search(r"(?m)^    docker push (\S+)", text)[1]
    assert pushed.replace("/PROJECT/", "/${var.project}/") in source
    assert re.search(r"(?:output|출력) `replace`", text) and "`scrape_ranges = " in text
    assert 'output "replace"' in source and 'variable "scrape_ranges"' in (TOP / "contrib/terraform/variables.tf").read_text()


def schema_keys(node):
    found = set()
    if isinstance(node, dict):
        found |= set(node.get("properties", {}))
        for value in node.values():
            found |= schema_keys(value)
    elif isinstance(node, list):
        for value in node:
            found |= schema_keys(value)
    return found


def test_the_keys_that_the_migration_guide_promises_are_keys_of_a_plan():
    known = schema_keys(json.loads(agentctl("plan", "schema").stdout)) | {"jobs", "secret"}
    right = "\n".join(line.split("|")[2] for line in (TOP / "contrib/migration.md").read_text().replace(r"\|", "/").splitlines()
                      if line.startswith("|"))
    keys = set(re.findall(r'"([a-z_]+)":', right))
    assert len(keys) > 20 and keys <= known, keys - known


def test_the_sample_of_status_is_a_screen_of_80_columns():
    sample = (TOP / "README.md").read_text().partition("$ agentctl status\n")[2].partition("\nThe same from")[0]
    assert "CONTAINER" in sample and all(len(line) <= 84 for line in sample.splitlines())


def commands(document):
    """What a README tells one to type, without the remarks behind it; nor the samples and pictures."""
    lines = re.findall(r"(?m)^ {4,}((?:contrib/|apt |autoreconf |make |gcloud |systemctl |sha256sum |packer |terraform |docker |agentctl |--|-var |lib).*)$", document.read_text())
    return [re.sub(r"\s+# .*", "", line) for line in lines]


def test_both_readmes_have_the_same_commands():
    first, second = (commands(document) for document in READMES)
    assert len(first) > 20 and first == second


@pytest.mark.parametrize("daemon", ("agentd", "crawlerd", "statusd"))
def test_every_option_of_a_daemon_is_in_its_manual(daemon):
    said = subprocess.run([Path(os.environ["MERVIS_BUILD"]) / daemon, "--help"], capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"(?m)^  --([a-z-]+)", said))
    page = (TOP / f"contrib/man/{daemon}.8").read_text().replace("\\-", "-")
    assert len(options) > 6 and {name for name in options if f"--{name}" not in page} == set()


def test_the_build_by_hand_installs_what_the_gate_builds_with():
    line = re.search(r"(?m)^    apt install (autoconf(?:.*\\\n)*.*)$", READMES[0].read_text())[1]
    built_with = re.search(r'(?s)^BUILD_PACKAGES="(.*?)"', (TOP / "contrib/lib/setup").read_text(), re.M)[1].split()
    # gcc brings libc6-dev where recommendations are installed, as here; the last ones are for `make check`.
    assert set(built_with) - {"libc6-dev"} | {"python3", "python3-jsonschema", "tzdata"} == set(line.split()) - {"\\"}
