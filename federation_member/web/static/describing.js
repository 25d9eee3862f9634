// A new experiment: its description, what is wrong with it while it is written, what would come of it, and the word to make it.
//
// One check at a time is asked of the member; what was written meanwhile is checked afterwards. Nothing is acquired by that.

import { call } from "./api.js";
import { Editor } from "./editor.js";
import { EXAMPLE } from "./example.js";
import { $, attempt, element } from "./page.js";
import { drawPicture } from "./picture.js";

const DELAY = 400; // ms without a key before a description is checked
const FILE_LIMIT = 256 * 1024; // characters, as the member has it
const NAMED = 8; // nodes or wires that are named one by one
const MEMBERS = "members"; // prefix of the names of the fields that say where a testbed is
const NAME = "experiment"; // what a description is called that came from no file

const form = () => $("describe-form");
let editor = null;
let files = {}; // what comes with the description, by name
let file = NAME;
let members = []; // of the federation
let testbeds = []; // the newest description without errors has
let shown = null; // the preview that is
let timer = null;
let checking = false;
let changed = false; // since the check that runs was begun
let made = () => {};

export function onMade(callback) {
  made = callback;
}

export async function showDescribing() {
  editor ??= begin();
  members = (await call("GET", "/members")).items;
  offerMembers();
  look();
}

export function forgetDescribing() {
  clearTimeout(timer);
  changed = false;
  files = {};
  file = NAME;
  testbeds = members = [];
  shown = null;
  form().reset();
  for (const id of ["describe-members", "describe-problems", "describe-preview", "describe-files"]) $(id).replaceChildren();
  for (const id of ["describe-said", "describe-notice"]) $(id).textContent = "";
  $("describe-notice").hidden = true;
  if (editor) editor.value = "";
}

function begin() {
  const opened = new Editor($("describe-text"), $("describe-lines"), $("describe-problems"));
  form().addEventListener("input", look);
  form().addEventListener("change", look);
  $("describe-file").addEventListener("change", (event) => {
    event.stopPropagation();
    attempt(() => upload([...event.target.files]), said);
  });
  $("describe-example").addEventListener("click", () => {
    if (editor.value.trim() && editor.value !== EXAMPLE && !confirm("Put the example in the place of what you wrote?")) return;
    attach([]);
    file = NAME;
    editor.value = EXAMPLE;
    if (!form().elements.name.value) form().elements.name.value = "example";
  });
  form().addEventListener("submit", (event) => {
    event.preventDefault();
    make();
  });
  return opened;
}

// The first file is the description, the others come with it.
async function upload(chosen) {
  if (!chosen.length) return;
  const tooLarge = chosen.find((one) => one.size > 4 * FILE_LIMIT);
  if (tooLarge) throw new Error(`${tooLarge.name} is larger than the member takes.`);
  const texts = await Promise.all(chosen.map((one) => one.text()));
  file = nameOf(chosen[0].name);
  attach(chosen.slice(1).map((one, index) => [nameOf(one.name), texts[index + 1]]));
  if (!form().elements.name.value) form().elements.name.value = labelOf(file);
  editor.value = texts[0];
}

function attach(pairs) {
  files = Object.fromEntries(pairs);
  $("describe-files").replaceChildren(...(pairs.length ? [`With it: ${Object.keys(files).join(", ")}`] : []));
}

export const nameOf = (text) => text.replace(/[^A-Za-z0-9_.-]/g, "_").replace(/^[.-]+/, "").slice(0, 128) || NAME;
const labelOf = (text) => text.replace(/\.[^.]*$/, "").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 63);

// ---- checking

function look() {
  changed = true;
  clearTimeout(timer);
  timer = setTimeout(check, DELAY);
}

async function check() {
  if (checking || $("experiment-new").hidden) return;
  if (!editor.value.trim()) return nothing();
  checking = true;
  changed = false;
  said("Checking…");
  await attempt(async () => {
    const asked = editor.value;
    const preview = await call("POST", "/previews", body());
    if (editor.value === asked) show(preview);
    said("");
  }, (text) => { if (text) said(text); });
  checking = false;
  if (changed) look();
}

function nothing() {
  shown = null;
  editor.show([], [], file);
  $("describe-preview").replaceChildren(element("p", { className: "quiet", textContent: "Write a description, or choose a file: an ns2 program, topdl, or an RSpec request." }));
  said("");
}

function said(text) {
  $("describe-said").textContent = text;
}

function body() {
  const given = form().elements;
  const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);
  const chosen = [...$("describe-members").querySelectorAll("select")].filter((select) => select.value);
  return {
    description: editor.value,
    file,
    files,
    members: Object.fromEntries(chosen.map((select) => [select.dataset.testbed, select.value])),
    parties: Object.fromEntries(lines(given.parties.value).map(partyOf)),
    kit: given.kit.value.trim() || "federation",
    portals: Number(given.portals.value) || 1,
    services: lines(given.services.value),
    ssh_keys: lines(given.ssh_keys.value),
    valid_until: given.valid_until.value ? new Date(given.valid_until.value).toISOString() : null,
  };
}

