const STATES = {
  open: "Connected",
  reconnecting: "Disconnected – coming back …",
  refused: "Refused",
};

/**
 * Tell in the page's header how its stream is.
 *
 * @param {ReconnectingEventSource} source
 */
export function showState(source) {
  const show = (state) => {
    document.body.dataset.state = state;
    document.getElementById("status").textContent = STATES[state];
  };
  source.onopen = () => show("open");
  source.onerror = (event) => {
    // An event of the type `error` has data, and says nothing of the connection.
    if (!("data" in event)) show(source.readyState === source.CLOSED ? "refused" : "reconnecting");
  };
}
