// SPDX-License-Identifier: Apache-2.0
// What can be done to a domain, in which state, and doing it.

import { ApiError, finish, may, post, remove } from "./api.js";
import { confirm, say } from "./dialog.js";
import { refresh } from "./store.js";

const RUNS = ["running", "blocked"];
const LIVES = ["running", "blocked", "paused", "building"];

export const isRunning = (domain) => domain.exists && RUNS.includes(domain.state);
export const isAlive = (domain) => domain.exists && LIVES.includes(domain.state);
export const isSuspended = (domain) => domain.state === "suspended";
export const isHalted = (domain) => domain.persistent && !domain.exists && !isSuspended(domain);
export const isGone = (domain) => !domain.persistent && !domain.exists;

const at = (domain, action = "") => `/domains/${domain.uuid}${action}`;

/** Each action: its name, when it makes sense, the role that may do it if it is not the operator's, what is asked before, what is done and what is said afterwards. */
export const ACTIONS = [
  {
    name: "Start",
    primary: true,
    when: (domain) => isHalted(domain) && !domain.template,
    run: async (domain) => finish(await post(at(domain, "/start"))),
    done: "has started",
  },
  { name: "Pause", when: isRunning, run: (domain) => post(at(domain, "/pause")), done: "is paused" },
  {
    name: "Resume",
    primary: true,
    when: (domain) => isSuspended(domain) || (domain.exists && domain.state === "paused"),
    run: async (domain) => (isSuspended(domain) ? finish(await post(at(domain, "/resume"))) : post(at(domain, "/unpause"))),
    done: "goes on",
  },
  {
    name: "Suspend",
    when: (domain) => domain.persistent && isRunning(domain),
    run: async (domain) => finish(await post(at(domain, "/suspend"))),
    done: "is suspended",
  },
  { name: "Shut down", when: isRunning, run: (domain) => post(at(domain, "/shutdown")), done: "is asked to shut down" },
  { name: "Reboot", when: isRunning, run: (domain) => post(at(domain, "/reboot")), done: "is asked to reboot" },
  {
    name: "Power off",
    danger: true,
    when: (domain) => domain.exists,
    ask: (domain) =>
      domain.persistent
        ? "It ends at once, as if its plug were pulled: what it has not written to its disks is lost."
        : "It ends at once, as if its plug were pulled, and it is not kept: its disks stay, its configuration goes.",
    run: (domain) => remove(at(domain)),
    done: "is off",
  },
  {
    name: "Give up memory",
    danger: true,
    when: isSuspended,
    ask: () => "It does not go on from where it was, and starts anew the next time: what it has not written to its disks is lost.",
    run: (domain) => remove(at(domain)),
    done: "is halted",
  },
  {
    name: "Delete",
    danger: true,
    role: "vm-admin",
    when: isHalted,
    ask: () => "Its definition is forgotten. Its disks stay.",
    run: (domain) => remove(at(domain)),
    done: "is deleted",
  },
  { name: "Dismiss", when: isGone, run: (domain) => remove(at(domain)), done: "" },
];

export const actionsFor = (domain) => ACTIONS.filter((action) => action.when(domain) && may(action.role || "vm-operator", domain));

/** Does it, after asking if it cannot be undone, and says how it went. */
export async function perform(action, domain) {
  if (action.ask && !(await confirm(`${action.name}: ${domain.name}`, action.ask(domain), action.name))) return false;
  try {
    await action.run(domain);
    if (action.done) say(`${domain.name} ${action.done}.`);
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    say(error.words, "bad");
    return false;
  } finally {
    refresh();
  }
}
