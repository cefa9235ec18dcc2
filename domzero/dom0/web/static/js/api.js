// SPDX-License-Identifier: Apache-2.0
// Requests to Domain 0, and who makes them.

const HAS_SESSION = "domzero.session"; // that there is a cookie; what it says is no script's business

/** An answer that is an error, with what its problem+json says. */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `status ${status}`);
    this.status = status;
    this.code = problem.code || "";
    this.errors = problem.errors || [];
  }

  /** The message, with the fields at fault. */
  get words() {
    const fields = this.errors.map((error) => `${error.field}: ${error.message}`);
    return fields.length ? fields.join("\n") : this.message;
  }
}

let onRefused = () => {};
let session = null; // {user, role, grants, csrf}

/** `callback` is told when Domain 0 does not know who asks. */
export function whenRefused(callback) {
  onRefused = callback;
}

/** Who is logged in; null before. */
export const who = () => session;

/** The one that may most first. */
export const ROLES = ["pool-admin", "pool-operator", "vm-power-admin", "vm-admin", "vm-operator", "read-only"];

const covers = (has, role) => Boolean(has) && ROLES.indexOf(has) <= ROLES.indexOf(role);

/** Whether who is logged in has this role, or one that may more: for everything, or on this domain. */
export const may = (role, domain) => covers(session?.role, role) || covers(session?.grants[domain?.uuid], role);

/** Takes `#token=...` out of the address: it must stay in no history. Returns it, or "". */
export function takeTokenOfAddress() {
  const match = /^#token=([A-Za-z0-9._~+/=-]+)$/.exec(location.hash);
  if (!match) return "";
  history.replaceState(null, "", `${location.pathname}#/`);
  return match[1];
}

/** Logs in, with {token} or {user, password}. The session is a cookie that no script can read. Raises ApiError. */
export async function logIn(credentials) {
  session = await request("POST", "/sessions", { body: credentials });
  localStorage.setItem(HAS_SESSION, "yes");
}

/** Whether the session of another page of this browser, or of this page before it was loaded again, goes on. */
export async function resume() {
  if (!localStorage.getItem(HAS_SESSION)) return false;
  try {
    session = await request("GET", "/sessions/current");
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    forget();
  }
  return session !== null;
}

export async function logOut() {
  try {
    await remove("/sessions/current");
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
  }
  forget();
}

function forget() {
  session = null;
  localStorage.removeItem(HAS_SESSION);
}

async function problemOf(response) {
  try {
    return await response.json();
  } catch {
    return { title: response.statusText };
  }
}

/** The JSON of an answer, or its text; null if it has none. Raises ApiError. */
export async function request(method, path, { body, signal } = {}) {
  const headers = { Accept: "application/json" };
  if (session?.csrf && method !== "GET") headers["X-Domzero-CSRF"] = session.csrf;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(`/v1${path}`, {
      method,
      headers,
      signal,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { title: "Domain 0 does not answer." });
  }
  if (!response.ok) {
    const problem = await problemOf(response);
    if (response.status === 401 && session) {
      forget();
      onRefused();
    }
    throw new ApiError(response.status, problem);
  }
  if (response.status === 204) return null;
  const isJson = (response.headers.get("Content-Type") || "").includes("json");
  return isJson ? response.json() : response.text();
}

/**
 * Sends a file as a body, and tells `onProgress` which part of it has been taken, from 0 to 1. `signal` gives it up.
 * (Of fetch no browser says how far a body has come.) As `request` otherwise.
 */
export function upload(path, file, { onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    const refuse = (problem) => reject(new ApiError(sending.status, problem));
    const answer = () => {
      try {
        return JSON.parse(sending.responseText);
      } catch {
        return { title: sending.statusText };
      }
    };
    sending.open("PUT", `/v1${path}`);
    sending.setRequestHeader("Accept", "application/json");
    sending.setRequestHeader("Content-Type", "application/octet-stream");
    if (session?.csrf) sending.setRequestHeader("X-Domzero-CSRF", session.csrf);
    sending.upload.addEventListener("progress", (event) => onProgress(event.loaded / (event.total || 1)));
    sending.addEventListener("load", () => (sending.status < 300 ? resolve(answer()) : refuse(answer())));
    sending.addEventListener("error", () => refuse({ title: "The upload was broken off: Domain 0 is away, or has refused it." }));
    sending.addEventListener("abort", () => refuse({ title: "The upload is given up: nothing of it is left." }));
    signal.addEventListener("abort", () => sending.abort());
    sending.send(file);
  });
}

export const get = (path, options) => request("GET", path, options);
export const post = (path, body) => request("POST", path, { body });
export const put = (path, body) => request("PUT", path, { body });
export const patch = (path, body) => request("PATCH", path, { body });
export const remove = (path) => request("DELETE", path);

/** What a request leads to; waits for the task if it becomes one. `watch` is told of the task. */
export async function finish(answer, watch = () => {}) {
  if (!answer || !("created_at" in answer) || !("kind" in answer)) return answer;
  let task = answer;
  while (task.state === "running") {
    watch(task);
    task = await get(`/tasks/${task.id}?wait=1`);
  }
  if (task.state !== "done") throw new ApiError(task.error?.status || 500, task.error || { title: `It was ${task.state}.` });
  return task.domain ? get(`/domains/${task.domain}`) : task;
}

/** Calls `close` now, or when the socket is open if it is about to be: browsers complain of one that is closed before. */
export function whenOpen(socket, close) {
  if (socket?.readyState === WebSocket.CONNECTING) socket.addEventListener("open", close);
  else close();
}

/** A websocket of Domain 0's; the session's cookie goes with it. */
export function openSocket(path) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}/v1${path}`, ["binary"]);
  socket.binaryType = "arraybuffer";
  return socket;
}
