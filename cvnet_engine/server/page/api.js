// The server, as this page uses it.

/** A refusal, with the problem document's words; `status` 0 where the server did not answer at all. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Problem(0, "The server does not answer.");
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Problem(answer.status, problem.detail || answer.statusText);
}

export const gallery = async () => (await ask("/v1/gallery")).json();

export const images = async (filters) => (await ask(`/v1/images?${new URLSearchParams(filters)}`)).json();

export const login = (token) =>
  ask("/v1/login", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token }) });

export const original = (id) => `/v1/images/${id}`;

export const thumbnail = (id) => `/v1/images/${id}/thumbnail`;

/** Search, and yield [name, data] of each event as it arrives. */
export async function* search(fields, signal) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value !== "" && value != null) body.append(name, value);
  const answer = await ask("/v1/search", { method: "POST", body, signal, headers: { Accept: "text/event-stream" } });
  for await (const [name, data] of events(answer.body)) {
    if (name === "problem") throw new Problem(data.status, data.detail);
    yield [name, data];
    if (name === "result") return;
  }
  throw new Problem(0, "The server stopped in the middle of the search.");
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
    throw new Problem(0, "The server stopped in the middle of the search.");
  }
}
