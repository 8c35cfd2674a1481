// Keeps a page up to date: asks for the same page again, and puts what changed in the place of what was there.
"use strict";

const EVERY_MS = 2000;
const PATIENCE_MS = 10000;
const ROWS = 200;

function say(text) {
  const state = document.getElementById("state");
  if (state.textContent !== text) state.textContent = text;
}

async function refresh() {
  const answer = await fetch(location.href, { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
  if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const live of document.querySelectorAll("[data-live]")) {
    const now = page.getElementById(live.id);
    if (!now || now.innerHTML === live.innerHTML) continue;
    // Whoever goes through the page by keyboard stays where they are.
    const at = live.contains(document.activeElement) ? document.activeElement : null;
    const place = at && [...live.querySelectorAll(at.tagName)].indexOf(at);
    live.innerHTML = now.innerHTML;
    if (at) live.querySelectorAll(at.tagName)[place]?.focus({ preventScroll: true });
  }
  say("live");
}

async function run() {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    if (document.hidden) continue;
    try {
      await refresh();
    } catch (error) {
      say(`not up to date: ${error.message}`);
    }
  }
}

function cell(row, text, className) {
  const cell = row.insertCell();
  cell.textContent = text;
  if (className) cell.className = className;
  return cell;
}

// Live requests of a pod or a workload.
function tap(section) {
  const button = section.querySelector("button");
  const body = section.querySelector("tbody");
  const told = section.querySelector("[role=status]");
  const requests = new Map();
  let stream = null;

  function stop(why) {
    stream?.close();
    stream = null;
    button.textContent = "Start";
    told.textContent = why;
  }

  function show(event) {
    if (event.event === "request") {
      const row = body.insertRow(0);
      cell(row, event.direction);
      cell(row, event.direction === "inbound" ? event.source : event.destination);
      cell(row, event.method);
      cell(row, event.authority + event.path, "long");
      cell(row, event.tls === "true" ? "encrypted" : event.tls, event.tls === "true" ? "locked" : "open");
      cell(row, "…", "number");
      cell(row, "…", "number");
      requests.set(event.id, row);
      if (body.rows.length > ROWS) body.deleteRow(-1);
      if (requests.size > 2 * ROWS) requests.delete(requests.keys().next().value);
      return;
    }
    const row = requests.get(event.id);
    if (!row) return;
    if (event.event === "response") {
      row.cells[5].textContent = event.status;
      row.cells[6].textContent = `${(event.latency_ns / 1e6).toFixed(1)} ms`;
    } else if (event.event === "end") {
      if (event.grpc_status) row.cells[5].textContent += ` (gRPC ${event.grpc_status})`;
      requests.delete(event.id);
    }
  }

  function start() {
    button.textContent = "Stop";
    told.textContent = "waiting for requests";
    stream = new EventSource(section.dataset.tap);
    stream.onmessage = (message) => {
      told.textContent = "";
      show(JSON.parse(message.data));
    };
    stream.addEventListener("end", (message) => stop(JSON.parse(message.data).reason));
    stream.addEventListener("error", (message) => {
      // One of a proxy has words; one of the connection has none, and the browser would try for ever.
      if (message.data) told.textContent = JSON.parse(message.data).error;
      else stop("the stream was lost, or is not allowed");
    });
  }

  button.addEventListener("click", () => (stream ? stop("") : start()));
}

document.querySelectorAll("[data-tap]").forEach(tap);
run();
