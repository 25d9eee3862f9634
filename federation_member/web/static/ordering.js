// The form for a new order: which fields a kind has, and the body that they make.
//
// A field belongs to the kinds that its label's data-kinds names; the others' fields are neither shown nor sent.

import { element } from "./page.js";
import { parseRules } from "./rules.js";

const REFERENCES = { machine: "compute", volume: "volume", networks: "network", snapshot: "snapshot" }; // field to the kind of order that it names
const LIVE = new Set(["open", "pending", "fulfilled"]);

export function showFields(form) {
  const kind = form.kind.value;
  for (const label of form.querySelectorAll("label[data-kinds]")) {
    const belongs = label.dataset.kinds.split(" ").includes(kind);
    label.hidden = !belongs;
    for (const field of label.querySelectorAll("input, select, textarea")) field.disabled = !belongs;
  }
}

// The orders that others may name: what this person has of that kind, and has not given back.
export function offerReferences(form, orders) {
  for (const [field, kind] of Object.entries(REFERENCES)) {
    const select = form[field];
    const chosen = new Set([...select.selectedOptions].map((option) => option.value));
    const mine = orders.filter((order) => order.spec.kind === kind && LIVE.has(order.state));
    const kept = select.querySelector('option[value=""]');
    select.replaceChildren(...(kept ? [kept] : []), ...mine.map((order) => element("option", {
      value: order.id, textContent: `${order.spec.name} (${order.id.slice(0, 8)})${order.member ? ` at ${order.member}` : ""}`, selected: chosen.has(order.id),
    })));
  }
}

export function bodyOf(form) {
  const given = Object.fromEntries(new FormData(form)); // fields that are disabled are not in it
  const spec = { kind: given.kind };
  for (const name of ["name", "flavour", "cidr", "gateway", "machine", "volume", "device"]) if (given[name]) spec[name] = given[name];
  if (given.requirements) spec.requirements = given.requirements;
  if (given.size_gb) spec.size_gb = Number(given.size_gb);
  if (given.rules?.trim()) spec.rules = parseRules(given.rules);
  if (given.kind === "compute") {
    Object.assign(spec, imageOf(given));
    spec.ssh_keys = given.ssh_key.split("\n").map((line) => line.trim()).filter(Boolean);
    spec.networks = [...form.networks.selectedOptions].map((option) => option.value);
  }
  const body = { spec, count: Number(given.count ?? 1) };
  if (given.location) body.location = given.location;
  return body;
}

// A snapshot of one's own comes before an address, and that before a name on offer.
function imageOf(given) {
  if (given.snapshot) return { image: `snapshot:${given.snapshot}` };
  if (given.image_url) return { image: given.image_url, image_sha256: given.image_sha256 || null };
  return { image: given.image };
}
