// SPDX-License-Identifier: Apache-2.0
// Domain 0's server-sent events: that something has changed. What it is now, the page asks for itself.

const KINDS = ["domain", "task", "disk", "storage", "network", "image", "user", "lost"];
const FIRST_MS = 1000;
const LONGEST_MS = 30_000;

/** How long to wait before a try, after so many that have failed: twice as long each time, not all pages at once. */
export const pause = (failures) => Math.min(LONGEST_MS, FIRST_MS * 2 ** failures) * (0.75 + Math.random() / 2);

let source = null;
let timer = 0;
let failures = 0;
let token = ""; // of the last event: the stream goes on after it, in another Domain 0, too
let isOpen = false;
let heard = () => {};
let turned = () => {};

/** `onEvent` is called when something has changed, `onTurn` when the stream has opened or broken. */
export function whenHeard(onEvent, onTurn) {
  heard = onEvent;
  turned = onTurn;
}

/** Whether what happens is heard of. */
export const isLive = () => isOpen;

/** Begins to listen, if nobody does; again and again if the stream breaks. */
export function listen() {
  if (source) return;
  clearTimeout(timer);
  // A new one each time: a browser's own second try comes at once, and it makes none after an answer that is no stream.
  source = new EventSource(`/v1/events${token ? `?since=${token}` : ""}`);
  source.addEventListener("open", () => {
    isOpen = true;
    failures = 0;
    turned();
  });
  source.addEventListener("token", (event) => (token = event.lastEventId));
  for (const kind of KINDS) {
    source.addEventListener(kind, (event) => {
      token = event.lastEventId || token;
      heard();
    });
  }
  source.addEventListener("error", () => {
    deafen();
    timer = setTimeout(listen, pause(failures));
    failures += 1;
    turned();
  });
}

/** Listens no longer. */
export function deafen() {
  clearTimeout(timer);
  source?.close();
  source = null;
  isOpen = false;
}

/** Forgets what was heard: somebody else may come. */
export function forget() {
  deafen();
  token = "";
  failures = 0;
}
