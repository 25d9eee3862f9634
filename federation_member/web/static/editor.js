// A text with line numbers, where what is wrong stands at its line. The numbers are for the eye; whoever hears the page is told by the list
// of problems, which the text names as its description, and from which one comes to the line.

import { element } from "./page.js";

const LINE_LIMIT = 20_000; // that get numbers

export class Editor {
  constructor(text, gutter, list) {
    Object.assign(this, { text, gutter, list });
    this.problems = [];
    this.shown = 0; // lines that have numbers
    text.addEventListener("input", () => this.#number());
    text.addEventListener("scroll", () => { gutter.scrollTop = text.scrollTop; });
    this.#number();
  }

  get value() {
    return this.text.value;
  }

  set value(text) {
    this.text.value = text;
    this.text.scrollTop = 0;
    this.text.dispatchEvent(new Event("input", { bubbles: true }));
  }

  // Each { file, line, code, message }; `mine` is what the text itself is called. `bad`: they are errors, not warnings.
  show(errors, warnings, mine) {
    const marked = [...errors.map((one) => [one, "bad"]), ...warnings.map((one) => [one, "wait"])];
    this.list.replaceChildren(...marked.map(([problem, kind]) => this.#item(problem, kind, mine)));
    this.text.setAttribute("aria-invalid", String(errors.length > 0));
    this.problems = marked.filter(([{ file, line }]) => line && file === mine);
    this.#mark();
  }

  goTo(line) {
    const lines = this.text.value.split("\n");
    const start = lines.slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0);
    this.text.focus();
    this.text.setSelectionRange(start, start + (lines[line - 1]?.length ?? 0));
    const height = this.text.scrollHeight / Math.max(lines.length, 1);
    this.text.scrollTop = Math.max((line - 4) * height, 0);
  }

  #item({ file, line, code, message }, kind, mine) {
    const where = file === mine ? `Line ${line}` : `${file}, line ${line}`;
    const place = !line ? [] : file === mine
      ? [element("button", { type: "button", className: "plain", textContent: where, onclick: () => this.goTo(line) }), " "]
      : [element("strong", { textContent: where }), " "];
    const item = element("li", { className: kind }, element("span", { className: "kind", textContent: kind === "bad" ? "✗ Error" : "! Note" }), " ", ...place, message, " ", element("code", { textContent: code }));
    if (line) item.dataset.line = line;
    return item;
  }

  #number() {
    const lines = Math.min(this.text.value.split("\n").length, LINE_LIMIT);
    if (lines === this.shown) return;
    this.shown = lines;
    this.gutter.replaceChildren(...Array.from({ length: lines }, (_, index) => element("span", { textContent: index + 1 })));
    this.#mark();
  }

  #mark() {
    for (const marked of this.gutter.querySelectorAll(".bad, .wait")) marked.className = marked.title = "";
    for (const [{ line, message }, kind] of [...this.problems].reverse()) {
      const number = this.gutter.children[line - 1];
      if (number) Object.assign(number, { className: kind, title: message });
    }
  }
}
