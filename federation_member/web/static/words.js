// Statements of RT0 in words: "site-a says that alice is in project proj1".
//
//     A.r <- B                 A.r <- B.s                A.r <- B.s.t                A.r <- B.s & C.t
//
// A principal is a fedid; `names` (fedid to name) are what principals are called. A name never stands without the first
// digits of its fedid, which nobody chooses.

import { element } from "./page.js";

const SHORT = 8; // digits of a fedid
const NAME_LIMIT = 32; // characters
const FEDID = /\b([0-9a-f]{40})\b/;
const PART = /^[0-9a-f]{40}(\.[A-Za-z0-9][\w-]*){0,2}$/;
const ESCAPE = /_x([0-9a-f]{2})_/g; // fedkit/identity/names.py: role_part
// What a role means, where a member gives it to say a user's name or a rule's people: its label, and its predicate.
const ROLES = [
  [/^user$/, () => ["users", "is a user"]],
  [/^no_project$/, () => ["no project", "is in no project"]],
  [/^member$/, () => ["members", "is a member"]],
  [/^acting_for$/, () => ["agents", "may act for them"]],
  [/^project_(.+)$/, (name) => [`project ${name}`, `is in project ${name}`]],
  [/^user_(.+)$/, (name) => [`user ${name}`, `is the user ${name}`]],
  [/^rule_(.+)$/, (name) => [`rule ${name}`, `may use rule ${name}`]],
];

export const short = (fedid) => fedid.slice(0, SHORT);

// Null for what is no statement: another site may have written anything.
export function parse(statement) {
  const [head, tail, more] = statement.split(" <- ");
  const parts = [head, ...(tail ?? "").split(" & ")];
  if (more !== undefined || !parts.every((text) => PART.test(text))) return null;
  const [first, ...others] = parts.map(parsePart);
  return first.roles.length === 1 ? { head: first, tail: others } : null;
}

export function parsePart(text) {
  const [principal, ...roles] = text.split(".");
  return { text, principal, roles };
}

export function labelOf(role) {
  return described(role)[0];
}

function described(role) {
  for (const [pattern, words] of ROLES) {
    const found = pattern.exec(role);
    if (found) return words(found[1] && unescape(found[1]));
  }
  return [role, `has the role ${role}`];
}

function unescape(text) {
  const encoded = encodeURIComponent(text).replace(ESCAPE, (_, octet) => `%${octet}`);
  try {
    return decodeURIComponent(encoded);
  } catch {
    return text; // octets that are no UTF-8: no member writes them
  }
}

export function who(fedid, names) {
  const digits = element("code", { className: "fedid", title: fedid, textContent: short(fedid) });
  if (!names[fedid]) return digits;
  const name = names[fedid];
  const shown = name.length > NAME_LIMIT ? `${name.slice(0, NAME_LIMIT - 1)}…` : name;
  return element("span", { className: "who" }, element("bdi", { title: name, textContent: shown }), " ", digits);
}

// Any text, in which fedids become what they are called.
export function prose(text, names = {}) {
  return text.split(FEDID).map((part, index) => (index % 2 ? who(part, names) : part));
}

export function says(statement, names) {
  return sentence(statement, names, " says that ");
}

export function wouldHaveToSay(statement, names) {
  return sentence(statement, names, " would have to say that ");
}

function sentence(statement, names, verb) {
  const parsed = parse(statement);
  if (!parsed) return [];
  const { head, tail } = parsed;
  return [who(head.principal, names), verb, ...everybody(tail, names), ` ${described(head.roles[0])[1]}.`];
}

function everybody(tail, names) {
  if (tail.length === 1 && !tail[0].roles.length) return [who(tail[0].principal, names)];
  return ["whoever ", ...tail.flatMap((part, index) => [index ? ", and " : "", ...clause(part, names)]), tail.length > 1 ? "," : ""];
}

function clause({ principal, roles }, names) {
  if (!roles.length) return ["is ", who(principal, names)];
  const said = roles.map((role) => described(role)[1]).reverse().join(" according to anybody who ");
  return [`${said} according to `, who(principal, names)];
}
