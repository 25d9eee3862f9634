// The page's own means: elements, notices, and what happens when something does not work. Text is only ever set as text.

import { token } from "./api.js";

export const SESSION_ENDED = "session-ended"; // an event of the document

export const $ = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function when(text) {
  return element("time", { dateTime: text, title: text, textContent: new Date(text).toLocaleString() });
}

export function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

// A dialog lies above the notice, so what goes wrong in one is said there.
export async function attempt(action, tell = notice) {
  try {
    tell("");
    await action();
  } catch (error) {
    if (error.status === 401 && token.get()) document.dispatchEvent(new Event(SESSION_ENDED));
    else tell(error.message);
  }
}

// Open a dialog at once, saying that its content is on its way, and put that in when it has come, unless another was opened.
let opened = 0;
export async function openDialog(dialog, content, load) {
  const mine = ++opened;
  const fill = (...parts) => { if (mine === opened) content.replaceChildren(...parts); };
  fill(element("p", { className: "quiet", textContent: "Loading…" }));
  if (!dialog.open) dialog.showModal();
  await attempt(async () => fill(...(await load())), (text) => {
    if (text) fill(element("p", { className: "notice", role: "alert", textContent: text }));
  });
  for (const picture of content.querySelectorAll(".picture")) picture.scrollLeft = (picture.scrollWidth - picture.clientWidth) / 2;
}
