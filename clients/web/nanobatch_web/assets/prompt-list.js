// Under the prompt box: how many there are, how each begins, and what is odd about it.
import {Element, node} from "./base.js";
import {MAX_PROMPTS, splitPrompts} from "./prompts.js";

class PromptList extends Element {
  #timer = null;
  #source = null;
  #listen = () => this.#draw();

  start() {
    // Gradio makes the box when it likes, and sets its value without an event: look, rather than trust an order.
    this.#timer = setInterval(() => {
      const source = document.querySelector(this.value.source);
      if (source !== this.#source) {
        this.#source?.removeEventListener("input", this.#listen);
        this.#source = source;
        source?.addEventListener("input", this.#listen);
      }
      if (source && source.value !== this.text) this.#draw();
    }, 300);
  }

  stop() {
    clearInterval(this.#timer);
    this.#source?.removeEventListener("input", this.#listen);
    this.#source = null;
  }

  #draw() {
    this.text = this.#source.value;
    const prompts = splitPrompts(this.text);
    const first = new Map();
    const items = prompts.map((prompt, index) => {
      const item = node("li", {}, prompt.split("\n")[0].slice(0, 90));
      if (first.has(prompt)) {
        item.append(" ", node("em", {class: "nb-odd"}, this.say("prompts.twice", {number: first.get(prompt) + 1})));
      } else first.set(prompt, index);
      return item;
    });
    const count = prompts.length;
    const key = !count ? "prompts.none" : count === 1 ? "prompts.count_one"
      : count > MAX_PROMPTS ? "prompts.too_many" : "prompts.count";
    this.replaceChildren(
      node("p", {class: count > MAX_PROMPTS ? "nb-count nb-bad" : "nb-count", role: "status"}, this.say(key, {count})),
      node("ol", {class: "nb-firsts"}, ...items),
    );
  }
}

customElements.define("nb-prompt-list", PromptList);
