/** See `reconnecting-eventsource.js`, for pages that import modules. */

import "./reconnecting-eventsource.js";

export const { ReconnectingEventSource, EventSourceNotAvailableError } = globalThis;
export default ReconnectingEventSource;
