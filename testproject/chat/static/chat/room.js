/** The page: shows what the stream brings, and judges it. */

import { Checker } from "./checker.js";
import { Stream, parseCursor } from "./stream.js";

const CHANNEL_OF = { posted: "room", tick: "ticker" };
const LINES_KEPT = 400;
const MESSAGES_KEPT = 200;
const CUT_MILLISECONDS = 4_000;

const STATES = {
  connecting: "Connecting …",
  open: "Connected",
  reconnecting: "Disconnected – coming back …",
  cut: "Cut off – back in four seconds …",
  refused: "Refused",
};

const find = (id) => document.getElementById(id);
const initial = JSON.parse(find("state").textContent);
const shown = new Set();
const checkers = new Map();
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
let openedAt = 0;
let isAtEnd = true;
let refreshing = 0;

/** Make an element; texts are never read as HTML. */
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

// Messages

function showMessage({ id, author, text, sent }) {
  // One that was sent while this page was made is in it and comes by the stream, too.
  if (shown.has(id)) return;
  shown.add(id);
  const list = find("messages");
  const mine = author === find("author").value;
  const time = make("time", "", clock.format(new Date(sent)));
  const head = make("div", "head", make("b", "", author), time);
  const item = make("li", mine ? "message mine" : "message", head, make("p", "", text));
  item.dataset.id = id;
  list.append(item);
  if (list.childElementCount > MESSAGES_KEPT) list.firstElementChild.remove();
  find("empty").hidden = true;
  isAtEnd ||= mine;
  refresh();
}

/** Notice whether the visitor reads old messages: then new ones must not move them away. */
function onScroll({ target }) {
  isAtEnd = target.scrollHeight - target.scrollTop - target.clientHeight < 80;
}

// The ticker

function showTick({ sent, pid }) {
  find("clock").textContent = clock.format(new Date(sent));
  find("ticker-pid").textContent = pid;
}

// Ids

function addLine(line) {
  const list = find("ids");
  list.prepend(line);
  if (list.childElementCount > LINES_KEPT) list.lastElementChild.remove();
}

function showId(channel, id, sent) {
  const delay = Math.max(0, Date.now() - new Date(sent));
  // It was sent while the page was away.
  const isLate = new Date(sent) < openedAt;
  const line = make(
    "li",
    isLate ? "late" : "",
    make("span", `channel ${channel}`, channel),
    make("span", "number", String(id)),
    make("time", "", clock.format(new Date(sent))),
    make("span", "delay", isLate ? `caught up ${readable(delay)}` : readable(delay)),
  );
  Object.assign(line.dataset, { channel, id });
  addLine(line);
}

function readable(milliseconds) {
  return milliseconds < 1000 ? `${milliseconds} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

function showNote(text) {
  addLine(make("li", "note", text));
}

/** Do once for many events what makes the browser lay out the page. */
function refresh() {
  refreshing ||= setTimeout(() => {
    refreshing = 0;
    showVerdict();
    if (isAtEnd) find("messages").scrollTop = find("messages").scrollHeight;
  });
}

function showVerdict() {
  const all = [...checkers.values()];
  const sum = (name) => all.reduce((total, checker) => total + checker[name], 0);
  for (const name of ["received", "missing", "doubled"]) find(name).textContent = sum(name);
  find("verdict").classList.toggle("bad", sum("missing") + sum("doubled") > 0);
  for (const [channel, checker] of checkers) {
    const row = find(`checker-${channel}`);
    for (const name of ["last", "received", "missing", "doubled"]) {
      row.querySelector(`.${name}`).textContent = checker[name];
    }
  }
}

function addChecker(channel, last) {
  checkers.set(channel, new Checker(last));
  const row = make("tr", "", make("th", "", make("span", `channel ${channel}`, channel)));
  row.id = `checker-${channel}`;
  row.append(...["last", "received", "missing", "doubled"].map((name) => make("td", name)));
  find("checkers").append(row);
}

// The stream

function onEvent(event) {
  const channel = CHANNEL_OF[event.type];
  const id = parseCursor(event.lastEventId).get(channel);
  const data = JSON.parse(event.data);
  checkers.get(channel).see(id);
  showId(channel, id, data.sent);
  refresh();
  if (event.type === "posted") showMessage(data);
  else showTick(data);
}

function onState(state, detail) {
  if (document.body.dataset.state === state) return;
  document.body.dataset.state = state;
  find("status").textContent = state === "refused" ? detail : STATES[state];
  find("cut").disabled = state !== "open";
  if (state === "open") {
    openedAt = Date.now();
    // Without the ticket, which says nothing to people and is longer than a line.
    const places = [...parseCursor(detail)].map((place) => place.join(":"));
    showNote(`connected, after ${places.join(", ")}`);
  }
  if (state === "cut") showNote("connection cut");
  if (state === "reconnecting") showNote("no connection");
}

// What people do

async function post(url, body) {
  const headers = { "X-CSRFToken": document.querySelector("[name=csrfmiddlewaretoken]").value };
  return fetch(url, { method: "POST", headers, body });
}

async function send(url, body, onDone) {
  find("trouble").hidden = true;
  try {
    const response = await post(url, body);
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    onDone();
  } catch (error) {
    find("trouble").textContent = `Not sent: ${error.message}. Try again.`;
    find("trouble").hidden = false;
  }
}

function listenToPeople(stream) {
  find("messages").addEventListener("scroll", onScroll);
  const form = find("form");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem("author", find("author").value);
    // It is shown when it comes back, like everybody else's.
    send(form.action, new FormData(form), () => (find("text").value = ""));
  });
  const burst = find("burst");
  burst.addEventListener("click", () => send(burst.dataset.url, new FormData(form), () => {}));
  find("cut").addEventListener("click", () => stream.cut(CUT_MILLISECONDS));
  const kill = find("kill");
  // It cannot answer: the failure is the success.
  kill?.addEventListener("click", () => post(kill.dataset.url).catch(() => {}));
}

function inventName() {
  const pick = (words) => words[Math.floor(Math.random() * words.length)];
  const first = ["Amber", "Brisk", "Calm", "Dapper", "Early", "Fond", "Gentle", "Humble"];
  const second = ["Badger", "Crane", "Dormouse", "Egret", "Finch", "Heron", "Otter", "Wren"];
  return `${pick(first)} ${pick(second)}`;
}

find("author").value = sessionStorage.getItem("author") ?? inventName();
sessionStorage.setItem("author", find("author").value);
for (const [channel, last] of parseCursor(initial.cursor)) addChecker(channel, last);
initial.messages.forEach(showMessage);
refresh();
listenToPeople(
  new Stream({
    url: document.body.dataset.events,
    channels: initial.channels,
    cursor: initial.cursor,
    types: Object.keys(CHANNEL_OF),
    onEvent,
    onState,
    // The page's own state is as old as its cursor.
    onReset: () => location.reload(),
  }),
);
