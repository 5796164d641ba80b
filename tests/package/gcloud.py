# SPDX-License-Identifier: Apache-2.0
"""Every gcloud command that this tree prints or documents, as words; and what gcloud itself knows of them, recorded in
gcloud.json: a machine that tests need not have gcloud, and a later one may drop a flag."""

import json
import re
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
RECORD = Path(__file__).with_name("gcloud.json")
TEXTS = ("README.md", "contrib/README.ko.md", "contrib/migration.md", "contrib/HACKING.md", "contrib/man/agentd.8",
         "contrib/man/crawlerd.8", "contrib/man/statusd.8", "contrib/catalog/mervis-agent.catalog",
         "contrib/catalog/mervis-agent.ko.catalog", "cloud-init/startup-script.sh", "cloud-init/user-data.yaml",
         "contrib/terraform/outputs.tf", "contrib/terraform/examples/training/main.tf",
         "contrib/packer/mervis.pkr.hcl", "contrib/prometheus/mervis.rules.yml")
TREES = ("agent", "crawler")
# Where a command ends: the end of a sentence, a line, a quotation, or what a shell puts between two.
END = re.compile(r"""[`"'|;&()<>\n]|\s#|,\s|:\s|\.\s|\.$| then | and | or |\s--\s""")


def texts():
    """(where, text) of everything in which a command may stand, with continued lines made one."""
    for name in TEXTS:
        text = (TOP / name).read_text()
        if name.endswith(".8"):
            text = text.replace(r"\-", "-").replace(r"\(aq", "'")
        yield name, re.sub(r"\s*\\\n\s*", " ", text)
    for tree in TREES:
        for path in sorted((TOP / tree).rglob("*.[ch]")):
            source = re.sub(r"/\*.*?\*/", "", path.read_text().replace("\\\n", "\n"), flags=re.DOTALL)
            for literals in re.findall(r'(?:"(?:[^"\\\n]|\\.)*"\s*)+', source):
                text = "".join(re.findall(r'"((?:[^"\\\n]|\\.)*)"', literals))
                yield str(path.relative_to(TOP)), re.sub(r"%%", "%", re.sub(r"%(?:\.\*)?[a-z]", "X", text)).replace("\\n", "\n")
    chaos = subprocess.run([TOP / "contrib/chaos", "--vm", "VM", "--zone", "ZONE"], capture_output=True, text=True, check=True)
    yield "contrib/chaos --vm", chaos.stdout


def commands():
    """(where, [words]) of each; "gcloud" alone, as a name in a sentence, is none."""
    for where, text in texts():
        for match in re.finditer(r"\bgcloud (?=[a-z])", text):
            tail = text[match.end():].partition("\n")[0]
            words = tail[:END.search(tail).start()].split() if END.search(tail) else tail.split()
            if words:
                yield where, [word for word in words if word not in ("…", "...")]


def path_of(words):
    """The words that name the command: lower case, before a flag or a name."""
    path = []
    for word in words:
        if not re.fullmatch(r"[a-z][a-z-]*", word):
            break
        path.append(word)
    return path


def known():
    return json.loads(RECORD.read_text())


def split(words, table):
    """(command, flags, names); the command is the longest that the table has."""
    path = path_of(words)
    for n in range(len(path), 0, -1):
        if " ".join(path[:n]) in table:
            rest = words[n:]
            # "--X" is one whose name is found out: --zone or --region.
            return (" ".join(path[:n]), [word.partition("=")[0] for word in rest
                                         if word.startswith("--") and not word.startswith("--X=")],
                    [word for word in rest if not word.startswith("-")])
    return " ".join(path), None, None


def flags_of(node):
    found, positional = set(), 0
    for argument in node.get("arguments", []):
        inner = argument.get("group", argument)
        if "arguments" in inner:
            more, places = flags_of(inner)
            found |= more
            positional += places
        elif argument.get("positional"):
            positional += 1
        else:
            found.add("--" + argument["name"])
    return found, positional


def record():
    """Ask gcloud, by its own linter, for each command that is used."""
    table = {}
    for _, words in commands():
        path = path_of(words)
        while path and " ".join(path) not in table:
            done = subprocess.run(["gcloud", "meta", "lint-gcloud-commands", "--command-string", "gcloud " + " ".join(path)],
                                  capture_output=True, text=True, check=False, timeout=120)
            try:
                answer = json.loads(done.stdout)[0]
            except ValueError:
                answer = {}
            if answer.get("args_structure"):
                flags, positional = flags_of(answer["args_structure"])
                table[" ".join(path)] = {"flags": sorted(flags), "names": positional}
                break
            path.pop()
        if not path:
            print("gcloud knows no", *words, file=sys.stderr)
    # A group is no command, though the linter takes it for one.
    table = {name: one for name, one in table.items() if not any(other.startswith(name + " ") for other in table)}
    RECORD.write_text(json.dumps(dict(sorted(table.items())), indent=0) + "\n")


if __name__ == "__main__":
    record()
