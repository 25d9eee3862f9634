// Lets a person keep a text as a file.

import { element } from "./page.js";

const LIFE = 60_000; // ms in which the browser has read it

export function download(name, text, type = "text/plain") {
  const url = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), LIFE);
}
