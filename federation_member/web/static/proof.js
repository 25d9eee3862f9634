// What a person sees of a decision: the proof as a picture with its credentials in words, or what was missing.

import { BOX, graphOf, holdTogether } from "./graph.js";
import { element, when } from "./page.js";
import { labelOf, parsePart, says, short, wouldHaveToSay } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const SMALLEST = 0.7; // of its size, for a narrow window; what is wider then is scrolled
const PADDING = 16; // in a box, both sides together
const [FIRST, SECOND] = ["600 13px system-ui, sans-serif", "11px system-ui, sans-serif"]; // as style.css has them
const ruler = document.createElement("canvas").getContext("2d");

export function proofShown(proofs, names) {
  if (!holdTogether(proofs)) {
    return [element("p", { textContent: "This is no proof: its steps do not follow from one another. It says:" }), said(proofs.flat(), names)];
  }
  const graph = graphOf(proofs);
  const left = graph.left ? ` ${graph.left} more steps lie below and are not drawn.` : "";
  return [
    element("div", { className: "picture", tabIndex: 0, role: "group", ariaLabel: "Picture of the proof" }, picture(graph, names)),
    element("p", { className: "reason", textContent: `An arrow with a number is a credential; a dashed one says on what something rests.${left}` }),
    said(graph.credentials, names),
  ];
}

function said(steps, names) {
  return element("ol", { className: "credentials" }, ...steps.map((step) =>
    element("li", {}, ...says(step.statement, names),
      element("span", { className: "quiet" }, " Until ", when(step.expires)),
      element("code", { className: "statement", textContent: step.statement }))));
}

export function missingShown(missing, names) {
  const sets = missing.map((statements) => element("li", {}, ...statements.map((statement, index) =>
    element("p", {}, index ? "And " : "", ...wouldHaveToSay(statement, names), element("code", { className: "statement", textContent: statement })))));
  const several = sets.length > 1;
  const title = several ? "Any one of these would have done:" : "This would have done:";
  return [element("p", { textContent: title }), element(several ? "ol" : "ul", { className: "missing" }, ...sets)];
}

let pictures = 0;

function picture(graph, names) {
  const tip = `tip-${++pictures}`; // its own: what a closed dialog holds cannot be used
  const drawn = svg("svg", { viewBox: `0 0 ${graph.width} ${graph.height}`, role: "img" },
    svg("title", {}, summary(graph, names)),
    svg("defs", {}, svg("marker", { id: tip, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto" },
      svg("path", { d: "M0 0 L8 4 L0 8 z", class: "tip" }))));
  drawn.style.maxWidth = `${graph.width}px`;
  drawn.style.minWidth = `${graph.width * SMALLEST}px`;
  drawn.append(...graph.arrows.map((arrow) => line(arrow, tip)));
  drawn.append(...[...graph.boxes.values()].map((box) => boxDrawn(box, names)));
  drawn.append(...graph.arrows.filter((arrow) => arrow.number).map((arrow) => numberDrawn(arrow, graph, names)));
  return drawn;
}

function summary(graph, names) {
  const goals = [...graph.boxes.values()].filter((box) => box.goal).map((box) => lines(box, names).join(" "));
  return `Proof of ${goals.join(", ")} by ${graph.credentials.length} credentials, which the list below tells in words.`;
}

function line({ from, to, number, ways }, tip) {
  const stops = [[from.x, from.y], ...ways.flatMap(({ x, y }) => [[x, y + BOX.height], [x, y]]), [to.x, to.y + BOX.height + 2]];
  let path = `M${stops[0].join(" ")}`;
  for (let index = 1; index < stops.length; index++) {
    const [[x1, y1], [x2, y2]] = [stops[index - 1], stops[index]];
    path += x1 === x2 ? ` L${x2} ${y2}` : ` C${x1} ${(y1 + y2) / 2} ${x2} ${(y1 + y2) / 2} ${x2} ${y2}`;
  }
  return svg("path", { d: path, class: number ? "arrow" : "arrow rests", "marker-end": `url(#${tip})` });
}

function numberDrawn({ from, to, number, ways }, graph, names) {
  const next = ways[0] ?? to;
  const [x, y] = [(from.x + next.x) / 2, (from.y + next.y + BOX.height) / 2];
  const told = says(graph.credentials[number - 1].statement, names).map((part) => part.textContent ?? part).join("");
  return svg("g", { class: "number" }, svg("title", {}, told), svg("circle", { cx: x, cy: y, r: 9 }), svg("text", { x, y: y + 4 }, String(number)));
}

function boxDrawn(box, names) {
  const [first, second] = lines(box, names);
  return svg("g", { class: `box ${box.kind}${box.goal ? " goal" : ""}` },
    svg("title", {}, `${first} ${second}\n${box.text}`),
    svg("rect", { x: box.x - BOX.width / 2, y: box.y, width: BOX.width, height: BOX.height, rx: box.kind === "principal" ? BOX.height / 2 : 6 }),
    svg("text", { x: box.x, y: box.y + 20, class: "first" }, fitting(first, FIRST)),
    svg("text", { x: box.x, y: box.y + 36, class: "second" }, fitting(second, SECOND)));
}

// The two lines in a box: what it is, and whose; the digits of a fedid are always there.
function lines(box, names) {
  const { principal, roles } = parsePart(box.text);
  const name = names[principal] ?? "";
  if (box.kind === "principal") return name ? [name, short(principal)] : [short(principal), "has no name here"];
  if (box.kind === "all") return ["all of these", `${box.text.split(" & ").length} conditions`];
  const owner = name ? `of ${fitting(name, SECOND, BOX.width / 2)} ` : "of ";
  return [roles.map(labelOf).reverse().join(" of its "), owner + short(principal)];
}

function fitting(text, font, width = BOX.width - PADDING) {
  ruler.font = font;
  if (ruler.measureText(text).width <= width) return text;
  let end = Math.min(text.length, width); // no character is narrower than a pixel
  while (end && ruler.measureText(`${text.slice(0, end)}…`).width > width) end--;
  return `${text.slice(0, end)}…`;
}

function svg(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
