/** A chat room in a page, whichever way it loads and posts messages. */

import { showState } from "./state.js";

const RETRY_MILLISECONDS = 1_000;

const find = (id) => document.getElementById(id);
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

/** Make an element; texts are never read as HTML. */
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

/**
 * @typedef {object} Options
 * @property {string} user
 * @property {object[]} messages  what there is already
 * @property {string} cursor  where the stream goes on after these messages
 * @property {(message: object) => Promise<Response>} post
 * @property {() => void} restart  called when the cursor is too old: load the room again
 */

export class Room {
  #options;
  #shown = new Set();
  #waiting = [];

  /** @param {Options} options */
  constructor(options) {
    this.#options = options;
    options.messages.forEach((message) => this.#show(message));
    const source = new ReconnectingEventSource("events/", { lastEventId: options.cursor });
    showState(source);
    source.onmessage = ({ data }) => this.#show(JSON.parse(data));
    source.addEventListener("stream-reset", options.restart);
    find("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#write(find("text").value);
      find("text").value = "";
    });
  }

  #show({ id, user, text, created }) {
    // One that was posted while the room was loaded is in it and comes by the stream, too.
    if (this.#shown.has(id)) return;
    this.#shown.add(id);
    const head = make("div", "head", make("b", "", user), make("time", "", clock.format(new Date(created))));
    const className = user === this.#options.user ? "message mine" : "message";
    const item = make("li", className, head, make("p", "", text));
    find("messages").append(item);
    find("empty").hidden = true;
    item.scrollIntoView({ block: "nearest" });
  }

  #write(text) {
    // The key makes it safe to post again what may have arrived.
    this.#waiting.push({ key: crypto.randomUUID(), user: this.#options.user, text });
    if (this.#waiting.length === 1) this.#postAll();
  }

  async #postAll() {
    while (this.#waiting.length) {
      const response = await this.#options.post(this.#waiting[0]).catch(() => null);
      const isAnswered = response !== null && response.status < 500;
      if (isAnswered) this.#waiting.shift();
      find("waiting").hidden = isAnswered;
      find("refused").hidden = !isAnswered || response.ok;
      if (!isAnswered) await new Promise((resume) => setTimeout(resume, RETRY_MILLISECONDS));
    }
  }
}
