// The picture of an experiment: a box for each testbed, portals at its edges, nodes that say how they are.
//
// The member says where everything stands (LayoutView); here it is drawn, and can be walked through with the arrow keys. A state is
// a sign and a word, and a colour only besides.

import { element } from "./page.js";

const SVG = "http://www.w3.org/2000/svg";
const NODE = { width: 74, height: 32 };
const PORTAL = 14;
const NAME_LENGTH = 11; // characters that fit into a node
const WAY_LENGTH = 16; // characters that fit between two testbeds
const CHARACTER = 8.2; // width of one of a testbed's name, at most
const SIGNS = { starting: "…", running: "✓", stopped: "■", failed: "✗" };
const [SMALLEST, LARGEST] = [0.72, 1.2]; // scale at which it is drawn unless somebody says otherwise
const STEP = 1.25; // of the zoom
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export const signOf = (status) => SIGNS[status] ?? "";

// Draw into `place`; `select` is told the name of a node that somebody chooses. Returns how to tell what has changed.
export function drawPicture(place, layout, select = () => {}) {
  const root = svg("svg", { viewBox: `0 0 ${layout.width} ${layout.height}`, role: "group", "aria-label": `${layout.testbeds.length} testbeds, ${layout.computers.length} nodes` });
  const nodes = new Map();
  const gates = new Map();
  for (const frame of layout.testbeds) root.append(frameOf(frame));
  for (const wire of layout.wires) root.append(wireOf(wire));
  const ways = layout.ways.map((way) => ({ way, drawn: wayOf(way) }));
  root.append(...ways.map(({ drawn }) => drawn));
  root.append(...layout.testbeds.map(titleOf));
  for (const spot of layout.computers) {
    const node = nodeOf(spot);
    nodes.set(spot.name, { spot, ...node });
    node.group.addEventListener("click", () => choose(spot.name));
    root.append(node.group);
  }
  for (const gate of layout.portals) {
    const drawn = gateOf(gate);
    gates.set(keyOf(gate.testbed, gate.name), { gate, ...drawn });
    root.append(drawn.group);
  }

  function choose(name) {
    for (const { spot, group } of nodes.values()) {
      const mine = spot.name === name;
      if (nodes.has(name)) group.setAttribute("tabindex", mine ? "0" : "-1"); // else one would not come in here any more
      group.setAttribute("aria-pressed", String(mine));
      group.classList.toggle("chosen", mine);
    }
    select(name);
  }

  root.addEventListener("keydown", (event) => {
    const here = [...nodes.values()].find(({ group }) => group === document.activeElement);
    if (!here) return;
    if (event.key === "Enter" || event.key === " ") choose(here.spot.name);
    else if (ARROWS[event.key]) nearest(here.spot, ARROWS[event.key], nodes)?.group.focus();
    else return;
    event.preventDefault();
  });
  nodes.values().next().value?.group.setAttribute("tabindex", "0");
  place.replaceChildren(zoomed(root, layout), root);
  return {
    names: new Set(nodes.keys()),
    // `conditions`: by node { status, reason }; `portals`: by testbed and name { status, reason, joined, plane, delay_ms, mbps }.
    update(conditions, portals) {
      for (const [name, { group, sign, title }] of nodes) {
        const { status = "", reason = "" } = conditions.get(name) ?? {};
        group.dataset.status = status;
        sign.textContent = signOf(status);
        title.textContent = [name, status, reason].filter(Boolean).join(": ");
        group.setAttribute("aria-label", title.textContent);
      }
      for (const [key, { gate, group, title }] of gates) {
        const portal = portals.get(key);
        group.classList.toggle("joined", Boolean(portal?.joined));
        title.textContent = [`portal ${gate.name} to ${gate.peer}`, portal && (portal.joined ? joinedBy(portal) : portal.status), portal?.reason].filter(Boolean).join(": ");
      }
      for (const { way, drawn } of ways) {
        const ends = [...gates.values()].filter(({ gate }) => way.testbeds.includes(gate.testbed) && way.testbeds.includes(gate.peer));
        drawn.classList.toggle("joined", ends.length > 0 && ends.every(({ group }) => group.classList.contains("joined")));
      }
    },
    choose,
  };
}

