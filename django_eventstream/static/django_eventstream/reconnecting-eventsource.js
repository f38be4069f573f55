/**
 * An EventSource that comes back after whatever happens, at the very event where it was.
 *
 * The browser's own EventSource does most of it: it reconnects when a connection is lost, and says
 * by `Last-Event-ID` where it was. But it gives up for ever on any answer that is no stream, such as
 * the 502 of a proxy during a deploy, it does not slow down while a server is away, and it does not
 * notice a connection that died without a word. Then this one begins anew, with the cursor in the
 * query.
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

  /** What a connection says of itself; events may have these types as well, and then have data. */
  const OF_CONNECTION = ["open", "error"];

  /** Each of them has a cursor, also where the page listens for none of the events between. */
  const HEARD_ALWAYS = [
    ...OF_CONNECTION, "message", "stream-open", "stream-reset", "stream-error", "keep-alive",
  ];

  const FIRST_RETRY_TIME = 1_000;
  const MAX_RETRY_TIME = 30_000;

  /** How often a server speaks that says nothing else, until it has shown how often it does. */
  const KEEP_ALIVE = 20_000;
  const LONGEST_KEEP_ALIVE = 120_000;
  const SHORTEST_KEEP_ALIVE = 1_000;
  const SHORTEST_GAP = 100;
  const LONGEST_TIMER = 2 ** 31 - 1;

  /** So many in a row get lost on no connection that lives. */
  const KEEP_ALIVES_MISSED = 3;

  /** So many of the last ones tell how often they come: more than one may be held up on its way. */
  const GAPS_KEPT = 3;

  /** Within this time a connection speaks when a page wakes up and something is due. */
  const WAKE_TIME = 5_000;

  const WAKING = { online: globalThis, pageshow: globalThis, visibilitychange: globalThis.document };

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
   * @property {number} [keep_alive]  milliseconds between two signs of life of the server, until it
   *     has shown how often they come; 0 to wait for ever for a connection that is silent
   */

  /** Tells of a connection that is silent for too long. */
  class Watchdog {
    #onSilence;
    #assumed;
    #gaps = [];
    /** The type of what came last on this connection. */
    #last = "";
    #heardAt = 0;
    #deadline = 0;
    #looksAt = Infinity;
    #timer = 0;

    constructor(keepAlive, onSilence) {
      this.#assumed = keepAlive > 0 ? keepAlive : 0;
      this.#onSilence = onSilence;
    }

    /** Something came, or a connection begins. */
    heard(type = "", atLeast = 0) {
      if (!this.#assumed) return;
      // Not performance.now(): it stands still while a laptop sleeps.
      const now = Date.now();
      if ([this.#last, type].every((each) => each === "keep-alive")) this.#learn(now - this.#heardAt);
      this.#last = type;
      this.#heardAt = now;
      this.#deadline = now + Math.max(this.#longest, atLeast);
      // Usually it looks again by itself: there may be a thousand events in a second.
      if (this.#deadline < this.#looksAt) this.#wait();
    }

    /** The page wakes up: what is due must come soon, and after a change of network anything. */
    hurry(isSuspicious) {
      if (!this.#assumed) return;
      const now = Date.now();
      const due = isSuspicious ? now : Math.max(now, this.#heardAt + this.#keepAlive);
      this.#deadline = Math.min(this.#deadline, due + WAKE_TIME);
      this.#wait();
    }

    stop() {
      clearTimeout(this.#timer);
      this.#looksAt = Infinity;
      this.#last = "";
    }

    get #keepAlive() {
      const assumed = this.#gaps.length < GAPS_KEPT ? this.#assumed : SHORTEST_KEEP_ALIVE;
      return Math.max(...this.#gaps, assumed);
    }

    get #longest() {
      return KEEP_ALIVES_MISSED * this.#keepAlive;
    }

    #learn(gap) {
      // After a longer one it is the page that has slept, and what waited for it comes at once.
      if (SHORTEST_GAP <= gap && gap <= this.#longest) this.#gaps = [...this.#gaps, gap].slice(-GAPS_KEPT);
    }

    #wait() {
      clearTimeout(this.#timer);
      this.#looksAt = this.#deadline;
      const left = Math.min(this.#deadline - Date.now(), LONGEST_TIMER);
      this.#timer = setTimeout(() => this.#look(), left);
    }

    #look() {
      if (Date.now() < this.#deadline) return this.#wait();
      // It may speak more rarely than assumed: it is not to be cut off at each of its pauses.
      const longer = Math.min(2 * this.#assumed, LONGEST_KEEP_ALIVE);
      if (this.#last && !this.#gaps.length) this.#assumed = Math.max(this.#assumed, longer);
      // And it may have begun to speak more rarely, which only a connection that lasts can teach.
      this.#gaps = [];
      this.stop();
      this.#onSilence();
    }
  }

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
    #watchdog;
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
      this.#watchdog = new Watchdog(options?.keep_alive ?? KEEP_ALIVE, () => this.#silent());
      for (const type of [...OF_CONNECTION, "message"]) {
        super.addEventListener(type, (event) => this[`on${type}`]?.(event));
      }
      this.#open();
      this.#eachWakening("addEventListener");
    }

    get readyState() {
      if (this.#isClosed) return CLOSED;
      return this.#source?.readyState === OPEN ? OPEN : CONNECTING;
    }

    addEventListener(type, listener, options) {
      super.addEventListener(type, listener, options);
      if (this.#types.has(type)) return;
      this.#types.add(type);
      if (this.#source) this.#hear(this.#source, type);
    }

    /** End for good. */
    close() {
      this.#isClosed = true;
      this.#drop();
      this.#eachWakening("removeEventListener");
    }

    #open() {
      this.#drop();
      const source = new this.#eventSourceClass(this.#address(), {
        withCredentials: this.withCredentials,
      });
      this.#source = source;
      for (const type of this.#types) this.#hear(source, type);
      this.#watchdog.heard();
    }

    #hear(source, type) {
      source.addEventListener(type, (event) => {
        if (source !== this.#source) return;
        // As in the browser's own: an event of the type `error` comes where errors come, too.
        if ("data" in event) this.#receive(type, event);
        else if (type === "open") this.#opened();
        else this.#failed();
      });
    }

    #receive(type, event) {
      const { data, origin } = event;
      const lastEventId = withoutTicket(event.lastEventId);
      this.#watchdog.heard(type);
      // After this one the server does not want it back.
      if (type === "stream-error") this.close();
      else if (lastEventId) this.lastEventId = lastEventId;
      this.dispatchEvent(new MessageEvent(type, { data, origin, lastEventId }));
    }

    #opened() {
      this.#failures = 0;
      this.#watchdog.heard("open");
      this.dispatchEvent(new Event("open"));
    }

    /** Leave the first attempt to the browser, which knows the time that the server asked for. */
    #failed() {
      const isFirst = this.#failures++ === 0;
      if (!isFirst || this.#source.readyState === CLOSED) this.#comeBack();
      else this.#watchdog.heard("", this.#maxRetryTime);
      this.dispatchEvent(new Event("error"));
    }

    /** The connection is dead, or as good as dead, and the browser does not know. */
    #silent() {
      this.#failures++;
      this.#comeBack();
      this.dispatchEvent(new Event("error"));
    }

    #comeBack() {
      this.#drop();
      const longest = Math.min(this.#maxRetryTime, FIRST_RETRY_TIME * 2 ** (this.#failures - 1));
      // Anywhere in it, so that a thousand pages do not come back in the same moment.
      this.#timer = setTimeout(() => this.#open(), Math.random() * longest);
    }

    #drop() {
      clearTimeout(this.#timer);
      this.#timer = 0;
      this.#watchdog.stop();
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

    #eachWakening(method) {
      globalThis[method]?.("pagehide", this.#sleep);
      for (const [type, target] of Object.entries(WAKING)) target?.[method]?.(type, this.#wake);
    }

    #sleep = () => {
      // A page that is left does not complain, and may be kept for the way back.
      this.#isAsleep = true;
      this.#drop();
    };

    #wake = ({ type }) => {
      if (type === "visibilitychange" && globalThis.document.hidden) return;
      if (this.#isAsleep && type !== "pageshow") return;
      if (this.#isAsleep || this.#timer) this.#open();
      else if (this.#source) this.#watchdog.hurry(type === "online");
      this.#isAsleep = false;
    };
  }

  Object.assign(globalThis, { ReconnectingEventSource, EventSourceNotAvailableError });
}
