/**
 * An EventSource that comes back after whatever happens, at the very event where it was.
 *
 * The browser's own EventSource does most of it: it reconnects when a connection is lost, and says
 * by `Last-Event-ID` where it was. But it gives up for ever on any answer that is no stream, such as
 * the 502 of a proxy during a deploy, and it does not slow down while a server is away. Then this
 * one begins anew, with the cursor in the query.
 *
 *   const source = new ReconnectingEventSource("/events/?channel=news");
 *   source.onmessage = (event) => console.log(event.data);
 *
 * A script makes `ReconnectingEventSource` global; modules import it from
 * `reconnecting-eventsource.mjs`.
 */
{
  const CONNECTING = 0;
  const OPEN = 1;
  const CLOSED = 2;

  /** Each of them has a cursor, also where the page listens for none of the events between. */
  const HEARD_ALWAYS = ["message", "stream-open", "stream-reset", "stream-error", "keep-alive"];

  const FIRST_RETRY_TIME = 1_000;
  const MAX_RETRY_TIME = 30_000;

  /**
   * A ticket is for the header that the browser's own EventSource sends. It says nothing to pages,
   * and has no business in a URL, which ends up in logs.
   */
  const withoutTicket = (cursor) => String(cursor).replace(/,:(?!\d{1,30}$)[^,]+$/, "");

  class EventSourceNotAvailableError extends Error {
    constructor() {
      super("There is no EventSource here; pass one as eventSourceClass");
      this.name = "EventSourceNotAvailableError";
    }
  }

  /**
   * @typedef {object} Options
   * @property {string} [lastEventId]  where to begin: a cursor, such as the server wrote into the page
   * @property {number} [max_retry_time]  milliseconds; no wait between two attempts is longer
   * @property {typeof EventSource} [eventSourceClass]  instead of the browser's own
   * @property {boolean} [withCredentials]  send cookies to another site
   */

  class ReconnectingEventSource extends EventTarget {
    static CONNECTING = CONNECTING;
    static OPEN = OPEN;
    static CLOSED = CLOSED;
    CONNECTING = CONNECTING;
    OPEN = OPEN;
    CLOSED = CLOSED;

    onopen = null;
    onmessage = null;
    onerror = null;

    /** The cursor of the last event that came: begin another source with it, and nothing is lost. */
    lastEventId;

    #eventSourceClass;
    #maxRetryTime;
    #types = new Set(HEARD_ALWAYS);
    #source = null;
    #timer = 0;
    #failures = 0;
    #isClosed = false;
    #isAsleep = false;

    /**
     * @param {string | URL} url
     * @param {Options} [options]
     */
    constructor(url, options = {}) {
      super();
      this.url = String(url);
      this.withCredentials = Boolean(options?.withCredentials);
      this.lastEventId = withoutTicket(options?.lastEventId ?? "");
      this.#maxRetryTime = options?.max_retry_time ?? MAX_RETRY_TIME;
      this.#eventSourceClass = options?.eventSourceClass ?? globalThis.EventSource;
      if (!this.#eventSourceClass) throw new EventSourceNotAvailableError();
      for (const type of ["open", "message", "error"]) {
        super.addEventListener(type, (event) => this[`on${type}`]?.(event));
      }
      this.#open();
      for (const type of ["online", "pagehide", "pageshow"]) {
        globalThis.addEventListener?.(type, this.#onWindow);
      }
    }

    get readyState() {
      if (this.#isClosed) return CLOSED;
      return this.#source?.readyState === OPEN ? OPEN : CONNECTING;
    }

    addEventListener(type, listener, options) {
      super.addEventListener(type, listener, options);
      if (["open", "error"].includes(type) || this.#types.has(type)) return;
      this.#types.add(type);
      if (this.#source) this.#hear(this.#source, type);
    }

    /** End for good. */
    close() {
      this.#isClosed = true;
      this.#drop();
      for (const type of ["online", "pagehide", "pageshow"]) {
        globalThis.removeEventListener?.(type, this.#onWindow);
      }
    }

    #open() {
      this.#drop();
      const source = new this.#eventSourceClass(this.#address(), {
        withCredentials: this.withCredentials,
      });
      this.#source = source;
      source.addEventListener("open", () => {
        if (source !== this.#source) return;
        this.#failures = 0;
        this.dispatchEvent(new Event("open"));
      });
      source.addEventListener("error", () => {
        if (source !== this.#source) return;
        this.#failed();
        this.dispatchEvent(new Event("error"));
      });
      for (const type of this.#types) this.#hear(source, type);
    }

    #hear(source, type) {
      source.addEventListener(type, (event) => {
        if (source !== this.#source) return;
        const { data, origin } = event;
        const lastEventId = withoutTicket(event.lastEventId);
        // After this one the server does not want it back.
        if (type === "stream-error") this.close();
        else if (lastEventId) this.lastEventId = lastEventId;
        this.dispatchEvent(new MessageEvent(type, { data, origin, lastEventId }));
      });
    }

    /** Leave the first attempt to the browser, which knows the time that the server asked for. */
    #failed() {
      const isFirst = this.#failures++ === 0;
      if (isFirst && this.#source.readyState !== CLOSED) return;
      this.#drop();
      const longest = Math.min(this.#maxRetryTime, FIRST_RETRY_TIME * 2 ** (this.#failures - 1));
      // Anywhere in it, so that a thousand pages do not come back in the same moment.
      this.#timer = setTimeout(() => this.#open(), Math.random() * longest);
    }

    #drop() {
      clearTimeout(this.#timer);
      this.#timer = 0;
      this.#source?.close();
      this.#source = null;
    }

    #address() {
      if (!this.lastEventId) return this.url;
      const base = globalThis.document?.baseURI ?? globalThis.location?.href;
      const address = new URL(this.url, base);
      address.searchParams.set("lastEventId", this.lastEventId);
      return address.href;
    }

    #onWindow = ({ type }) => {
      if (type === "online" && this.#timer) this.#open();
      if (type === "pagehide") {
        // A page that is left does not complain, and may be kept for the way back.
        this.#isAsleep = true;
        this.#drop();
      }
      if (type === "pageshow" && this.#isAsleep) {
        this.#isAsleep = false;
        this.#open();
      }
    };
  }

  Object.assign(globalThis, { ReconnectingEventSource, EventSourceNotAvailableError });
}
