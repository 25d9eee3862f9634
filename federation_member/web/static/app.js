// The dashboard: what a person does with /api/v1, and nothing that a program could not do as well.
//
// Orders are kept by id, replaced by newer revisions from the event stream, and drawn anew.

import { call, me, token } from "./api.js";
import { forgetAudit, showAudit } from "./audit.js";
import { forgetAllExperiments, hideExperiments, isExperiments, isOneExperiment, learnExperiment, loadExperiments, showExperiments } from "./experiments.js";
import { bodyOf, offerReferences, showFields } from "./ordering.js";
import { $, SESSION_ENDED, attempt, element, notice } from "./page.js";
import { forgetQuota, showQuota } from "./quota.js";
import { canBeManaged, manage, onChange, refresh } from "./running.js";
import { follow } from "./stream.js";
import { forgetUsage, showUsage } from "./usage.js";
import { explain } from "./why.js";

const AUDIT = /^#audit(?:\/(\d{1,15}))?$/;
const ENDED = "Your session has ended; sign in again.";
const orders = new Map();
let stream = null;
let operator = false;

// ---- drawing

function reach(order) {
  const ssh = order.tunnels.find((tunnel) => tunnel.command);
  const others = order.tunnels.filter((tunnel) => !tunnel.command);
  const shown = [];
  if (ssh) shown.push(element("code", { textContent: ssh.command, title: ssh.up ? "The tunnel is up." : "The tunnel is not up yet." }));
  if (ssh && !ssh.up) shown.push(element("div", { className: "reason", textContent: "tunnel not up yet" }));
  for (const tunnel of others) shown.push(element("div", { className: "reason", textContent: `${tunnel.name}: ${tunnel.host}:${tunnel.port}` }));
  if (!shown.length && order.command) shown.push(element("code", { textContent: order.command }));
  const made = order.instance ?? {};
  const size = order.spec.size_gb ? `${order.spec.size_gb} GiB` : null;
  return shown.length ? shown : [order.spec.cidr ?? made.public_address ?? made.device ?? size ?? "–"];
}

function row(order) {
  const name = `${order.spec.name} (${order.id.slice(0, 8)})`;
  const why = element("button", { type: "button", className: "plain", textContent: "Why?", onclick: () => explain(order.id) });
  const remove = element("button", { type: "button", className: "plain", textContent: "Delete", disabled: order.state === "deleting", onclick: () => attempt(() => giveBack(order.id)) });
  const open = element("button", { type: "button", className: "plain", textContent: "Manage", hidden: !canBeManaged(order), onclick: () => manage(orders.get(order.id)) });
  open.setAttribute("aria-label", `Manage ${name}`);
  why.setAttribute("aria-label", `Why is ${name} ${order.state}?`);
  remove.setAttribute("aria-label", `Delete ${name}`);
  const what = order.spec.kind === "compute" ? order.spec.image : order.spec.kind.replace("_", " ");
  const made = element("tr", {},
    element("td", { title: order.id }, order.spec.name, element("div", { className: "reason", textContent: what })),
    element("td", {}, element("span", { className: `state ${order.state}`, textContent: order.state }), element("div", { className: "reason", textContent: order.reason })),
    element("td", { textContent: order.member ?? "–" }),
    element("td", {}, ...reach(order)),
    element("td", { textContent: new Date(order.created).toLocaleString() }),
    element("td", { className: "actions" }, why, " ", open, " ", remove));
  made.dataset.order = order.id;
  made.dataset.state = order.state;
  return made;
}

function draw() {
  const focused = document.activeElement?.getAttribute("aria-label");
  const shown = [...orders.values()].filter((order) => order.state !== "deleted")
    .sort((a, b) => b.created.localeCompare(a.created) || b.id.localeCompare(a.id));
  $("orders").replaceChildren(...shown.map(row));
  $("nothing").hidden = shown.length > 0;
  offerReferences($("order-form"), shown);
  // A row drawn anew must not take the keyboard's place away.
  if (focused) [...$("orders").querySelectorAll("button")].find((button) => button.getAttribute("aria-label") === focused)?.focus();
}

function learn(order) {
  const known = orders.get(order.id);
  if (known && known.revision > order.revision) return;
  orders.set(order.id, order);
  refresh(order);
}

function fill(select, values) {
  const kept = select.querySelector('option[value=""]');
  select.replaceChildren(...(kept ? [kept] : []), ...[...new Set(values)].sort().map((value) => element("option", { value, textContent: value })));
}

// ---- what a person does

async function giveBack(id) {
  const name = orders.get(id)?.spec.name ?? id;
  if (!confirm(`Delete ${name} and all that is on it?`)) return;
  learn(await call("DELETE", `/orders/${id}`));
  draw();
}

async function order(form) {
  const made = await call("POST", "/orders", bodyOf(form), { "Idempotency-Key": orderKey });
  orderKey = newKey();
  made.items.forEach(learn);
  draw();
}

