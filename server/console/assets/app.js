import { drawMatrix, element } from "/matrix.js";

const $ = (id) => document.getElementById(id);
const tokenKey = "provisionr-token";
const maxEvents = 200;
const pools = new Map();
const machines = new Map();
const events = [];
let running; // the AbortController of the streams that run

class APIError extends Error {
  constructor(status, body) {
    super([body?.message ?? `HTTP ${status}`, body?.hint].filter(Boolean).join(": "));
    this.status = status;
  }
}

async function call(path, signal) {
  const token = sessionStorage.getItem(tokenKey);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { headers, signal });
  if (!response.ok) throw new APIError(response.status, await response.json().catch(() => null));
  return response;
}

// stream calls each for every message of a stream of JSON lines, and returns when the stream ends.
async function stream(path, signal, each) {
  const reader = (await call(path, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line) continue;
      const message = JSON.parse(line);
      if (message.error) throw new Error(message.error.message);
      each(message.result);
    }
  }
}

// follow keeps a stream going, with growing pauses between failures, until the signal.
async function follow(path, signal, before, each) {
  for (let pause = 500; !signal.aborted; pause = Math.min(pause * 2, 15000)) {
    try {
      before();
      await stream(path, signal, (m) => { pause = 500; each(m); });
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401 || error.status === 403) return showLogin(error.message);
      say(`not connected: ${error.message}`, "bad");
    }
    await new Promise((done) => setTimeout(done, pause));
  }
}

function say(text, className) {
  $("link").textContent = text;
  $("link").className = className;
}

const short = (text, prefix) => (text ?? "").replace(prefix, "").toLowerCase();
const phaseOf = (m) => short(m.status?.phase, "PHASE_");
const time = (t) => (t ? new Date(t).toLocaleTimeString() : "");

function tone(state) {
  if (state === "ready") return "good";
  if (["failed", "degraded", "unreachable"].includes(state)) return "bad";
  return "busy";
}

function row(cells) {
  const tr = element("tr");
  for (const [i, [text, className]] of cells.entries()) {
    const cell = element(i === 0 ? "th" : "td", text ?? "", className);
    if (i === 0) cell.scope = "row";
    tr.append(cell);
  }
  return tr;
}

function draw() {
  $("pools").replaceChildren(...[...pools.values()].sort(byName).map((p) => row([
    [p.metadata.name], [p.status?.state, tone(p.status?.state)], [p.status?.ready], [p.spec?.size], [p.status?.message],
  ])));
  const living = [...machines.values()].filter((m) => phaseOf(m) !== "gone").sort(bySlot);
  $("machines").replaceChildren(...living.map((m) => row([
    [m.spec.slot], [phaseOf(m), tone(phaseOf(m))], [time(m.status?.since)], [m.status?.address],
    [m.status?.reason || m.status?.bootStage],
  ])));
}

function drawEvents() {
  $("events").replaceChildren(...events.map((e) => row([
    [time(e.time)], [e.reason, e.warning ? "bad" : ""], [e.slot || e.pool || e.machine], [e.message],
  ])));
}

const byName = (a, b) => a.metadata.name.localeCompare(b.metadata.name);
const bySlot = (a, b) => a.spec.pool.localeCompare(b.spec.pool) || a.spec.index - b.spec.index;

function change(delta) {
  if (delta.relist) return;
  if (delta.put?.pool) pools.set(delta.put.pool.metadata.name, delta.put.pool);
  if (delta.put?.machine) machines.set(delta.put.machine.metadata.name, delta.put.machine);
  if (delta.removed) (delta.removed.kind === "pools" ? pools : machines).delete(delta.removed.name);
  if (delta.bookmark) {
    say("live", "good");
    draw();
  }
}

function addEvent(e) {
  events.unshift(e);
  events.length = Math.min(events.length, maxEvents);
  drawEvents();
}

// pollProofs fetches the matrix of every pool now and then: proofs are no part of the watch.
async function pollProofs(signal) {
  while (!signal.aborted) {
    try {
      const all = await Promise.all([...pools.keys()].map(async (name) =>
        (await call(`/v1/pools/${encodeURIComponent(name)}/proofs`, signal)).json()));
      drawMatrix($("matrix"), $("evidence"), all.flatMap((r) => r.proofs), all.flatMap((r) => r.machines));
    } catch (error) {
      if (signal.aborted) return;
    }
    await new Promise((done) => setTimeout(done, pools.size ? 3000 : 200));
  }
}

function showLogin(message) {
  running?.abort();
  sessionStorage.removeItem(tokenKey);
  $("views").hidden = $("logout").hidden = true;
  $("login").hidden = false;
  $("login-error").textContent = message ?? "";
  say("", "");
  $("token").focus();
}

async function start() {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  try {
    const cluster = await (await call("/v1/cluster", signal)).json();
    $("cluster").textContent = `${cluster.cluster?.name ?? ""} as ${cluster.caller?.name ?? ""}, led by ${cluster.leader || "nobody"}`;
  } catch (error) {
    const first = !sessionStorage.getItem(tokenKey);
    return showLogin(first ? "" : error.message);
  }
  $("login").hidden = true;
  $("views").hidden = $("logout").hidden = false;
  follow("/v1/watch?kinds=pools&kinds=machines", signal, () => { pools.clear(); machines.clear(); }, change);
  follow("/v1/events:watch?limit=100", signal, () => { events.length = 0; }, addEvent);
  pollProofs(signal);
}

$("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(tokenKey, $("token").value.trim());
  $("token").value = "";
  start();
});
$("logout").addEventListener("click", () => showLogin());
start();
