// A proof as a graph: boxes for principals and roles, arrows for credentials, the goal on top.
//
// Proofs come as Proof.as_json() writes them: steps, each of which says that a subject has a role, by a credential and because of
// earlier steps. A box stands for a role as somebody has it, so the arrows never go round in a circle. What several proofs
// show is drawn once.

import { parse, parsePart } from "./words.js";

export const BOX = { width: 176, height: 46 };
const GAP = { x: 24, y: 58 };
const WAY = 8; // of an arrow past the boxes of a row
const MARGIN = 8;
const DRAWN_LIMIT = 200; // steps of one proof, its last ones; no larger picture is of use to anybody
const SWEEPS = 4;

export function graphOf(proofs) {
  const graph = new Graph();
  for (const steps of proofs) graph.addProof(steps);
  graph.prune();
  graph.number();
  graph.place();
  return graph;
}

// Whether each step follows from its credential and the steps before it, as Proof.check() says; only then a picture tells no lie.
export function holdTogether(proofs) {
  return proofs.every((steps) => steps.length && steps.every((step, index) => {
    const parsed = parse(step.statement);
    if (parsed?.head.text !== step.role || step.because.some((earlier) => !(earlier < index))) return false;
    const grounds = new Set(step.because.map((earlier) => claim(steps[earlier].role, steps[earlier].subject)));
    const has = (role) => role === step.subject || grounds.has(claim(role, step.subject));
    return parsed.tail.every(({ text, principal, roles: [via, name] }) =>
      has(text) || (name && step.because.some((earlier) => steps[earlier].role === `${principal}.${via}`
        && parsePart(steps[earlier].subject).roles.length === 0 && has(`${steps[earlier].subject}.${name}`))));
  }));
}

class Graph {
  boxes = new Map();
  arrows = [];
  credentials = []; // steps, one for each credential; the number on an arrow is the place here, from 1
  left = 0; // steps that are not drawn

  addProof(steps) {
    const first = Math.max(0, steps.length - DRAWN_LIMIT);
    this.left += first;
    for (const step of steps.slice(first)) this.#addStep(step, step.because.map((index) => steps[index]));
    const conclusion = steps.at(-1);
    const goal = this.boxes.get(claim(conclusion.role, conclusion.subject));
    for (const box of this.boxes.values()) box.top = false;
    Object.assign(goal, { goal: true, top: true });
  }

  #addStep(step, grounds) {
    if (this.boxes.get(claim(step.role, step.subject))?.shown) return;
    const { tail } = parse(step.statement);
    const sources = tail.map((part) => this.#source(part, step.subject, grounds));
    const source = sources.length === 1 ? sources[0] : this.#together(tail, step.subject, sources);
    const target = this.#box(claim(step.role, step.subject), "role", step.role, step.subject);
    target.shown = true;
    this.#arrow(source, target, step);
  }

