// One experiment as it is: picture, progress by testbed and node, log, and what can be done with it. All of it live.
//
// The stream tells the whole whenever anything has changed; where things stand in the picture is asked for once, and again when
// there are nodes that it does not know.

import { call, me } from "./api.js";
import { computerShown, nameOf } from "./describing.js";
import { download } from "./download.js";
import { $, attempt, element, notice, when } from "./page.js";
import { drawPicture, keyOf, signOf } from "./picture.js";
import { follow } from "./stream.js";

const ENDED = new Set(["terminated", "failed"]);
const LOG_LIMIT = 1000; // lines that are kept
const TABLE_LIMIT = 200; // nodes of one testbed that stand in its table

const secrets = new Map(); // what was told once, when it was made: { credential, private_key }, by id
const shown = new Map(); // credentials of others' experiments, by id
let open = null; // { id, whole, layout, computers, drawn, sought, node, digest, stop }

export function keepSecrets(made) {
  secrets.set(made.id, { credential: made.credential, private_key: made.private_key });
}

export function keepCredential(id, credential) {
  shown.set(id, credential);
}

export function forgetExperiments() {
  leaveExperiment();
  secrets.clear();
  shown.clear();
}

export function leaveExperiment() {
  open?.stop.abort();
  open = null;
  $("one-grant").open = $("one-renew").open = $("one-extend").open = false;
  $("one-log").removeAttribute("aria-live");
  for (const id of ["one-grants", "one-extend-problems", "one-picture", "one-node", "one-log", "one-progress", "one-secrets", "one-said"]) $(id).replaceChildren();
  $("one-title").textContent = $("one-reason").textContent = $("one-state").textContent = "";
  $("one-facts").replaceChildren();
}

export async function showExperiment(id) {
  if (open?.id === id) return;
  leaveExperiment();
  const mine = open = { id, whole: null, drawn: null, stop: new AbortController() };
  $("one-live").textContent = "Loading…";
  await attempt(() => follow(`/experiments/${encodeURIComponent(id)}/events`, {
    signal: mine.stop.signal,
    headers: credential(id),
    last: 0,
    opened: () => { $("one-live").textContent = "live"; },
    lost: () => { $("one-live").textContent = "connection lost; trying again"; },
    event: (name, data) => {
      if (open !== mine) return;
      if (name === "log") logged(data);
      if (name === "now") now(data);
      if (name === "end") ended(mine, `${data.detail} [${data.code}]`);
    },
  }), (text) => { if (text && open === mine) ended(mine, text); });
}

function ended(mine, text) {
  mine.stop.abort();
  $("one-live").textContent = "";
  notice(text);
}

const credential = (id) => (shown.has(id) ? { "Experiment-Credential": shown.get(id) } : {});
const ask = (method, part = "", body = undefined) => call(method, `/experiments/${encodeURIComponent(open.id)}${part}`, body, credential(open.id));

// ---- as it is now

function now(whole) {
  const before = open.whole;
  open.whole = whole;
  $("one-title").textContent = whole.name;
  $("one-state").textContent = whole.state;
  $("one-state").className = `state ${whole.state}`;
  $("one-reason").textContent = whole.reason + (whole.code ? ` [${whole.code}]` : "");
  $("experiment-one").dataset.state = whole.state;
  facts(whole);
  progress(whole);
  drawSecrets();
  $("one-log").setAttribute("aria-live", "polite"); // what was there before is not news
  $("one-soon").hidden = !whole.ends_soon || ENDED.has(whole.state);
  for (const id of ["one-renew", "one-terminate", "one-credentials"]) $(id).hidden = ENDED.has(whole.state) || whole.state === "terminating";
  $("one-extend").hidden = whole.state !== "active";
  $("one-grant").hidden = $("one-renew").hidden || whole.user !== me.user;
  const grown = before && ((before.state !== "active" && whole.state === "active") || (before.extending && !whole.extending));
  const unknown = open.drawn && nodesOf(whole).some(({ name }) => !open.drawn.names.has(name) && !open.sought.has(name));
  if (!before || unknown || grown) draw(open);
  else condition();
  if (!ENDED.has(whole.state)) return;
  open.stop.abort(); // nothing comes any more
  $("one-live").textContent = "";
}

