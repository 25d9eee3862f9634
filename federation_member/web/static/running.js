// What runs, and what can be done with it: stop, start, pause, see its console, change what is let through.

import { call } from "./api.js";
import { $, attempt, element } from "./page.js";
import { parseRules, textOf } from "./rules.js";

const POWERS = { running: "Start", paused: "Pause", stopped: "Stop" };
let shown = null; // the order whose dialog is open
let learned = () => {};

export function onChange(callback) {
  learned = callback;
}

export function manage(order) {
  shown = order.id;
  const content = $("running-content");
  $("running-title").textContent = order.spec.name;
  content.replaceChildren(facts(order), ...power(order), ...rules(order), ...consoleOf(order), element("p", { id: "running-said", className: "quiet", role: "status" }));
  if (!$("running").open) $("running").showModal();
}

// Draw it anew when its order has changed while somebody looks at it; what they are typing stays.
export function refresh(order) {
  if ($("running").open && order.id === shown && !$("running-content").querySelector("textarea:focus")) manage(order);
}

export const canBeManaged = (order) => order.state === "fulfilled";

function facts(order) {
  const made = order.instance ?? {};
  const lines = [["At", order.member], ["Address there", made.address], ["Public address", made.public_address], ["Prefix", made.cidr], ["Size", made.size_gb && `${made.size_gb} GiB`],
    ["Device", made.device], ["Uses", order.uses?.join(", ")], ["Used by", order.used_by?.join(", ")]];
  return element("dl", {}, ...lines.filter(([, value]) => value).flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]));
}

function power(order) {
  const now = order.instance?.power;
  if (!now) return [];
  const doing = order.wanted_power && order.wanted_power !== now ? `, going to be ${order.wanted_power}` : "";
  const buttons = Object.entries(POWERS).filter(([wanted]) => wanted !== now).map(([wanted, label]) =>
    element("button", { type: "button", className: "plain", textContent: label, onclick: () => change(order, { power: wanted }) }));
  return [element("h3", { textContent: "Power" }), element("p", {}, `It is ${now}${doing}. `, ...buttons.flatMap((button) => [button, " "]))];
}

function rules(order) {
  if (!order.rules) return [];
  const text = element("textarea", { rows: 4, spellcheck: false, value: textOf(order.wanted_rules ?? order.rules), placeholder: "nothing is let through" });
  text.setAttribute("aria-label", "What is let through, a rule on each line");
  const save = element("button", { type: "button", textContent: "Let exactly this through", onclick: () => tell(async () => patch(order, { rules: parseRules(text.value) })) });
  return [element("h3", { textContent: "What is let through" }), text, save];
}

function consoleOf(order) {
  if (order.spec.kind !== "compute") return [];
  const text = element("pre", { hidden: true });
  const show = element("button", { type: "button", className: "plain", textContent: "Show", onclick: () => tell(async () => {
    const answer = await call("GET", `/orders/${order.id}/console`);
    text.textContent = answer.text || "It has written nothing.";
    text.hidden = false;
    text.scrollTop = text.scrollHeight;
  }) });
  return [element("h3", { textContent: "Console" }), element("p", {}, show), text];
}

function change(order, wanted) {
  if (wanted.power === "stopped" && !confirm(`Stop ${order.spec.name}? What it does is interrupted.`)) return;
  tell(async () => patch(order, wanted));
}

async function patch(order, wanted) {
  learned(await call("PATCH", `/orders/${order.id}`, wanted));
}

// What goes wrong is said in the dialog, which lies above the page's notice.
function tell(action) {
  $("running-said").textContent = "Working…";
  return attempt(async () => {
    await action();
    $("running-said").textContent = "";
  }, (text) => { if (text) $("running-said").textContent = text; });
}
