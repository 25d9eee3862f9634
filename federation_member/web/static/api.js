// The member's REST API, and the token that it wants.
//
// The token lives in sessionStorage: it ends with the tab, and no cookie means that no other site can use it.

export const API = "api/v1";

export const token = {
  get: () => sessionStorage.getItem("token"),
  set: (value, id) => { sessionStorage.setItem("token", value); sessionStorage.setItem("token-id", id); },
  id: () => sessionStorage.getItem("token-id"),
  clear: () => sessionStorage.clear(),
};

export const me = { user: "", project: "" }; // whose token it is

export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail ? `${body.detail} [${body.code}]` : `The member answered with status ${status}.`);
    this.status = status;
    this.details = body?.details ?? {};
  }
}

export async function call(method, path, body, headers = {}) {
  const sent = { Accept: "application/json", ...headers };
  if (token.get()) sent.Authorization = `Bearer ${token.get()}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const answer = await fetch(`${API}${path}`, { method, headers: sent, body: body && JSON.stringify(body), cache: "no-store" });
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  throw new Problem(answer.status, await answer.json().catch(() => null));
}
