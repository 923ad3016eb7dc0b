// Says that the server cannot be reached, and asks until it can. Value: {waiting}; `nb-submit` when it answers again.
import {Element, get, node, POLL_LIMIT} from "./base.js";

const AGAIN = 2000;

class Reconnect extends Element {
  #timer = null;

  stop() {
    clearTimeout(this.#timer);
  }

  changed() {
    clearTimeout(this.#timer);
    this.replaceChildren();
    if (!this.value.waiting) return;
    this.append(node("p", {class: "nb-note nb-bad", role: "alert"}, this.say("reconnect.waiting")));
    this.#timer = setTimeout(() => this.#ask(), AGAIN);
  }

  async #ask() {
    try {
      await get("/me", POLL_LIMIT);
      this.tell("nb-submit", {waiting: false});
      this.changed();
    } catch {
      this.#timer = setTimeout(() => this.#ask(), AGAIN);
    }
  }
}

customElements.define("nb-reconnect", Reconnect);
