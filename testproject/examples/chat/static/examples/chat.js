/** The chat: the page brings its messages and the cursor, and posts forms. */

import { Room } from "./room.js";

const state = JSON.parse(document.getElementById("state").textContent);

new Room({
  user: document.body.dataset.user,
  messages: state.messages,
  cursor: state.last_event_id,
  restart: () => location.reload(),
  post(message) {
    const body = new FormData(document.getElementById("form"));
    for (const [name, value] of Object.entries(message)) body.set(name, value);
    return fetch("messages/", { method: "POST", body });
  },
});
