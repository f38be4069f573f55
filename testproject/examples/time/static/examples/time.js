/** Shows the time whenever the server sends it. */

import { showState } from "./state.js";

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const source = new ReconnectingEventSource("events/");
showState(source);
source.onmessage = ({ data }) => {
  document.getElementById("clock").textContent = clock.format(new Date(JSON.parse(data).time));
};
