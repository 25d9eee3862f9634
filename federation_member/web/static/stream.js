// Server-sent events of the member's API; EventSource cannot send a token, so a stream is read here.
//
// A stream that was cut off is opened again after the last number it gave, until it is aborted. `opened` runs each time that it is
// open, before anything is read of it: what is asked for then cannot have been missed. What the member refuses is thrown.

import { API, Problem, token } from "./api.js";

const PAUSES = [500, 1000, 2000, 5000, 10000]; // ms before trying again
const PATIENCE = 45_000; // ms in which a live stream gives a sign of life

export async function follow(path, { signal, headers = {}, last = null, opened = () => {}, lost = () => {}, event }) {
  for (let failures = 0; !signal.aborted; failures++) {
    try {
      const sent = { Accept: "text/event-stream", Authorization: `Bearer ${token.get()}`, ...headers };
      if (last !== null) sent["Last-Event-ID"] = last;
      const answer = await fetch(`${API}${path}`, { headers: sent, signal, cache: "no-store" });
      if (!answer.ok) throw new Problem(answer.status, await answer.json().catch(() => null));
      await opened();
      failures = 0;
      for await (const one of parse(answer.body)) {
        last = one.id ?? last;
        if (one.data) event(one.name, one.data);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status && error.status < 500 && error.status !== 429) throw error;
    }
    lost();
    await new Promise((done) => setTimeout(done, PAUSES[Math.min(failures, PAUSES.length - 1)]));
  }
}

async function* parse(body) {
  let text = "";
  for await (const chunk of decoded(body)) {
    text += chunk;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const event = {};
      for (const line of block.split("\n")) {
        const [, key, value] = /^([^:]*):? ?(.*)$/.exec(line);
        if (key === "id") event.id = value;
        if (key === "event") event.name = value;
        if (key === "data") event.data = JSON.parse(value);
      }
      yield event;
    }
  }
}

async function* decoded(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let part = await patiently(reader); !part.done; part = await patiently(reader)) yield part.value;
  } finally {
    reader.cancel().catch(() => {}); // or the member would go on writing to nobody
  }
}

// A connection that died without a word ends here.
function patiently(reader) {
  let timer;
  const silence = new Promise((_, fail) => { timer = setTimeout(() => fail(new Error("silence")), PATIENCE); });
  return Promise.race([reader.read(), silence]).finally(() => clearTimeout(timer));
}
