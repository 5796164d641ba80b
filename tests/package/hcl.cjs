// SPDX-License-Identifier: Apache-2.0
// node hcl.cjs FILE...: {FILE: its content as JSON}, by HashiCorp's own parser.
const { readFileSync } = require("node:fs");
const { parse } = require("@cdktf/hcl2json");

async function main() {
    const found = {};
    for (const name of process.argv.slice(2))
        found[name] = await parse(name, readFileSync(name, "utf8"));
    console.log(JSON.stringify(found));
}

main().catch((err) => {
    console.error(String(err));
    process.exit(1);
});
