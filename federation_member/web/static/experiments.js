// A person's experiments: all of them, a new one, or one. Which it is stands in the address.
//
//     #experiments      #experiments/new      #experiments/ID

import { call } from "./api.js";
import { forgetDescribing, onMade, showDescribing } from "./describing.js";
import { forgetExperiments, keepCredential, keepSecrets, leaveExperiment, showExperiment } from "./experiment.js";
import { $, attempt, element, when } from "./page.js";

const PLACE = /^#experiments(?:\/([A-Za-z0-9-]{1,64}))?$/;
const ENDED = new Set(["terminated", "failed"]);
const all = new Map();

export const isExperiments = (hash) => PLACE.test(hash);
export const isOneExperiment = (hash) => ![undefined, "new"].includes(PLACE.exec(hash)?.[1]);

export function showExperiments(hash) {
  const wanted = PLACE.exec(hash)?.[1];
  const part = !wanted ? "list" : wanted === "new" ? "new" : "one";
  for (const name of ["list", "new", "one"]) $(`experiment-${name}`).hidden = name !== part;
  if (part !== "one") leaveExperiment();
  if (part === "list") attempt(loadExperiments);
  if (part === "new") attempt(showDescribing);
  if (part === "one") showExperiment(wanted);
}

export function hideExperiments() {
  leaveExperiment();
}

export function forgetAllExperiments() {
  all.clear();
  $("experiment-rows").replaceChildren();
  $("open-form").reset();
  forgetDescribing();
  forgetExperiments();
}

export function learnExperiment(experiment) {
  all.set(experiment.id, experiment);
  if (!$("experiment-list").hidden) draw();
}

export async function loadExperiments() {
  if ($("experiment-list").hidden) return;
  const { items } = await call("GET", "/experiments");
  all.clear();
  for (const one of items) all.set(one.id, one);
  draw();
}

function draw() {
  const found = [...all.values()].sort((a, b) => b.created.localeCompare(a.created) || b.id.localeCompare(a.id));
  const rows = found.filter((one) => $("experiment-ended").checked || !ENDED.has(one.state)).map(row);
  $("experiment-rows").replaceChildren(...rows);
  $("experiment-nothing").hidden = rows.length > 0;
}

function row(experiment) {
  const made = element("tr", {},
    element("td", {}, element("a", { href: `#experiments/${experiment.id}`, textContent: experiment.name })),
    element("td", {}, element("span", { className: `state ${experiment.state}`, textContent: experiment.state }), ...(experiment.ends_soon && !ENDED.has(experiment.state) ? [" ", element("span", { className: "state pending", textContent: "ends soon" })] : []), element("div", { className: "reason", textContent: experiment.reason })),
    element("td", { textContent: experiment.project || "–" }),
    element("td", {}, when(experiment.created)),
    element("td", {}, experiment.valid_until ? when(experiment.valid_until) : "not by itself"));
  made.dataset.experiment = experiment.id;
  made.dataset.state = experiment.state;
  return made;
}

onMade((made) => {
  keepSecrets(made);
  location.hash = `#experiments/${made.id}`;
});
$("experiment-ended").addEventListener("change", draw);
$("open-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const { id, credential, keep } = Object.fromEntries(new FormData(event.target));
  const [wanted, text] = [id.trim(), credential.trim()];
  attempt(async () => {
    if (text && keep) await call("POST", "/credentials", { text });
    if (text) keepCredential(wanted, text);
    event.target.reset();
    location.hash = `#experiments/${wanted}`;
  });
});
