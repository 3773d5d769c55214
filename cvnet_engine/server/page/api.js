// Requests to the server's API.

const STOPPED = "The server stopped in the middle of the search.";

/** An error response, with the detail of its problem document. `status` is 0 if the server did not answer. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Problem(0, "The server does not answer.");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Problem(response.status, problem.detail || response.statusText);
}

export const gallery = async () => (await request("/v1/gallery")).json();

export const images = async (filters) => (await request(`/v1/images?${new URLSearchParams(filters)}`)).json();

export const login = (token) =>
  request("/v1/login", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token }) });

export const original = (id) => `/v1/images/${id}`;

export const thumbnail = (id) => `/v1/images/${id}/thumbnail`;

/** Search. Yields [name, data] of each server-sent event when it arrives. */
export async function* search(fields, signal) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value !== "" && value != null) body.append(name, value);
  const response = await request("/v1/search", { method: "POST", body, signal, headers: { Accept: "text/event-stream" } });
  for await (const [name, data] of events(response.body)) {
    if (name === "problem") throw new Problem(data.status, data.detail);
    yield [name, data];
    if (name === "result") return;
  }
  throw new Problem(0, STOPPED);
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value;
      const frames = text.split("\n\n");
      text = frames.pop();
      for (const frame of frames) {
        const [name, data] = frame.split("\n");
        yield [name.slice("event: ".length), JSON.parse(data.slice("data: ".length))];
      }
    }
  } catch {
    throw new Problem(0, STOPPED);
  }
}
