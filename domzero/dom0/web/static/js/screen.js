// SPDX-License-Identifier: Apache-2.0
// <domain-screen domain="UUID">: a domain's framebuffer, keyboard and pointer in noVNC, over its websocket.

import { html, render } from "../vendor/lit-html/lit-html.js";
import KeyTable from "../vendor/novnc/core/input/keysym.js";
import keysyms from "../vendor/novnc/core/input/keysymdef.js";
import RFB from "../vendor/novnc/core/rfb.js";
import { openSocket, whenOpen } from "./api.js";

const RETRY_MS = 2000;
const REFUSED = [4403, 4404, 4409]; // not allowed, not there, no framebuffer
const PADDING = "_".repeat(64); // in the field for a phone's keyboard: what can be deleted

/** Whether a letter needs Shift on a keyboard of the United States: symbols are looked for on one, and say nothing of Shift. */
const isShifted = (letter) => /[A-Z~!@#$%^&*()_+{}|:"<>?]/.test(letter);

const KEYS = [
  ["Esc", KeyTable.XK_Escape, "Escape"],
  ["Tab", KeyTable.XK_Tab, "Tab"],
  ["↑", KeyTable.XK_Up, "ArrowUp", "Up"],
  ["↓", KeyTable.XK_Down, "ArrowDown", "Down"],
];

class DomainScreen extends HTMLElement {
  connectedCallback() {
    this.fits = true;
    this.control = false;
    this.words = "";
    this.place = document.createElement("div");
    this.place.className = "vnc-screen";
    // Ctrl+] leaves it, as it leaves a console: every other key, the tabulator too, is for the guest.
    this.place.addEventListener("keydown", (event) => this.leave(event), true);
    // noVNC releases what is pressed when the window loses the focus; here another part of the page may have it.
    this.place.addEventListener("focusout", () => window.dispatchEvent(new Event("blur")));
    this.bar = document.createElement("div");
    this.line = document.createElement("p");
    this.line.className = "console-line";
    this.line.setAttribute("role", "status");
    this.replaceChildren(this.bar, this.place, this.line);
    this.draw();
    this.open();
  }

  disconnectedCallback() {
    this.closed = true;
    clearTimeout(this.timer);
    const { rfb } = this;
    whenOpen(this.socket, () => rfb?.disconnect());
    this.rfb = null;
  }

  say(text) {
    this.line.textContent = text;
  }

  open() {
    if (this.closed) return;
    this.say("Connecting…");
    const socket = openSocket(`/domains/${encodeURIComponent(this.getAttribute("domain"))}/vnc`);
    socket.addEventListener("close", ({ code, reason }) => {
      this.code = code;
      this.reason = reason;
    });
    this.socket = socket;
    const rfb = new RFB(this.place, socket, { shared: true });
    rfb.background = "#10151d";
    rfb.scaleViewport = this.fits;
    rfb.addEventListener("connect", () => {
      const canvas = this.place.querySelector("canvas");
      canvas.tabIndex = 0;
      canvas.setAttribute("role", "application");
      canvas.setAttribute("aria-label", "Screen of the domain: keys and pointer go to the guest, Ctrl+] leaves it");
      this.dataset.connected = "true";
      this.say("Connected. Ctrl+] leaves the screen.");
    });
    rfb.addEventListener("disconnect", () => this.gone());
    this.rfb = rfb;
  }

  gone() {
    delete this.dataset.connected;
    this.rfb = null;
    if (this.closed) return;
    if (REFUSED.includes(this.code)) {
      this.say(this.reason || "The screen is closed.");
      return;
    }
    this.say("Not connected; trying again…");
    this.timer = setTimeout(() => this.open(), RETRY_MS);
  }

  leave(event) {
    if (!event.ctrlKey || (event.key !== "]" && event.code !== "BracketRight")) return;
    event.preventDefault();
    event.stopPropagation();
    document.querySelector(".tabs a[aria-current]")?.focus();
  }

  /** A key that is pressed and released, with Shift, and with Control if that is held by its button. */
  press(symbol, code, shift = false) {
    if (!this.rfb) return;
    const held = [];
    if (shift) held.push([KeyTable.XK_Shift_L, "ShiftLeft"]);
    if (this.control) held.push([KeyTable.XK_Control_L, "ControlLeft"]);
    for (const key of held) this.rfb.sendKey(...key, true);
    this.rfb.sendKey(symbol, code);
    for (const key of held) this.rfb.sendKey(...key, false);
    this.control = false;
    this.draw();
  }

  /** What a phone's keyboard has done to the field: its events do not say which key it was. */
  typed(field) {
    const before = this.text ?? PADDING;
    const now = field.value;
    let same = 0;
    while (same < Math.min(before.length, now.length) && before[same] === now[same]) same += 1;
    for (let count = before.length - same; count > 0; count -= 1) this.press(KeyTable.XK_BackSpace, "Backspace");
    for (const letter of now.slice(same)) {
      if (letter === "\n") this.press(KeyTable.XK_Return, "Enter");
      else this.press(keysyms.lookup(letter.codePointAt(0)), null, isShifted(letter));
    }
    if (now.length > 2 * PADDING.length || now.length < PADDING.length / 2) this.clear(field);
    else this.text = now;
  }

  clear(field) {
    this.text = PADDING;
    field.value = PADDING;
    field.setSelectionRange(PADDING.length, PADDING.length);
  }

  scale(fits) {
    this.fits = fits;
    if (this.rfb) this.rfb.scaleViewport = fits;
    this.draw();
  }

  draw() {
    const keyboard = () => {
      const field = this.bar.querySelector("textarea");
      this.clear(field);
      field.focus();
    };
    render(
      html`<div class="buttons vnc-bar">
        <button type="button" @click=${() => this.rfb?.sendCtrlAltDel()}>Ctrl+Alt+Del</button>
        <button type="button" class="touch" @click=${keyboard}>Keyboard</button>
        <button type="button" class="touch" aria-pressed=${this.control} @click=${() => ((this.control = !this.control), this.draw())}>Ctrl</button>
        ${KEYS.map(
          ([name, symbol, code, label = name]) =>
            html`<button type="button" class="touch" aria-label=${label} @click=${() => this.press(symbol, code)}>${name}</button>`,
        )}
        <button type="button" aria-pressed=${this.fits} @click=${() => this.scale(!this.fits)}>Fit to page</button>
        <button type="button" @click=${() => this.place.requestFullscreen()}>Full screen</button>
        <textarea
          class="hidden"
          aria-label="Keyboard of a phone"
          tabindex="-1"
          autocapitalize="off"
          autocomplete="off"
          autocorrect="off"
          spellcheck="false"
          @input=${(event) => this.typed(event.target)}
        ></textarea>
      </div>`,
      this.bar,
    );
  }

  focus() {
    this.rfb?.focus();
  }
}

customElements.define("domain-screen", DomainScreen);
