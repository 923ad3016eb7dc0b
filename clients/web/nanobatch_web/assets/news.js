// What is finished, told without flooding: what comes within a moment is one toast.
import {nameOf, toast} from "./base.js";

const MOMENT = 1500;

export class News {
  #names = [];
  #timer = null;
  #end = null; // when the run had ended as it was looked at last, or "" where it had not; null: not looked at yet

  constructor(element) {
    this.element = element;
  }

  // A picture as it was, or null, and as it is.
  picture(before, now) {
    if (!before || before.state === "COMPLETED" || now.state !== "COMPLETED") return;
    this.#names.push(nameOf(now));
    this.#timer ??= setTimeout(() => this.#tell(), MOMENT);
  }

  // The run as it is. What has ended before somebody comes is no news; what is retried may end anew between two looks.
  run(execution, stats) {
    const before = this.#end;
    this.#end = execution.final ? execution.ended : "";
    if (before === null || !this.#end || this.#end === before) return;
    this.#quiet(); // the end says how many there were
    const told = this.element.say("run.toast_end", {
      done: this.element.counted("run.done", stats.completed), failed: this.element.counted("run.failed", stats.failed),
    });
    toast(told);
    if (document.hidden) notify(told);
  }

  stop() {
    this.#quiet();
    this.#end = null;
  }

  #quiet() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#names = [];
  }

  #tell() {
    const names = this.#names;
    this.#quiet();
    toast(names.length === 1 ? this.element.say("run.toast_one", {number: names[0]})
      : this.element.say("run.toast_many", {count: names.length}));
  }
}

function notify(told) {
  if (window.Notification?.permission !== "granted") return;
  try {
    new Notification(told);
  } catch { /* Android's browsers have the class and refuse to make one: the toast has to do */ }
}

// Whether it makes sense to ask for the right to notify: the browser can, and has not been asked.
export function canAsk() {
  return window.Notification?.permission === "default";
}