const joinedBy = ({ plane, delay_ms, mbps }) => ["joined", plane && `by ${plane}`, delay_ms && `${delay_ms} ms`, mbps && `${mbps} Mbit/s`].filter(Boolean).join(", ");

export const keyOf = (testbed, portal) => `${testbed}\n${portal}`;

function nearest(from, [dx, dy], nodes) {
  let best = null;
  let least = Infinity;
  for (const node of nodes.values()) {
    const [x, y] = [node.spot.x - from.x, node.spot.y - from.y];
    const along = x * dx + y * dy;
    const cost = along + 2 * Math.abs(x * dy) + 2 * Math.abs(y * dx);
    if (along > 0 && cost < least) [best, least] = [node, cost];
  }
  return best;
}

function zoomed(root, layout) {
  let scale = null; // as wide as there is room, within reason
  const show = () => {
    root.style.width = scale === null ? "100%" : `${layout.width * scale}px`;
    root.style.minWidth = scale === null ? `${layout.width * SMALLEST}px` : "0";
    root.style.maxWidth = scale === null ? `${layout.width * LARGEST}px` : "none";
  };
  const now = () => root.getBoundingClientRect().width / layout.width;
  const button = (text, label, action) => {
    const made = element("button", { type: "button", className: "plain", textContent: text, onclick: () => { action(); show(); } });
    made.setAttribute("aria-label", label);
    made.title = label;
    return made;
  };
  show();
  return element("p", { className: "zoom" },
    button("−", "Smaller", () => { scale = now() / STEP; }), " ",
    button("Fit", "As wide as there is room", () => { scale = scale === null ? root.parentElement.clientWidth / layout.width : null; }), " ",
    button("+", "Larger", () => { scale = now() * STEP; }));
}

function frameOf(frame) {
  return svg("g", { class: "frame" },
    svg("title", {}, frame.testbed),
    svg("rect", { x: frame.x, y: frame.y, width: frame.width, height: frame.height, rx: 10 }));
}

// Over the wires, so that it can be read.
function titleOf(frame) {
  const room = Math.floor(frame.width / CHARACTER) - 3;
  return svg("text", { class: "title", x: frame.x + 14, y: frame.y + 22 }, shortened(frame.testbed, room));
}

function wireOf(wire) {
  const group = svg("g", { class: "wire" }, svg("title", {}, wire.substrate), ...wire.lines.map((line) => svg("line", line)));
  if (wire.hub) group.append(svg("circle", { cx: wire.hub.x, cy: wire.hub.y, r: 5 }));
  if (wire.label) group.append(svg("text", wire.label, shortened(wire.substrate, WAY_LENGTH)));
  return group;
}

function wayOf(way) {
  const names = way.substrates.join(", ");
  return svg("g", { class: "way" }, svg("title", {}, names), svg("line", way.line),
    svg("text", way.label, names.length <= WAY_LENGTH ? names : `${way.substrates.length} wires`));
}

function nodeOf(spot) {
  const title = svg("title", {}, spot.name);
  const sign = svg("text", { class: "sign", x: spot.x + NODE.width / 2 - 9, y: spot.y - NODE.height / 2 + 9 });
  const group = svg("g", { class: "spot", role: "button", tabindex: "-1", "aria-label": spot.name, "aria-pressed": "false" },
    title, svg("rect", { x: spot.x - NODE.width / 2, y: spot.y - NODE.height / 2, width: NODE.width, height: NODE.height, rx: 6 }),
    svg("text", { x: spot.x, y: spot.y + 1 }, shortened(spot.name, NAME_LENGTH)), sign);
  group.dataset.node = spot.name;
  return { group, title, sign };
}

function gateOf(gate) {
  const title = svg("title", {}, `portal ${gate.name} to ${gate.peer}`);
  const group = svg("g", { class: "gate" }, title, svg("rect", { x: gate.x - PORTAL / 2, y: gate.y - PORTAL / 2, width: PORTAL, height: PORTAL, rx: 2 }));
  group.dataset.portal = gate.name;
  return { group, title };
}

const shortened = (text, length) => (text.length <= length ? text : `${text.slice(0, Math.max(length - 1, 1))}…`);

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
