// What is finished, told without flooding: what comes within a moment is one toast.
import {toast} from "./base.js";

const MOMENT = 1500;

export class News {
  #numbers = [];
  #timer = null;

  constructor(element) {
    this.element = element;
  }

  finished(number) {
    this.#numbers.push(number);
    this.#timer ??= setTimeout(() => this.#tell(), MOMENT);
  }

  ended(stats) {
    this.stop(); // the end says how many there were
    const told = this.element.say("run.toast_end", {
      done: this.element.counted("run.done", stats.completed), failed: this.element.counted("run.failed", stats.failed),
    });
    toast(told);
    if (document.hidden && window.Notification?.permission === "granted") new Notification(told);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#numbers = [];
  }

  #tell() {
    const numbers = this.#numbers;
    this.stop();
    toast(numbers.length === 1 ? this.element.say("run.toast_one", {number: numbers[0]})
      : this.element.say("run.toast_many", {count: numbers.length}));
  }
}

// Whether it makes sense to ask for the right to notify: the browser can, and has not been asked.
export function canAsk() {
  return window.Notification?.permission === "default";
}