function facts(whole) {
  const lines = [["Owner", `${whole.user} · ${whole.project}`], ["Id", whole.id], ["Key", whole.fedid], ["Made", when(whole.created)], ["Ends", whole.valid_until ? when(whole.valid_until) : "not by itself"]];
  $("one-facts").replaceChildren(...lines.flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", {}, value)]));
}

const nodesOf = (whole) => whole.segments.flatMap((segment) => segment.nodes);

// Nodes that services brought along stand in no picture; they are looked for there once.
async function draw(mine) {
  mine.sought = new Set(nodesOf(mine.whole).map((node) => node.name));
  await attempt(async () => {
    const [layout, topology] = await Promise.all([ask("GET", "/layout"), ask("GET", "/topology?services=true")]);
    if (open !== mine) return;
    mine.computers = new Map(topology.computers.map((computer) => [computer.name, computer]));
    const same = JSON.stringify(layout) === mine.layout;
    mine.layout = JSON.stringify(layout);
    if (!same) mine.drawn = drawPicture($("one-picture"), layout, chooseNode);
    if (!same && mine.node) mine.drawn.choose(mine.node);
    condition();
  });
}

function condition() {
  if (!open.drawn) return;
  const nodes = new Map(nodesOf(open.whole).map((node) => [node.name, node]));
  const portals = new Map(open.whole.segments.flatMap((segment) => segment.portals.map((portal) => [keyOf(segment.testbed, portal.connector), portal])));
  open.drawn.update(nodes, portals);
  if (open.node) showNode(open.node);
}

// ---- by testbed

// Only what has changed is drawn anew, and whoever is in there with the keyboard stays.
function progress(whole) {
  const place = $("one-progress");
  const before = new Map([...place.children].map((part) => [part.dataset.testbed, part]));
  const focused = document.activeElement?.closest("#one-progress .testbed") && document.activeElement;
  const parts = whole.segments.map((segment) => {
    const known = before.get(segment.testbed);
    const digest = JSON.stringify(segment);
    if (known?.digest === digest) return known;
    return Object.assign(testbedShown(segment, Boolean(known?.querySelector("details[open]"))), { digest });
  });
  place.replaceChildren(...parts);
  if (focused && !focused.isConnected) [...place.querySelectorAll("button, summary")].find((one) => one.textContent === focused.textContent && one.closest(".testbed").dataset.testbed === focused.closest(".testbed").dataset.testbed)?.focus();
  else focused?.focus();
}

function testbedShown(segment, isOpen) {
  const running = segment.nodes.filter((node) => node.status === "running").length;
  const joined = segment.portals.filter((portal) => portal.joined).length;
  const told = [segment.nodes.length && `${running} of ${segment.nodes.length} nodes run`, segment.portals.length && `${joined} of ${segment.portals.length} portals joined`].filter(Boolean).join(", ");
  const bar = element("progress", { max: segment.nodes.length + segment.portals.length || 1, value: running + joined });
  bar.setAttribute("aria-label", `${segment.testbed}: ${told || "nothing runs yet"}`);
  const nodes = element("details", { open: isOpen }, element("summary", { textContent: "Nodes" }), nodeTable(segment));
  const made = element("div", { className: "testbed" },
    element("p", { className: "bar" }, element("span", {}, element("strong", { textContent: segment.testbed }), segment.member ? ` at ${segment.member}` : ""), element("span", { className: `state ${segment.state ?? "closed"}`, textContent: segment.state ?? "forgotten" })),
    bar, element("p", { className: "reason", textContent: [told, segment.reason].filter(Boolean).join(" — ") }), ...(segment.nodes.length ? [nodes] : []));
  made.dataset.testbed = segment.testbed;
  return made;
}

function nodeTable(segment) {
  const rows = segment.nodes.slice(0, TABLE_LIMIT).map((node) => element("tr", {},
    element("td", {}, element("button", { type: "button", className: "plain", textContent: node.name, onclick: () => open.drawn?.choose(node.name) })),
    element("td", {}, statusShown(node.status), element("div", { className: "reason", textContent: node.reason })),
    element("td", {}, sshOf(node))));
  const more = segment.nodes.length - rows.length;
  return element("div", { className: "scroll" }, element("table", {}, element("tbody", {}, ...rows)), ...(more > 0 ? [element("p", { className: "quiet", textContent: `and ${more} more` })] : []));
}

function statusShown(status) {
  return element("span", { className: `state ${status}`, textContent: `${signOf(status)} ${status}`.trim() });
}

function sshOf(node) {
  if (!node.host) return node.address ? `${node.address} inside its testbed` : "–";
  const at = `${node.user ? `${node.user}@` : ""}${node.host}`;
  return element("code", { textContent: node.port && node.port !== 22 ? `ssh -p ${node.port} ${at}` : `ssh ${at}` });
}

// ---- one node

function chooseNode(name) {
  open.node = name;
  open.digest = null;
  $("one-node").replaceChildren();
  showNode(name);
}

// What changes is drawn anew; what a person is reading, such as a console, stays.
function showNode(name) {
  const node = nodesOf(open.whole).find((one) => one.name === name);
  const computer = open.computers?.get(name) ?? (node && { name, interfaces: [] });
  const digest = JSON.stringify([node, computer, ENDED.has(open.whole.state)]);
  if (!computer || digest === open.digest) return;
  open.digest = digest;
  const place = $("one-node");
  if (!place.firstChild) place.append(element("div", { id: "one-node-facts" }), element("div", { id: "one-node-actions" }, ...actions(name)), element("pre", { id: "one-node-output", hidden: true }));
  const state = node ? [element("p", {}, statusShown(node.status), " ", node.reason), element("p", {}, "Sign in: ", sshOf(node))] : [element("p", { className: "quiet", textContent: ENDED.has(open.whole.state) ? "It runs no more." : "It does not run yet." })];
  const [title, ...rest] = computerShown(computer);
  $("one-node-facts").replaceChildren(title, ...state, ...rest);
  $("one-node-actions").hidden = !node;
}

function actions(name) {
  const button = (text, operation) => element("button", { type: "button", className: "plain", textContent: text, onclick: () => operate(name, operation) });
  const run = element("form", { id: "one-run" }, element("label", {}, "A command, as root", element("input", { name: "command", required: true, spellcheck: false, autocomplete: "off" })), element("button", { textContent: "Run" }));
  submitted(run, () => operate(name, "run", run.elements.command.value));
  return [element("p", {}, button("Console", "console"), " ", button("Start", "start"), " ", button("Stop", "stop"), " ", button("Reboot", "reboot")), run];
}

async function operate(name, operation, command = "") {
  const harm = { stop: "Stop", reboot: "Reboot" }[operation];
  if (harm && !confirm(`${harm} ${name}? What it does is interrupted.`)) return;
  const output = $("one-node-output");
  const tell = (text) => { output.hidden = false; output.textContent = text; };
  tell("Working…");
  await attempt(async () => {
    const done = await ask("POST", "/operate", { operation, nodes: [name], ...(command && { command }) });
    const silence = operation === "console" ? "It has written nothing." : done.status?.[name] ? `It ended with status ${done.status[name]}.` : "Done.";
    tell(done.failed[name] ?? (done.output[name] || silence));
    output.scrollTop = output.scrollHeight;
  }, (text) => { if (text) tell(text); });
}

// ---- log

function logged(line) {
  const list = $("one-log");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const item = element("li", {}, when(line.at), " ", element("span", { className: `state ${line.state}`, textContent: line.state }), " ", line.reason, ...(line.code ? [" ", element("code", { textContent: line.code })] : []));
  item.dataset.number = line.number;
  list.append(item);
  while (list.children.length > LOG_LIMIT) list.firstChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

// ---- what can be done with it

function drawSecrets() {
  const known = secrets.get(open.id);
  if (!known || ENDED.has(open.whole.state)) return $("one-secrets").replaceChildren();
  const { name } = open.whole;
  const button = (text, file, content) => element("button", { type: "button", className: "plain", textContent: text, onclick: () => download(file, content) });
  $("one-secrets").replaceChildren(element("div", { className: "keep", role: "note" },
    element("p", {}, element("strong", { textContent: "Keep these now: they are not shown again. " }),
      "With the key you let others operate the experiment, and open what its lenders sealed for you; with the credential you operate it from anywhere."),
    element("p", {}, button("Download the key", `${name}.key`, known.private_key), " ", button("Download the credential", `${name}.cred`, known.credential), " ",
      element("button", { type: "button", className: "plain", textContent: "I have them", onclick: () => { secrets.delete(open.id); drawSecrets(); } }))));
}

function said(text) {
  $("one-said").textContent = text;
}

// An answer that comes when another experiment is open is not that one's.
async function change(method, part, body) {
  const mine = open;
  const whole = await ask(method, part, body);
  if (open === mine) now(whole);
  return whole;
}

async function terminate() {
  if (!confirm(`Terminate ${open.whole.name}? All its nodes and what is on them are given back.`)) return;
  await attempt(() => change("DELETE"));
}

async function renew(form) {
  const until = form.elements.until.value;
  await attempt(async () => {
    await change("POST", "/renew", { valid_until: until ? new Date(until).toISOString() : null });
    said(until ? `It ends at ${new Date(until).toLocaleString()}.` : "It does not end by itself any more.");
  }, (text) => { if (text) said(text); });
}

// Whoever sees but a part of it is refused; what is wrong with the description is told line by line.
async function extend(form) {
  const chosen = [...form.elements.files.files];
  const texts = await Promise.all(chosen.map((one) => one.text()));
  const named = chosen.map((one, index) => [nameOf(one.name), texts[index]]);
  const members = Object.fromEntries(form.elements.members.value.split("\n").map((line) => line.split("=").map((part) => part.trim())).filter(([testbed, member]) => testbed && member));
  $("one-extend-problems").replaceChildren();
  await attempt(async () => {
    try {
      const { wanted } = await change("POST", "/extend", { description: texts[0], file: named[0][0], files: Object.fromEntries(named.slice(1)), members });
      said(`It is to have ${wanted.length} nodes; the log tells what comes of it.`);
      form.reset();
    } catch (error) {
      $("one-extend-problems").replaceChildren(...(error.details?.errors ?? []).map((one) => element("li", {}, `${one.file}${one.line ? `, line ${one.line}` : ""}: ${one.message} `, element("code", { textContent: one.code }))));
      throw error;
    }
  }, (text) => { if (text) said(text); });
}

async function grant(form) {
  const { principal, until, party } = form.elements;
  await attempt(async () => {
    const made = await ask("POST", "/grants", { principal: principal.value.trim(), expires: new Date(until.value).toISOString(), party: party.value.trim() || null });
    download(`${open.whole.name}-for-${made.principal.slice(0, 8)}.cred`, made.credential);
    said(`Give them the file that you have now, and the id ${open.id}.`);
    await grants();
  }, (text) => { if (text) said(text); });
}

async function grants() {
  if ($("one-grant").open) showGrants((await ask("GET", "/grants")).items);
}

function showGrants(items) {
  $("one-grants").replaceChildren(...items.map((one) => {
    const told = [one.party && `${one.party}'s part, `, one.revoked ? "revoked" : "until ", one.revoked ? "" : when(one.expires)].filter(Boolean);
    const revoke = element("button", { type: "button", className: "plain danger", textContent: "Revoke", onclick: () => withdraw(one.principal) });
    revoke.setAttribute("aria-label", `Revoke what ${one.principal} was granted`);
    return element("li", {}, element("code", { textContent: one.principal }), ": ", ...told, ...(one.revoked ? [] : [" ", revoke]));
  }));
}

async function withdraw(principal) {
  if (!confirm(`Let ${principal} into ${open.whole.name} no more?`)) return;
  await attempt(async () => showGrants((await ask("DELETE", `/grants/${principal}`)).items), (text) => { if (text) said(text); });
}

async function credentials() {
  await attempt(async () => {
    download(`${open.whole.name}-credentials.json`, `${JSON.stringify(await ask("GET", "/credentials"), null, 2)}\n`, "application/json");
    said("Logins of all testbeds, sealed to the experiment's key: `fed experiment credentials` opens them with it.");
  }, (text) => { if (text) said(text); });
}

function submitted(form, action) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    action(form);
  });
}

$("one-terminate").addEventListener("click", terminate);
$("one-credentials").addEventListener("click", credentials);
submitted($("one-renew-form"), renew);
submitted($("one-extend-form"), extend);
submitted($("one-grant-form"), grant);
$("one-grant").addEventListener("toggle", () => attempt(grants, (text) => { if (text) said(text); }));
