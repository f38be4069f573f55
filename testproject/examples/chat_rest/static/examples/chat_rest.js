/** The chat over the API: messages and cursor are loaded from it, and posted as JSON. */

import { Room } from "./room.js";

const user = document.body.dataset.user;
const token = document.querySelector("[name=csrfmiddlewaretoken]").value;
const response = await fetch("messages/", { headers: { Accept: "application/json" } });
const { messages, last_event_id: cursor } = await response.json();

new Room({
  user,
  messages,
  cursor,
  restart: () => location.reload(),
  post: (message) =>
    fetch("messages/", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRFToken": token },
      body: JSON.stringify(message),
    }),
});
