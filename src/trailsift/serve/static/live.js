// The commits of the lake as they come. One stream for the whole page; it reconnects by itself.
let source = null;
const listeners = new Set();
export let connection = "connecting";

function emit(kind, data) { for (const listener of listeners) listener(kind, data); }

function setConnection(name) {
  if (connection === name) return;
  connection = name;
  emit("connection", name);
}

function open() {
  source = new EventSource("/api/v1/live");
  source.onopen = () => setConnection("open");
  source.onerror = () => setConnection("lost");
  source.addEventListener("commit", (event) => emit("commit", JSON.parse(event.data)));
  source.addEventListener("trouble", (event) => emit("trouble", JSON.parse(event.data)));
}

export function follow(listener) {
  listeners.add(listener);
  if (source === null) open();
  // A browser gives up for good when the answer is not a stream, such as that of a proxy.
  return () => listeners.delete(listener);
}

setInterval(() => {
  if (source !== null && source.readyState === EventSource.CLOSED && !document.hidden) open();
}, 5000);

export function stop() { source?.close(); source = null; }