// One key for each order that a person means; pressing twice, or again after an error, orders once.
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (octet) => octet.toString(16).padStart(2, "0")).join("");
}
let orderKey = newKey();

// ---- the live stream

// A browser has few connections to one place, so a tab has one stream: that of an experiment, where one is open, or this one.
function watching(wanted) {
  if (wanted === Boolean(stream)) return;
  stream?.abort();
  stream = wanted ? new AbortController() : null;
  if (stream) watch(stream.signal);
}

function watch(signal) {
  return attempt(() => follow("/events", {
    signal,
    opened: async () => { await Promise.all([load(), loadExperiments()]); $("live").textContent = "live"; },
    lost: () => { $("live").textContent = "connection lost; trying again"; },
    event: (name, data) => {
      if (name === "experiment") learnExperiment(data);
      if (name === "order" && data.now && data.now.spec.kind !== "segment") { learn(data.now); draw(); }
    },
  }), (text) => { if (text) notice(text); });
}

// ---- coming and going

async function load() {
  let cursor = "";
  do {
    const page = await call("GET", `/orders?limit=200${cursor}`);
    page.items.forEach(learn);
    cursor = page.next ? `&cursor=${encodeURIComponent(page.next)}` : "";
  } while (cursor);
  draw();
}

async function loadOffer() {
  const { items } = await call("GET", "/members");
  fill($("order-form").image, items.flatMap((member) => member.images.map((image) => image.name)));
  fill($("order-form").flavour, items.flatMap((member) => member.flavours.map((flavour) => flavour.name)));
  fill($("order-form").location, items.map((member) => member.name));
}

async function enter() {
  Object.assign(me, await call("GET", "/me"));
  $("member").textContent = me.member;
  $("user").textContent = `${me.user} · ${me.project}`;
  $("own-fedid").textContent = me.principal;
  operator = me.operator;
  $("who").hidden = false;
  $("views").hidden = false;
  $("views").querySelector("[href='#audit']").hidden = !operator;
  $("sign-in").hidden = true;
  showView();
  await loadOffer();
}

function showView() {
  const wanted = AUDIT.exec(location.hash);
  const audit = Boolean(wanted) && operator;
  const usage = location.hash === "#usage";
  const experiments = isExperiments(location.hash);
  const shown = audit ? "audit" : usage ? "usage" : experiments ? "experiments" : "work";
  for (const view of ["work", "experiments", "usage", "audit"]) $(view).hidden = view !== shown;
  for (const link of $("views").children) link.setAttribute("aria-current", link.hash === (shown === "work" ? "#orders" : `#${shown}`) ? "page" : "false");
  notice(wanted && !operator ? "Only operators of this site see its audit log." : "");
  watching(!isOneExperiment(location.hash));
  if (experiments) showExperiments(location.hash);
  else hideExperiments();
  if (usage) showQuota();
  if (usage) showUsage(operator);
  if (audit) showAudit(wanted[1]);
  else $("decision").close();
}

// Whoever knows users besides this site itself; asked once, and where there is nobody the form says nothing of it.
async function loadProviders() {
  const { items } = await call("GET", "/providers");
  const choice = $("sign-in-form").provider;
  choice.append(...items.map((name) => element("option", { value: name, textContent: name })));
  choice.parentElement.hidden = !items.length;
}

function leave(text = "") {
  watching(false);
  token.clear();
  orders.clear();
  operator = false;
  $("orders").replaceChildren();
  forgetAudit();
  forgetUsage();
  forgetQuota();
  forgetAllExperiments();
  $("why").close();
  $("running").close();
  $("member").textContent = $("own-fedid").textContent = "";
  $("who").hidden = $("views").hidden = $("work").hidden = $("experiments").hidden = $("usage").hidden = $("audit").hidden = true;
  $("sign-in").hidden = false;
  notice(text);
  $("sign-in-form").user.focus();
}

function submit(form, action) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    await attempt(() => action(form));
    button.disabled = false;
  });
}

submit($("sign-in-form"), async (form) => {
  const { provider, ...given } = Object.fromEntries(new FormData(form));
  const body = { ...given, label: "dashboard", days: 1 };
  const made = provider ? await call("POST", "/sessions", { ...body, provider }) : await call("POST", "/tokens", body);
  token.set(made.token, made.id);
  form.user.value = form.password.value = "";
  await enter();
});
submit($("order-form"), order);
$("order-form").addEventListener("input", () => { orderKey = newKey(); }); // another order than the one that failed
$("order-form").kind.addEventListener("change", () => showFields($("order-form")));
showFields($("order-form"));
onChange((order) => { learn(order); draw(); });
$("order-form").image.addEventListener("focus", () => attempt(loadOffer), { once: true });
$("sign-out").addEventListener("click", () => attempt(async () => {
  await call("DELETE", `/tokens/${token.id()}`);
  leave();
}));

document.addEventListener(SESSION_ENDED, () => leave(ENDED));
window.addEventListener("hashchange", () => { if (!$("who").hidden) showView(); });

attempt(loadProviders);
if (token.get()) attempt(enter);
else leave();