// NAME: TESTBED, TESTBED
function partyOf(line) {
  const [name, ...testbeds] = line.split(/[\s,:]+/).filter(Boolean);
  return [name, { testbeds }];
}

function show(preview) {
  const digest = JSON.stringify(preview);
  if (digest === shown) return; // so a picture stays where it was scrolled to
  shown = digest;
  editor.show(preview.errors, preview.warnings, file);
  const nodes = preview.pieces.reduce((sum, piece) => sum + piece.computers.length, 0);
  if (preview.layout) {
    testbeds = [...new Set(preview.pieces.map((piece) => piece.testbed.split("/")[0]))];
    offerMembers();
  }
  const parts = preview.layout
    ? [element("p", { className: "quiet", id: "describe-sum", textContent: `${count(nodes, "node")} at ${count(preview.pieces.length, "testbed")}; ${count(preview.crossings.length, "link or LAN", "links and LANs")} between them. Nothing is acquired yet.` }), picture(preview), pieces(preview)]
    : [element("p", { className: "quiet", textContent: `${count(preview.errors.length, "error")}: mend the description, and its picture is here.` })];
  if (preview.output) parts.push(element("details", {}, element("summary", { textContent: "What the program wrote" }), element("pre", { textContent: preview.output })));
  $("describe-preview").replaceChildren(...parts);
}

const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

function picture(preview) {
  const place = element("div", { className: "picture topology" });
  const told = element("div", { className: "chosen-node" });
  told.setAttribute("aria-live", "polite");
  const computers = new Map(preview.pieces.flatMap((piece) => piece.computers).map((computer) => [computer.name, computer]));
  drawPicture(place, preview.layout, (name) => told.replaceChildren(...computerShown(computers.get(name))));
  return element("div", {}, place, told);
}

export function computerShown(computer) {
  const lines = [
    ["Testbed", computer.testbed], ["Image", computer.os], ["Hardware", computer.hardware], ["Start command", computer.startup],
    ...computer.interfaces.map((one) => [one.substrate, [one.ip4 ?? "no address", one.capacity_kbps && `${one.capacity_kbps / 1000} Mb/s`, one.latency_ms && `${one.latency_ms} ms`, one.loss && `loss ${one.loss}`].filter(Boolean).join(", ")]),
  ];
  return [element("h3", { textContent: computer.name }), element("dl", {}, ...lines.filter(([, value]) => value).flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]))];
}

function pieces(preview) {
  const rows = preview.pieces.map((piece) => element("tr", {},
    element("td", { textContent: piece.testbed }),
    element("td", { textContent: piece.member ?? "whoever lends it" }),
    element("td", { textContent: names(piece.computers.map((computer) => computer.name)) }),
    element("td", {}, ...piece.connectors.map((connector) => element("div", { title: connector.name, textContent: `to ${connector.peer}: ${names(connector.crossings.map((crossing) => crossing.substrate))}` })))));
  const head = ["Testbed", "At", "Nodes", "Portals"].map((text) => element("th", { scope: "col", textContent: text }));
  return element("div", { className: "scroll" }, element("table", { className: "pieces" }, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)));
}

const names = (all) => (all.length > NAMED ? `${all.slice(0, NAMED).join(", ")} and ${all.length - NAMED} more` : all.join(", "));

// A choice of members for each testbed; what was chosen stays.
function offerMembers() {
  const before = new Map([...$("describe-members").querySelectorAll("select")].map((select) => [select.dataset.testbed, select.value]));
  $("describe-members").replaceChildren(...testbeds.map((testbed) => {
    const select = element("select", { name: `${MEMBERS}-${testbed}` }, element("option", { value: "", textContent: members.some((one) => one.name === testbed) ? "the member of that name" : "whoever lends it" }),
      ...members.map((one) => element("option", { value: one.name, selected: before.get(testbed) === one.name, textContent: one.name + (one.alive ? one.kinds.includes("segment") ? "" : " (lends no pieces)" : " (away)") })));
    select.dataset.testbed = testbed;
    return element("label", {}, `Where ${testbed} is`, select);
  }));
}

// ---- making

async function make() {
  const button = form().querySelector("button.make");
  button.disabled = true;
  const tell = (text) => { $("describe-notice").textContent = text; $("describe-notice").hidden = !text; };
  await attempt(async () => {
    const experiment = await call("POST", "/experiments", { ...body(), name: form().elements.name.value });
    forgetDescribing();
    made(experiment);
  }, tell);
  button.disabled = false;
}
