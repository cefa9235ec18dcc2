// SPDX-License-Identifier: Apache-2.0
// <domain-console domain="UUID" alive>: a domain's console in xterm.js, over its websocket; `alive` while there is one.

import "./xterm-styles.js";
import { Terminal } from "../vendor/xterm/xterm.mjs";
import { FitAddon } from "../vendor/xterm-addon-fit/addon-fit.mjs";
import { openSocket, whenOpen } from "./api.js";

const RETRY_MS = 2000;
const NORMAL = 1000; // the domain has ended for good
const NOT_FOUND = 4404;

const DARK = {
  background: "#10151d",
  foreground: "#dfe5ee",
  cursor: "#dfe5ee",
  cursorAccent: "#10151d",
  selectionBackground: "#3b5378",
};

class DomainConsole extends HTMLElement {
  static observedAttributes = ["alive"];

  /** The domain has been started again: its console was closed with its end. */
  attributeChangedCallback() {
    if (this.hasAttribute("alive") && this.ended) this.open();
  }

  connectedCallback() {
    this.screen = document.createElement("div");
    this.screen.className = "console-screen";
    this.line = document.createElement("p");
    this.line.className = "console-line";
    this.line.setAttribute("role", "status");
    this.replaceChildren(this.screen, this.line);
    this.terminal = new Terminal({
      fontFamily: 'ui-monospace, "DejaVu Sans Mono", "Liberation Mono", Menlo, Consolas, monospace',
      fontSize: 14,
      scrollback: 5000,
      theme: DARK,
      screenReaderMode: true,
      minimumContrastRatio: 4.5,
    });
    this.fit = new FitAddon();
    this.terminal.loadAddon(this.fit);
    this.terminal.open(this.screen);
    this.terminal.textarea?.setAttribute("aria-label", "Console input");
    this.terminal.onData((data) => this.send(data));
    this.terminal.onBinary((data) => this.send(data, true));
    // As in `domzero console`: the tabulator is for the guest.
    this.terminal.attachCustomKeyEventHandler((event) => {
      if (event.type === "keydown" && event.ctrlKey && (event.key === "]" || event.code === "BracketRight")) {
        this.terminal.blur();
        document.querySelector(".tabs a[aria-current]")?.focus();
        return false;
      }
      return true;
    });
    this.observer = new ResizeObserver(() => this.fit.fit());
    this.observer.observe(this.screen);
    this.open();
  }

  disconnectedCallback() {
    this.closed = true;
    clearTimeout(this.timer);
    this.observer.disconnect();
    const { socket } = this;
    whenOpen(socket, () => socket?.close());
    this.terminal.dispose();
  }

  say(text) {
    this.line.textContent = text;
  }

  open() {
    if (this.closed) return;
    this.ended = false;
    const socket = openSocket(`/domains/${encodeURIComponent(this.getAttribute("domain"))}/console/stream`);
    this.socket = socket;
    this.say("Connecting…");
    socket.addEventListener("open", () => {
      if (this.closed) return;
      this.terminal.reset(); // the history comes again
      this.say("Connected. Ctrl+] leaves the console.");
      this.dataset.connected = "true";
    });
    socket.addEventListener("message", ({ data }) => {
      if (this.closed) return;
      this.terminal.write(typeof data === "string" ? data : new Uint8Array(data));
    });
    socket.addEventListener("close", ({ code, reason }) => {
      delete this.dataset.connected;
      if (this.closed) return;
      this.ended = code === NORMAL || code === NOT_FOUND;
      if (this.ended) {
        this.say(reason || "The console is closed.");
        return;
      }
      this.say("Not connected; trying again…");
      this.timer = setTimeout(() => this.open(), RETRY_MS);
    });
  }

  send(text, isBinary = false) {
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    const data = isBinary ? Uint8Array.from(text, (each) => each.charCodeAt(0)) : new TextEncoder().encode(text);
    this.socket.send(data);
  }

  focus() {
    this.terminal?.focus();
  }
}

customElements.define("domain-console", DomainConsole);
