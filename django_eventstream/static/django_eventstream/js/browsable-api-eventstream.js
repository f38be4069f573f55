/** The browsable page of a stream: shows what comes. Whatever comes is text, never markup. */
{
  const CONTROL_TYPES = ["stream-open", "stream-reset", "stream-error", "keep-alive"];
  const QUIET_TYPES = ["stream-open", "keep-alive"];
  const ROWS_KEPT = 500;
  const TEXT_SHOWN = 1_000;
  const STATES = {
    connecting: "Connecting …",
    open: "Live",
    lost: "No connection, trying again …",
    closed: "Disconnected",
    refused: "Refused",
  };

  const find = (name) => document.getElementById(`eventstream-${name}`);
  const page = document.getElementById("eventstream");
  if (!page) throw new Error("This script needs the template of the same version.");
  const types = JSON.parse(find("listen").textContent);
  const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
  let source = null;
  let count = 0;
  let cursor = "";

  function make(tag, className, text) {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = text;
    return element;
  }

  function show(state, trouble = "") {
    page.dataset.state = state;
    find("state").textContent = STATES[state];
    // Each attempt that fails says what is wrong, and until then the one before it does.
    if (trouble || state !== "lost") find("trouble").textContent = trouble;
    find("trouble").hidden = !find("trouble").textContent;
    find("switch").textContent = ["closed", "refused"].includes(state) ? "Connect" : "Disconnect";
  }

  function readable(data) {
    try {
      return JSON.stringify(JSON.parse(data), null, 2);
    } catch {
      return data;
    }
  }

  function addRow(event) {
    const kind = QUIET_TYPES.includes(event.type) ? "eventstream-quiet" : "";
    const row = make("tr", kind, "");
    row.dataset.type = event.type;
    const type = make("td", "", "");
    type.append(make("span", "label label-default", event.type));
    row.append(make("td", "eventstream-time", clock.format(new Date())), type);
    const id = event.type === "stream-error" ? "" : event.lastEventId;
    row.append(make("td", "eventstream-id", id), make("td", "eventstream-data", readable(event.data)));
    find("events").prepend(row);
    if (find("events").rows.length > ROWS_KEPT) find("events").lastElementChild.remove();
    if (!CONTROL_TYPES.includes(event.type)) find("count").textContent = ++count;
    showEmptiness();
  }

  function showEmptiness() {
    const selector = find("quiet").checked ? "tr:not(.eventstream-quiet)" : "tr";
    find("empty").hidden = find("events").querySelector(selector) !== null;
  }

  function textOf(data) {
    try {
      return JSON.parse(data).text;
    } catch {
      return data;
    }
  }

  function onEvent(event) {
    // What the connection says of itself, where events have the type `error` or `open`, too.
    if (!("data" in event)) return;
    cursor = source.lastEventId;
    find("cursor").textContent = cursor || "–";
    addRow(event);
    // Only now is it certain from where on nothing is missed.
    if (event.type === "stream-open") show("open");
    if (event.type === "stream-error") show("refused", textOf(event.data));
  }

  /** An EventSource does not tell what the server said instead of a stream. */
  async function explain() {
    const headers = { Accept: "text/event-stream" };
    const reading = new AbortController();
    const failed = source;
    try {
      const response = await fetch(page.dataset.url, { headers, signal: reading.signal });
      const text = response.ok ? "" : await response.text();
      reading.abort();
      if (text && source === failed && page.dataset.state === "lost") {
        show("lost", `The server answers ${response.status}: ${text.slice(0, TEXT_SHOWN)}`);
      }
    } catch {
      // There is no answer to show.
    }
  }

  function connect() {
    let hasOpened = false;
    show("connecting");
    source = new ReconnectingEventSource(page.dataset.url, { lastEventId: cursor });
    source.onopen = () => (hasOpened = true);
    source.onerror = (event) => {
      if ("data" in event) return;
      show("lost");
      if (!hasOpened) explain();
    };
    for (const type of new Set([...types, ...CONTROL_TYPES])) source.addEventListener(type, onEvent);
  }

  find("switch").addEventListener("click", () => {
    if (source.readyState === ReconnectingEventSource.CLOSED) return connect();
    source.close();
    show("closed");
  });
  find("clear").addEventListener("click", () => {
    find("events").replaceChildren();
    find("count").textContent = count = 0;
    showEmptiness();
  });
  find("quiet").addEventListener("change", () => {
    page.classList.toggle("eventstream-hides-quiet", find("quiet").checked);
    showEmptiness();
  });
  page.classList.toggle("eventstream-hides-quiet", find("quiet").checked);
  connect();
}
