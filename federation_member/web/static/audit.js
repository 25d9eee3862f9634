// For operators: what this member decided about whom, and why. Each decision has an address, #audit/NUMBER.

import { call } from "./api.js";
import { $, attempt, element, notice, openDialog, when } from "./page.js";
import { missingShown, proofShown } from "./proof.js";
import { prose, who } from "./words.js";

const PAGE = 25;
let pages = [null]; // the `before` of each page up to the one that is shown, null for the newest
let following = null;
let asked = 0; // an answer that comes after another question was asked is not shown
let checked = null;

export function showAudit(number) {
  if (!$("decisions").children.length) load([null]);
  if (number) open(Number(number));
  else $("decision").close();
}

export function forgetAudit() {
  asked++;
  checked = null;
  $("decisions").replaceChildren();
  $("decision").close();
  $("audit-check").textContent = "";
}

// ---- the list

async function load(wanted) {
  const mine = ++asked;
  $("audit-state").textContent = "Loading…";
  await attempt(async () => {
    const before = wanted.at(-1) ? `&before=${wanted.at(-1)}` : "";
    const page = await call("GET", `/audit?kind=decision&limit=${PAGE}${before}`);
    if (mine !== asked) return;
    [pages, following] = [wanted, page.next];
    $("decisions").replaceChildren(...page.items.map(row));
    $("audit-state").textContent = page.items.length ? `Page ${pages.length}` : "No decisions yet: nobody has asked this site for anything.";
    $("audit-newer").disabled = pages.length === 1;
    $("audit-older").disabled = following === null;
  }, (text) => {
    notice(text);
    if (text && mine === asked) $("audit-state").textContent = "Not loaded.";
  });
}

function row({ sequence, at, said }) {
  const address = `#audit/${sequence}`;
  const made = element("tr", {},
    element("td", {}, element("a", { href: address, ariaLabel: `Decision ${sequence}` }, when(at))),
    element("td", {}, ...applicant(said.applicant)),
    element("td", { textContent: action(said.action) }),
    element("td", {}, answer(said), element("div", { className: "reason", textContent: said.allowed ? `rule ${said.rule}` : "" })),
    element("td", {}, element("div", { className: "reason" }, ...(said.allowed ? [] : prose(said.reason)))));
  made.addEventListener("click", (event) => {
    if (!event.target.closest("a") && getSelection().isCollapsed) location.hash = address;
  });
  made.dataset.decision = sequence;
  return made;
}

function applicant({ name, principal, address }) {
  const [asserter, ...local] = name.split("/");
  return [
    who(asserter, {}), element("bdi", { textContent: `/${local.join("/")}` }),
    element("div", { className: "reason" }, "user ", who(principal, {}), `, asked for by ${address}`),
  ];
}

function action({ kind, flavour, node_type, image, services }) {
  return [kind, flavour, node_type, image, ...services.map((service) => `+${service}`)].filter(Boolean).join(" ");
}

function answer({ allowed }) {
  return element("span", { className: `state ${allowed ? "allowed" : "denied"}`, textContent: allowed ? "allowed" : "denied" });
}

// ---- one decision

function open(number) {
  $("decision-title").textContent = `Decision ${number}`;
  return openDialog($("decision"), $("decision-content"), async () => decision(await call("GET", `/audit/${number}`)));
}

function decision({ sequence, at, hash, kind, said, names }) {
  if (kind !== "decision") return [element("p", { textContent: `Entry ${sequence} of the audit log is no decision but a ${kind}.` })];
  const { name, principal, member } = said.applicant;
  const facts = {
    Answer: [answer(said), ...(said.allowed ? [` by rule ${said.rule}`] : [" ", ...prose(said.reason, names)])],
    When: [when(at)],
    User: [who(principal, names), element("code", { className: "statement", textContent: name })],
    "Asked for by": [who(member, names), ` ${said.applicant.address}`],
    "Asked for": [action(said.action)],
    ...(said.account ? { Account: [said.account.name] } : {}),
    Lease: [element("code", { textContent: said.lease })],
  };
  return [
    element("dl", {}, ...Object.entries(facts).flatMap(([term, parts]) => [element("dt", { textContent: term }), element("dd", {}, ...parts)])),
    ...(said.allowed ? shown("Why", proofShown(said.proofs, names)) : refused(said, names)),
    ...shown("Is that what was decided?", [
      element("p", { id: "decision-check", role: "status", textContent: ofThis(sequence) }),
      element("button", { type: "button", className: "plain", textContent: "Check the whole log", onclick: () => check(sequence) }),
      element("p", { className: "reason" }, "Hash of this entry and of all before it:", element("code", { className: "statement", textContent: hash })),
    ]),
  ];
}

function shown(title, parts) {
  return [element("h3", { textContent: title }), ...parts];
}

function refused(said, names) {
  if (said.missing.length) return shown("What was missing", missingShown(said.missing, names));
  return shown("What was missing", [element("p", { textContent: "No credential: nothing that anybody could show would have changed the answer then." })]);
}

// ---- whether the log is as it was written

async function check(sequence = null) {
  const tell = (text) => {
    $("audit-check").textContent = text;
    if (sequence && $("decision-check")) $("decision-check").textContent = text;
  };
  tell("Checking every entry…");
  await attempt(async () => {
    checked = await call("GET", "/audit/check");
    $("audit-check").textContent = ofAll();
    if (sequence && $("decision-check")) $("decision-check").textContent = ofThis(sequence);
  }, (text) => { if (text) tell(text); });
}

function ofAll() {
  if (checked.broken_at !== null) return `The log is broken at entry ${checked.broken_at}: ${checked.problem}.`;
  if (checked.differing.length) return `${checked.differing.length} decisions do not follow from what stands beside them: ${checked.differing.join(", ")}.`;
  return `All ${checked.entries} entries hold, and every decision follows from what stands beside it.`;
}

function ofThis(sequence) {
  if (checked === null) return "Not checked since you signed in.";
  if (checked.broken_at !== null) {
    return sequence <= checked.entries ? `This entry is as it was written, but the log is broken at entry ${checked.broken_at}.` : ofAll();
  }
  if (checked.differing.includes(sequence)) return "This entry is as it was written, but what it tells does not follow from what stands beside it.";
  if (sequence > checked.entries) return "This entry is newer than the last check.";
  return "This entry is as it was written, and what it tells was decided again with the same result.";
}

$("audit-newest").addEventListener("click", () => load([null]));
$("audit-newer").addEventListener("click", () => load(pages.slice(0, -1)));
$("audit-older").addEventListener("click", () => load([...pages, following]));
$("audit-check-now").addEventListener("click", () => check());
$("decision").addEventListener("close", () => { if (location.hash.startsWith("#audit/")) location.hash = "#audit"; });
