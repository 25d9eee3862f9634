// Why an order is where it is: who was asked, as whom, what they answered, and by which proof or for lack of what.

import { call } from "./api.js";
import { $, element, openDialog, when } from "./page.js";
import { missingShown, proofShown } from "./proof.js";
import { prose } from "./words.js";

export function explain(id) {
  return openDialog($("why"), $("why-content"), async () => {
    const [told, members] = await Promise.all([call("GET", `/orders/${id}/why`), call("GET", "/members")]);
    return explained(told, Object.fromEntries(members.items.map((member) => [member.fedid, member.name])));
  });
}

function explained(told, members) {
  const next = told.next_try ? ` Next try: ${new Date(told.next_try).toLocaleString()}.` : "";
  const asked = repeated(told.attempts).map(([one, times]) => element("li", { className: "attempt" }, ...attemptShown(one, times, members)));
  return [
    element("p", {}, `${told.order.state}: `, ...prose(told.order.reason, members), next),
    element("h3", { textContent: "Who was asked" }),
    asked.length ? element("ul", { className: "attempts" }, ...asked) : element("p", { className: "quiet", textContent: "Nobody yet." }),
    element("h3", { textContent: "What happened" }),
    element("ol", {}, ...told.events.map((one) => element("li", {}, when(one.at), ` ${one.state}: `, ...prose(one.reason, members)))),
  ];
}

// Attempts that ended alike, as the newest of them and how many there were.
function repeated(attempts) {
  const alike = new Map();
  for (const one of attempts) {
    const key = JSON.stringify([one.fedid, one.name, one.state, one.reason]);
    alike.set(key, [one, (alike.get(key)?.[1] ?? 0) + 1]);
  }
  return [...alike.values()];
}

function attemptShown(one, times, members) {
  const local = one.name.split("/").slice(1).join("/");
  const names = { ...members, ...person(one, local) };
  const parts = [
    element("p", {},
      element("strong", { textContent: one.member }), " as ", element("bdi", { title: one.name, textContent: local }), " ",
      element("span", { className: `state ${one.state}`, textContent: one.state.replace("_", " ") }), " ",
      element("span", { className: "quiet" }, times > 1 ? `${times} times, last ` : "", when(one.changed))),
    element("p", { className: "reason" }, ...prose(one.reason, names)),
  ];
  if (one.proof) parts.push(folded(`Lent by its rule ${one.proof.rule}: the proof`, proofShown(one.proof.proofs, names)));
  if (one.missing.length) parts.push(...missingShown(one.missing, names));
  return parts;
}

function folded(title, parts) {
  return element("details", { open: true }, element("summary", { textContent: title }), ...parts);
}

// The user's fedid is the one that their own word speaks for: U.acting_for <- member.
function person(one, local) {
  const mandate = one.sent.find((sent) => sent.statement.includes(".acting_for <- "));
  return mandate ? { [mandate.statement.split(".")[0]]: local.split("/").at(-1) } : {};
}