  // The box of one part of a credential's tail.
  #source(part, subject, grounds) {
    if (part.text === subject) return this.#subject(subject);
    if (part.roles.length < 2) return this.#box(claim(part.text, subject), "role", part.text, subject);
    const linked = this.#box(claim(part.text, subject), "linked", part.text, subject);
    if (linked.shown) return linked;
    linked.shown = true;
    const [via, name] = part.roles;
    for (const ground of grounds.filter((one) => one.role === `${part.principal}.${via}`)) {
      const held = `${ground.subject}.${name}`;
      if (held !== subject && !grounds.some((one) => one.role === held && one.subject === subject)) continue;
      this.#arrow(this.#box(claim(ground.role, ground.subject), "role", ground.role, ground.subject), linked);
      this.#arrow(held === subject ? this.#subject(held) : this.#box(claim(held, subject), "role", held, subject), linked);
    }
    return linked;
  }

  #together(tail, subject, sources) {
    const text = tail.map((part) => part.text).join(" & ");
    const all = this.#box(claim(text, subject), "all", text, subject);
    if (!all.shown) for (const source of sources) this.#arrow(source, all);
    all.shown = true;
    return all;
  }

  #subject(text) {
    return this.#box(text, parsePart(text).roles.length ? "role" : "principal", text, text);
  }

  #box(key, kind, text, subject) {
    if (!this.boxes.has(key)) this.boxes.set(key, { kind, text, subject, row: 0, width: BOX.width, x: 0, y: 0 });
    return this.boxes.get(key);
  }

  #arrow(from, to, step = null) {
    to.row = Math.max(to.row, from.row + 1);
    this.arrows.push({ from, to, step, number: null, ways: [] });
  }

  // Two proofs may show the same in two ways, of which one is drawn; then nothing rests on what only the other way needs.
  prune() {
    const into = new Map();
    for (const arrow of this.arrows) into.set(arrow.to, [...(into.get(arrow.to) ?? []), arrow]);
    const kept = new Set([...this.boxes.values()].filter((box) => box.goal));
    for (const box of kept) for (const { from } of into.get(box) ?? []) kept.add(from); // a set is walked to its new end
    this.boxes = new Map([...this.boxes].filter(([, box]) => kept.has(box)));
    this.arrows = this.arrows.filter(({ to }) => kept.has(to));
  }

  number() {
    const numbers = new Map();
    for (const arrow of this.arrows.filter(({ step }) => step)) {
      const { credential } = arrow.step;
      if (!numbers.has(credential)) numbers.set(credential, this.credentials.push(arrow.step));
      arrow.number = numbers.get(credential);
    }
  }

  // Rows from the top; in each, boxes lie near those that they are tied to, and long arrows have a way between them.
  place() {
    const highest = Math.max(...[...this.boxes.values()].map((box) => box.row));
    const below = new Set(this.arrows.map(({ from }) => from));
    for (const box of this.boxes.values()) if (box.top && !below.has(box)) box.row = highest;
    const rows = Array.from({ length: highest + 1 }, () => []);
    for (const box of this.boxes.values()) rows[highest - box.row].push(box);
    const ties = this.arrows.flatMap((arrow) => waysOf(arrow, (way) => rows[highest - way.row].push(way)));
    this.width = 2 * MARGIN + Math.max(...rows.map(widthOf));
    this.height = 2 * MARGIN + rows.length * BOX.height + highest * GAP.y;
    rows.forEach((row, index) => row.forEach((box) => { box.y = MARGIN + index * (BOX.height + GAP.y); }));
    rows.forEach((row) => this.#spread(row));
    for (let sweep = 0; sweep < SWEEPS; sweep++) {
      for (const row of sweep % 2 ? rows : [...rows].reverse()) this.#arrange(row, ties);
    }
  }

  #arrange(row, ties) {
    const sums = new Map(row.map((box) => [box, [0, 0]]));
    for (const [one, other] of ties) {
      for (const [box, near] of [[one, other], [other, one]]) {
        const sum = sums.get(box);
        if (sum) { sum[0] += near.x; sum[1]++; }
      }
    }
    const wish = (box) => (sums.get(box)[1] ? sums.get(box)[0] / sums.get(box)[1] : box.x);
    row.sort((a, b) => wish(a) - wish(b));
    this.#spread(row);
  }

  // `x` is the middle of a box, `y` its top.
  #spread(row) {
    let left = (this.width - widthOf(row)) / 2;
    for (const box of row) {
      box.x = left + box.width / 2;
      left += box.width + GAP.x;
    }
  }
}

// Give an arrow a narrow place in each row that it crosses; returns what is tied to what, along it.
function waysOf(arrow, add) {
  for (let row = arrow.from.row + 1; row < arrow.to.row; row++) {
    const way = { row, width: WAY, x: 0, y: 0 };
    arrow.ways.push(way);
    add(way);
  }
  const stops = [arrow.from, ...arrow.ways, arrow.to];
  return stops.slice(1).map((stop, index) => [stops[index], stop]);
}

function widthOf(row) {
  return row.reduce((sum, box) => sum + box.width + GAP.x, -GAP.x);
}

function claim(role, subject) {
  return `${role} | ${subject}`;
}
