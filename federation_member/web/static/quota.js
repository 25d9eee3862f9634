// What a person may have at each member: in all, used by everybody in the same account, used by them.

import { call } from "./api.js";
import { $, attempt, element } from "./page.js";

const COLUMNS = ["machines", "vcpu", "ram_mb", "volumes", "volume_gb", "networks", "public_ips"];
let asked = 0;

export function showQuota() {
  const mine = ++asked;
  $("quota-state").textContent = "Loading…";
  attempt(async () => {
    const { items } = await call("GET", "/quota");
    if (mine !== asked) return;
    $("quota-rows").replaceChildren(...items.map(row));
    $("quota-state").textContent = items.length ? "Of each: used by you · used by all / in all." : "No member tells what its accounts may have.";
  }, (text) => { if (text && mine === asked) $("quota-state").textContent = text; });
}

export function forgetQuota() {
  asked++;
  $("quota-rows").replaceChildren();
}

function row(one) {
  const cells = one.total ? COLUMNS.map((column) => amount(one, column)) : [element("td", { colSpan: COLUMNS.length, className: "reason", textContent: one.reason })];
  return element("tr", {}, element("td", { textContent: one.member, title: one.account ?? "" }), ...cells);
}

function amount(one, column) {
  const [mine, used, total] = [one.mine, one.used, one.total].map((amounts) => amounts?.[column]);
  const text = used == null && total == null ? "–" : `${mine ?? 0} · ${used ?? "?"} / ${total ?? "∞"}`;
  return element("td", { className: "number-cell", textContent: text });
}
