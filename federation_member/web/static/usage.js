// Who used how much. Sums come exact from the member; here they are only shown.

import { call } from "./api.js";
import { $, attempt, element, notice } from "./page.js";

const SVG = "http://www.w3.org/2000/svg";
const DAY = 86_400_000; // ms
const [WIDTH, HEIGHT, GAP] = [720, 140, 2]; // of the picture, in its own units
const COLUMNS = { vcpu_hours: "vCPU·h", ram_gb_hours: "RAM GiB·h", disk_gb_hours: "Disk GiB·h", hours: "h" };
let asked = 0; // an answer that comes after another question was asked is not shown
let days = null; // what the bars are drawn of

export function showUsage(operator) {
  $("usage-role").parentElement.hidden = !operator;
  load();
}

export function forgetUsage() {
  asked++;
  days = null;
  $("usage-form").reset();
  $("usage-rows").replaceChildren();
  $("usage-bars").replaceChildren();
}

async function load() {
  const mine = ++asked;
  $("usage-state").textContent = "Loading…";
  await attempt(async () => {
    const { role, span } = Object.fromEntries(new FormData($("usage-form")));
    const to = new Date();
    const midnight = Math.floor(to / DAY) * DAY; // days are those of UTC
    const from = new Date(midnight - (Number(span) - 1) * DAY);
    const place = new URLSearchParams({ from: from.toISOString(), to: to.toISOString(), role });
    const [sums, daily] = await Promise.all([call("GET", `/usage?${place}&by=member,project,user`), call("GET", `/usage?${place}&by=&daily=true`)]);
    if (mine !== asked) return;
    days = filled(daily.items, from, Number(span));
    $("usage-member-title").textContent = role === "lent" ? "Lent to" : "Borrowed from";
    $("usage-rows").replaceChildren(...sums.items.map(row), totalRow(sums.total));
    $("usage-state").textContent = sums.items.length ? "What still runs is counted until now; a stopped machine uses its disk alone." : "Nothing was used.";
    draw();
  }, (text) => {
    notice(text);
    if (text && mine === asked) $("usage-state").textContent = "Not loaded.";
  });
}

function number(value) {
  return value.toLocaleString(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
}

function amounts(line) {
  return Object.keys(COLUMNS).map((column) => element("td", { className: "number-cell", textContent: number(line[column]) }));
}

function row(line) {
  const made = element("tr", {},
    element("td", { textContent: line.member, title: line.member_fedid }),
    element("td", { textContent: line.project }),
    element("td", { textContent: line.user }),
    ...amounts(line));
  made.dataset.usage = `${line.member} ${line.project} ${line.user}`;
  return made;
}

function totalRow(total) {
  return element("tr", { className: "total" }, element("td", { textContent: "Total", colSpan: 3 }), ...amounts(total));
}

// Days on which nothing was used are not told; they are bars of no height.
function filled(items, from, count) {
  const known = new Map(items.map((line) => [line.day, line]));
  return Array.from({ length: count }, (_, index) => {
    const day = new Date(from.getTime() + index * DAY).toISOString().slice(0, 10);
    return known.get(day) ?? { day, ...Object.fromEntries(Object.keys(COLUMNS).map((column) => [column, 0])) };
  });
}

function draw() {
  if (!days) return;
  const measure = $("usage-measure").value;
  const most = Math.max(...days.map((day) => day[measure]));
  const step = WIDTH / days.length;
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT + 20}`, role: "img", "aria-label": `${COLUMNS[measure]} for each day from ${days[0].day} to ${days.at(-1).day}; at most ${number(most)}` });
  for (const [index, day] of days.entries()) {
    const height = most ? (day[measure] / most) * HEIGHT : 0;
    const bar = svg("rect", { class: "bar-of-day", x: index * step + GAP / 2, y: HEIGHT - height, width: Math.max(step - GAP, 1), height });
    bar.dataset.day = day.day;
    bar.append(svg("title", {}, `${day.day}: ${number(day[measure])} ${COLUMNS[measure]}`));
    picture.append(bar);
  }
  picture.append(
    svg("text", { x: 0, y: HEIGHT + 16 }, days[0].day),
    svg("text", { x: WIDTH, y: HEIGHT + 16, "text-anchor": "end" }, days.at(-1).day),
    svg("text", { x: 0, y: 12 }, `${number(most)} ${COLUMNS[measure]}`));
  $("usage-bars").replaceChildren(picture);
}

function svg(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

for (const id of ["usage-role", "usage-span"]) $(id).addEventListener("change", load);
$("usage-measure").addEventListener("change", draw);
