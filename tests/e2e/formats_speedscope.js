// formats_speedscope.js: what speedscope's own importers make of files, as JSON: for each file a list of
// {name, unit, total, stacks: [[[root, ..., leaf], weight], ...]}, or null for what it does not recognise.
//
//   node formats_speedscope.js DIRECTORY FILE...    DIRECTORY: where npm has installed speedscope
//
// The package is the program for browsers, in one script that exports nothing. So a line is added that hands
// out its importers, and the rest of it may fail for want of a document.
"use strict";
const fs = require("fs");
const path = require("path");
const vm = require("vm");

function importers(directory) {
    const release = path.join(directory, "node_modules", "speedscope", "dist", "release");
    const script = fs.readdirSync(release).find(name => /^speedscope-\w+\.js$/.test(name));
    let text = fs.readFileSync(path.join(release, script), "utf8");
    const exported = text.match(/[$\w]+\(([$\w]+),\{[^{}]*importProfilesFromArrayBuffer:[^{}]*\}\);/);
    if (!exported) throw new Error("the importers are not where they were");
    const escaped = exported[1].replace(/\$/g, "\\$");
    const initialise = text.match(new RegExp("\\(([$\\w]+)\\(\\)," + escaped + "\\)"));
    if (!initialise) throw new Error("the importers are not initialised as they were");
    text = text.replace(exported[0], () => `${exported[0]}globalThis.importers=()=>(${initialise[1]}(),${exported[1]});`);
    globalThis.window = globalThis;
    globalThis.location = {hash: "", href: "", protocol: "file:"};
    try {
        vm.runInThisContext(text);
    } catch (error) {
        if (!globalThis.importers || !/document/.test(error.message)) throw error;
    }
    return globalThis.importers();
}

function plain(profile) {
    const stacks = profile.samples.map((node, i) => {
        const names = [];
        for (; node && !node.isRoot(); node = node.parent) names.unshift(node.frame.name);
        return [names, profile.weights[i]];
    });
    return {name: profile.getName(), unit: profile.getWeightUnit(), total: profile.getTotalWeight(), stacks};
}

async function main() {
    const log = console.log;
    console.log = () => {};
    const api = importers(process.argv[2]);
    const answers = [];
    for (const file of process.argv.slice(3)) {
        const data = fs.readFileSync(file);
        const bytes = data.buffer.slice(data.byteOffset, data.byteOffset + data.length);
        const group = await api.importProfilesFromArrayBuffer(path.basename(file), bytes);
        answers.push(group && group.profiles.map(plain));
    }
    log(JSON.stringify(answers));
}

main().catch(error => {
    process.stderr.write(error.message.slice(0, 1000) + "\n");
    process.exit(1);
});
