/**
 * A stream that comes back after whatever happens, at the very event where it was.
 *
 * The browser's EventSource does most of it: it reconnects by itself, and says by `Last-Event-ID`
 * where it was. It gives up, though, on any answer but 200 (a proxy's 502 during a deploy), and
 * then somebody has to begin again with the cursor in the query. That is all that this adds.
 */

const FIRST_DELAY = 500;
const LONGEST_DELAY = 10_000;

/**
 * @typedef {"connecting" | "open" | "reconnecting" | "cut" | "refused"} State
 *
 * @typedef {object} Options
 * @property {string} url  where `django_eventstream.urls` is included
 * @property {string[]} channels
 * @property {string} cursor  from `get_current_event_id()`, read before the page's own state
 * @property {string[]} types  types of events to listen for
 * @property {(event: MessageEvent) => void} onEvent
 * @property {(state: State, detail: string) => void} onState
 * @property {() => void} onReset  the cursor is too old: load the state again
 */

export class Stream {
  /** The place of the last event that came, on all channels. */
  cursor;
  #options;
  #source = null;
  #timer = 0;
  #failures = 0;

  /** @param {Options} options */
  constructor(options) {
    this.#options = options;
    this.cursor = options.cursor;
    this.#open("connecting");
  }

  /** Break the connection as a tunnel does, and come back after `milliseconds`. */
  cut(milliseconds) {
    this.#close();
    this.#options.onState("cut", "");
    this.#timer = setTimeout(() => this.#open("reconnecting"), milliseconds);
  }

  #open(state) {
    const { url, channels, types, onEvent, onReset, onState } = this.#options;
    this.#close();
    onState(state, "");
    const query = new URLSearchParams(channels.map((channel) => ["channel", channel]));
    // Without the ticket, which is for the browser's own header: URLs end up in logs.
    query.set("lastEventId", this.cursor.replace(/,:(?!\d{1,30}$)[^,]+$/, ""));
    const source = new EventSource(`${url}?${query}`);
    this.#source = source;
    const listen = (type, react) =>
      source.addEventListener(type, (event) => {
        this.cursor = event.lastEventId || this.cursor;
        react(event);
      });
    listen("stream-open", () => {
      this.#failures = 0;
      onState("open", this.cursor);
    });
    listen("keep-alive", () => {});
    listen("stream-reset", onReset);
    for (const type of types) listen(type, onEvent);
    // This one is for good: the channels may not be read, or do not exist.
    source.addEventListener("stream-error", (event) => {
      this.#close();
      onState("refused", JSON.parse(event.data).text);
    });
    source.addEventListener("error", (event) => {
      // An event of the type `error` has data, and says nothing of the connection.
      if ("data" in event) return;
      if (source.readyState === EventSource.CLOSED) this.#comeBack();
      else onState("reconnecting", "");
    });
  }

  #comeBack() {
    const delay = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** this.#failures++);
    this.#options.onState("reconnecting", "");
    // Spread, so that a thousand pages do not come back in the same moment.
    this.#timer = setTimeout(() => this.#open("reconnecting"), delay * (0.5 + Math.random()));
  }

  #close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }
}

/**
 * Read a cursor, such as `room:5,ticker:12`.
 *
 * @param {string} cursor
 * @returns {Map<string, number>} last id by channel
 */
export function parseCursor(cursor) {
  return new Map(
    cursor
      .split(",")
      .map((part) => part.split(":"))
      .filter(([name]) => name)
      .map(([name, id]) => [decodeURIComponent(name), Number(id)]),
  );
}
